"""What CUDA (or ROCm, which torch drives under its name) says of its GPUs, for the statistics."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from resource_pool import _system

logger = logging.getLogger("resource_pool")

MB = 1024 * 1024


def cuda_statistics(
    report: Mapping[str, Any] | None, report_age_seconds: float = 0.0
) -> dict[str, Any]:
    """Return the ``cuda_memory`` group of the statistics.

    A process that has not used CUDA is not made to: then the facts are those of the last
    detection ``report``, and their age says so.
    """
    torch = torch_with_cuda()
    count = 0 if torch is None else torch.cuda.device_count()
    devices = _cuda_devices(torch, count) or _detected(report, report_age_seconds)
    version = getattr(sys.modules.get("torch"), "version", None)
    return {
        "device_count": len(devices),
        "devices": devices,
        "cuda_version": getattr(version, "cuda", None),
        "rocm_version": getattr(version, "hip", None),
    }


def _detected(report: Mapping[str, Any] | None, age: float) -> list[dict[str, Any]]:
    details = (report or {}).get("details", {})
    seen = [
        *details.get("cuda", {}).get("devices", ()),
        *details.get("rocm", {}).get("devices", ()),
    ]
    return [_detected_device(d, age) for d in seen if d.get("dtypes") and d.get("memory_total_mb")]


def _detected_device(device: Mapping[str, Any], age: float) -> dict[str, Any]:
    total, free = device["memory_total_mb"], device.get("memory_free_mb") or 0.0
    percent = 100.0 * (total - free) / total
    measured = device.get("memory_free_age_seconds")
    return {
        "id": device["index"],
        "name": device["name"],
        "total_mb": total,
        "allocated_mb": 0.0,  # by this process, which has not used CUDA
        "reserved_mb": 0.0,
        "free_mb": free,
        "percent_used": percent,
        "under_pressure": percent >= _system.PRESSURE_PERCENT,
        "utilization": device.get("utilization"),
        "tensor_cores": device.get("tensor_cores"),
        "age_seconds": None if measured is None else measured + age,
    }


def _cuda_devices(torch: Any, count: int) -> list[dict[str, Any]]:
    try:
        return [_cuda_device(torch, index) for index in range(count)]
    except RuntimeError as error:  # a GPU that has fallen off the bus
        logger.warning("CUDA's memory cannot be asked for: %s", error)
        return []


def _cuda_device(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    percent = 100.0 * (total - free) / total
    tensor_cores = torch.cuda.get_device_capability(index) >= (7, 0)
    return {
        "id": index,
        "name": torch.cuda.get_device_name(index),
        "total_mb": total / MB,
        "allocated_mb": torch.cuda.memory_allocated(index) / MB,
        "reserved_mb": torch.cuda.memory_reserved(index) / MB,
        "free_mb": free / MB,
        "percent_used": percent,
        "under_pressure": percent >= _system.PRESSURE_PERCENT,
        "utilization": None,  # needs NVML; unknown is said as unknown
        "tensor_cores": tensor_cores if torch.version.hip is None else None,
        "age_seconds": 0.0,
    }


def torch_with_cuda() -> Any:
    """Return torch where this process uses CUDA already, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    used = cuda is not None and cuda.is_available() and cuda.is_initialized()
    return torch if used else None
