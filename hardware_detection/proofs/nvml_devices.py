"""What NVIDIA's management library says of the GPUs; it computes nothing, so it proves nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

from hardware_detection.nvml import session, text
from hardware_detection.proofs import optional

_MIB = 1 << 20


def prove() -> dict[str, Any]:
    """Return every GPU of the machine, hidden ones included, and the driver's version."""
    with session() as nvml:
        rows = [_describe(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        newest = optional(lambda: nvml.nvmlSystemGetCudaDriverVersion())
        facts = {
            "driver": text(nvml.nvmlSystemGetDriverVersion()),
            # The newest CUDA that the driver supports; 12080 is 12.8.
            "cuda_of_driver": newest and f"{newest // 1000}.{newest % 1000 // 10}",
        }
    return {"devices": rows, "facts": facts}


def _describe(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    # A GPU that shares the system's memory has none of its own, and NVML refuses to answer.
    memory = optional(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    capability = optional(lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    facts = {
        "uuid": text(nvml.nvmlDeviceGetUUID(handle)),
        "pci_bus_id": optional(lambda: text(nvml.nvmlDeviceGetPciInfo(handle).busId)),
        "compute_capability": capability and f"{capability[0]}.{capability[1]}",
        "mig": optional(lambda: _mig(nvml, handle)),
    }
    return {
        "index": index,
        "name": text(nvml.nvmlDeviceGetName(handle)),
        "memory_total_mb": memory and memory.total / _MIB,
        "memory_free_mb": memory and memory.free / _MIB,
        "results": {},
        "facts": {key: value for key, value in facts.items() if value is not None},
    }


def _mig(nvml: Any, handle: Any) -> dict[str, Any]:
    """Return whether the GPU is cut into instances, and the instances."""
    current, _pending = nvml.nvmlDeviceGetMigMode(handle)
    enabled = current == nvml.NVML_DEVICE_MIG_ENABLE
    places = range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) if enabled else ()
    found = [optional(partial(_instance, nvml, handle, place)) for place in places]
    return {"enabled": enabled, "instances": [row for row in found if row is not None]}


def _instance(nvml: Any, handle: Any, place: int) -> dict[str, Any]:
    # Raises for a place without an instance.
    instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
    return {
        "uuid": text(nvml.nvmlDeviceGetUUID(instance)),
        "name": text(nvml.nvmlDeviceGetName(instance)),
        "memory_total_mb": round(nvml.nvmlDeviceGetMemoryInfo(instance).total / _MIB, 1),
    }
