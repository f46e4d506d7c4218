"""What is cached: the entries by key, who leases them, and the bytes that they answer for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from resource_pool._entries import Entry, Lessee, Removed, State
from resource_pool._leaving import Leaving
from resource_pool._ledger import Ledger, Place, per_device
from resource_pool._sharing import shared_sizes, sharing

Clock = Callable[[], float]


class Memories(Protocol):
    """What of :class:`resource_pool.devices.Devices` tells where objects have their memory."""

    def storages(self, model: Any) -> Mapping[Place, Any]:
        """Return where its memory is, each with an object that lives as long as that does."""

    def places(self, model: Any) -> Mapping[Place, int]:
        """Return where its memory is, each with its bytes."""


class NoMemories:
    """For resources of which only the objects themselves count."""

    def storages(self, model: Any) -> Mapping[Place, Any]:  # noqa: ARG002
        """Return nothing."""
        return {}

    def places(self, model: Any) -> Mapping[Place, int]:  # noqa: ARG002
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

    def release(self, lessee: Lessee) -> None:
        """Give a lease back, as far as it was taken."""
        with self.lock:
            if lessee.entry is None:
                return
            noted = lessee.entry  # until the lock is free: a finalizer must not run under it
            entry = self.current(noted)
            if lessee in entry.lessees:  # not where the entry was forked without that thread
                entry.lessees.remove(lessee)
            entry.last_used = self.clock()
            lessee.entry = None  # one that joined another's load would keep the object alive

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

    def discard(self, entry: Entry) -> list[str]:
        """Take out a ready entry whatever its leases: its object is not what it was.

        So are those that have the same object under other keys; return the keys of all.
        """
        value = entry.value  # until the lock is free: its finalizer must not run under it
        with self.lock:
            if self._entries.get(entry.key) is not entry or not entry.ready:
                return []
            same = [one for one in self._entries.values() if one.ready and one.value is value]
            return [self._let_go(one).key for one in same]

    # -- leaving -------------------------------------------------------------------------

    def remove(self, doomed: Callable[[Entry], bool]) -> list[Removed]:
        """Take out the entries that ``doomed`` picks; what loads, is leased or pinned stays.

        Their bytes stay charged until their objects are really gone.
        """
        values: list[Any] = []  # until the lock is free: their finalizers must not run under it
        with self.lock:
            chosen = [e for e in self._entries.values() if e.movable and doomed(e)]
            values += [entry.value for entry in chosen]
            return [self._let_go(entry) for entry in chosen]

    def _let_go(self, entry: Entry) -> Removed:
        """Take an entry out, drop the store's own references to its object, and watch it go."""
        try:
            del self._entries[entry.key]
            entry.state = State.EVICTING
            heirs = self._sharing_with(entry)
            theirs = {place for heir in heirs for place in heir.places}
            entry.shared_sizes = per_device(entry.places, among=theirs)
            self._charge_anew(heirs)
            self._charge(entry, "leaving")
            storages = self._memories.storages(entry.value)
            own = {place: one for place, one in storages.items() if place not in theirs}
            references = self._leaving.watch(entry.value, own, entry.charges)
        except BaseException:  # interrupted, in these long walks: it stays
            self._leaving.forget(entry.charges)
            entry.state, self._entries[entry.key] = State.READY, entry
            self._charge_anew([entry, *self._sharing_with(entry)])
            raise
        if not references:
            self.ledger.settle(entry.charges)
        sharers = tuple(heir.key for heir in heirs)
        removed = Removed(entry.key, entry.facts, entry.charged, entry.charges, references, sharers)
        entry.value = entry.fingerprint = None
        return removed

    def write_off(self, entry: Entry, value: Any) -> None:
        """Charge what a failed move has left somewhere until it has gone: its entry fails."""
        places, storages = self._memories.places(value), self._memories.storages(value)
        with self.lock:
            self.ledger.settle(entry.charges)
            entry.charges = ()
            sizes = per_device(places, among=places.keys())
            self.ledger.charge(entry, entry.key, sizes, "leaving")
            if self._leaving.watch(value, storages, entry.charges):
                entry.charges = ()  # they end with what is left

    # -- who answers for which bytes -----------------------------------------------------

    def _admit(self, entry: Entry) -> None:
        """Charge a new entry. What it has in common with others is asked now, under the lock:
        when it was placed, they were others.
        """
        self.settle()
        for charges, sizes in self._leaving.taken_over(entry.places):
            if sizes is None:
                self.ledger.settle(charges)
            else:
                self.ledger.lessen(charges, sizes)
        entry.shares = frozenset(one.created_for for one in self._near(entry))
        self._charge_anew([entry, *self._sharing_with(entry)])

    def _near(self, entry: Entry) -> list[Entry]:
        """Return the ready entries that have memory in common with this one."""
        seem = [one for one in self._ready_but(entry) if _meet(one, entry)]
        for one in seem:  # its holder may have changed it, and another's memory be there now
            one.places = self._memories.places(one.value)
        return [one for one in seem if _meet(one, entry)]

    def _charge_anew(self, group: Sequence[Entry]) -> None:
        for entry, sizes in shared_sizes(group):
            entry.shared_sizes = sizes
            self._charge(entry, "used")

    def _charge(self, entry: Entry, kind: str) -> None:
        self.ledger.settle(entry.charges)
        entry.charges = ()
        self.ledger.charge(entry, entry.key, entry.charged, kind)

    def _sharing_with(self, entry: Entry) -> list[Entry]:
        groups = sharing([entry, *self._ready_but(entry)])
        return [one for group in groups if entry in group for one in group if one is not entry]

    def _ready_but(self, entry: Entry) -> list[Entry]:
        return [one for one in self._entries.values() if one.ready and one is not entry]

    def settle(self) -> None:
        """Strike out what has really gone since the last time, and count its bytes as freed."""
        with self.lock:
            for charges in self._leaving.gone():
                self.freed_bytes += self.ledger.settle(charges)


def _meet(one: Entry, other: Entry) -> bool:
    return not one.places.keys().isdisjoint(other.places)
