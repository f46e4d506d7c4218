"""What a plan is made on: the machine's memory now, and what the pool has there."""

from __future__ import annotations

import functools
import gc
import importlib.util
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from resource_pool._entries import Entry, seem_held
from resource_pool._eviction import Candidate
from resource_pool._hardware import CPU
from resource_pool._identity import Identity
from resource_pool._mode import Mode
from resource_pool._plans import Snapshot, readable, torch_devices
from resource_pool._sharing import sharing
from resource_pool._store import Store
from resource_pool.devices import Devices, Memory

# How long a device is passed over for a model that failed there for another reason than memory.
FAILURE_SECONDS = 60.0
# How often garbage is collected for the sake of evicted models that may be part of it.
COLLECT_EVERY_SECONDS = 1.0
_UNBOUNDED_COLLECTIONS = 20
# In low-memory mode, models stay in RAM while a GPU is fuller than this.
LOW_MEMORY_GPU_SHARE = 0.8


class Observer:
    """Takes snapshots, and remembers where models failed. The store's lock guards ``_failed``."""

    def __init__(
        self,
        store: Store,
        devices: Devices,
        hardware: Callable[[], Mapping[str, Any]],
        mode: Mode,
    ) -> None:
        self._store, self._devices, self._hardware = store, devices, hardware
        self._mode = mode
        self._failed: dict[tuple[Identity, str], tuple[float, str]] = {}
        self._collected_at = float("-inf")
        self._rest_until, self._collections = float("-inf"), 0

    def snapshot(self, identity: Identity) -> Snapshot:
        """Look at the machine first, then, under the lock, at the pool.

        What was reserved before the machine was asked may not have been allocated then, even if
        its load has ended since.
        """
        report = self._hardware()
        names = torch_devices(report)
        before = self._reserved(names)
        memory, failed = self._memory(names)
        self._settle()
        with self._store.lock:
            ledger, now = self._store.ledger, self._store.clock()
            reserved = self._reserved(names)
            free = {
                name: _free(m, ledger.total(name), max(before[name], reserved[name]))
                for name, m in memory.items()
                if m is not None
            }
            idle = {name: tuple(self.candidates(name)) for name in memory}
            held = {name: _held(ledger.holders(name)) for name in memory}
            failed |= {
                device: reason
                for (who, device), (until, reason) in self._failed.items()
                if who == identity and until > now
            }
        return Snapshot(
            report,
            free,
            idle,
            held,
            failed,
            can_spread=_has("accelerate"),
            can_simulate=_has("onnx") and _has("onnxruntime"),
            crowded=_kept_in_ram(memory) if self._mode.low_memory else {},
        )

    def _memory(
        self, known: Mapping[str, Memory | None]
    ) -> tuple[dict[str, Memory | None], dict[str, str]]:
        """Return each device's memory, by its own word or the report's, and those that fail."""
        memory, failed = dict(known), {}
        for name in known:
            try:
                memory[name] = self._devices.memory(name) or known[name]
            except RuntimeError as error:
                failed[name] = f"its memory cannot be asked for ({error})"
        return memory, failed

    def _reserved(self, names: Iterable[str]) -> dict[str, int]:
        with self._store.lock:
            return {name: self._store.ledger.total(name, "reserved") for name in names}

    def _settle(self) -> None:
        """Strike out what has gone; what is leaving may only wait for the garbage collector."""
        with self._store.lock:
            self._store.settle()
            now = self._store.clock()
            due = now - self._collected_at >= COLLECT_EVERY_SECONDS
            collect = due and self._store.ledger.has("leaving")
        if collect:
            self.collect()

    def collect(self) -> None:
        """Collect garbage: what a cycle of its own keeps is held by nobody.

        In a process with many objects this takes long, and stops all threads: where shortages
        follow one another, all but the first few may take a fifth of the time.
        """
        with self._store.lock:
            self._collected_at = self._store.clock()
            started = time.monotonic()
            if self._collections >= _UNBOUNDED_COLLECTIONS and started < self._rest_until:
                return
            self._collections += 1
        gc.collect()
        ended = time.monotonic()
        self._rest_until = ended + 4 * (ended - started)
        self._store.settle()

    def _is_held(self, group: Sequence[Entry]) -> bool:
        """Whether somebody holds any of these; garbage is looked for now and then."""
        if not seem_held(group):
            return False
        if self._store.clock() - self._collected_at < COLLECT_EVERY_SECONDS:
            return True
        self.collect()
        return seem_held(group)

    def candidates(self, device: str) -> list[Candidate]:
        """Return the models that may go, with what each would free on a device.

        Models that share weights go together: one by itself would free little.
        """
        models = [entry for entry in self._store.entries() if entry.kind == "model"]
        return [
            _candidate(group, device, functools.partial(self._is_held, group))
            for group in sharing(models)
            if all(entry.movable for entry in group)
        ]

    def remember_failure(self, identity: Identity, device: str, error: Exception) -> None:
        """Pass a device over for a while where a model failed for good; a lack of memory passes."""
        if device == CPU or self._devices.is_out_of_memory(error):
            return
        reason = f"it failed there a short while ago ({type(error).__name__}: {error})"
        with self._store.lock:
            until = self._store.clock() + FAILURE_SECONDS
            self._failed[identity, device] = (until, reason)

    def has_failed(self, identity: Identity, devices: Sequence[str]) -> bool:
        """Whether the model is known to have failed on one of these devices."""
        with self._store.lock:
            known = (self._failed.get((identity, device)) for device in devices)
            return any(
                failure is not None and failure[0] > self._store.clock() for failure in known
            )

    def forget_failures(self) -> None:
        """Drop the failures that are over."""
        with self._store.lock:
            now = self._store.clock()
            self._failed = {k: f for k, f in self._failed.items() if f[0] > now}


def _candidate(group: Sequence[Entry], device: str, is_held: Callable[[], bool]) -> Candidate:
    first, *others = group
    return Candidate(
        first.key,
        sum(entry.charged.get(device, 0) for entry in group),
        sum(entry.hits for entry in group),
        sum(entry.load_seconds for entry in group),
        max(entry.floor for entry in group),
        is_held,
        tuple(entry.key for entry in others),
    )


@functools.cache
def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _free(memory: Memory, charged: int, reserved: int) -> int:
    """Return what a new model may take: by the driver's word and by the ledger's, the smaller.

    What is reserved may not be allocated yet, and then the driver still counts it as free.
    """
    return max(0, min(memory.free - reserved, memory.total - charged))


def _kept_in_ram(memory: Mapping[str, Memory | None]) -> dict[str, str]:
    share = f"{LOW_MEMORY_GPU_SHARE:.0%}"
    return {
        name: f"low-memory mode keeps models in RAM while it is more than {share} full"
        for name, m in memory.items()
        if name != CPU and m is not None and m.free < (1 - LOW_MEMORY_GPU_SHARE) * m.total
    }


def _held(charges: list[Any]) -> str:
    shown = [
        f"{readable(charge.size)} held by {charge.owner}" for charge in charges[:3] if charge.size
    ]
    return ", ".join(shown)
