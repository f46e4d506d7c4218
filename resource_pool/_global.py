"""The one pool of a process."""

from __future__ import annotations

import os
import threading

from resource_pool._pool import ResourcePool

_global_pool: ResourcePool | None = None
_global_lock = threading.Lock()  # guards _global_pool


def get_global_resource_pool() -> ResourcePool:
    """Return the one pool of this process.

    The environment is read again at each call, so that ``RESOURCE_POOL_LOW_MEMORY=1`` works
    when it is set later; nothing in the environment turns the mode off again.
    """
    global _global_pool
    with _global_lock:
        if _global_pool is None:
            _global_pool = ResourcePool()
        else:
            _global_pool._read_environment()
        return _global_pool


def _after_fork() -> None:
    global _global_lock
    _global_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
