"""What a file leaves running when its own process is gone: ``rp run`` adopts it, and ends it."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from contextlib import suppress

from rp_cli.runner import limits
from rp_cli.runner.process import children, sweep


class Orphans:
    """Adopts, until it is told to stop, descendants of this process whose own parent ends.

    A file's process finds what it has started when it ends, and cannot when it crashes. Who calls
    us may have children as well: those that were there before are spared, and so are those in our
    own session, in which nothing runs that a worker has started.
    """

    def __init__(self) -> None:
        self._spared = {child.pid for child in children()}
        self._adopted_before = limits.adopt_orphans()

    def end(self, workers: Collection[int]) -> None:
        """Kill and reap what was adopted; ``workers`` are the processes of ours that still run."""
        if sys.platform != "linux":  # nothing is adopted
            return
        ours = {child.pid for child in children() if _session(child.pid) == os.getsid(0)}
        sweep({*self._spared, *workers, *ours})

    def stop(self) -> None:
        """Adopt no more, unless this process did so before."""
        limits.adopt_orphans(adopt=self._adopted_before)


def _session(pid: int) -> int:
    with suppress(OSError):
        return os.getsid(pid)
    return 0
