"""What changes from second to second: memory and utilisation, as far as a device tells.

NVIDIA's tell through NVML, AMD's through files of the kernel's driver. Intel's and Apple's tell
nobody who does not run a computation on them (or is root), and stand there with what is known.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from hardware_detection.machine import Machine
from hardware_detection.names import CUDA, MPS, ROCM, XPU
from hardware_detection.parsing import whole_number

_AMDGPU = ("gpu_busy_percent", "mem_info_vram_total", "mem_info_vram_used")
_MIB = 1 << 20

# Utilisation in percent, total and free memory in MiB; None: nothing tells.
_Told = tuple[float | None, float | None, float | None]


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
    gpus = (load for backend in (CUDA, ROCM, XPU, MPS) for load in _gpus(report, machine, backend))
    return Sample(datetime.now(timezone.utc).isoformat(timespec="seconds"), (cpu, *gpus))


def _gpus(report: Mapping[str, Any], machine: Machine, backend: str) -> Iterator[Load]:
    rows = [row for row in report["details"][backend]["devices"] if row["dtypes"]]
    told = _ASK[backend](machine, rows) if backend in _ASK else {}
    for row in rows:
        nothing: _Told = (None, row["memory_total_mb"], None)
        yield Load(f"{backend}:{row['index']}", row["name"], *told.get(row["index"], nothing))


def _ask_nvml(machine: Machine, rows: Sequence[Mapping[str, Any]]) -> dict[int, _Told]:
    told = machine.gpu_loads([row["uuid"] for row in rows if "uuid" in row])
    return {row["index"]: told[row["uuid"]] for row in rows if row.get("uuid") in told}


def _ask_amdgpu(machine: Machine, rows: Sequence[Mapping[str, Any]]) -> dict[int, _Told]:
    loads = {row["index"]: _amdgpu_load(machine, str(row.get("pci_bus_id"))) for row in rows}
    return {index: load for index, load in loads.items() if load is not None}


def _amdgpu_load(machine: Machine, address: str) -> _Told | None:
    """Read what the kernel's document "AMDGPU driver: misc" lists; None where it is not there."""
    # The address may have come from a cache, which anybody may have written.
    if not re.fullmatch(r"[\da-f]{4,8}(:[\da-f]{2}){2}\.\d", address, re.ASCII):
        return None
    folder = f"/sys/bus/pci/devices/{address}"
    busy, total, used = (whole_number(machine.read_text(f"{folder}/{name}")) for name in _AMDGPU)
    if total is None or used is None:
        return None
    return (
        None if busy is None else float(busy),
        round(total / _MIB, 1),
        round((total - used) / _MIB, 1),
    )


_ASK: dict[str, Callable[[Machine, Sequence[Mapping[str, Any]]], dict[int, _Told]]] = {
    CUDA: _ask_nvml,
    ROCM: _ask_amdgpu,
}
