"""Runs a child process that may crash, hang or flood, and always comes back in time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

_MAX_OUTPUT_BYTES = 1 << 20
# How long a killed child may take to end, and how long a pipe may stay open after the child has
# ended, held by a grandchild.
_DRAIN_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a child process ended.

    Attributes:
        kind: "finished": it exited by itself; "crashed": a signal ended it; "timeout": it was
            killed at the deadline; "unstartable": it could not be started.
        returncode: its exit status; None where it has none.
        stdout, stderr: the first MiB of each, as UTF-8 with replacements.
        seconds: wall-clock time.
    """

    kind: Literal["finished", "crashed", "timeout", "unstartable"]
    returncode: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it exited by itself with status 0."""
        return self.kind == "finished" and self.returncode == 0

    def describe(self) -> str:
        """Say in a few words, without a subject, how it ended."""
        if self.kind == "timeout":
            return f"gave no answer within {self.seconds:.0f} s and was stopped"
        if self.kind == "crashed":
            return f"crashed with {_signal_name(-(self.returncode or 0))}"
        last_line = next(reversed(self.stderr.strip().splitlines()), "").strip()[:200]
        if self.kind == "unstartable":
            return f"could not be started ({last_line})"
        return f"ended with status {self.returncode}" + (f" ({last_line})" if last_line else "")


def run_bounded(
    argv: Sequence[str],
    *,
    deadline_s: float,
    environ: Mapping[str, str] | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> Outcome:
    """Run ``argv`` (no shell) in a process group of its own and return how it ended.

    Nothing is raised for what the child does. At the deadline, or when the caller is
    interrupted, it is killed with all that it started; ``on_start`` lets another thread do that.
    ``environ`` replaces this process's environment.
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        return Outcome("unstartable", None, "", str(error), time.monotonic() - started)
    if on_start is not None:
        on_start(process)
    pipes = [_Drain(process.stdout), _Drain(process.stderr)]
    timed_out = _wait(process, deadline_s)
    stdout, stderr = (pipe.text(process) for pipe in pipes)
    code = process.returncode
    kind: Literal["finished", "crashed", "timeout"] = (
        "timeout" if timed_out else "crashed" if code < 0 else "finished"
    )
    return Outcome(kind, code, stdout, stderr, time.monotonic() - started)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything that it started."""
    # Asked first: who has lost its parent is nobody's child any more. A browser is in a group of
    # its own, where the signal to ours does not reach it.
    descendants = _descendants(process.pid)
    _kill_group(process)
    for descendant in descendants:
        with contextlib.suppress(Exception):  # gone already, or somebody else's
            descendant.kill()


def _descendants(pid: int) -> list[Any]:
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Gone already; macOS says PermissionError of a group whose members have all ended.
        pass


def _wait(process: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Wait for the end, or for the deadline and then kill; return whether it was killed."""
    try:
        process.wait(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        _kill_and_reap(process)
        return True
    except BaseException:
        _kill_and_reap(process)
        raise
    return False


def _kill_and_reap(process: subprocess.Popen[bytes]) -> None:
    kill_tree(process)
    # A process that hangs inside a driver does not die even now; it is left behind.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_DRAIN_SECONDS)


class _Drain:
    """Reads a pipe to its end in a thread, so that the child never blocks, and keeps a part."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None  # noqa: S101 - Popen was called with PIPE; this is for the types
        self._pipe = pipe
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(1 << 16):  # type: ignore[attr-defined]
                self._kept += chunk[: _MAX_OUTPUT_BYTES - len(self._kept)]

    def text(self, process: subprocess.Popen[bytes]) -> str:
        self._thread.join(_DRAIN_SECONDS)
        if self._thread.is_alive():
            # A grandchild still holds the pipe. It keeps the group alive, so that the group's
            # number cannot have passed to somebody else.
            _kill_group(process)
            self._thread.join(_DRAIN_SECONDS)
        return bytes(self._kept).decode("utf-8", errors="replace")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
