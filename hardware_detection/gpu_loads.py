"""How busy GPUs are now and what memory they have free, for those that tell an ordinary process.

NVIDIA's tell through NVML, AMD's through files of the kernel's driver. Intel's and Apple's tell
nobody who does not run a computation on them (or is root).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hardware_detection.machine import Machine
from hardware_detection.names import CUDA, ROCM
from hardware_detection.parsing import whole_number

_AMDGPU = ("gpu_busy_percent", "mem_info_vram_total", "mem_info_vram_used")
_MIB = 1 << 20


class GpuLoad(NamedTuple):
    """Utilisation in percent, None where nothing tells; total and free memory in MiB."""

    utilisation_percent: float | None
    memory_total_mb: float
    memory_free_mb: float


def loads_now(
    machine: Machine, backend: str, rows: Iterable[Mapping[str, Any]]
) -> dict[int, GpuLoad]:
    """Return index -> load of the backend's devices that tell; empty for other backends.

    Args:
        machine: where to ask.
        backend: its name.
        rows: its devices: index, and as far as they are known uuid (NVIDIA) and pci_bus_id (AMD).
    """
    if backend == CUDA:
        uuids = {row["index"]: str(row["uuid"]) for row in rows if "uuid" in row}
        told = machine.gpu_loads(list(uuids.values()))
        return {index: GpuLoad(*told[uuid]) for index, uuid in uuids.items() if uuid in told}
    if backend == ROCM:
        found = {row["index"]: _amdgpu(machine, str(row.get("pci_bus_id"))) for row in rows}
        return {index: load for index, load in found.items() if load is not None}
    return {}


def _amdgpu(machine: Machine, address: str) -> GpuLoad | None:
    """Read what the kernel's document "AMDGPU driver: misc" lists; None where it is not there."""
    # The address may have come from a cache, which anybody may have written.
    if not re.fullmatch(r"[\da-f]{4,8}(:[\da-f]{2}){2}\.\d", address, re.ASCII):
        return None
    folder = f"/sys/bus/pci/devices/{address}"
    busy, total, used = (whole_number(machine.read_text(f"{folder}/{name}")) for name in _AMDGPU)
    if total is None or used is None:
        return None
    free = max(0, total - used)
    percent = None if busy is None else float(busy)
    return GpuLoad(percent, round(total / _MIB, 1), round(free / _MIB, 1))
