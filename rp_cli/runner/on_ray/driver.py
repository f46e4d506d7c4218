"""The process beside ``rp run`` that speaks to Ray.

Ray prints on stdout, takes SIGTERM for itself, puts the current folder on the import path of its
workers and may wait for minutes for a cluster that is not there. In a process of its own, in an
empty folder, none of that is the run's.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rp_cli.runner.channel import Channel, Message
from rp_cli.runner.on_ray import host

_TICK_SECONDS = 0.05
# How often is looked which nodes there are.
_NODES_SECONDS = 2.0
# At the end, so long is waited for hosts that end what they run.
_GENTLE_SECONDS = 5.0
# The smallest that Ray takes; what is sent are texts of some KiB.
_STORE_BYTES = 80 << 20
# Ray's words, in the RuntimeError that stands in for a function or class that it cannot import.
_NOT_IMPORTED = "failed to import on the worker"
# A socket's path has 107 characters, of which Ray takes about 70.
_LONGEST_FOLDER = 30


def main(end: str) -> None:
    """Serve the requests that come over the socket with this number, until its other end closes."""
    os.set_inheritable(int(end), False)
    channel = Channel(socket.socket(fileno=int(end)))
    requests = _read_aside(channel)
    first = requests.get()
    if first is None:
        return
    with contextlib.ExitStack() as at_end:
        try:
            _connect(first["address"], at_end)
        except BaseException as error:  # Ray raises SystemExit as well
            channel.send({"event": "problem", "why": f"{type(error).__name__}: {error}"})
            return
        with contextlib.suppress(OSError):  # nobody is there any more
            Driver(channel, requests).serve()


def _read_aside(channel: Channel) -> queue.SimpleQueue[Message | None]:
    """Read requests in a thread, so that whoever sends one never waits for us; None: the end."""
    requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

    def read() -> None:
        while True:
            select.select([channel], [], [])
            messages = channel.receive()
            for message, _ in messages or ():
                requests.put(message)
            if messages is None:
                requests.put(None)
                return

    threading.Thread(target=read, daemon=True).start()
    return requests


def _connect(address: str, at_end: contextlib.ExitStack) -> None:
    """Connect to a cluster; "local" starts one that only this machine reaches.

    It ends with us; a cluster that we only joined goes on.
    """
    own: dict[str, Any] = {}
    if address == "local":
        own = {"object_store_memory": _STORE_BYTES, "include_dashboard": False}
        own["_temp_dir"] = str(_ray_folder(at_end))
        # Read by Ray when it is imported: loopback only, with a token, and nothing is reported.
        os.environ.update(
            RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
            RAY_USAGE_STATS_ENABLED="0",
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN=secrets.token_hex(32),
        )
    import ray

    at_end.callback(ray.shutdown)
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)


def _ray_folder(at_end: contextlib.ExitStack) -> Path:
    named, here = os.environ.get("RAY_TMPDIR"), Path.cwd()
    if named:
        return Path(named)
    if len(str(here)) <= _LONGEST_FOLDER:
        return here / "ray"
    short = tempfile.TemporaryDirectory(prefix="rp_ray_", dir="/tmp", ignore_cleanup_errors=True)
    return Path(at_end.enter_context(short))


class _Attempt(NamedTuple):
    """One try of a file; ``host`` is the actor's name, None for a task."""

    number: int
    attempt: int
    host: str | None


