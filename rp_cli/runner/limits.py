"""What a test's process may take of the machine, set by itself before the test is imported.

All of it is best effort: where a limit cannot be set, the deadline is left.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

# How many processes and threads a file may start on top of those that run already.
PROCESS_MARGIN = 1000
_OOM_SCORE = 900
_SET_PDEATHSIG, _SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 1, 36, 37


def restrain(memory_bytes: int | None, processes: int | None) -> None:
    """Limit this process, and put it first in line where the system runs out of memory.

    Args:
        memory_bytes: what it may allocate beyond what it has; more is a MemoryError in the test.
        processes: how many processes and threads its user may have; root is not bound by it.
    """
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    if sys.platform == "win32":
        return
    import resource

    if memory_bytes is not None and sys.platform == "linux":
        _lower(resource.RLIMIT_DATA, _data_bytes() + memory_bytes)
    if processes is not None:
        _lower(resource.RLIMIT_NPROC, processes)


def _lower(which: int, value: int) -> None:
    import resource

    soft, hard = resource.getrlimit(which)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or value < soft:
        with suppress(OSError, ValueError):
            resource.setrlimit(which, (value, hard))


def _data_bytes() -> int:
    """Return what the kernel counts as this process's data: its private, writable memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def die_with_parent(parent: int) -> None:
    """Let the kernel kill this process when its parent ends (Linux).

    ``parent`` is its number as it was known before there was this process: that may be gone.
    """
    _prctl(_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def adopt_orphans(*, adopt: bool = True) -> bool:
    """Become the parent of descendants whose own parent ends, so that they can be found.

    Returns:
        Whether this process was that already; with ``adopt`` False, it is no longer.
    """
    before = ctypes.c_int()
    _prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(_SET_CHILD_SUBREAPER, int(adopt))
    return bool(before.value)


def _prctl(option: int, value: Any) -> None:
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def processes_now() -> int | None:
    """Return how many processes there are; None where /proc does not tell."""
    try:
        return sum(name.isdigit() for name in os.listdir("/proc"))  # noqa: PTH208 - names alone
    except OSError:
        return None


def session_size(leader: int) -> int:
    """Return how many processes belong to a session."""
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - names alone
        with suppress(OSError):
            count += name.isdigit() and os.getsid(int(name)) == leader
    return count


def resident_bytes() -> int:
    """Return this process's resident memory; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
