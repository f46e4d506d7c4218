"""What a load tries next when memory runs out, from the least harm to the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from resource_pool._evicting import Evictor
from resource_pool._eviction import choose
from resource_pool._hardware import CPU
from resource_pool._identity import Identity
from resource_pool._observer import Observer
from resource_pool._planner import on_cpu
from resource_pool._plans import Decision, Request, memory_place
from resource_pool._precisions import proved_dtypes
from resource_pool._preferences import DeviceName
from resource_pool._store import Store


class Ladder:
    """The means of a load that has failed for want of memory."""

    def __init__(
        self,
        store: Store,
        observer: Observer,
        evictor: Evictor,
        hardware: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._store, self._observer, self._evictor = store, observer, evictor
        self._hardware = hardware

    def means(
        self, identity: Identity, request: Request, first: Decision
    ) -> Iterator[tuple[str, Decision]]:
        """Yield what to try next, each at most once: (what was done, the decision to load by).

        Least harm first: the idle models that are enough, all idle models, a smaller dtype,
        another GPU, the CPU.
        """
        yield from self._by_evicting(first)
        smaller = self._smaller_dtype(request, first)
        if smaller is not None:
            yield f"loading it in {smaller}", replace(first, dtype=smaller)
        if request.preferences.force_device:
            return
        snapshot = self._observer.snapshot(identity)
        passed_over = {CPU, *first.devices, *snapshot.failed}
        for name in sorted(snapshot.free, key=lambda n: -snapshot.free[n]):
            if name not in passed_over and name.startswith(first.device.split(":")[0]):
                yield f"trying {name}", replace(first, device=name, evict=(), spread=None)
        if first.device != CPU:
            yield "trying the CPU", on_cpu(request, snapshot)

    def _by_evicting(self, decision: Decision) -> Iterator[tuple[str, Decision]]:
        self._observer.collect()  # what garbage keeps on a device is in the way as well
        for name in map(memory_place, decision.devices):
            with self._store.lock:
                there = self._observer.candidates(name)
            idle = [candidate for candidate in there if candidate.size and not candidate.is_held()]
            enough = choose(idle, decision.needed or 1)
            for some, told in ((enough, "what frees enough"), (idle, "everything idle")):
                keys = {key for candidate in some or () for key in candidate.keys}
                why = "memory ran out"
                if keys and self._evictor.evict_idle(keys, why):
                    yield f"evicted {told} on {name}", decision

    def _smaller_dtype(self, request: Request, decision: Decision) -> str | None:
        """Return the half type that the device proved, unless the caller chose a precision."""
        if request.preferences.precision or decision.backend == CPU:
            return None
        report = self._hardware()
        proved = [
            proved_dtypes(DeviceName(decision.backend, _index(name)), report) or set()
            for name in decision.devices
        ]
        half = set.intersection(*proved)
        return next((name for name in ("bfloat16", "float16") if name in half), None)


def _index(device: str) -> int | None:
    number = device.partition(":")[2]
    return int(number) if number.isdigit() else None
