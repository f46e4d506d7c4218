"""The kinds of values that a specification may ask for, each made for one row of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Draw(NamedTuple):
    """What a value depends on beside its shape: the row's generator, its number, its tokens."""

    generator: Any  # torch.Generator
    row: int
    tokens: list[int]


def make_value(kind: str, shape: list[int], draw: Draw) -> Any:
    """Return a tensor of a kind of `KINDS`: of ``shape``, unless the kind says otherwise."""
    return KINDS[kind](shape, draw)


def _noise(shape: list[int], draw: Draw) -> Any:
    """Normally distributed numbers."""
    import torch

    return torch.randn(shape, generator=draw.generator)


def _unit(shape: list[int], draw: Draw) -> Any:
    """Numbers from 0 to 1."""
    import torch

    return torch.rand(shape, generator=draw.generator)


def _tokens(shape: list[int], draw: Draw) -> Any:
    """Ids of ordinary tokens."""
    import torch

    chosen = torch.randint(len(draw.tokens), shape, generator=draw.generator)
    return torch.tensor(draw.tokens)[chosen]


def _values(shape: list[int], draw: Draw) -> Any:  # noqa: ARG001
    """The sizes themselves: ``values 1 grid grid`` is [[1, 4, 4]]."""
    import torch

    return torch.tensor([shape])


def _boxes(shape: list[int], draw: Draw) -> Any:
    """Corners of boxes of words on a page of 1000 by 1000, each right of the last one."""
    import torch

    steps = torch.arange(shape[-2]).unsqueeze(-1) * torch.tensor(
        [30 + draw.row, 0, 30 + draw.row, 0]
    )
    return (torch.tensor([10, 20, 30, 40]) + draw.row + steps).expand(shape).contiguous()


def _steps(shape: list[int], draw: Draw) -> Any:  # noqa: ARG001
    """0, 1, 2, … along the last axis."""
    import torch

    return torch.arange(shape[-1]).expand(shape).contiguous()


def _places(shape: list[int], draw: Draw) -> Any:  # noqa: ARG001
    """``places 1 rows columns``: row and column of each patch, shape (1, rows * columns, 2)."""
    import torch

    return torch.cartesian_prod(*map(torch.arange, shape[1:])).unsqueeze(0)


def _addressed(shape: list[int], draw: Draw) -> Any:
    """``addressed 1 rows columns width``: patches, each after its row and column from 1 on."""
    import torch

    *grid, width = shape
    places = _places(grid, draw) + 1
    return torch.cat([places, _noise([*places.shape[:2], width], draw)], dim=-1)


def _pools(shape: list[int], draw: Draw) -> Any:
    """``pools rows columns``: which patches of this row each 2 by 2 window takes together."""
    import torch

    rows, columns = shape
    patches = torch.arange(rows * columns).reshape(rows // 2, 2, columns // 2, 2)
    return patches.transpose(1, 2).reshape(-1, 4) + draw.row * rows * columns


def _span(shape: list[int], draw: Draw) -> Any:  # noqa: ARG001
    """``span 1 length count``: a mask that marks ``count`` places from the second on."""
    import torch

    _, length, count = shape
    mask = torch.zeros((1, length), dtype=torch.long)
    mask[:, 1 : 1 + count] = 1
    return mask


def _full(value: int | bool) -> Callable[[list[int], Draw], Any]:
    def filled(shape: list[int], draw: Draw) -> Any:  # noqa: ARG001
        import torch

        return torch.full(shape, value)

    return filled


KINDS: Mapping[str, Callable[[list[int], Draw], Any]] = {
    "noise": _noise,
    "unit": _unit,
    "tokens": _tokens,
    "values": _values,
    "boxes": _boxes,
    "steps": _steps,
    "places": _places,
    "addressed": _addressed,
    "pools": _pools,
    "span": _span,
    "ones": _full(1),
    "zeros": _full(0),
    "true": _full(True),
    "false": _full(False),
}
