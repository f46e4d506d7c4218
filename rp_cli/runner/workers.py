"""The processes that run files, seen from ``rp run``: how to start, ask, end and lose one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rp_cli.runner.capture import Capture
from rp_cli.runner.channel import Channel, Message
from rp_cli.runner.process import PACKAGE_ROOT, kill_session

_BOOTSTRAP = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " sys.argv[1] in sys.path or sys.path.insert(0, sys.argv[1]);"
    " from rp_cli.runner.{module} import main; main(*sys.argv[2:])"
)
_MODULES = {"zygote": "zygote", "ray": "on_ray.driver"}
_KILLED_SECONDS = 5.0
_POLL_SECONDS = 0.01


class Worker:
    """A process at the other end of a channel; ``process`` is None for a nested zygote.

    Attributes:
        kind: "zygote", "alone", "gpu" or "ray".
        name: what the record says about where a file ran.
    """

    def __init__(
        self, kind: str, name: str, channel: Channel, process: subprocess.Popen[bytes] | None = None
    ) -> None:
        self.kind, self.name = kind, name
        self.channel, self.process = channel, process

    @classmethod
    def start(
        cls,
        kind: str,
        name: str,
        environment: Mapping[str, str],
        words: Capture,
        folder: Path | None = None,
    ) -> Worker:
        """Start a Python that becomes a zygote, runs a file alone or a GPU's, or speaks to Ray.

        Args:
            words: what the process says beside the files' own output.
            folder: its current folder, where that is not ours.
        """
        channel, theirs = Channel.pair()
        module = _MODULES.get(kind, "inside")
        arguments = [str(PACKAGE_ROOT), str(theirs.fileno())]
        if module == "inside":
            arguments += [str(os.getpid()), "once" if kind == "alone" else ""]
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP.format(module=module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=words.writer,
                stderr=words.writer,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                cwd=folder,
            )
        return cls(kind, name, channel, process)

    def send(self, message: Message, *fds: int) -> None:
        """Send a message; a worker that is gone is noticed by who listens to it."""
        with suppress(OSError):
            self.channel.send(message, fds)

    def has_ended(self) -> bool:
        """Whether the process has ended; it is not reaped, so its number is still its own."""
        if self.process is None or self.process.returncode is not None:
            return self.process is not None
        if not hasattr(os, "waitid"):  # macOS has it since Python 3.13
            return self.process.poll() is not None
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, options) is not None

    def is_child(self) -> bool:
        """Whether there is a process that is not reaped."""
        return self.process is not None and self.process.returncode is None

    def kill(self) -> None:
        """Kill the process and what it started; a nested zygote is left to its channel's end."""
        if self.process is not None and self.process.returncode is None:
            kill_session(self.process.pid)

    def reap(self) -> dict[str, Any]:
        """End what is left, and return exit code, CPU seconds and peak memory of the process."""
        self.channel.close()
        if self.process is None or self.process.returncode is not None:
            return {"code": None if self.process is None else self.process.returncode}
        self.kill()
        self.await_end()
        if not self.has_ended():  # it hangs inside a driver, and is left behind
            return {"code": None}
        if self.process.returncode is not None:
            return {"code": self.process.returncode}
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return {
            "code": self.process.returncode,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * _MAXRSS_UNIT,
        }

    def dismiss(self, seconds: float = _KILLED_SECONDS) -> None:
        """Let the process end by itself, which takes its children along; kill what is left then."""
        self.channel.close()
        self.await_end(seconds)
        self.reap()  # only now: what it left is found by its number

    def await_end(self, seconds: float = _KILLED_SECONDS) -> None:
        """Wait for the end of a process that is killed, or has nothing more to do."""
        deadline = time.monotonic() + seconds
        while self.process is not None and not self.has_ended() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


# Linux counts in KiB, macOS in bytes.
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
