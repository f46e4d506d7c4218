"""Runs a test file in a Python of its own, and ends it with all that it started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from hardware_detection.process import Outcome, kill_tree

# "-c" and "-m" put the current folder, which may hold anybody's files, first on the import path.
_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]);"
    " from rp_cli.runner.child import main; main(*sys.argv[2:])"
)
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.02
_KILLED_SECONDS = 5.0


def run_child(
    test_file: Path,
    result_file: Path,
    *,
    deadline_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    errors: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Run one test file to its end or its deadline, and return how its process ended.

    Args:
        environment: the child's whole environment.
        output: a file descriptor for its stdout; None lets it share ours. Likewise ``errors``.
        stop: asked again and again; True ends the child and raises.

    Raises:
        KeyboardInterrupt: ``stop`` said so.
    """
    started = time.monotonic()
    arguments = map(str, (_PACKAGE_ROOT, test_file, result_file))
    child = subprocess.Popen(
        [sys.executable, "-c", _BOOTSTRAP, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        env=environment,
        start_new_session=True,
    )
    try:
        in_time = _wait(child, started + deadline_seconds, stop)
    finally:
        code = _end(child)
    seconds = time.monotonic() - started
    if not in_time:
        return Outcome("timeout", None, "", "", seconds)
    return Outcome("crashed" if code < 0 else "finished", code, "", "", seconds)


def _wait(child: subprocess.Popen[bytes], deadline: float, stop: Callable[[], bool]) -> bool:
    """Wait until the child has ended; return False at the deadline."""
    while not _has_ended(child):
        if stop():
            raise KeyboardInterrupt
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    if sys.platform == "win32" or not hasattr(os, "waitid"):  # macOS has it since Python 3.13
        return child.poll() is not None
    # The child is not reaped: while it is a zombie, its group's number belongs to nobody else.
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: subprocess.Popen[bytes]) -> int:
    """Kill the child, or what it left behind, and return its status; -9 for one that hangs on.

    What a child left that is reaped already stays: its number may be somebody else's by now.
    """
    if child.returncode is None:
        kill_tree(child)
        # A process that hangs inside a driver does not die even now; it is left behind.
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_SECONDS)
    return -9 if child.returncode is None else child.returncode
