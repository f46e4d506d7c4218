"""What changes from second to second: memory and utilisation, as far as a device tells.

What tells nothing (see ``gpu_loads``) stands there with what is known of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hardware_detection.gpu_loads import loads_now
from hardware_detection.machine import Machine
from hardware_detection.names import GPUS, MPS


@dataclass(frozen=True)
class Load:
    """How busy one device is now; None where nothing tells.

    Attributes:
        device: "cpu", "cuda:0", …
        name: as the vendor names it.
        utilisation_percent: since the sample before (CPU), or as the driver says (GPU).
        memory_total_mb: MiB.
        memory_free_mb: MiB.
    """

    device: str
    name: str
    utilisation_percent: float | None
    memory_total_mb: float | None
    memory_free_mb: float | None


@dataclass(frozen=True)
class Sample:
    """The loads of all devices, and when (UTC, ISO 8601)."""

    at: str
    loads: tuple[Load, ...]


def samples(
    report: Mapping[str, Any],
    *,
    wait: Callable[[], object],
    count: int | None = None,
    machine: Machine | None = None,
) -> Iterator[Sample]:
    """Yield a sample after each ``wait()``; without end, or ``count`` of them.

    They are of the CPU and of the GPUs of the report on which something was computed.
    """
    here = machine or Machine()
    here.cpu_percent()  # the first answer is about the time since the start of the system
    for _ in itertools.count() if count is None else range(count):
        wait()
        yield _sample(report, here)


def _sample(report: Mapping[str, Any], machine: Machine) -> Sample:
    total, free = machine.memory_mb()
    name = report["details"]["cpu"]["devices"][0]["name"]
    cpu = Load("cpu", name, machine.cpu_percent(), total, free)
    gpus = (load for backend in (*GPUS, MPS) for load in _gpus(report, machine, backend))
    return Sample(datetime.now(timezone.utc).isoformat(timespec="seconds"), (cpu, *gpus))


def _gpus(report: Mapping[str, Any], machine: Machine, backend: str) -> Iterator[Load]:
    rows = [row for row in report["details"][backend]["devices"] if row["dtypes"]]
    told = loads_now(machine, backend, rows)
    for row in rows:
        nothing = (None, row["memory_total_mb"], None)
        yield Load(f"{backend}:{row['index']}", row["name"], *told.get(row["index"], nothing))
