"""The machine's memory and CPU, as far as this process may use them."""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from typing import Any

from resource_pool.devices import Memory

logger = logging.getLogger("resource_pool")

MB = 1024 * 1024
PRESSURE_PERCENT = 90.0
_MAX_TEXT = 1 << 20

# One admission looks at the memory several times, and reading it takes longer than all the rest.
RECENT_SECONDS = 0.005
# A process without a limit hardly ever gets one, and looking for it opens several files.
NO_LIMIT_SECONDS = 60.0

_cpu_asked_in: dict[str, int] = {}
# (when, what) memory was read last: one tuple, which threads exchange as a whole.
_last_read: tuple[float, Memory] | None = None
_no_limit_until = float("-inf")


@functools.cache
def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        logger.warning("psutil is missing: memory pressure cannot be seen and is taken as none.")
        return None
    return psutil


def memory() -> Memory | None:
    """Return the RAM that this process may use, its container's limit included; None: unknown.

    At most 5 ms old, and never from before memory was given back.
    """
    global _last_read
    now, last = time.monotonic(), _last_read
    if last is not None and now - last[0] < RECENT_SECONDS:
        return last[1]
    found = _memory_now()
    _last_read = None if found is None else (now, found)
    return found


def forget_memory() -> None:
    """Have memory and limits read anew when they are next asked for."""
    global _last_read, _no_limit_until
    _last_read, _no_limit_until = None, float("-inf")


def _memory_now() -> Memory | None:
    psutil = _psutil()
    if psutil is None:
        return None
    machine = psutil.virtual_memory()
    container = container_memory()
    if container is None or container.total >= machine.total:
        return Memory(machine.total, machine.available)
    return Memory(container.total, max(0, min(machine.available, container.free)))


def container_memory() -> Memory | None:
    """Return the limit of this process's container and what is left of it; None without one.

    That there is none is believed for a minute.
    """
    global _no_limit_until
    now = time.monotonic()
    if now < _no_limit_until:
        return None
    cgroups = _cgroups()
    limits = cgroups and cgroups.read_memory_limits(_read, _own_groups())
    if not limits:
        _no_limit_until = now + NO_LIMIT_SECONDS
        return None
    return Memory(*(int(mib * MB) for mib in limits))


@functools.cache
def _cgroups() -> Any:
    """Return the detector's reader of limits; without the detector, limits are not seen."""
    try:
        from hardware_detection import cgroups
    except ImportError:
        return None
    return cgroups


@functools.cache
def _own_groups() -> Any:
    return _cgroups().own_groups(_read)


def _read(path: str) -> str | None:
    # Read at each load, and a stream takes three times as long to make.
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return None
    try:
        return os.read(file, _MAX_TEXT).decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(file)


def system_memory(now: Memory | None) -> dict[str, Any]:
    """Return the ``system_memory`` group of the statistics, in MB; {} where it is unknown."""
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
    global _last_read
    _last_read = None


@functools.cache
def _libc() -> tuple[Any, ...]:
    if not sys.platform.startswith("linux"):
        return ()
    import ctypes

    library = ctypes.CDLL(None)
    return (library,) if hasattr(library, "malloc_trim") else ()
