"""Runs a model without its data: what it weighs, and what a forward keeps alive at its peak.

This imports torch and transformers, and a config may make it run for ever: see isolation.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from resource_pool.errors import type_and_first_line
from resource_pool.prediction.answers import FakeAnswers
from resource_pool.prediction.inputs import (
    Shape,
    TooLongError,
    example_inputs,
    fitting_seq,
    left_out,
)
from resource_pool.prediction.live import LiveMemory, watching
from resource_pool.prediction.repeated import GROWTH, START, Row, by_a_few, growing, row_of

# A backbone of timm, which may not be installed, is one of these of transformers itself.
_RESNET_DEPTHS = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
}
_RESNET_WIDTHS = {"basic": [64, 128, 256, 512], "bottleneck": [256, 512, 1024, 2048]}


@dataclass(frozen=True)
class TraceRequest:
    """What to trace. ``config`` is JSON, None for the defaults; ``seq`` None for a default."""

    model_type: str
    auto_class: str
    config: str | None
    dtype: str
    batch: int
    seq: int | None


def trace(request: TraceRequest) -> Iterator[dict[str, Any]]:
    """Yield what becomes known, step by step: whoever stops this keeps what there was.

    First config_class, architecture, weights_bytes, notes; then seq, inputs {name: shape},
    left_out (notes on inputs), peak_bytes (beyond the weights), kv_cache_bytes; then, for a model
    with an attention cache, decode_peak_bytes and kv_bytes_per_token. A step that fails ends it
    with a ``problem``, more tokens than the model has positions for with ``too_long``.
    """
    try:
        yield from _steps(request)
    except TooLongError as error:
        yield {"too_long": str(error)}
    except Exception as error:
        # Constructors and forwards of hundreds of architectures raise whatever they like.
        yield {"problem": type_and_first_line(error)}


def _steps(request: TraceRequest) -> Iterator[dict[str, Any]]:
    config = _config(request)
    notes = _without_timm(config)
    with _no_data() as answers:
        model = _build(config, request, answers)
        yield {
            "config_class": type(config).__name__,
            "architecture": type(model).__name__,
            "weights_bytes": weights_bytes(model),
            "notes": notes,
        }
        shape = Shape(request.batch, fitting_seq(config, request.seq))
        yield from _forward(model, shape, answers)


@contextmanager
def _no_data() -> Iterator[FakeAnswers]:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        yield FakeAnswers()


def _config(request: TraceRequest) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    if request.model_type not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no model type {request.model_type!r}")
    config = AutoConfig.for_model(request.model_type, **json.loads(request.config or "{}"))
    # Where a type has several classes, transformers goes through this list, be it None or not.
    config.architectures = config.architectures or []
    return config


def _without_timm(config: Any) -> list[str]:
    """Replace a timm backbone that cannot be built here by the same network of transformers."""
    from transformers import ResNetConfig
    from transformers.utils import is_timm_available

    backbone: Any = getattr(config, "backbone_config", None)
    known = _RESNET_DEPTHS.get(getattr(backbone, "backbone", None) or "")
    if known is None or is_timm_available():
        return []
    kind, depths = known
    config.backbone_config = ResNetConfig(
        layer_type=kind,
        depths=depths,
        hidden_sizes=_RESNET_WIDTHS[kind],
        out_features=[f"stage{index}" for index in backbone.out_indices if index],
    )
    return [f"timm is not installed: its {backbone.backbone} was traced as transformers' ResNet"]


def _build(config: Any, request: TraceRequest, answers: FakeAnswers) -> Any:
    import torch
    import transformers

    cls = getattr(transformers, request.auto_class)
    with watching(None, answers):
        model = cls.from_config(config, dtype=getattr(torch, request.dtype))
        _keep_in_float32(model)
    return model.eval()


def _keep_in_float32(model: Any) -> None:
    """Cast what ``from_pretrained`` loads in float32 whatever dtype was asked for."""
    for pattern, dtype in model._get_dtype_plan(model.dtype).items():
        found = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        for name, parameter in model.named_parameters():
            if found.search(name):
                parameter.data = parameter.data.to(dtype)


def weights_bytes(model: Any) -> int:
    """Return the bytes of parameters and buffers; a storage that several share counts once."""
    storages = (t.untyped_storage() for t in (*model.parameters(), *model.buffers()))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


# The forward -------------------------------------------------------------------------------------


def _forward(model: Any, shape: Shape, answers: FakeAnswers) -> Iterator[dict[str, Any]]:
    row = row_of(model)
    known = row and _by_a_few(row, lambda: _measured(model, shape, answers, row))
    for facts in known or _measured(model, shape, answers):
        yield {name: facts[name] for name in facts if name not in (START, GROWTH)}


def _by_a_few(
    row: Row, measure: Callable[[], Iterator[dict[str, Any]]]
) -> list[dict[str, Any]] | None:
    try:
        return by_a_few(row, measure)
    except Exception:  # a model that wants all its layers, or fails in any case: traced whole
        return None


def _measured(
    model: Any, shape: Shape, answers: FakeAnswers, row: Row | None = None
) -> Iterator[dict[str, Any]]:
    memory = LiveMemory()
    memory.add((*model.parameters(), *model.buffers()))
    weights = memory.current
    inputs = example_inputs(model, shape)
    memory.add(inputs.values())
    start = memory.current - weights
    with watching(memory, answers), growing(row, memory) as growth:
        output = model(**inputs)
    cached, seen = cache_bytes(output), _seen_bytes(output)
    yield {
        "left_out": left_out(model, inputs),
        "seq": None if set(inputs) == {"pixel_values"} else shape.seq,
        "inputs": {name: list(tensor.shape) for name, tensor in inputs.items()},
        "peak_bytes": memory.peak - weights,
        "kv_cache_bytes": cached,
        START: start,
        GROWTH: max(growth(), default=0),
    }
    if cached:
        step = _next_token(inputs, output)
        memory.restart_peak()
        start = memory.current - weights
        with watching(memory, answers), growing(row, memory) as growth:
            output = model(**step)
        yield {
            "decode_peak_bytes": memory.peak - weights,
            # Of what the cache shows: a window's first view keeps the whole row alive, the next
            # token's lets it go, and neither is what every further token adds.
            "kv_bytes_per_token": max(_seen_bytes(output) - seen, 0),
            START: start,
            GROWTH: max(growth(), default=0),
        }


def _next_token(inputs: dict[str, Any], output: Any) -> dict[str, Any]:
    """Return the arguments of one step of generation after a forward."""
    cache = {"past_key_values": output.past_key_values, "use_cache": True}
    if "decoder_input_ids" not in inputs:
        return {"input_ids": inputs["input_ids"][:, -1:], **cache}
    return {
        "decoder_input_ids": inputs["decoder_input_ids"][:, -1:],
        "encoder_outputs": (output.encoder_last_hidden_state,),
        **cache,
    }


def cache_bytes(output: Any) -> int:
    """Return the bytes of a forward's attention cache; 0 where it left none."""
    storages = (tensor.untyped_storage() for tensor in _cached(output))
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def _seen_bytes(output: Any) -> int:
    """Return the bytes of a cache that its tensors show, however much lies behind a view."""
    return sum(tensor.nbytes for tensor in _cached(output))


def _cached(output: Any) -> Iterator[Any]:
    """Yield the tensors of a forward's attention cache, each once."""
    seen: set[int] = set()
    waiting = [getattr(output, "past_key_values", None)]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if hasattr(one, "untyped_storage"):
            yield one
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
        elif isinstance(one, dict):
            waiting.extend(one.values())
        elif type(one).__module__.startswith("transformers.cache_utils"):
            waiting.extend(vars(one).values())
