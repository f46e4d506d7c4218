"""What the pool does unasked: low-memory mode, warnings under pressure, dropping what is idle."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from typing import Any

from resource_pool import _system
from resource_pool._entries import Entry
from resource_pool._events import LOW_MEMORY_MAX_EVENTS, MAX_EVENTS, Event, EventLog
from resource_pool._evicting import Evictor
from resource_pool._mode import Mode
from resource_pool._store import Store
from resource_pool.devices import System

logger = logging.getLogger("resource_pool")

MAX_AGE_MINUTES = 30.0
LOW_MEMORY_MAX_AGE_MINUTES = 10.0
WARN_EVERY_SECONDS = 300.0
LOW_MEMORY_WARN_EVERY_SECONDS = 30.0

# Low-memory mode turns itself on below this much available RAM, or below this share of a
# container's limit.
LOW_MEMORY_MB = 4608.0
LOW_MEMORY_CONTAINER_SHARE = 0.2
# What must be available to leave the mode again, as a multiple of that: in between, it stays as
# it is, so that one load does not switch it back and forth.
LOW_MEMORY_OVER = 1.25


class Maintenance:
    """The upkeep of a pool. The same code runs at each admission and in the monitor's thread."""

    def __init__(
        self, store: Store, evictor: Evictor, log: EventLog, mode: Mode, system: System
    ) -> None:
        self._store, self._evictor, self._log = store, evictor, log
        self._mode, self._system = mode, system
        self._warned_at = float("-inf")

    @property
    def max_age_minutes(self) -> float:
        """The age at which unused resources go: 30 minutes, in low-memory mode 10."""
        return LOW_MEMORY_MAX_AGE_MINUTES if self._mode.low_memory else MAX_AGE_MINUTES

    def look_at_mode(self) -> None:
        """Look whether low-memory mode is over, where no load does it: at a hit."""
        memory = _system.system_memory(self._system.memory())
        if memory:
            self._switch(memory)

    def look(self) -> None:
        """Look at the machine's memory: switch modes, warn, and drop what is idle."""
        memory = _system.system_memory(self._system.memory())
        if not memory:
            return
        self._switch(memory)
        if memory["under_pressure"]:
            self._warn(memory)
            why = "the machine is short of memory"
            if self.drop_older_than(60.0 * self.max_age_minutes, why, unless_held=True):
                self._log.add(Event("cleanup", "", why))

    def enable_low_memory(self) -> None:
        """Turn low-memory mode on because somebody asked for it: it stays on."""
        with self._store.lock:
            self._mode.asked_for = True
            self._set_low_memory(True)

    def _switch(self, memory: dict[str, Any]) -> None:
        """Enter low-memory mode where little is available, and leave it where that is over."""
        available, low = memory["available_mb"], self._low(memory)
        if available < min(LOW_MEMORY_MB, low) and self._set_low_memory(True):
            logger.warning("Low memory detected (%.1f MB). Enabling low memory mode.", available)
        elif available >= LOW_MEMORY_OVER * low and self._set_low_memory(False):
            logger.info("Low memory is over (%.1f MB). Leaving low memory mode.", available)

    def _low(self, memory: dict[str, Any]) -> float:
        """Return the MB of available RAM below which low-memory mode is right."""
        container = self._system.container_memory()
        if container is None or container.total > memory["total_mb"] * _system.MB:
            return LOW_MEMORY_MB
        # A small container is no machine under stress: its own limit is the measure.
        return min(LOW_MEMORY_MB, LOW_MEMORY_CONTAINER_SHARE * float(memory["total_mb"]))

    def _set_low_memory(self, on: bool) -> bool:
        """Switch the mode, unless somebody wants it on; return whether it has changed.

        Decided under the store's lock: a wish may come at the moment of leaving.
        """
        with self._store.lock:
            if on is self._mode.low_memory or (self._mode.asked_for and not on):
                return False
            self._mode.low_memory = on
            self._log.keep(LOW_MEMORY_MAX_EVENTS if on else MAX_EVENTS)
        self._log.add(Event("low_memory", "", "on" if on else "off"))
        return True

    def drop_older_than(self, seconds: float, why: str, *, unless_held: bool = False) -> list[Any]:
        """Evict what nobody asked for in the last ``seconds``, nor in its own time to live."""
        now = self._store.clock()

        def doomed(entry: Entry) -> bool:
            idle = now - entry.last_used
            if idle < seconds or (entry.keep_alive is not None and idle < entry.keep_alive):
                return False
            return not (unless_held and entry.seems_held())

        return self._evictor.evict(doomed, why)

    def _warn(self, memory: dict[str, Any]) -> None:
        every = LOW_MEMORY_WARN_EVERY_SECONDS if self._mode.low_memory else WARN_EVERY_SECONDS
        now = self._store.clock()
        if now - self._warned_at < every:
            return
        self._warned_at = now
        told = f"{memory['available_mb']:.0f} MB available, {memory['percent_used']} % used"
        logger.warning("The machine is under memory pressure: %s.", told)
        self._log.add(Event("pressure", "", told))


class Monitor:
    """A daemon thread that calls ``look`` at an interval, as long as the pool lives."""

    def __init__(self, maintenance: Maintenance, interval: float) -> None:
        self._stopped = threading.Event()
        # The thread must not keep the pool, and with it every model, alive; nor outlive it.
        self._maintenance = weakref.ref(maintenance)
        weakref.finalize(maintenance, self._stopped.set).atexit = False
        self._thread = threading.Thread(
            target=self._run, args=(interval,), name="rp-pool-monitor", daemon=True
        )
        self._thread.start()

    def _run(self, interval: float) -> None:
        while not self._stopped.wait(interval):
            maintenance = self._maintenance()
            if maintenance is None:
                return
            try:
                maintenance.look()
            except Exception:
                logger.exception("The pool's monitor failed; it goes on.")
            del maintenance

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._thread.join()


def interval_from_environment() -> float | None:
    """Return the seconds between two looks of a monitor; None where none is to be started."""
    text = os.environ.get("RESOURCE_POOL_MONITOR", "").strip()
    try:
        seconds = float(text) if text else 0.0
    except ValueError:
        logger.warning("RESOURCE_POOL_MONITOR is %r, which is no number of seconds.", text)
        return None
    if seconds <= 0:
        return None
    if not seconds <= threading.TIMEOUT_MAX:
        logger.warning("RESOURCE_POOL_MONITOR is %r, which no timer can wait for.", text)
        return None
    return seconds
