"""A process that imports what is slow once, and forks a child for each test file.

A nested zygote is forked from another one, loads a model in addition, and forks the children
that share it: its pages are shared until somebody writes to them. When it ends, the model is gone.

What is respected here, because the opposite was seen to hang or to cost: torch computes on one
thread until the last fork (threads do not survive it), nothing is collected in pages that are
shared, CUDA is never touched, and no child keeps a zygote's socket open.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from rp_cli.runner import limits
from rp_cli.runner.channel import Channel, Message
from rp_cli.runner.process import kill_session, sweep
from rp_cli.runner.warming import import_all, load_shared, set_threads

Work = Callable[[], None]


def main(end: str) -> None:
    """Serve the requests that come over the socket with this number, until its other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us decides
    gc.disable()
    channel = Channel(socket.socket(fileno=int(end)))
    zygote = Zygote(channel)
    limits.adopt_orphans()
    zygote.serve()
    os._exit(0)


class Zygote:
    """Forks on request, kills on request, and tells the end of each child."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._children: dict[int, tuple[int, float]] = {}  # pid -> (number, started at)
        self._wake, wake = os.pipe()
        for fd in (self._wake, wake):
            os.set_blocking(fd, False)
        self._wake_writer = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Do what is asked until nobody is there to ask; then leave nothing running."""
        while True:
            asked = self._channel.fileno()
            readable, _, _ = select.select([asked, self._wake], [], [])
            self._reap()
            if asked in readable and not self._serve_messages():
                break
        for pid in list(self._children):
            kill_session(pid)
        sweep(set())

    def _serve_messages(self) -> bool:
        messages = self._channel.receive()
        for message, fds in messages or ():
            try:
                self._obey(message, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        return messages is not None

    def _obey(self, message: Message, fds: list[int]) -> None:
        do = message["do"]
        if do == "import":
            problem = import_all(message)
            if message["last"]:
                self._tell({"event": "ready", "problem": problem})
        elif do == "kill":
            for pid, (number, _) in self._children.items():
                if number == message["number"]:
                    kill_session(pid)
        elif do == "run":
            self._fork(message, lambda: _run(message, fds[0]))
        elif do == "nest":
            self._fork(message, lambda: self._nest(message, fds[0]))

    def _fork(self, message: Message, work: Work) -> None:
        gc.freeze()
        started, zygote = time.monotonic(), os.getpid()
        try:
            pid = _forked()
        except OSError as error:  # no process or no memory is left: others go on
            why = f"not run: no process could be started for it ({error})"
            self._tell({"event": "unforked", "number": message["number"], "why": why})
            return
        if pid:
            self._children[pid] = (message["number"], started)
            number, shared = message["number"], limits.resident_bytes()
            self._tell({"event": "started", "number": number, "pid": pid, "shared_bytes": shared})
            return
        code = 1
        try:
            self._become_child(zygote)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _become_child(self, parent: int) -> None:
        os.setsid()
        limits.die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._channel.close()
        os.close(self._wake)
        os.close(self._wake_writer)

    def _nest(self, message: Message, end: int) -> None:
        """Go on as a zygote of our own, with a model more."""
        nested = Zygote(Channel(socket.socket(fileno=os.dup(end))))
        os.close(end)
        limits.adopt_orphans()
        nested._tell({"event": "ready", "problem": load_shared(message["model"])})
        nested.serve()

    def _reap(self) -> None:
        """Tell of the children that have ended, after killing what they left."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 1 << 12)
        for pid in [pid for pid in self._children if _has_ended(pid)]:
            number, started = self._children[pid]
            kill_session(pid)  # not reaped yet: its number belongs to nobody else
            _, status, used = os.wait4(pid, 0)
            del self._children[pid]
            self._tell(
                {
                    "event": "ended",
                    "number": number,
                    "code": os.waitstatus_to_exitcode(status),
                    "seconds": time.monotonic() - started,
                    "cpu_seconds": used.ru_utime + used.ru_stime,
                    "peak_bytes": used.ru_maxrss * 1024,
                }
            )
        if not self._children:
            sweep(set())

    def _tell(self, message: dict[str, Any]) -> None:
        # Nobody may be there any more: the next read says so.
        with contextlib.suppress(OSError):
            self._channel.send(message)


def _forked() -> int:
    with warnings.catch_warnings():
        # Python warns of threads; those that are here belong to libraries that know of forks.
        warnings.simplefilter("ignore")
        return os.fork()


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _run(message: Message, output: int) -> None:
    """Run a test file in this process, and end as a Python of its own would."""
    _take_output(output)
    limits.restrain(message["memory_bytes"], message["processes"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _fresh_randomness()
    set_threads(message["threads"])
    gc.enable()
    if message["work_folder"]:
        os.chdir(message["work_folder"])
    from rp_cli.runner.child import main as run_file

    run_file(message["file"], message["result"], message["style"], message["selection"])
    # As an interpreter ends, and multiprocessing's children do: idle workers of executors are told
    # to go, and threads are waited for.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()


def _take_output(output: int) -> None:
    for fd in (1, 2):
        os.dup2(output, fd)
    os.close(output)
    # A line is out when it is written: a crash leaves what was said before it.
    sys.stdout = open(1, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115


def _fresh_randomness() -> None:
    """Let this child draw other numbers than its siblings; `random` sees to that by itself."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
