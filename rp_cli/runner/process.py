"""Runs a test file in a Python of its own, and ends it with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hardware_detection.process import Outcome, kill_tree

# "-c" and "-m" put the current folder, which may hold anybody's files, first on the import path.
_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]);"
    " from rp_cli.runner.child import main; main(*sys.argv[2:])"
)
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
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
    options: Sequence[str] = (),
) -> Outcome:
    """Run one test file to its end or its deadline, and return how its process ended.

    Args:
        environment: the child's whole environment.
        output: a file descriptor for its stdout; None lets it share ours. Likewise ``errors``.
        stop: asked again and again; True ends the child and raises.
        options: style and selection, as ``child.main`` takes them.

    Raises:
        KeyboardInterrupt: ``stop`` said so.
    """
    started = time.monotonic()
    arguments = map(str, (PACKAGE_ROOT, test_file, result_file, *options))
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


def kill_session(pid: int) -> None:
    """Kill a child that leads a session, and all that it started; it must not be reaped yet.

    One signal to the group is what a fork bomb cannot outrun; what has left the group is found
    through its parents, which is why they are asked for first.
    """
    descendants = _descendants(pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _kill(descendants)


def sweep(known: Collection[int]) -> None:
    """Kill and reap every descendant of this process but the ``known`` children and theirs."""
    import psutil

    for child in children():
        if child.pid not in known:
            killed = [*_descendants(child.pid), child]
            _kill(killed)
            # One that hangs inside a driver does not die even now; it is left behind.
            with suppress(psutil.Error):
                psutil.wait_procs(killed, timeout=_KILLED_SECONDS)


def children() -> list[Any]:
    """Return the children of this process, as psutil knows them."""
    import psutil

    return list(psutil.Process().children())


def _descendants(pid: int) -> list[Any]:
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill(processes: list[Any]) -> None:
    for process in processes:
        with suppress(Exception):  # gone already, or somebody else's
            process.kill()
