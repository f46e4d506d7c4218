"""Admits requests: what is here or under way is joined, and a new load is planned and reserved."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from resource_pool._entries import Entry, Lessee
from resource_pool._events import EventLog
from resource_pool._evicting import Evictor
from resource_pool._experience import Estimate, Experience
from resource_pool._identity import Identity
from resource_pool._mode import Mode
from resource_pool._observer import Observer
from resource_pool._planner import decide
from resource_pool._plans import Decision, Request, Snapshot, memory_place, readable
from resource_pool._preferences import PRECISIONS
from resource_pool._routes import Routes
from resource_pool._store import Store
from resource_pool._waiting import Joined
from resource_pool.devices import Devices
from resource_pool.errors import (
    InsufficientMemoryError,
    LoadTimeoutError,
    PoolError,
    RecursiveLoadError,
)


class Admission:
    """Plans loads into a store, one at a time.

    ``_planning`` is held while one load is planned and what must go for it is going, so that two
    loads do not count on the same room. It is not held while a model loads, and no hit takes it.
    It is reentrant only to tell a finalizer (or a signal handler) that asks in the middle of its
    own thread's plan, and would wait for ever: ``_is_planning`` guards that plan against it.
    The store's lock guards routes and experience.
    """

    def __init__(
        self,
        store: Store,
        devices: Devices,
        hardware: Callable[[], Mapping[str, Any]],
        log: EventLog,
        estimate: Estimate,
        mode: Mode,
        load_deadline: float | None = None,
    ) -> None:
        self.observer = Observer(store, devices, hardware, mode)
        self.evictor = Evictor(store, devices, log, mode)
        self._store, self._devices, self._log = store, devices, log
        self._hardware = hardware
        self._deadline = load_deadline
        self._planning = threading.RLock()
        self._is_planning = False  # guarded by _planning
        self._routes = Routes()
        self._experience = Experience(estimate)

    def plan(self, identity: Identity, request: Request) -> Decision:
        """Return what would be decided now, without doing it."""
        return self._decide(self._experience.with_needs(identity, request), identity)

    def with_room(
        self, identity: Identity, request: Request, why: str, *, staying: Entry | None = None
    ) -> Decision:
        """Plan, and evict until nothing more must go; for whoever plans alone.

        One eviction may not do: what was to go may be leased by then, or be kept by others.

        Args:
            staying: the model that the room is for, where it is cached already; it needs none on
                the device that it is on.
        """
        while True:
            decision = self.plan(identity, request)
            is_there = staying is not None and decision.device == staying.facts["device"]
            going = {*decision.evict} - ({staying.key} if staying else set())
            if is_there or not going:
                return decision
            self.evictor.evict_idle(going, why)

    def _decide(self, request: Request, identity: Identity) -> Decision:
        """Decide; before a shortage is told, look for what only the garbage collector holds."""
        try:
            return decide(request, self._snapshot(identity))
        except InsufficientMemoryError:
            self.observer.collect()
        return decide(request, self._snapshot(identity))

    def _snapshot(self, identity: Identity) -> Snapshot:
        snapshot = self.observer.snapshot(identity)
        with self._store.lock:
            mine = [e for e in self._store.entries() if e.facts.get("identity") == identity]
            cached = {
                (entry.facts["device"], dtype)
                for entry in mine
                for dtype in (None, *PRECISIONS.values(), entry.facts["key_dtype"])
                if self._experience.key(identity, entry.facts["device"], dtype) == entry.key
            }
        return replace(snapshot, cached=frozenset(cached))

    def reroute(self, old: str, new: str) -> None:
        """Let requests that named no device follow a model that has moved."""
        with self._store.lock:
            self._routes.repoint(old, new, explicit=False)

    def forget_routes(self) -> None:
        """Drop the routes to models that are gone, and failures that are over."""
        with self._store.lock:
            self._routes.keep({entry.key for entry in self._store.entries()})
        self.observer.forget_failures()

    def after_fork(self) -> None:
        """In a forked child, where no other thread is left."""
        self._planning, self._is_planning = threading.RLock(), False

    def _join(self, signature: tuple[Any, ...], *, lessee: Lessee | None) -> Joined | None:
        with self._store.lock:
            route = self._routes.get(signature)
            return None if route is None else self._store.join(route.key, lessee=lessee)

    def _join_cached(
        self,
        identity: Identity,
        request: Request,
        signature: tuple[Any, ...],
        lessee: Lessee | None,
    ) -> Joined | None:
        """Join the instance that a request in new words means, if it is there: a hit never waits
        for the plans of others.
        """
        with self._store.lock:
            if not any(e.facts.get("identity") == identity for e in self._store.entries()):
                return None
        try:
            decision = self.plan(identity, request)
        except PoolError:
            return None  # to be told where the load is planned
        if decision.evict:
            return None
        with self._store.lock:
            key = self._experience.key(identity, decision.device, decision.dtype)
            joined = self._store.join(key, lessee=lessee)
            if joined is not None:
                self._routes.lead(signature, key, request)
            return joined

    def _wait(self, joined: Joined) -> Any:
        return self._store.wait(joined, self._deadline)

    @contextlib.contextmanager
    def planned_alone(self, identity: Identity) -> Iterator[None]:
        """Plan, evict and reserve as the only one who does."""
        timeout = -1 if self._deadline is None else self._deadline
        acquired: list[bool] = []
        try:
            # In one call: no signal may come between the lock and the note that it is held.
            acquired.extend(map(self._planning.acquire, [True], [timeout]))
            if True not in acquired:
                raise LoadTimeoutError(
                    f"{identity.label} waited {self._deadline:g} s for the plan of another load."
                )
            if self._is_planning:
                raise RecursiveLoadError(
                    f"{identity.label} is asked for in the middle of another plan of this thread, "
                    "by a finalizer or a signal handler; ask for it outside of that."
                )
            self._is_planning = True
            try:
                yield
            finally:
                self._is_planning = False
        finally:
            if True in acquired:
                self._planning.release()

    def _admit(
        self,
        identity: Identity,
        request: Request,
        signature: tuple[Any, ...],
        mine: list[Entry] | None,
        *,
        lessee: Lessee | None,
    ) -> Joined | Decision | None:
        """Plan, and join what is there under the same key by now; else make room and reserve.

        The new entry goes into ``mine``; with None, nothing is reserved. It ends, because each
        round evicts models that no later round can count on.
        """
        request = self._experience.with_needs(identity, request)
        while True:
            try:
                decision = self._decide(request, identity)
            except PoolError:
                with self._store.lock:
                    self._store.misses += 1
                if mine is not None:
                    raise
                return None  # nothing is to be loaded, and it is not here
            key = self._experience.key(identity, decision.device, decision.dtype)
            with self._store.lock:
                joined = self._store.join(key, lessee=lessee)
                if joined is None and mine is None:
                    self._store.misses += 1
                    return None
                if joined is None and decision.cached:
                    continue  # it has gone since, and with it what the decision was made on
                if joined is not None or not decision.evict:
                    self._routes.lead(signature, key, request)
                    if joined is None and mine is not None:
                        self._reserve(key, decision, mine, lessee=lessee)
                    return joined or decision
            why = f"room for {key}, which needs {readable(decision.needed or 0)}"
            self.evictor.evict_idle(decision.evict, why)

    def _reserve(
        self, key: str, decision: Decision, mine: list[Entry], *, lessee: Lessee | None
    ) -> None:
        self._store.misses += 1
        entry = self._store.reserve(key, "model", mine, lessee=lessee)
        self._charge(entry, decision)

    def _charge(self, entry: Entry, decision: Decision) -> None:
        sizes = {memory_place(decision.device): decision.needed or 0}
        if decision.spread:
            # The budgets are what it may take; it takes what it needs, wherever that will be.
            share = (decision.needed or 0) / sum(decision.spread.values())
            sizes = {name: int(size * share) for name, size in decision.spread.items()}
        self._store.ledger.charge(entry, entry.key, sizes, "reserved")
