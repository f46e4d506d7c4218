"""What fake tensors, which have a shape and no values, answer when a model asks for values.

Sizes that depend on values are answered with the largest that is possible, checks with yes. A
number is 0 and a truth False, but not for ever: a loop that waits for the other answer gets it.
The last ones are only answered sooner: a large model asks for them many thousand times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_PATIENCE = 1000


class FakeAnswers:
    """Answers the operations that FakeTensorMode cannot; None for all others."""

    def __init__(self) -> None:
        import torch

        aten = torch.ops.aten
        self._asked = 0
        self._answers: dict[Any, Callable[..., Any]] = {
            aten._local_scalar_dense.default: self._scalar,
            aten._is_all_true.default: _yes,
            aten.equal.default: _equal,
            aten.nonzero.default: _every_index,
            aten.masked_select.default: _every_element,
            aten.index.Tensor: _masked_index,
            aten._grouped_mm.default: _grouped_product,
            torch.ops.prim.device.default: _device,
            aten.normal_.default: _unchanged,
            aten.uniform_.default: _unchanged,
            aten._unsafe_view.default: aten.view.default,
        }

    def __call__(self, op: Any, args: tuple[Any, ...]) -> Any:
        """Return the result of ``op``, or None where it is to be run."""
        answer = self._answers.get(op)
        return None if answer is None else answer(*args)

    def _scalar(self, tensor: Any) -> Any:
        constant = getattr(tensor, "constant", None)
        if constant is not None:
            return constant.item()
        self._asked += 1
        value = self._asked // _PATIENCE % 2
        return _typed(value, tensor)


def _typed(value: int, tensor: Any) -> bool | int | float:
    import torch

    if tensor.dtype == torch.bool:
        return bool(value)
    return float(value) if tensor.is_floating_point() else value


def _yes(tensor: Any) -> Any:  # noqa: ARG001
    import torch

    return torch.tensor(True)


def _equal(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape)


def _every_index(tensor: Any) -> Any:
    import torch

    return tensor.new_empty((tensor.numel(), tensor.dim()), dtype=torch.int64)


def _every_element(tensor: Any, mask: Any) -> Any:
    import torch

    return tensor.new_empty(torch.broadcast_shapes(tensor.shape, mask.shape).numel())


def _masked_index(tensor: Any, indices: list[Any]) -> Any:
    """Replace each mask among the indices by as many positions as it has elements."""
    import torch

    masks = (torch.bool, torch.uint8)
    if not any(index is not None and index.dtype in masks for index in indices):
        return None
    positions: list[Any] = []
    for index in indices:
        if index is None or index.dtype not in masks:
            positions.append(index)
        else:
            row = index.new_empty(index.numel(), dtype=torch.int64)
            positions.extend([row] * index.dim())
    return torch.ops.aten.index.Tensor(tensor, positions)


def _grouped_product(rows: Any, matrices: Any, *_: Any) -> Any:
    """Multiply the experts' rows; the CPU takes float32 too, its description only bfloat16."""
    if rows.dim() != 2 or matrices.dim() != 3:
        return None
    return rows.new_empty((rows.shape[0], matrices.shape[2]))


def _device(tensor: Any) -> Any:
    return tensor.fake_device


def _unchanged(tensor: Any, *_: Any) -> Any:
    """Fill a tensor without values with random ones."""
    return tensor
