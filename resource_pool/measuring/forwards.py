"""One forward, measured; and the same forward, predicted from the model's config alone."""

from __future__ import annotations

import copy
import unittest
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from resource_pool.errors import type_and_first_line
from resource_pool.measuring.batches import Inputs, placed
from resource_pool.measuring.numbers import is_tensor, layout

# What kernels take beside the tensors that a trace sees: a GPU's allocator gives out blocks of
# 2 MiB, and its libraries take workspaces of 8 to 32 MiB.
_SLACK = {"cpu": 2**18}
_SLACK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class Forward:
    """One forward.

    Attributes:
        layout: shape and dtype of each output.
        peak_bytes: the most memory at any time, weights included.
        computed_in: the dtypes of matrix products, convolutions and attention.
    """

    layout: dict[str, tuple[tuple[int, ...], str]]
    peak_bytes: int
    computed_in: frozenset[str]

    def limit_bytes(self, device: Any) -> int:
        """Return the most memory that a forward on ``device`` may take if this predicted it."""
        from resource_pool.prediction.margins import margin

        share = margin("trace", device.type).fraction
        return int(self.peak_bytes * (1 + share)) + _SLACK.get(device.type, _SLACK_ELSEWHERE)


def measured_forward(model: Any, inputs: Mapping[str, Any]) -> Forward:
    """Run the model and measure its memory and the dtypes that it computes in.

    On CUDA and ROCm the peak is the allocator's; elsewhere that of the tensors that were alive.
    """
    import torch

    device = next(model.parameters()).device
    inputs = placed(inputs, model)
    if device.type != "cuda":
        return _watched(model, inputs, lambda *_: None)
    others = torch.cuda.memory_allocated(device) - _bytes_of(model, inputs)
    torch.cuda.reset_peak_memory_stats(device)
    forward = _watched(model, inputs, lambda *_: None)
    peak = torch.cuda.max_memory_allocated(device) - max(others, 0)
    return Forward(forward.layout, peak, forward.computed_in)


def predicted_forward(model: Any, inputs: Mapping[str, Any]) -> Forward:
    """Predict a forward from the model's class and config: another one, run without any data.

    Raises:
        unittest.SkipTest: this architecture does not run without data; says why.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from resource_pool.prediction.answers import FakeAnswers

    inputs = {n: v.cpu() if is_tensor(v) else v for n, v in placed(inputs, model).items()}
    try:
        # As from_pretrained builds it. Built without data at once, a model that copies a layer
        # in its constructor would crash the process.
        with torch.device("meta"):
            other = type(model)(copy.deepcopy(model.config)).eval()
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.device("cpu"), _unkept():
            _place_without_data(other, model)
            without_data = {
                n: mode.from_tensor(v) if is_tensor(v) else v for n, v in inputs.items()
            }
            return _watched(other, without_data, FakeAnswers())
    except Exception as error:
        # Forwards of hundreds of architectures raise whatever they like at a tensor without data.
        raise unittest.SkipTest(
            f"this forward cannot be predicted without data ({type_and_first_line(error)})"
        ) from None


@contextmanager
def _unkept() -> Iterator[None]:
    """Let transformers keep no tensor without data: its caches of embeddings span models."""
    from transformers import pytorch_utils

    asked = pytorch_utils.is_torchdynamo_compiling
    pytorch_utils.is_torchdynamo_compiling = lambda: True  # what its caches go by
    try:
        yield
    finally:
        pytorch_utils.is_torchdynamo_compiling = asked


def _place_without_data(other: Any, model: Any) -> None:
    """Put a model's parameters and buffers on the CPU, in the dtypes of another one's."""
    import torch

    dtypes = {n: t.dtype for n, t in [*model.named_parameters(), *model.named_buffers()]}
    made: dict[int, Any] = {}  # tied ones stay tied
    for prefix, module in other.named_modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is None:
                    continue
                dtype = dtypes.get(f"{prefix}.{name}".lstrip("."), tensor.dtype)
                if id(tensor) not in made:
                    made[id(tensor)] = torch.empty(tensor.shape, dtype=dtype)
                fresh = made[id(tensor)]
                is_parameter = kind is module._parameters
                kind[name] = torch.nn.Parameter(fresh, False) if is_parameter else fresh


def _watched(model: Any, inputs: Inputs, answer: Any) -> Forward:
    """Run a model, on data or without, and note what its operations do."""
    import torch

    from resource_pool.measuring.products import Products
    from resource_pool.prediction.live import LiveMemory, watching

    products = Products(answer)
    memory = LiveMemory()
    memory.add((*model.parameters(), *model.buffers()))
    memory.add(filter(is_tensor, inputs.values()))
    with torch.no_grad(), products.attention(), watching(memory, products.note):
        outputs = model(**inputs)
    return Forward(layout(outputs), memory.peak, frozenset(products.dtypes))


def _bytes_of(model: Any, inputs: Inputs) -> int:
    held = [*model.parameters(), *model.buffers(), *filter(is_tensor, inputs.values())]
    storages = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in held}
    return sum(storages.values())
