"""What this machine can compute on. Every claim is proved by a small computation.

``detect_available_hardware`` returns a report of plain JSON values:

==================  ============================================================================
key                 value
==================  ============================================================================
``hardware``        backend -> bool: a computation ran there and its result was checked
``details``         backend -> ``status`` (available, absent, unusable or error), ``reason``,
                    ``device_count`` (devices that compute), ``devices`` (all that were seen:
                    index, name, memory_total_mb, memory_free_mb, memory_free_age_seconds,
                    dtypes, …), ``sources`` (fact -> where from), and facts of the backend
``errors``          backend -> reason, for those that are here but unusable or failed
``best_available``  the best backend that is available
``torch_device``    its device in PyTorch: "cuda:0", "mps" or "cpu"
``system``          platform, python, cpu_count, memory_total_mb, memory_available_mb, …
``from_cache``      whether the records are from an earlier detection, and then
``age_seconds``     how old they are; free memory is as of now wherever it can be asked
==================  ============================================================================

Sizes are in MiB. Importing this package costs next to nothing and never imports PyTorch; neither
does calling it: the proofs run in processes of their own.
"""

from __future__ import annotations

from hardware_detection.detector import HardwareDetector
from hardware_detection.errors import HardwareCacheError, UnknownHardwareError
from hardware_detection.names import (
    CPU,
    CUDA,
    HARDWARE_NAMES,
    MPS,
    OPENVINO,
    QUALCOMM,
    ROCM,
    TPU,
    WEBGPU,
    WEBNN,
    backend_of,
    torch_device_name,
)

# Importing `typing` would cost more than the rest of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

__all__ = [
    "CPU",
    "CUDA",
    "HARDWARE_NAMES",
    "MPS",
    "OPENVINO",
    "QUALCOMM",
    "ROCM",
    "TPU",
    "WEBGPU",
    "WEBNN",
    "HardwareCacheError",
    "HardwareDetector",
    "UnknownHardwareError",
    "backend_of",
    "default_cache_path",
    "detect_available_hardware",
    "detect_hardware_with_comprehensive_checks",
    "torch_device_name",
]


def detect_available_hardware(
    cache_file: str | Path | None = None, *, refresh: bool = False
) -> dict[str, Any]:
    """Return what this machine can compute on; from the cache if that still holds.

    Cheap when called again: the process remembers the detection until the cache file or a
    relevant environment variable changes. Free memory is asked for each time.

    Args:
        cache_file: where to remember the detection between processes; created if it is missing.
            None for the default place, ``default_cache_path()``.
        refresh: detect anew, whatever is remembered.

    Raises:
        HardwareCacheError: ``cache_file`` was given and is malformed or cannot be read or
            written. A default cache in that state is replaced.
    """
    from hardware_detection.service import available_hardware

    return available_hardware(cache_file, refresh=refresh)


def detect_hardware_with_comprehensive_checks() -> dict[str, Any]:
    """Return a report whose every claim was proved just now; no cache is read or written."""
    from hardware_detection.service import hardware_now

    return hardware_now()


def default_cache_path() -> Path:
    """Return where detections are remembered unless a caller names another file."""
    from hardware_detection import cache

    return cache.default_cache_path()
