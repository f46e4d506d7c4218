"""The machine's memory and CPU, as far as this process may use them."""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

from resource_pool.devices import Memory

logger = logging.getLogger("resource_pool")

MB = 1024 * 1024
PRESSURE_PERCENT = 90.0

_cpu_asked_in: dict[str, int] = {}

# A control group without a limit says "max" (v2) or a number near 2**63 (v1).
_NO_LIMIT = 2**60


@functools.cache
def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        logger.warning("psutil is missing: memory pressure cannot be seen and is taken as none.")
        return None
    return psutil


def memory() -> Memory | None:
    """Return the RAM that this process may use, its container's limit included; None: unknown."""
    psutil = _psutil()
    if psutil is None:
        return None
    machine = psutil.virtual_memory()
    limit, used = container_memory()
    if limit is None or limit >= machine.total:
        return Memory(machine.total, machine.available)
    return Memory(limit, max(0, min(machine.available, limit - used)))


def container_memory(root: str | os.PathLike[str] = "/sys/fs/cgroup") -> tuple[int | None, int]:
    """Return the limit and the use of this process's container in bytes; (None, 0) without one.

    The use leaves out the page cache that the kernel can drop.
    """
    for limit, usage, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        size = _read_number(f"{root}/{limit}")
        if size is not None and size < _NO_LIMIT:
            reclaimable = _inactive_file(f"{root}/{stat}")
            return size, max(0, (_read_number(f"{root}/{usage}") or 0) - reclaimable)
    return None, 0


def _read_number(path: str) -> int | None:
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return None


def _read(path: str) -> str:
    # os.path and open: importing pathlib would cost the import of the pool a tenth of its time.
    with open(path, encoding="ascii") as stream:  # noqa: PTH123
        return stream.read()


def _inactive_file(path: str) -> int:
    try:
        lines = _read(path).splitlines()
    except OSError:
        return 0
    words = (line.split() for line in lines)
    found = (int(w[1]) for w in words if len(w) == 2 and w[0].endswith("inactive_file"))
    return max(found, default=0)


def system_memory() -> dict[str, Any]:
    """Return the ``system_memory`` group of the statistics, in MB; {} where it cannot be read."""
    now = memory()
    if now is None:
        return {}
    percent = 100.0 * (now.total - now.free) / now.total
    return {
        "total_mb": now.total / MB,
        "available_mb": now.free / MB,
        "percent_used": round(percent, 1),
        "under_pressure": percent >= PRESSURE_PERCENT,
        "age_seconds": 0.0,
    }


def cpu() -> dict[str, Any]:
    """Return the ``cpu`` group: percent since the last call (None at the first), and the count."""
    return {"percent": _cpu_percent(), "count": os.cpu_count(), "age_seconds": 0.0}


def _cpu_percent() -> float | None:
    psutil = _psutil()
    # psutil compares with the last call in this process; the first has nothing to compare with.
    percent = None if psutil is None else float(psutil.cpu_percent(interval=None))
    return percent if _cpu_asked_before() else None


def _cpu_asked_before() -> bool:
    before = _cpu_asked_in.get("pid") == os.getpid()
    _cpu_asked_in["pid"] = os.getpid()
    return before


def trim_heap() -> None:
    """Give memory that the C library keeps for later back to the system, where it can (glibc)."""
    for library in _libc():
        library.malloc_trim(0)


@functools.cache
def _libc() -> tuple[Any, ...]:
    if not sys.platform.startswith("linux"):
        return ()
    import ctypes

    library = ctypes.CDLL(None)
    return (library,) if hasattr(library, "malloc_trim") else ()
