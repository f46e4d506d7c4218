"""What is cached: the entries by key, who leases them, and the bytes that they answer for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from resource_pool._entries import Entry, Removed, State
from resource_pool._leaving import Leaving
from resource_pool._ledger import Ledger
from resource_pool._sharing import answer_anew, sharing

Clock = Callable[[], float]


class Memories(Protocol):
    """What of :class:`resource_pool.devices.Devices` tells where objects have their memory."""

    def storages(self, model: Any) -> Sequence[Any]:
        """Return objects, weakly referable, that live as long as the model's memory does."""

    def sizes(self, parts: Sequence[Any]) -> dict[str, int]:
        """Return device -> bytes of some of these."""


class NoMemories:
    """For resources of which only the objects themselves count."""

    def storages(self, model: Any) -> Sequence[Any]:  # noqa: ARG002
        """Return nothing."""
        return ()

    def sizes(self, parts: Sequence[Any]) -> dict[str, int]:  # noqa: ARG002
        """Return nothing."""
        return {}


class Shelf:
    """Entries by key, and the ledger of their bytes.

    ``lock`` guards the entries, the counters and the ledger. It is held to decide, never to
    load, to wait for a load, to move a model or to release one. It is reentrant because the
    garbage collector may run a callback of ours at any moment.
    """

    def __init__(self, clock: Clock = time.monotonic, memories: Memories | None = None) -> None:
        self.clock = clock
        self._memories = memories or NoMemories()
        self.lock = threading.RLock()
        self.ledger = Ledger()
        self.inflation = 0.0
        self.freed_bytes = 0
        self._entries: dict[str, Entry] = {}
        self._leaving = Leaving()

    # -- looking -------------------------------------------------------------------------

    def get(self, key: str) -> Entry | None:
        """Return the entry under ``key`` without counting a hit."""
        with self.lock:
            return self._entries.get(key)

    def entries(self) -> list[Entry]:
        """Return the entries of this moment, loading ones included."""
        with self.lock:
            return list(self._entries.values())

    def ready(self, kind: str) -> dict[str, Entry]:
        """Return the loaded entries of one kind by key."""
        return {e.key: e for e in self.entries() if e.ready and e.kind == kind}

    # -- leases --------------------------------------------------------------------------

    def release(self, entry: Entry, lessee: int) -> None:
        """Give one lease of a thread back."""
        with self.lock:
            entry = self.current(entry)
            if lessee in entry.lessees:  # not where the entry was forked without that thread
                entry.lessees.remove(lessee)
            entry.last_used = self.clock()

    def current(self, entry: Entry) -> Entry:
        """Return the entry that has the leases of this one: another whose load it joined, or it."""
        with self.lock:
            while entry.forward is not None:
                entry = entry.forward
            return entry

    def remember(self, entry: Entry, fingerprint: Any) -> None:
        """Keep what a model was like when somebody began to lease it while nobody else did."""
        with self.lock:
            if entry.fingerprint is None or len(entry.lessees) == 1:
                entry.fingerprint = fingerprint

    def discard(self, entry: Entry) -> None:
        """Take out a ready entry whatever its leases: its object is not what it was."""
        with self.lock:
            if self._entries.get(entry.key) is entry and entry.ready:
                self._let_go(entry)

    # -- leaving -------------------------------------------------------------------------

    def remove(self, doomed: Callable[[Entry], bool]) -> list[Removed]:
        """Take out the entries that ``doomed`` picks; what loads, is leased or pinned stays.

        Their bytes stay charged until their objects are really gone.
        """
        with self.lock:
            chosen = [e for e in self._entries.values() if e.movable and doomed(e)]
            return [self._let_go(entry) for entry in chosen]

    def _let_go(self, entry: Entry) -> Removed:
        """Take an entry out, drop the store's own references to its object, and watch it go."""
        del self._entries[entry.key]
        entry.state = State.EVICTING
        heirs = self._sharing_with(entry)
        theirs = self._pass_on(entry, heirs) if heirs else {}
        self.ledger.mark_leaving(entry.charges)
        own = [one for one in self._memories.storages(entry.value) if id(one) not in theirs]
        references = self._leaving.watch([entry.value, *own], entry.charges)
        if not references:
            self.ledger.settle(entry.charges)
        sharers = tuple(heir.key for heir in heirs)
        removed = Removed(entry.key, entry.facts, entry.charged, entry.charges, references, sharers)
        entry.value = entry.fingerprint = None
        return removed

    def _sharing_with(self, entry: Entry) -> list[Entry]:
        ready = [one for one in self._entries.values() if one.ready]
        groups = sharing([entry, *ready])
        return [one for group in groups if entry in group for one in group if one is not entry]

    def _pass_on(self, entry: Entry, heirs: Sequence[Entry]) -> dict[int, Any]:
        """Let those that share memory with what leaves answer for it; return all that they have."""
        theirs = answer_anew(heirs, self._memories)
        shared = [one for one in self._memories.storages(entry.value) if id(one) in theirs]
        entry.facts = {**entry.facts, "shared_sizes": self._memories.sizes(shared)}
        for one in (*heirs, entry):
            self.ledger.settle(one.charges)
            one.charges = self.ledger.charge(one.key, one.charged, "used")
        return theirs

    def settle(self) -> None:
        """Strike out what has really gone since the last time, and count its bytes as freed."""
        with self.lock:
            for charges in self._leaving.gone():
                self.freed_bytes += self.ledger.settle(charges)
