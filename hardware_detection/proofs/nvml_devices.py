"""What NVIDIA's management library says of the GPUs; it computes nothing, so it proves nothing."""

from __future__ import annotations

from typing import Any

from hardware_detection.nvml import session

_MIB = 1 << 20


def prove() -> dict[str, Any]:
    """Return every GPU of the machine, hidden ones included, and the driver's version."""
    with session() as nvml:
        rows = [_describe(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        newest = nvml.nvmlSystemGetCudaDriverVersion()
        facts = {
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            # The newest CUDA that the driver supports; 12080 is 12.8.
            "cuda_of_driver": f"{newest // 1000}.{newest % 1000 // 10}",
        }
    return {"devices": rows, "facts": facts}


def _describe(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "index": index,
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "memory_total_mb": memory.total / _MIB,
        "memory_free_mb": memory.free / _MIB,
        "results": {},
        "facts": {
            "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
            "compute_capability": f"{major}.{minor}",
        },
    }


def _text(value: object) -> str:
    # Releases of nvidia-ml-py before 12 return bytes.
    return value.decode() if isinstance(value, bytes) else str(value)
