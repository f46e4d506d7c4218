"""A process of its own for one file, or for the files of one GPU, one after the other.

It is a Python that nobody prepared: what cannot run in a forked process runs here.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import re
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from rp_cli.runner import limits
from rp_cli.runner.channel import Channel, Message
from rp_cli.runner.process import sweep


def main(end: str, parent: str, once: str) -> None:
    """Run what is asked for over the socket with this number: one file, or until it closes."""
    os.set_inheritable(int(end), False)
    limits.die_with_parent(int(parent))
    _stand_between(int(end))
    limits.adopt_orphans()
    # Registered first and called last: executors have let their processes go by then. Between
    # files nobody is killed; libraries keep helpers of their own for the whole process.
    atexit.register(sweep, set())
    channel = Channel(socket.socket(fileno=int(end)))
    for message, fds in _messages(channel):
        _take_output(fds[0])
        if once:
            channel.close()  # nothing more comes, and the file may look for what is left open
            limits.restrain(message["memory_bytes"], message["processes"])
            _run(message)
            return
        number = message["number"]
        channel.send({"event": "begun", "number": number})
        with _restored():
            took = _measured(message)
        # Last of all: whatever cleaning up does to this process, that file has done it.
        channel.send({"event": "ended", "number": number, **took})


def _stand_between(end: int) -> None:
    """Go on in a child, whose parent does nothing but end as it does.

    A file that kills its parent, as one does that means to end its shell, would kill the run.
    """
    if sys.platform != "linux":  # nowhere else would the child end with its parent
        return
    between = os.getpid()
    try:
        child = os.fork()
    except OSError:  # no process is left: the file may still be one that harms nobody
        return
    if child == 0:
        limits.die_with_parent(between)
        return
    os.close(end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has dumped its own
        with contextlib.suppress(OSError):  # SIGKILL is always itself
            signal.signal(-code, signal.SIG_DFL)
        os.kill(between, -code)
    os._exit(code)


def _messages(channel: Channel) -> Iterator[tuple[Message, list[int]]]:
    while True:
        select.select([channel], [], [])
        messages = channel.receive()
        if messages is None:
            return
        yield from messages


def _take_output(output: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for fd in (1, 2):
        os.dup2(output, fd)
    os.close(output)


def _run(message: Message) -> None:
    if message["work_folder"]:
        os.chdir(message["work_folder"])
    from rp_cli.runner.child import main as run_file

    run_file(message["file"], message["result"], message["style"], message["selection"])


def _measured(message: Message) -> dict[str, Any]:
    """Run a file, drop the models that no later file uses, and return what it took."""
    started, cpu = time.monotonic(), time.process_time()
    code = 0
    try:
        _run(message)
    except SystemExit as stop:
        code = int(bool(stop.code))
    _keep(message["keep"])
    _take_output(os.open(os.devnull, os.O_WRONLY))
    return {
        "code": code,
        "seconds": time.monotonic() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _keep(names: list[str]) -> None:
    """Drop the pool's models but those of these names, and those that the file has pinned."""
    if "resource_pool._global" not in sys.modules:
        return
    from resource_pool import get_global_resource_pool

    pool = get_global_resource_pool()
    wanted = [key for key in pool.models if _name_in(key) in names]
    kept = [key for key in wanted if not pool.get_resource_details(key)["pinned"]]
    for key in kept:
        pool.pin(key)
    pool.cleanup_unused_resources(max_age_minutes=0)
    for key in kept:
        pool.unpin(key)


def _name_in(key: str) -> str:
    """Return the model's name out of the pool's key, "family:name#variant:device:dtype"."""
    return unquote(re.split("[@#]", key.split(":")[1])[0])


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """Undo what a file commonly changes, so that the next one finds what the first one found."""
    environment, path, arguments = dict(os.environ), list(sys.path), list(sys.argv)
    folder, modules = os.getcwd(), set(sys.modules)  # noqa: PTH109 - a str is wanted
    try:
        yield
    finally:
        added = set(sys.path) - set(path)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:], sys.argv[:] = path, arguments
        os.chdir(folder)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for name in set(sys.modules) - modules:
            if name.startswith("test_") or _is_beside(name, added):
                del sys.modules[name]
        gc.collect()


def _is_beside(name: str, folders: Collection[str]) -> bool:
    """Whether a module lies in a folder of a test file's own: the next one has others so named."""
    file = getattr(sys.modules[name], "__file__", None)
    return file is not None and any(Path(file).is_relative_to(folder) for folder in folders)
