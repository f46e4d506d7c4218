"""The one pool of a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from resource_pool._events import Event
from resource_pool._pool import ResourcePool

_global_pool: ResourcePool | None = None
# Guards _global_pool; a finalizer may ask for it at any moment.
_global_lock = threading.RLock()


def get_global_resource_pool() -> ResourcePool:
    """Return the one pool of this process.

    The environment is read again at each call, so that ``RESOURCE_POOL_LOW_MEMORY=1`` works
    when it is set later; nothing in the environment turns the mode off again.
    """
    global _global_pool
    with _global_lock:
        if _global_pool is None:
            made = ResourcePool()
            _global_pool = _global_pool or made
        else:
            _global_pool._read_environment()
        return _global_pool


def note_placement(key: str, reason: str, numbers: Mapping[str, Any]) -> None:
    """Note in that pool's record what was placed beside it; the numbers are those of "place"."""
    get_global_resource_pool()._log.add(Event("place", key, reason, numbers))


def _after_fork() -> None:
    global _global_lock
    _global_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
