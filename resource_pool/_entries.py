"""What the store keeps about each resource, and the states in which it can be."""

from __future__ import annotations

import enum
import functools
import gc
import sys
import types
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class State(enum.Enum):
    """LOADING -> READY -> EVICTING -> gone; a failed load goes from LOADING to gone.

    An entry that is EVICTING is out of the store: nobody can get it back, and whoever asks for
    its key starts a new load.
    """

    LOADING = "loading"
    READY = "ready"
    EVICTING = "evicting"


@dataclass(eq=False)
class Entry:
    """One resource. All of it is guarded by the store's lock, except what a loader prepares."""

    key: str
    kind: str  # "model", "tokenizer" or "resource"
    created_at: float
    last_used: float
    loading_thread: int
    future: Future[Any] | None = field(default_factory=Future)  # None once it is ready
    state: State = State.LOADING
    value: Any = None
    hits: int = 0
    load_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    fingerprint: Any = None  # what a leased model must still be like at the end
    lessees: list[int] = field(default_factory=list)  # the threads that lease it
    pinned: bool = False
    keep_alive: float | None = None  # seconds after its last use; None: the caller's maximum age
    own_references: int = 0  # of the object to itself: hooks, wrapped methods
    floor: float = 0.0  # the eviction's inflation when it was last used
    charges: tuple[int, ...] = ()
    forward: Entry | None = None  # the entry that took this one's leases over
    # Stands for this load where the entry itself would be kept alive by what outlives it.
    created_for: object = field(default_factory=object)

    @property
    def ready(self) -> bool:
        """Whether the object is there."""
        return self.state is State.READY

    @property
    def movable(self) -> bool:
        """Whether nobody has a right to it: no lease, no pin."""
        return self.ready and not self.lessees and not self.pinned

    def seems_held(self) -> bool:
        """Whether something outside the pool refers to the object.

        Only CPython counts references. Who holds a part of the model only is not seen.
        """
        return sys.getrefcount(self.value) > _UNHELD + self.own_references


@dataclass(frozen=True)
class Removed:
    """An entry that left the store.

    ``references`` are to its object and to what of it takes memory.
    """

    key: str
    facts: dict[str, Any]
    charges: tuple[int, ...]
    references: tuple[weakref.ref[Any], ...]

    def alive(self) -> bool | None:
        """Whether somebody holds any of it; None for what cannot be watched (an int, a tuple)."""
        if not self.references:
            return None
        return any(reference() is not None for reference in self.references)


def count_own_references(value: Any) -> int:
    """Return how often an object's attributes refer to it: hooks, wrapped methods, closures.

    accelerate's hooks do so, on every model that is spread over devices.
    """
    found, seen, waiting = 0, set(), [getattr(value, "__dict__", {})]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        parts = gc.get_referents(one)
        if isinstance(one, types.FunctionType):  # not its globals, which lead everywhere
            parts = [*(one.__closure__ or ()), *(one.__defaults__ or ()), one.__dict__]
        found += sum(part is value for part in parts)
        waiting += [part for part in parts if isinstance(part, _CARRIERS)]
    return found


_CARRIERS = (
    dict, list, tuple, functools.partial, types.FunctionType, types.MethodType, types.CellType,
)  # fmt: skip


def _count_of_an_unheld_object() -> int:
    """Measure what ``getrefcount`` says of an object that only its entry refers to."""
    entry = Entry("", "", 0.0, 0.0, 0)
    entry.value = Removed("", {}, (), ())
    return sys.getrefcount(entry.value)


_UNHELD = _count_of_an_unheld_object()
