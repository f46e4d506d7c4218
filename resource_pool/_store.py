"""The keyed cache under the pool: one load per key, and no lock held while loading."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from resource_pool.errors import (
    LoadInterruptedError,
    NoneResourceError,
    RecursiveLoadError,
    ResourceNotFoundError,
)

Clock = Callable[[], float]


@dataclass(eq=False)
class Entry:
    """One cached object, or one that is being loaded (its future is not done yet)."""

    key: str
    kind: str  # "model", "tokenizer" or "resource"
    created_at: float
    last_used: float
    loading_thread: int
    hits: int = 0
    load_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    future: Future[Any] = field(default_factory=Future)

    @property
    def ready(self) -> bool:
        """Whether the object is there; an entry whose load failed is never in the store."""
        return self.future.done()


@dataclass(frozen=True)
class Removed:
    """An entry that left the store; ``alive()`` tells whether somebody still holds its object."""

    key: str
    facts: dict[str, Any]
    reference: weakref.ref[Any] | None

    def alive(self) -> bool | None:
        """Return None for an object that cannot be watched (an int, a tuple, ...)."""
        return None if self.reference is None else self.reference() is not None


class Store:
    """Entries by key.

    ``_lock`` guards ``_entries``, the counters, and each entry's ``hits`` and ``last_used``.
    It is held to decide, never to load, to wait for a load, or to release an object.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self.hits = 0
        self.misses = 0

    def get_or_load(
        self,
        key: str,
        kind: str,
        constructor: Callable[[], Any] | None,
        describe: Callable[[Any], dict[str, Any]] = lambda _: {},
    ) -> Any:
        """Return the object under ``key``, loading it once however many threads ask.

        Args:
            key: what makes the object different from others.
            kind: "model", "tokenizer" or "resource".
            constructor: called without arguments where the key is not cached.
            describe: called with the new object before anybody sees it; returns its facts.

        Raises:
            ResourceNotFoundError: the key is not cached and there is no constructor.
            NoneResourceError: the constructor returned None.
            RecursiveLoadError: the constructor asked for the key that it is loading.
            Exception: whatever the constructor raised, to every thread that waited for it.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._count_hit(entry)
            else:
                self.misses += 1
                mine = None if constructor is None else self._reserve(key, kind)
        if entry is not None:
            return entry.future.result()
        if constructor is None or mine is None:
            raise ResourceNotFoundError(_not_found(key, (e.key for e in self.entries())))
        return self._load(mine, constructor, describe)

    def _reserve(self, key: str, kind: str) -> Entry:
        """Make the entry that later callers wait for."""
        now = self._clock()
        entry = Entry(key, kind, now, now, threading.get_ident())
        self._entries[key] = entry
        return entry

    def _count_hit(self, entry: Entry) -> None:
        if not entry.ready and entry.loading_thread == threading.get_ident():
            raise RecursiveLoadError(
                f"The constructor of {entry.key} asks the pool for {entry.key} itself; "
                "build the object in the constructor instead."
            )
        self.hits += 1
        entry.hits += 1
        entry.last_used = self._clock()

    def _load(
        self,
        entry: Entry,
        constructor: Callable[[], Any],
        describe: Callable[[Any], dict[str, Any]],
    ) -> Any:
        started = self._clock()
        try:
            value = constructor()
            if value is None:
                raise NoneResourceError(
                    f"The constructor of {entry.key} returned None; it must return the object."
                )
            entry.facts = describe(value)
        except BaseException as error:
            self._fail(entry, error)
            raise
        with self._lock:
            entry.load_seconds = self._clock() - started
            entry.last_used = self._clock()
            entry.future.set_result(value)
        return value

    def _fail(self, entry: Entry, error: BaseException) -> None:
        """Forget the entry first, so that a caller who comes now starts a new load."""
        with self._lock:
            del self._entries[entry.key]
        if not isinstance(error, Exception):
            # A Ctrl-C belongs to the thread that got it; the others learn what happened.
            error = LoadInterruptedError(
                f"The load of {entry.key} was interrupted in another thread; ask again."
            )
        entry.future.set_exception(error)

    def remove(self, doomed: Callable[[Entry], bool]) -> list[Removed]:
        """Drop the ready entries that ``doomed`` picks; entries that are loading stay."""
        with self._lock:
            chosen = [e for e in self._entries.values() if e.ready and doomed(e)]
            for entry in chosen:
                del self._entries[entry.key]
        return [Removed(e.key, e.facts, _watch(e.future.result())) for e in chosen]

    def has(self, key: str) -> bool:
        """Whether the key is cached or being loaded."""
        with self._lock:
            return key in self._entries

    def entries(self) -> list[Entry]:
        """Return the entries of this moment, loading ones included."""
        with self._lock:
            return list(self._entries.values())

    def ready(self, kind: str) -> dict[str, Entry]:
        """Return the loaded entries of one kind by key."""
        return {e.key: e for e in self.entries() if e.ready and e.kind == kind}

    def now(self) -> float:
        """Return the time on the clock that the entries are stamped with, in seconds."""
        return self._clock()


def _watch(value: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def _not_found(key: str, cached: Iterable[str]) -> str:
    names = ", ".join(sorted(cached)) or "nothing"
    return f"{key} is not cached and no constructor was given; cached: {names}."
