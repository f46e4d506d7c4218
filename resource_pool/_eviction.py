"""Which idle models go when room is needed. Pure.

The score is that of Greedy-Dual-Size-Frequency (Cherkasova, 1998): a model is worth its
frequency times the seconds that a reload costs, per byte, on top of an inflation that rises with
each eviction, so that what was once popular and is no longer asked for becomes cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

MIB = 1024 * 1024


class Candidate(NamedTuple):
    """A cached model, or several that share weights, as the eviction sees it.

    Attributes:
        size: bytes that it frees on the device in question.
        floor: the inflation when it was last asked for.
        is_held: whether somebody seems to hold it, so that dropping it would free nothing; asked
            only of what would have to go, for it takes milliseconds.
        with_it: the keys of the others, which go with it.
    """

    key: str
    size: int
    hits: int
    load_seconds: float
    floor: float = 0.0
    is_held: Callable[[], bool] = lambda: False
    with_it: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all that goes."""
        return (self.key, *self.with_it)


def score(candidate: Candidate) -> float:
    """Return what keeping the model is worth; the lowest goes first."""
    megabytes = max(candidate.size / MIB, 1.0)
    return candidate.floor + (candidate.hits + 1) * candidate.load_seconds / megabytes


def choose(candidates: Sequence[Candidate], needed: int) -> tuple[Candidate, ...] | None:
    """Return the cheapest models that together free ``needed`` bytes; None where all do not.

    What somebody seems to hold stays: dropping it would free nothing, and the next request would
    load it twice. A model whose bytes turn out not to be needed, because a larger one was taken
    after it, is left alone.
    """
    order = sorted((c for c in candidates if c.size > 0), key=lambda c: (score(c), c.key))
    taken: list[Candidate] = []
    freed = 0
    for candidate in order:
        if freed >= needed:
            break
        if not candidate.is_held():
            taken.append(candidate)
            freed += candidate.size
    if freed < needed:
        return None
    for candidate in reversed(taken.copy()):
        if freed - candidate.size >= needed:
            taken.remove(candidate)
            freed -= candidate.size
    return tuple(taken)
