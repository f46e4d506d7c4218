"""What changes from second to second: memory and utilisation of the CPU and of NVIDIA GPUs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hardware_detection.machine import Machine
from hardware_detection.names import CUDA


@dataclass(frozen=True)
class Load:
    """How busy one device is now.

    Attributes:
        device: "cpu", "cuda:0", …
        name: as the vendor names it.
        utilisation_percent: since the sample before (CPU), or as the driver says (GPU); None
            where nothing tells.
        memory_total_mb: MiB.
        memory_free_mb: MiB.
    """

    device: str
    name: str
    utilisation_percent: float | None
    memory_total_mb: float
    memory_free_mb: float


@dataclass(frozen=True)
class Sample:
    """The loads of all devices that tell theirs, and when (UTC, ISO 8601)."""

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

    Only the CPU and the CUDA devices of the report that are available are asked.
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
    rows = [row for row in report["details"][CUDA]["devices"] if row["dtypes"] and "uuid" in row]
    told = machine.gpu_loads([row["uuid"] for row in rows])
    gpus = tuple(
        Load(f"cuda:{row['index']}", row["name"], *told[row["uuid"]])
        for row in rows
        if row["uuid"] in told
    )
    return Sample(datetime.now(timezone.utc).isoformat(timespec="seconds"), (cpu, *gpus))
