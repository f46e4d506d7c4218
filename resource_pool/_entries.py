"""What the store keeps about each resource, and the states in which it can be."""

from __future__ import annotations

import enum
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from resource_pool._holders import is_held
from resource_pool._ledger import Place


class State(enum.Enum):
    """LOADING -> READY -> EVICTING -> gone; a failed load goes from LOADING to gone.

    An entry that is EVICTING is out of the store: nobody can get it back, and whoever asks for
    its key starts a new load.
    """

    LOADING = "loading"
    READY = "ready"
    EVICTING = "evicting"


@dataclass(eq=False)
class Mark:
    """Stands for a load where its entry would be kept alive by what outlives it."""


@dataclass(eq=False)
class Lessee:
    """Somebody's one lease of one entry, or the wish for it."""

    thread: int
    entry: Entry | None = None  # noted before the lease counts, so that whatever comes can end it

    def take(self, entry: Entry) -> None:
        """Lease an entry; under the store's lock."""
        self.entry = entry
        entry.lessees.append(self)


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
    lessees: list[Lessee] = field(default_factory=list)
    pinned: bool = False
    keep_alive: float | None = None  # seconds after its last use; None: the caller's maximum age
    floor: float = 0.0  # the eviction's inflation when it was last used
    charges: tuple[int, ...] = ()
    forward: Entry | None = None  # the entry that took this one's leases over
    created_for: Mark = field(default_factory=Mark)
    places: Mapping[Place, int] = field(default_factory=dict)  # where it has its memory -> bytes
    shares: frozenset[Mark] = frozenset()  # whose memory it had part in when it was published
    shared_sizes: Mapping[str, int] = field(default_factory=dict)  # what older ones answer for

    @property
    def ready(self) -> bool:
        """Whether the object is there."""
        return self.state is State.READY

    @property
    def movable(self) -> bool:
        """Whether nobody has a right to it: no lease, no pin."""
        return self.ready and not self.lessees and not self.pinned

    @property
    def used(self) -> tuple[int, float]:
        """What changes whenever somebody gets it or gives it back."""
        return self.hits, self.last_used

    def seems_held(self) -> bool:
        """Whether something outside the pool refers to the object, or to a part of it."""
        return seem_held([self])

    @property
    def charged(self) -> dict[str, int]:
        """Device -> bytes that this entry answers for: not what it shares with an older one."""
        sizes: dict[str, int] = self.facts.get("sizes", {})
        shared = self.shared_sizes
        return {device: max(0, size - shared.get(device, 0)) for device, size in sizes.items()}


def seem_held(entries: Sequence[Entry]) -> bool:
    """Whether something outside the pool refers to any of what these entries hold.

    What one has in common with another counts as the pool's own. Only CPython counts references.
    """
    values = [entry.value for entry in entries if entry.value is not None]
    return is_held(values, own=2)


@dataclass(frozen=True)
class Removed:
    """An entry that left the store.

    ``references`` are to its object and to what of its memory nobody else answers for; ``sharers``
    are the entries that share memory with it.
    """

    key: str
    facts: dict[str, Any]
    sizes: dict[str, int]  # what its own bytes were, by device
    charges: tuple[int, ...]
    references: tuple[weakref.ref[Any], ...]
    sharers: tuple[str, ...] = ()

    def alive(self) -> bool | None:
        """Whether somebody holds any of it; None for what cannot be watched (an int, a tuple)."""
        if not self.references:
            return None
        return any(reference() is not None for reference in self.references)
