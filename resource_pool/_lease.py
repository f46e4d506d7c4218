"""A lease: for its extent, a model is neither evicted nor moved, and must not be changed."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any

from resource_pool._entries import Entry, Lessee
from resource_pool._events import Event, EventLog
from resource_pool._evicting import Evictor
from resource_pool._store import Store
from resource_pool.devices import Devices

logger = logging.getLogger("resource_pool")


class Lease:
    """``with pool.lease(...) as model``; may be entered once."""

    def __init__(
        self,
        acquire: Callable[[Lessee], tuple[Entry, Any]],
        store: Store,
        devices: Devices,
        evictor: Evictor,
        log: EventLog,
    ) -> None:
        self._acquire, self._store, self._devices = acquire, store, devices
        self._evictor, self._log = evictor, log
        self._entry: Entry | None = None
        self._model: Any = None
        self._lessee: Lessee | None = None  # once it was entered

    def __enter__(self) -> Any:
        """Load or find the model, and lease it before anybody else could have it evicted."""
        return self._enter(threading.get_ident())

    def _enter(self, thread: int) -> Any:
        if self._lessee is not None:
            raise RuntimeError("A lease is entered once; ask the pool for another one.")
        self._lessee = lessee = Lessee(thread)
        try:
            entry, self._model = self._acquire(lessee)
            self._entry = self._store.current(entry)
            str(self._entry.facts.get("weights"))  # which the model may be changed under
            # What others who lease it change meanwhile is theirs to answer for.
            if self._entry.fingerprint is None or len(self._entry.lessees) == 1:
                self._store.remember(self._entry, self._devices.fingerprint(self._model))
        except BaseException:
            self._entry = self._model = None
            self._store.release(lessee)
            raise
        return self._model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back; take a model that was changed out of the pool."""
        entry, model, lessee = self._entry, self._model, self._lessee
        self._entry = self._model = None
        if entry is None or lessee is None:
            return
        taken_out: list[str] = []
        try:
            changed = differences(entry.fingerprint, self._devices.fingerprint(model))
            if changed:  # before anybody else can get it without a lease of ours
                taken_out = self._store.discard(entry)
        finally:
            del model
            self._store.release(lessee)
        if changed:
            self._report_change(taken_out or [entry.key], changed)
        if error is not None and self._devices.is_out_of_memory(error):
            # The frames of the failed forward keep its tensors.
            traceback.clear_frames(trace)
            self._log.add(Event("oom_recovery", entry.key, f"in use: {error}"))
            short = {*entry.facts.get("sizes", ())} or {entry.facts.get("device")}
            self._evictor.evict(
                lambda e: (
                    e is not entry
                    and bool(short & {*e.facts.get("sizes", ())})
                    and not e.seems_held()
                ),
                "memory ran out",
            )

    async def __aenter__(self) -> Any:
        """Enter in a thread. Who is cancelled meanwhile leaves; the lease ends when it begins."""
        import asyncio

        from resource_pool._aside import aside

        # The lease is the event loop's thread's, which goes on with the model.
        entering = aside(self._enter, threading.get_ident())
        try:
            return await asyncio.wrap_future(entering)
        except BaseException:  # cancelled, or closed from outside
            # On the thread's own future: the loop may be closed by then.
            entering.add_done_callback(self._give_up)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Exit, in a thread where memory ran out: an eviction may wait for a driver."""
        if error is None or not self._devices.is_out_of_memory(error):
            self.__exit__(kind, error, trace)
            return
        import asyncio

        from resource_pool._aside import aside

        # Here, where the coroutine runs: clearing the frame of a suspended one ends it.
        traceback.clear_frames(trace)
        await asyncio.wrap_future(aside(self.__exit__, kind, error, None))

    def _give_up(self, entered: Any) -> None:
        if not entered.cancelled() and entered.exception() is None:
            self.__exit__(None, None, None)

    def _report_change(self, keys: list[str], changed: list[str]) -> None:
        shown = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        for key in keys:  # several of one object
            logger.warning(
                "%s was changed while it was leased (%s); it is taken out and loaded again on "
                "request.",
                key,
                shown,
            )
            self._log.add(Event("mutated", key, shown))


def differences(before: Mapping[str, Hashable] | None, after: Mapping[str, Hashable]) -> list[str]:
    """Return the names whose values differ, those that came or went included."""
    if before is None:
        return []
    return sorted(n for n in {*before, *after} if before.get(n, _NONE) != after.get(n, _NONE))


_NONE = object()
