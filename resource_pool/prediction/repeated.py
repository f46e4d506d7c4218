"""A long row of identical layers: what a few of them take tells what all of them take.

A model of 80 layers does the same thing 80 times. Where the layers are provably the same (class,
shapes, settings), its memory grows by the same bytes with each; so a few short models are traced
in the place of one long one, and what they show is taken only if it lies on a line.

A peak might leave that line later: what is alive in the last layer grows with each layer, and may
outgrow a peak elsewhere. It cannot where the peak grows as fast as what is alive.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from resource_pool.prediction.live import LiveMemory

# Of a shorter row, tracing all of it costs little.
WORTH_IT = 32
# The row's lengths that are traced: two make a line, and the longer one shows whether it goes on.
SHORT = (2, 3, 13)

# What a measurement says beside its answers: the bytes that are alive before the first layer, and
# the most that are alive more from one layer to the next.
START, GROWTH = "start", "growth"

_Facts = Mapping[str, Any]
_PLAIN = (bool, int, float, str, type(None), tuple, list, dict, set, frozenset)


class Row(NamedTuple):
    """Identical layers, and the module that has them under this name."""

    parent: Any
    name: str
    layers: Any


def row_of(model: Any) -> Row | None:
    """Return the one long row of identical layers that a model has; None where there is none."""
    import torch

    rows = [
        Row(module, name, part)
        for module in model.modules()
        for name, part in module._modules.items()
        if type(part) is torch.nn.ModuleList and len(part) >= WORTH_IT
    ]
    if len(rows) != 1 or not _are_identical([*rows[0].layers]):
        return None
    return (
        None
        if _tells_layers_apart(getattr(model, "config", None), len(rows[0].layers))
        else rows[0]
    )


def by_a_few(row: Row, measure: Callable[[], Iterator[_Facts]]) -> list[dict[str, Any]] | None:
    """Return what ``measure`` would yield for the whole row; None where a few do not tell."""
    found = []
    for count in SHORT:
        with _shortened(row, count):
            found.append([*measure()])
    if len({len(facts) for facts in found}) != 1:
        return None
    steps = [_extended(step, len(row.layers)) for step in zip(*found, strict=True)]
    return None if None in steps else [step for step in steps if step is not None]


def _extended(short: Sequence[_Facts], length: int) -> dict[str, Any] | None:
    """Continue the sizes of the short rows to the whole one's; None where they are on no line."""
    if any(facts.keys() != short[0].keys() for facts in short):
        return None
    extended = {}
    for name in (one for one in short[0] if one not in (START, GROWTH)):
        first, second, third = (facts[name] for facts in short)
        if first == second == third:
            extended[name] = first
        elif isinstance(first, int) and third == _on_line(first, second, SHORT[2]):
            extended[name] = _on_line(first, second, length)
        else:
            return None
    return extended if _grows_as_what_is_alive(short) else None


def _grows_as_what_is_alive(short: Sequence[_Facts]) -> bool:
    first, second, longest = short
    fastest = second[START] - first[START] + longest[GROWTH] * (SHORT[1] - SHORT[0])
    peaks = (name for name in first if name.endswith("peak_bytes"))
    return all(second[name] - first[name] == fastest for name in peaks)


def _on_line(first: int, second: int, length: int) -> int:
    return first + (second - first) * (length - SHORT[0]) // (SHORT[1] - SHORT[0])


@contextmanager
def growing(row: Row | None, memory: LiveMemory) -> Iterator[Callable[[], list[int]]]:
    """Give what tells how many bytes are alive more from each layer of a row to the next."""
    alive: list[int] = []
    layers = row.parent._modules[row.name] if row else ()
    handles = [
        layer.register_forward_pre_hook(lambda *_: alive.append(memory.current)) for layer in layers
    ]
    try:
        # The first finds what the embedding made, and leaves the first of what it makes itself.
        yield lambda: [after - before for before, after in itertools.pairwise(alive[1:])]
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _shortened(row: Row, count: int) -> Iterator[None]:
    row.parent._modules[row.name] = row.layers[:count]
    try:
        yield
    finally:
        row.parent._modules[row.name] = row.layers


def _are_identical(layers: Sequence[Any]) -> bool:
    first = [*layers[0].named_modules()]
    return all(_is_as(first, [*one.named_modules()], index) for index, one in enumerate(layers))


def _is_as(first: Sequence[tuple[str, Any]], other: Sequence[tuple[str, Any]], index: int) -> bool:
    return len(first) == len(other) and all(
        name == its_name and type(module) is type(its) and _same_facts(module, its, index)
        for (name, module), (its_name, its) in zip(first, other, strict=True)
    )


def _same_facts(first: Any, other: Any, index: int) -> bool:
    ours, theirs = vars(first), vars(other)
    return ours.keys() == theirs.keys() and all(
        _same_tensors(value, theirs[name])
        if name in ("_parameters", "_buffers")
        else name == "_modules" or _same(value, theirs[name], index)
        for name, value in ours.items()
    )


def _same(first: Any, other: Any, index: int) -> bool:
    """Whether two settings are the same, but that a layer may know its own number."""
    if first is other or (type(first) is int and (first, other) == (0, index)):
        return True
    return type(first) is type(other) and isinstance(first, _PLAIN) and bool(first == other)


def _same_tensors(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return [*map(_shape, first.items())] == [*map(_shape, other.items())]


def _shape(named: tuple[str, Any]) -> tuple[Any, ...]:
    name, tensor = named
    return (name,) if tensor is None else (name, tensor.shape, tensor.stride(), tensor.dtype)


def _tells_layers_apart(config: Any, length: int) -> bool:
    """Whether a config has a list with an entry for each layer, and these differ."""
    values = vars(config).values() if hasattr(config, "to_diff_dict") else ()
    return any(
        (isinstance(one, (list, tuple)) and len(one) == length and any(e != one[0] for e in one))
        or _tells_layers_apart(one, length)
        for one in values
    )
