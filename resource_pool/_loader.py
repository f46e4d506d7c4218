"""Brings models in: planned one at a time, loaded side by side, smaller when memory is short."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from resource_pool._admission import Admission
from resource_pool._entries import Entry, Lessee
from resource_pool._events import Event, EventLog
from resource_pool._experience import Estimate
from resource_pool._identity import Identity
from resource_pool._ladder import Ladder
from resource_pool._mode import Mode
from resource_pool._placer import Loaded, Placer
from resource_pool._plans import Decision, Request, memory_place
from resource_pool._store import Store
from resource_pool._waiting import Joined, checked
from resource_pool.devices import Devices, released
from resource_pool.errors import (
    DeviceUnavailableError,
    OriginalTracebackError,
    PoolError,
    ResourceNotFoundError,
    SharedObjectError,
)

logger = logging.getLogger("resource_pool")

Constructor = Callable[[], Any]


class Loader(Admission):
    """Loads what is admitted, smaller or elsewhere where it has to be."""

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
        super().__init__(store, devices, hardware, log, estimate, mode, load_deadline)
        self._ladder = Ladder(store, self.observer, self.evictor, hardware)
        self._placer = Placer(devices, self.observer)

    def get(
        self,
        identity: Identity,
        request: Request,
        constructor: Constructor | None,
        *,
        before_load: Callable[[], None] = lambda: None,
        lessee: Lessee | None = None,
    ) -> tuple[Entry, Any]:
        """Return the entry and the model of a request, loading it where it is not here.

        Args:
            lessee: who leases it; whatever is raised, the lease is the caller's to end.
        """
        # A description has no effect: each would leave a route behind.
        signature = (identity, repr(replace(request.preferences, description=None)))
        joined = self._join(signature, lessee=lessee)
        joined = joined or self._join_cached(identity, request, signature, lessee)
        if joined is not None:
            return joined.entry, self._wait(joined)
        before_load()
        with self._store.failing() as mine:
            with self.planned_alone(identity):
                # Whoever waited here may find that another thread has begun the load.
                found: Joined | Decision | None = self._join(signature, lessee=lessee)
                found = found or self._admit(
                    identity,
                    request,
                    signature,
                    None if constructor is None else mine,
                    lessee=lessee,
                )
            if isinstance(found, Joined):
                return found.entry, self._wait(found)
            if constructor is None or found is None:
                raise ResourceNotFoundError(self._store.not_found(identity.label))
            with self._telling_failure(mine[0]):
                return self._load(mine[0], found, identity, request, constructor)

    @contextlib.contextmanager
    def _telling_failure(self, entry: Entry) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not entry.ready:
                self._placer.disclaim(entry)
            self._log.add(Event("fail", entry.key, f"{type(error).__name__}: {error}"))
            raise

    def sharers(self, value: Any) -> list[str]:
        """Return the keys of other models that share parameters with this one and are in use."""
        return self._placer.sharers(value)

    def after_fork(self) -> None:
        """In a forked child, where no other thread is left."""
        super().after_fork()
        self._placer.after_fork()

    def _load(
        self,
        entry: Entry,
        decision: Decision,
        identity: Identity,
        request: Request,
        constructor: Constructor,
    ) -> tuple[Entry, Any]:
        """Load with all the means against a lack of memory, one after the other."""
        means = self._ladder.means(identity, request, decision)
        tried, broken = "", set[str]()
        while True:
            loaded = self._attempt(entry, decision, identity, constructor)
            if isinstance(loaded, Loaded):
                break
            # Here the except block is left, and with it the traceback that pins tensors.
            released(self._devices, [*map(memory_place, decision.devices)])
            if self._devices.is_out_of_memory(loaded):
                tried, decision = self._next_means(entry, means, loaded)
                joined = self._redirect(entry, identity, decision)
            else:
                if not broken.isdisjoint(decision.devices):
                    raise loaded  # it was passed over for a while, and has failed again
                broken.update(decision.devices)
                self._report(entry, decision, identity, loaded)
                decision, joined = self._elsewhere(entry, identity, request, loaded)
                means = self._ladder.means(identity, request, decision)
            if joined is not None:
                return self._follow(entry, joined)
        joined = self._in_full_precision(entry, identity, decision, request, loaded)
        joined = joined or self._learn(entry, identity, decision, loaded.facts)
        if joined is not None:
            return self._follow(entry, joined, loaded)
        if tried:
            self._log.add(Event("oom_recovery", entry.key, tried))
        self._log.add(Event("place", entry.key, loaded.note, loaded.numbers))
        self._store.publish(entry, loaded.value, loaded.facts, loaded.places)
        return entry, loaded.value

    def _next_means(
        self, entry: Entry, means: Iterator[tuple[str, Decision]], error: Exception
    ) -> tuple[str, Decision]:
        step = next(means, None)
        if step is None:
            raise error
        self._log.add(Event("oom_retry", entry.key, f"{step[0]} after: {error}"))
        logger.warning("%s: out of memory; %s", entry.key, step[0])
        return step

    def _elsewhere(
        self, entry: Entry, identity: Identity, request: Request, error: Exception
    ) -> tuple[Decision, Joined | None]:
        """Plan again without the device that has just failed, unless the caller insists on it."""
        if request.preferences.force_device:
            raise error
        logger.warning("%s: %s: %s", identity.label, type(error).__name__, error)
        with self.planned_alone(identity):
            decision = self.with_room(identity, request, f"room for {identity.label}")
            return decision, self._redirect(entry, identity, decision)

    def _in_full_precision(
        self, entry: Entry, identity: Identity, decision: Decision, request: Request, loaded: Loaded
    ) -> Joined | None:
        """Let the key name the precision that a browser runs, where it is not the planned one."""
        placed = loaded.facts.get("placed_dtype")
        if placed in (None, decision.dtype):
            return None
        if request.preferences.force_device and request.preferences.precision:
            raise DeviceUnavailableError(
                f"{identity.label}: {decision.dtype} is forced and does not work on "
                f"{decision.device}."
            )
        return self._redirect(entry, identity, replace(decision, dtype=placed))

    def _report(
        self, entry: Entry, decision: Decision, identity: Identity, error: Exception
    ) -> None:
        """Note a device's failure as an error report; the load goes on elsewhere."""
        from resource_pool.reports import error_report  # needed only when something has failed

        message, trace = f"{type(error).__name__}: {error}", str(error.__cause__ or "")
        report = error_report(
            identity.name, decision.device, message, trace, hardware=self._hardware()
        )
        self._log.add(Event("fallback", entry.key, message, {"device": decision.device, **report}))

    def _redirect(self, entry: Entry, identity: Identity, decision: Decision) -> Joined | None:
        """Let a load go on under another decision; join what is cached under its key already."""
        with self._store.lock:
            key = self._experience.key(identity, decision.device, decision.dtype)
            self._routes.repoint(entry.key, key)
            joined = self._store.rekey(entry, key)
            if joined is None:
                self._store.ledger.settle(entry.charges)
                entry.charges = ()
                self._charge(entry, decision)
            return joined

    def _learn(
        self, entry: Entry, identity: Identity, decision: Decision, facts: Mapping[str, Any]
    ) -> Joined | None:
        """Note what a load showed: the bytes, and the dtype that is the model's own.

        Returns:
            The instance in that very dtype which is cached already, joined, if there is one.
        """
        with self._store.lock:
            if not self._experience.learn(identity, decision, facts):
                return None
            key = self._experience.key(identity, decision.device, decision.dtype)
            self._routes.repoint(entry.key, key)
            return self._store.rekey(entry, key)

    def _follow(
        self, entry: Entry, joined: Joined, loaded: Loaded | None = None
    ) -> tuple[Entry, Any]:
        """Hand out the instance that is there already in place of the one of this load.

        Where that one is still loading and fails, this load's own is as good.
        """
        try:
            value = self._wait(joined)
        except PoolError:
            raise
        except Exception:
            if loaded is None:
                raise
            value = loaded.value
        self._store.publish(entry, value, {}, {})
        return joined.entry, value

    def _attempt(
        self, entry: Entry, decision: Decision, identity: Identity, constructor: Constructor
    ) -> Loaded | Exception:
        """Construct and place once.

        Returns:
            The error, without its frames, where there is something left to try: memory ran out,
            or the device failed.
        """
        try:
            value = checked(entry, constructor)
            return self._placer.place(entry, value, decision, identity)
        except SharedObjectError:
            raise
        except Exception as error:
            device_failed = self.observer.has_failed(identity, decision.devices)
            if not device_failed and not self._devices.is_out_of_memory(error):
                raise
            told = "".join(traceback.format_exception(error))
            error.__context__ = None
            error.__cause__ = OriginalTracebackError(told)
            return error.with_traceback(None)