class Driver:
    """Hands files to Ray and tells what becomes of them. All of it happens in one thread."""

    def __init__(self, channel: Channel, requests: queue.SimpleQueue[Message | None]) -> None:
        import ray

        self._ray, self._channel, self._requests = ray, channel, requests
        self._task = ray.remote(host.run_single)
        self._actor_class = ray.remote(host.Host)
        self._streams: dict[Any, _Attempt] = {}
        self._actors: dict[str, Any] = {}
        self._nodes: list[dict[str, float]] = []
        self._looked = float("-inf")

    def serve(self) -> None:
        """Do what is asked until nobody is there to ask; then leave nothing running."""
        react: Mapping[str, Callable[[Message], None]] = {
            "run": self._run, "retire": self._retire, "cancel": self._cancel,
        }  # fmt: skip
        try:
            while True:
                self._look_at_nodes()
                for message in self._asked():
                    if message is None:
                        return
                    react[message["do"]](message)
                self._listen()
        finally:
            self._end_gently()
            for stream in list(self._streams):
                self._end(stream)
            for name in list(self._actors):
                self._kill(name)

    def _end_gently(self) -> None:
        """Let the hosts end what runs, and take their folders away, as far as they answer."""
        for stream in self._streams:
            self._ray.cancel(stream)
        deadline = time.monotonic() + _GENTLE_SECONDS
        while self._streams and (left := deadline - time.monotonic()) > 0:
            ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=left)
            for stream in ready:
                if self._next(stream)["event"] != "started":
                    del self._streams[stream]

    def _asked(self) -> Iterator[Message | None]:
        """Yield what was asked for; where nothing runs, wait for it a moment."""
        with contextlib.suppress(queue.Empty):
            yield self._requests.get(timeout=0 if self._streams else _TICK_SECONDS)
            while True:
                yield self._requests.get_nowait()

    def _look_at_nodes(self) -> None:
        if time.monotonic() - self._looked < _NODES_SECONDS:
            return
        self._looked = time.monotonic()
        nodes = [
            {"cpus": has.get("CPU", 0.0), "memory": has.get("memory", 0.0),
             "gpus": has.get("GPU", 0.0)}
            for has in (node["Resources"] for node in self._ray.nodes() if node["Alive"])
        ]  # fmt: skip
        if nodes != self._nodes:
            self._nodes = nodes
            self._channel.send({"event": "nodes", "nodes": nodes})

    def _run(self, message: Message) -> None:
        name, order = message["host"], json.dumps(message["order"])
        if name is None:
            task = self._task.options(
                **_resources(message), num_returns="streaming", max_retries=0, name="rp run"
            )
            stream = task.remote(order)
        else:
            if name not in self._actors:
                actor = self._actor_class.options(**_resources(message), max_restarts=0)
                self._actors[name] = actor.remote()
            method = self._actors[name].run.options(num_returns="streaming", max_task_retries=0)
            stream = method.remote(order)
        self._streams[stream] = _Attempt(message["number"], message["attempt"], name)

    def _retire(self, message: Message) -> None:
        self._kill(message["host"])

    def _cancel(self, message: Message) -> None:
        for stream, one in list(self._streams.items()):
            if (one.number, one.attempt) == (message["number"], message["attempt"]):
                self._end(stream)

    def _end(self, stream: Any) -> None:
        name = self._streams.pop(stream).host
        if name is not None:
            self._kill(name)
        else:
            with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(stream, force=True)

    def _kill(self, name: str) -> None:
        actor = self._actors.pop(name, None)
        if actor is not None:
            self._ray.kill(actor)

    def _listen(self) -> None:
        if not self._streams:
            return
        ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=_TICK_SECONDS)
        for stream in ready:
            number, attempt, name = self._streams[stream]
            event = self._next(stream)
            if event["event"] != "started":
                del self._streams[stream]
            if event["event"] == "lost" and name is not None:
                self._kill(name)
            self._channel.send({**event, "number": number, "attempt": attempt})

    def _next(self, stream: Any) -> Message:
        """Return what a file's host says; "lost" where it says nothing more."""
        try:
            return dict(json.loads(self._ray.get(next(stream))))
        except StopIteration:
            return {"event": "lost", "why": "its process ended"}
        except self._ray.exceptions.RayTaskError as error:
            event = "refused" if _has_no_rp(error) else "lost"
            return {"event": event, "why": _last_line(error)}
        except self._ray.exceptions.RayError as error:
            return {"event": "lost", "why": f"{type(error).__name__}: {_first_line(error)}"}


def _resources(message: Message) -> dict[str, float]:
    wanted = message["request"]
    return {"num_cpus": wanted["cpus"], "memory": wanted["memory"], "num_gpus": wanted["gpus"]}


def _has_no_rp(error: Any) -> bool:
    """Whether a node could not import what it was to run; other errors are that node's own."""
    cause = error.cause
    return isinstance(cause, ImportError) or _NOT_IMPORTED in str(cause)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[-1]
