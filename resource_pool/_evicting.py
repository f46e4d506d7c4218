"""Carries evictions out, and looks whether the memory really came back."""

from __future__ import annotations

import functools
import gc
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from resource_pool._entries import Entry, Removed, seem_held
from resource_pool._events import Event, EventLog
from resource_pool._eviction import Candidate, score
from resource_pool._mode import Mode
from resource_pool._plans import readable
from resource_pool._sharing import sharing
from resource_pool._store import Store
from resource_pool.devices import Devices, memory_of, released

logger = logging.getLogger("resource_pool")

# A driver may give memory back a moment after it was released.
VERIFY_SECONDS = 2.0
_FIRST_WAIT, _LONGEST_WAIT = 0.005, 0.2


class Evictor:
    """Takes entries out of the store and verifies that their memory is free."""

    def __init__(
        self,
        store: Store,
        devices: Devices,
        log: EventLog,
        mode: Mode,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._devices, self._log = store, devices, log
        self._mode, self._sleep = mode, sleep

    def evict(
        self, doomed: Callable[[Entry], bool], why: str, *, even_used: bool = False
    ) -> list[Removed]:
        """Evict what ``doomed`` picks among the entries that nobody leases or pins.

        Returns when the memory is free, when something outside plainly keeps it, or at the
        deadline; what is not free stays charged until it is.

        Args:
            even_used: evict what somebody gets while this looks, too.
        """
        seen = [(entry, entry.used) for entry in self._store.entries() if entry.movable]
        chosen = {entry: used for entry, used in seen if doomed(entry)}
        if not chosen:
            return []
        for entry in chosen:
            str(entry.facts.get("weights"))  # of a model that is gone, nobody could prove it
        with self._store.lock:
            self._raise_inflation(chosen)
        devices = sorted({device for entry in chosen for device in entry.charged})
        before = self._free(devices)
        told_before = self._told_free(devices)
        # ``doomed`` may be a long walk, and is not asked again under the lock.
        removed = self._store.remove(
            lambda entry: entry in chosen and (even_used or chosen[entry] == entry.used)
        )
        if not removed:
            return []
        if any(item.alive() for item in removed):
            gc.collect()  # a model may be kept by a cycle of its own
        released(self._devices, self._to_release(devices))
        gone = [item for item in removed if item.alive() is not True]
        self._wait_for(devices, before, gone)
        self._store.settle()
        free = {"free_before": told_before, "free_after": self._told_free(devices)}
        for item in removed:
            self._tell(item, why, free)
        return removed

    def evict_idle(self, keys: Collection[str], why: str) -> list[Removed]:
        """Evict what a plan found idle under these keys; what somebody has got since stays."""

        @functools.cache
        def idle() -> set[Entry]:
            groups = sharing([entry for entry in self._store.entries() if entry.key in keys])
            return {entry for group in groups if not seem_held(group) for entry in group}

        return self.evict(lambda entry: entry in idle(), why)

    def _raise_inflation(self, chosen: Iterable[Entry]) -> None:
        scores = [
            score(Candidate(e.key, _size(e.facts), e.hits, e.load_seconds, e.floor))
            for e in chosen
            if e.kind == "model"
        ]
        self._store.inflation = max([self._store.inflation, *scores])

    def _to_release(self, devices: list[str]) -> list[str]:
        """Return whose caches to empty: in low-memory mode those of every device in use."""
        if not self._mode.low_memory:
            return devices
        with self._store.lock:
            return sorted({*devices, *self._store.ledger.devices(), "cpu"})

    def _free(self, devices: Sequence[str]) -> dict[str, int]:
        """Return the free bytes of each device but RAM, of which others take and give as well."""
        known = {name: memory_of(self._devices, name) for name in devices if name != "cpu"}
        return {name: memory.free for name, memory in known.items() if memory is not None}

    def _wait_for(
        self, devices: Sequence[str], before: dict[str, int], gone: Sequence[Removed]
    ) -> None:
        expected = {name: sum(item.sizes.get(name, 0) for item in gone) for name in before}
        deadline = self._store.clock() + VERIFY_SECONDS
        wait = _FIRST_WAIT
        while True:
            now = self._free(devices)
            # Signed: somebody else may have taken memory meanwhile.
            missing = [n for n in before if now.get(n, 0) - before[n] < 0.9 * expected[n]]
            if not missing:
                return
            if self._store.clock() >= deadline:
                logger.warning(
                    "memory did not come back within %g s on %s", VERIFY_SECONDS, missing
                )
                self._log.add(
                    Event("not_freed", ",".join(missing), "", {"before": before, "after": now})
                )
                return
            self._sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            released(self._devices, devices)

    def _told_free(self, devices: Sequence[str]) -> dict[str, int | None]:
        known = {name: memory_of(self._devices, name) for name in devices}
        return {name: None if memory is None else memory.free for name, memory in known.items()}

    def _tell(self, item: Removed, why: str, free: dict[str, Any]) -> None:
        held = item.alive() is True
        told = f"{why}; its memory is kept by somebody who holds it" if held else why
        numbers = {"memory_usage": _size(item.facts), "held": held, **free}
        self._log.add(Event("evict", item.key, told, numbers))
        if item.facts:
            logger.info("evicted %s (%s): %s", item.key, readable(_size(item.facts)), told)


def _size(facts: dict[str, Any]) -> int:
    return int(facts.get("memory_usage", 0))
