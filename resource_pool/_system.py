"""The machine's memory and CPU, as far as they can be read here."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

logger = logging.getLogger("resource_pool")

MB = 1024 * 1024
PRESSURE_PERCENT = 90.0


@functools.cache
def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        logger.warning("psutil is missing: memory pressure cannot be seen and is taken as none.")
        return None
    return psutil


def system_memory() -> dict[str, Any]:
    """Return the ``system_memory`` group of the statistics, in MB; {} where it cannot be read."""
    psutil = _psutil()
    if psutil is None:
        return {}
    memory = psutil.virtual_memory()
    return {
        "total_mb": memory.total / MB,
        "available_mb": memory.available / MB,
        "percent_used": memory.percent,
        "under_pressure": memory.percent >= PRESSURE_PERCENT,
    }


def cpu() -> dict[str, Any]:
    """Return the ``cpu`` group: percent since the last call (None at the first), and the count."""
    psutil = _psutil()
    percent = None if psutil is None else psutil.cpu_percent(interval=None)
    return {"percent": percent, "count": os.cpu_count()}
