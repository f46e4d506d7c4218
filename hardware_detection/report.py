"""The report: what a detection means, with memory as it is now. Pure, but for ``now``."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from hardware_detection.cache import SCHEMA_VERSION
from hardware_detection.gpu_loads import loads_now
from hardware_detection.machine import Machine
from hardware_detection.names import CPU, DEFAULT_PRIORITY, GPUS, MPS, torch_device_name
from hardware_detection.record import Detection, Device, ProbeResult


def report_now(detection: Detection, machine: Machine, *, from_cache: bool) -> dict[str, Any]:
    """Return the report with the system's free memory now, and the GPUs' where they tell it."""
    total, available = machine.memory_mb()
    return build_report(
        detection,
        from_cache=from_cache,
        age_seconds=(datetime.now(timezone.utc) - detection.detected_at).total_seconds(),
        memory_mb=(total, available),
        gpu_free_mb=_gpu_free_mb(detection, machine) if from_cache else {},
    )


def build_report(
    detection: Detection,
    *,
    from_cache: bool,
    age_seconds: float,
    memory_mb: tuple[float, float],
    gpu_free_mb: Mapping[tuple[str, int], float],
) -> dict[str, Any]:
    """Return the report as plain JSON values; docs of the package list its keys.

    Args:
        detection: the records.
        from_cache: whether they were recorded earlier.
        age_seconds: how long ago.
        memory_mb: the system's memory in MiB now, total and available.
        gpu_free_mb: GPUs' free memory in MiB now, by backend and index, as far as it is known.
    """
    age = max(0.0, round(age_seconds, 1))
    total, available = memory_mb
    results = {result.name: result for result in detection.results}
    hardware = {name: result.status == "available" for name, result in results.items()}
    cores = results[CPU].facts
    return {
        "schema_version": SCHEMA_VERSION,
        "detected_at": detection.detected_at.isoformat(timespec="seconds"),
        "age_seconds": age,
        "from_cache": from_cache,
        "described_by": None,
        "fingerprint": dict(detection.fingerprint),
        "hardware": hardware,
        "details": {
            name: _details(result, age, available, gpu_free_mb) for name, result in results.items()
        },
        "errors": {
            name: printable(result.reason)
            for name, result in results.items()
            if result.status in ("unusable", "error")
        },
        "best_available": best_available(hardware),
        "torch_device": _torch_device(results),
        "system": {
            "platform": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "hostname": platform.node(),
            "python": platform.python_version(),
            "cpu_count": cores.get("usable_cores") or cores.get("logical_cores"),
            "cpu_limit": cores.get("cpu_limit"),
            "memory_total_mb": total,
            "memory_available_mb": available,
            "memory_limit_mb": cores.get("memory_limit_mb"),
        },
    }


def best_available(hardware: Mapping[str, bool]) -> str:
    """Return the first backend of DEFAULT_PRIORITY that is available; the CPU if none is."""
    return next((name for name in DEFAULT_PRIORITY if hardware.get(name)), CPU)


def automatic_hardware(report: Mapping[str, Any]) -> dict[str, bool]:
    """Return what may be chosen without being asked for: backend -> bool.

    The available backends, but a browser only where it computed on a GPU: on an emulated one,
    or one that it does not tell, it is slower than the CPU that emulates it.
    """
    return {
        name: on and report["details"][name].get("adapter", "hardware") == "hardware"
        for name, on in report["hardware"].items()
    }


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: a driver or a file may have written it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _details(
    result: ProbeResult,
    age: float,
    available_mb: float,
    gpu_free_mb: Mapping[tuple[str, int], float],
) -> dict[str, Any]:
    devices = [
        _device(device, age, gpu_free_mb.get((result.name, device.index)))
        for device in result.devices
    ]
    if result.name == CPU:
        for device in devices:
            device.update(memory_free_mb=available_mb, memory_free_age_seconds=0.0)
    return {
        **result.facts,
        "status": result.status,
        "reason": printable(result.reason),
        # Only what can be computed on counts; `devices` also has those that were merely seen.
        "device_count": sum(1 for device in result.devices if device.dtypes),
        "devices": devices,
        "sources": dict(result.sources),
    }


def _device(device: Device, age: float, fresh: float | None) -> dict[str, Any]:
    return {
        **device.facts,
        "index": device.index,
        "name": printable(device.name),
        "memory_total_mb": device.memory_total_mb,
        "memory_free_mb": device.memory_free_mb if fresh is None else fresh,
        "memory_free_age_seconds": age if fresh is None else 0.0,
        "dtypes": list(device.dtypes),
        "problem": printable(device.problem),
    }


def _torch_device(results: Mapping[str, ProbeResult]) -> str:
    for name in GPUS:
        for device in results[name].devices:
            if device.dtypes:
                return torch_device_name(f"{name}:{device.index}")
    return "mps" if results[MPS].status == "available" else "cpu"


def _gpu_free_mb(detection: Detection, machine: Machine) -> dict[tuple[str, int], float]:
    # Only of what has computed: a driver that has not is not asked in this process.
    return {
        (result.name, index): load.memory_free_mb
        for result in detection.results
        if result.status == "available"
        for index, load in loads_now(machine, result.name, _rows(result)).items()
    }


def _rows(result: ProbeResult) -> list[dict[str, Any]]:
    return [{**device.facts, "index": device.index} for device in result.devices]
