"""The keyed cache under the pool: one load per key, and no lock held while loading."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from resource_pool._entries import Entry, Lessee, State
from resource_pool._ledger import Place
from resource_pool._shelf import Clock, Memories, Shelf
from resource_pool._waiting import Joined, Waits, checked, loading
from resource_pool.errors import (
    LoadInterruptedError,
    LoadTimeoutError,
    RecursiveLoadError,
    ResourceNotFoundError,
)


class Store(Shelf):
    """A shelf that is filled: whoever asks for what is being loaded waits for that load."""

    def __init__(self, clock: Clock = time.monotonic, memories: Memories | None = None) -> None:
        super().__init__(clock, memories)
        self.hits = 0
        self.misses = 0
        self._waits = Waits()

    # -- getting -------------------------------------------------------------------------

    def get_or_load(
        self,
        key: str,
        kind: str,
        constructor: Callable[[], Any] | None,
        deadline: float | None = None,
    ) -> Any:
        """Return the object under ``key``, loading it once however many threads ask.

        Args:
            deadline: seconds to wait for another thread's load; None waits for ever.

        Raises:
            ResourceNotFoundError: the key is not cached and there is no constructor.
            NoneResourceError: the constructor returned None.
            RecursiveLoadError: the constructor asked for the key that it is loading.
            Exception: whatever the constructor raised, to every thread that waited for it.
        """
        with self.failing() as mine:
            with self.lock:
                joined = self.join(key)
                if joined is None:
                    self.misses += 1
                    if constructor is not None:
                        self.reserve(key, kind, mine)
            if joined is not None:
                return self.wait(joined, deadline)
            if constructor is None:
                raise ResourceNotFoundError(self.not_found(key))
            value = checked(mine[0], constructor)
            self.publish(mine[0], value, {}, {})  # of these, nothing is charged
            return value

    def hit(self, key: str) -> Any:
        """Return the object under ``key`` and count the hit; None where it is not ready."""
        with self.lock:
            entry = self._entries.get(key)
            if entry is None or entry.value is None:
                return None
            # As in `_count_hit`, whose call would cost a tenth of a hit.
            self.hits += 1
            entry.hits += 1
            entry.last_used = self.clock()
            entry.floor = self.inflation
            return entry.value

    def _count_hit(self, entry: Entry) -> None:
        self.hits += 1
        entry.hits += 1
        entry.last_used = self.clock()
        entry.floor = self.inflation

    def join(self, key: str, *, lessee: Lessee | None = None) -> Joined | None:
        """Join the entry under ``key`` and count the hit; its load may be under way.

        With ``lessee``, it is leased before anybody else can see it without a lease.
        """
        with self.lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            own = entry.loading_thread == threading.get_ident() or entry.created_for in loading()
            if entry.state is State.LOADING and own:
                raise RecursiveLoadError(
                    f"The constructor of {key} asks the pool for {key} itself; "
                    "build the object in the constructor instead."
                )
            self._count_hit(entry)
            if lessee is not None:
                lessee.take(entry)
            return Joined(entry, entry.value, entry.future)

    def wait(self, joined: Joined, timeout: float | None = None) -> Any:
        """Return what was joined, waiting for its load where that is under way.

        Raises:
            RecursiveLoadError: that load waits, by way of others, for one of this thread's.
            LoadTimeoutError: it took longer than ``timeout`` seconds.
        """
        if joined.future is None or joined.future.done():
            return joined.result()
        try:
            with self.lock:
                self._waits.begin(joined.entry)
            return joined.result(timeout)
        except LoadTimeoutError:
            self.abandon(joined.entry)
            raise
        finally:
            with self.lock:
                self._waits.end()

    def not_found(self, key: str) -> str:
        """Return the message for a key that is not here."""
        names = ", ".join(sorted(entry.key for entry in self.entries())) or "nothing"
        return f"{key} is not cached and no constructor was given; cached: {names}."

    # -- loading -------------------------------------------------------------------------

    @contextlib.contextmanager
    def failing(self) -> Iterator[list[Entry]]:
        """Give a list for the entries that are reserved inside: what raises there fails them.

        The list is filled before anybody else can see an entry, so that a signal at whatever
        moment leaves no load behind that nobody goes on with.
        """
        mine: list[Entry] = []
        try:
            yield mine
        except BaseException as error:
            try:
                for entry in mine:
                    self.fail(entry, error)
            finally:  # once more, where a second signal has interrupted it
                for entry in mine:
                    self.fail(entry, error)
            raise

    def reserve(
        self, key: str, kind: str, mine: list[Entry], *, lessee: Lessee | None = None
    ) -> Entry:
        """Make the entry that later callers wait for, in the context that :meth:`failing` gives."""
        with self.lock:
            now = self.clock()
            entry = Entry(key, kind, now, now, threading.get_ident(), floor=self.inflation)
            if lessee is not None:
                lessee.take(entry)
            mine.append(entry)
            self._entries[key] = entry
            return entry

    def rekey(self, entry: Entry, key: str) -> Joined | None:
        """Give a loading entry another key; join the entry that has it already, if one has.

        Then the leases go over to that one, and this entry is out of the store.
        """
        with self.lock:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            other = self._entries.get(key)
            if other is None:
                entry.key = key
                self._entries[key] = entry
                return None
            other.lessees += entry.lessees
            entry.lessees, entry.forward = [], other
            # No hit: this request is counted as the miss that it was.
            other.last_used, other.floor = self.clock(), self.inflation
            return Joined(other, other.value, other.future)

    def publish(
        self,
        entry: Entry,
        value: Any,
        facts: dict[str, Any],
        places: Mapping[Place, int] | None = None,
    ) -> None:
        """Make a loaded object available: to those who wait, and to those who come.

        Args:
            places: where its memory is, if that is known already.
        """
        if places is None:
            places = self._memories.places(value)
        with self.lock:
            now = self.clock()
            if not entry.facts:  # a model that has facts already was moved, and not loaded
                entry.load_seconds = now - entry.created_at
            entry.last_used = now
            entry.value, entry.facts, entry.fingerprint = value, facts, None
            entry.places = places
            if self._entries.get(entry.key) is entry:
                self._admit(entry)
            else:  # its caller gets it, and the store does not
                self.ledger.settle(entry.charges)
                entry.charges = ()
            entry.state = State.READY
            self._answer(entry)

    def _answer(self, entry: Entry) -> None:
        """Resolve the future of a ready entry, under the lock: a move puts another in its place.

        In this order: whatever interrupts it, the entry still has the future to resolve.
        """
        if entry.future is not None and not entry.future.done():
            entry.future.set_result(entry.value)
        entry.future = None

    def fail(self, entry: Entry, error: BaseException) -> None:
        """Forget an entry whose load has failed, then tell those who wait for it.

        In this order, so that a caller who comes now starts a new load.
        """
        with self.lock:
            if not entry.future or entry.future.done():
                return
            if entry.ready:  # interrupted after the load, before the others were told
                self._answer(entry)
                return
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            self.ledger.settle(entry.charges)
            entry.charges = ()
        if not isinstance(error, Exception):
            # A Ctrl-C belongs to the thread that got it; the others learn what happened.
            error = LoadInterruptedError(
                f"The load of {entry.key} was interrupted in another thread; ask again."
            )
        entry.future.set_exception(error)

    def abandon(self, entry: Entry) -> None:
        """Take out a load that nobody waits for any longer; its thread may still end it.

        What has facts already is no load but a move, and is there when it ends.
        """
        with self.lock:
            loads = entry.state is State.LOADING and not entry.facts
            if loads and self._entries.get(entry.key) is entry:
                del self._entries[entry.key]

    def reopen(self, entry: Entry, key: str) -> Any:
        """Make a ready entry one that is loading, under another key; return its object.

        For a move: whoever asks meanwhile waits.
        """
        with self.lock:
            self._answer(entry)
            value, entry.value = entry.value, None
            entry.state, entry.future = State.LOADING, Future()
            entry.loading_thread = threading.get_ident()
            del self._entries[entry.key]
            entry.key = key
            self._entries[key] = entry
            return value

    def after_fork(self) -> None:
        """In a forked child: new locks, and no loads that no thread here goes on with."""
        self.lock = threading.RLock()
        self._waits = Waits()
        for entry in list(self._entries.values()):
            if entry.state is State.LOADING:
                del self._entries[entry.key]
                self.ledger.settle(entry.charges)
            else:
                entry.future = None  # it is ready; the thread that would have told so is not here
            # The thread that forked goes on here, and with it its leases.
            me = threading.get_ident()
            entry.lessees = [lessee for lessee in entry.lessees if lessee.thread == me]


def quoted(part: str) -> str:
    """Return a part of a key in which the key's own separators are spelled out."""
    for character, spelled in (("%", "%25"), (":", "%3A"), ("@", "%40"), ("#", "%23")):
        part = part.replace(character, spelled)
    return part
