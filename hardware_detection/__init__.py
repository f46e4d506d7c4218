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
``system``          the machine, and what to plan with; see below
``from_cache``      whether the records are from an earlier detection, and then
``age_seconds``     how old they are; free memory is as of now wherever it can be asked
``described_by``    the file that describes this machine, where it was not detected (see
                    ``use_described_hardware``); otherwise None
==================  ============================================================================

``system`` has platform, architecture, hostname, python, and what this process may use:

=======================  =======================================================================
``cpu_count``            cores: those of its affinity, at most a container's limit, rounded up;
                         None where nothing tells
``cpu_limit``            that limit in cores' worth of time (1.5), or None
``memory_total_mb``      the system's memory, or a container's limit where that is smaller
``memory_available_mb``  what of it is free now, below that limit and in the system
``memory_limit_mb``      that limit, or None; a limit above the system's memory limits nothing
=======================  =======================================================================

Sizes are in MiB. Importing this package costs next to nothing and never imports PyTorch; neither
does calling it: the proofs run in processes of their own.
"""

from __future__ import annotations

from hardware_detection.detector import HardwareDetector
from hardware_detection.errors import (
    HardwareCacheError,
    HardwareDescriptionError,
    RequirementError,
    SettingError,
    UnknownHardwareError,
)
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
    XPU,
    backend_of,
    torch_device_name,
)

# Importing `typing` would cost more than the rest of this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
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
    "XPU",
    "HardwareCacheError",
    "HardwareDescriptionError",
    "HardwareDetector",
    "RequirementError",
    "SettingError",
    "UnknownHardwareError",
    "automatic_hardware",
    "backend_of",
    "default_cache_path",
    "detect_available_hardware",
    "detect_hardware_with_comprehensive_checks",
    "torch_device_name",
    "use_described_hardware",
]


def detect_available_hardware(
    cache_file: str | Path | None = None,
    *,
    refresh: bool = False,
    web: bool = False,
    store: bool = True,
) -> dict[str, Any]:
    """Return what this machine can compute on; from the cache if that still holds.

    Cheap when called again: the process remembers the detection until the cache file or a
    relevant environment variable changes. Free memory is asked for each time.

    Args:
        cache_file: where to remember the detection between processes; created if it is missing.
            None for the default place, ``default_cache_path()``.
        refresh: detect anew, whatever is remembered.
        web: start the installed browsers and compute in them, for WebGPU and WebNN; takes
            seconds. What was found out is remembered like the rest.
        store: write the cache file; False: read it where it is, and write nothing.

    Raises:
        HardwareCacheError: ``cache_file`` was given and is malformed or cannot be read or
            written. A default cache in that state is replaced.
    """
    from hardware_detection.service import available_hardware

    return available_hardware(cache_file, refresh=refresh, web=web, store=store)


def detect_hardware_with_comprehensive_checks(*, web: bool = False) -> dict[str, Any]:
    """Return a report whose every claim was proved just now; no cache is read or written.

    ``web`` as for ``detect_available_hardware``.
    """
    from hardware_detection.service import hardware_now

    return hardware_now(web=web)


def automatic_hardware(report: Mapping[str, Any]) -> dict[str, bool]:
    """Return what of a report's hardware may be chosen without being asked for.

    The available backends, but a browser only where it computed on a GPU and not on the CPU as
    one.
    """
    from hardware_detection import report as reports

    return reports.automatic_hardware(report)


def use_described_hardware(path: str | Path) -> AbstractContextManager[dict[str, Any]]:
    """Make every detection in this process return the machine that a file describes.

    To plan for a machine that is not here: ``with use_described_hardware("cluster.json"):``.
    ``rp detect --export FILE`` writes such a file, and ``hardware_detection.described`` tells
    how to write one by hand. Yields the report, whose ``described_by`` is the file.

    Raises:
        HardwareDescriptionError: on entry; the file cannot be read, or describes no machine.
    """
    from hardware_detection import described

    return described.use_described_hardware(path)


def default_cache_path() -> Path:
    """Return where detections are remembered unless a caller names another file."""
    from hardware_detection import cache

    return cache.default_cache_path()
