"""The processes of a run: the tree of zygotes, the workers of the GPUs, those of single files."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from rp_cli.runner.capture import Capture
from rp_cli.runner.channel import Channel, Message
from rp_cli.runner.learning import ModelPlan
from rp_cli.runner.orphans import Orphans
from rp_cli.runner.scheduling import Branch
from rp_cli.runner.workers import Worker

# Importing torch from a slow network share takes half a minute.
READY_SECONDS = 300.0
_MOST_ZYGOTES = 3
ROOT: Branch = ()


class Listener(Protocol):
    """Who is told what the workers say."""

    def on_started(self, number: int, pid: int, shared_bytes: int) -> None:
        """The process of a file is there."""

    def on_begun(self, number: int) -> None:
        """A GPU's worker has taken a file up."""

    def on_unforked(self, number: int, why: str) -> None:
        """No process could be forked for a file."""

    def on_ended(self, number: int, ended: Mapping[str, Any]) -> None:
        """A file's process has ended: code, seconds, cpu_seconds, peak_bytes."""

    def on_lost(self, worker: Worker) -> None:
        """A zygote is gone, and with it what it has forked."""


class Fleet:
    """Starts workers, listens to them, and lets them go.

    Attributes:
        failed: keys of models that could not be loaded to be shared.
        loaded: how many were asked for.
        exhausted: whether zygotes ended so often that no other is started.
        notes: sentences about what went another way than it should.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._selector = selectors.DefaultSelector()
        self._zygotes: dict[Branch, Worker] = {}
        self._opening: dict[Branch, float] = {}  # since when
        self._gpu_environments: Sequence[Mapping[str, str]] = ()
        self._gpus: list[Worker | None] = []
        self._words = Capture()
        self._own: list[Worker] = []  # those with a process that is a child of this one
        self._orphans = Orphans()
        self._started = 0
        self.listener: Listener
        self.failed: set[str] = set()
        self.loaded = 0
        self.exhausted = False
        self.notes: list[str] = []
        self.listen_to(self._words, self._words.read)

    # -- zygotes -------------------------------------------------------------------------

    def use_gpus(self, environments: Sequence[Mapping[str, str]]) -> None:
        """Name the GPUs: for each, the variables with which a process sees no other one."""
        self._gpu_environments = environments
        self._gpus = [None] * len(environments)

    def start_zygote(self) -> None:
        """Start the process from which all others are forked, where it does not run."""
        if ROOT in self._zygotes or self.exhausted:
            return
        self._started += 1
        self._add(ROOT, self._new("zygote", "fork", self._environment))

    def prepare(self, names: Mapping[str, Sequence[str]], *, last: bool = True) -> None:
        """Let the zygote import; it is ready after the ``last`` of several requests."""
        if ROOT in self._zygotes:
            self._zygotes[ROOT].send({"do": "import", "last": last, **names})

    def open(self, branch: Branch, plan: ModelPlan) -> None:
        """Fork a zygote that loads a model on top of those of the branch above."""
        channel, theirs = Channel.pair()
        self.loaded += 1
        with theirs:
            message = {"do": "nest", "number": -self.loaded, "model": asdict(plan)}
            self._zygotes[branch[:-1]].send(message, theirs.fileno())
        self._add(branch, Worker("zygote", "fork", channel))

    def zygote(self, branch: Branch) -> Worker:
        """Return the zygote of a branch that is ready."""
        return self._zygotes[branch]

    @property
    def branches(self) -> list[Branch]:
        """The branches that are there, ready or not."""
        return list(self._zygotes)

    @property
    def opening(self) -> list[Branch]:
        """The branches that are being loaded."""
        return list(self._opening)

    def _add(self, branch: Branch, worker: Worker) -> None:
        self._zygotes[branch] = worker
        self._opening[branch] = time.monotonic()
        self.listen_to(worker.channel, lambda: self._hear_zygote(worker, branch))

    def drop(self, branch: Branch) -> None:
        """Dismiss a nested zygote; its model goes with it."""
        worker = self._zygotes.pop(branch)
        self._opening.pop(branch, None)
        self.ignore(worker.channel)
        worker.channel.close()

    def _hear_zygote(self, worker: Worker, branch: Branch) -> None:
        messages = worker.channel.receive()
        for message, _ in messages or ():
            self._take(message, branch)
        if messages is None:
            self._lose(branch)

    def _take(self, message: Message, branch: Branch) -> None:
        event, number = message["event"], message.get("number", 0)
        if event == "ready":
            self._ready(branch, message["problem"])
        elif event == "started" and number >= 0:
            self.listener.on_started(number, message["pid"], message["shared_bytes"])
        elif event == "unforked" and number >= 0:  # a model's: its channel has ended
            self.listener.on_unforked(number, message["why"])
        elif event == "ended" and number >= 0:
            self.listener.on_ended(number, message)

    def _ready(self, branch: Branch, problem: str) -> None:
        self._opening.pop(branch, None)
        if problem and branch == ROOT:
            self.notes.append(f"not imported beforehand: {problem}")
        elif problem:
            self._give_up(branch, problem)

    def _give_up(self, branch: Branch, problem: str) -> None:
        """Let the files of a model load it by themselves."""
        self.notes.append(f"a model is not shared: {problem}")
        self.failed.add(branch[-1])
        self.drop(branch)

    def _lose(self, branch: Branch) -> None:
        """A zygote is gone, and those that it has forked go with it."""
        for other in [one for one in self._zygotes if one[: len(branch)] == branch and one]:
            worker = self._zygotes[other]
            self.drop(other)
            self.listener.on_lost(worker)
        if branch == ROOT:
            root = self._zygotes.pop(ROOT)
            self._opening.pop(ROOT, None)
            self.ignore(root.channel)
            root.reap()
            self._end_orphans()
            self.exhausted |= self._started >= _MOST_ZYGOTES
            self.listener.on_lost(root)
        else:
            self.failed.add(branch[-1])
        self.notes.append("a process from which files are forked was ended from outside")

    def look(self) -> None:
        """Give up what is not ready after a long time."""
        late = time.monotonic() - READY_SECONDS
        for branch in [one for one, since in self._opening.items() if since < late]:
            if branch == ROOT:
                self.end_zygotes()
            else:
                self._give_up(branch, f"it is not loaded after {READY_SECONDS:g} s")

    def end_zygotes(self) -> None:
        """Do without forks from now on: something is wrong with them."""
        self.exhausted = True
        self._zygotes[ROOT].kill()

    # -- other workers -------------------------------------------------------------------

    def start_alone(self, threads: int) -> Worker:
        """Start a process for one file."""
        environment = {"OMP_NUM_THREADS": str(threads), **self._environment}
        return self._new("alone", "process", environment)

    def gpu_worker(self, busy: Callable[[Worker], bool]) -> Worker:
        """Return an idle worker of a GPU, a running one first: it may have the model."""
        order = sorted(range(len(self._gpus)), key=lambda index: self._gpus[index] is None)
        for index in order:
            worker = self._gpus[index]
            if worker is not None and busy(worker):
                continue
            if worker is not None and not worker.has_ended():
                return worker
            if worker is not None:
                self.forget(worker)
            return self._start_gpu(index)
        raise LookupError("no GPU is idle")

    def _start_gpu(self, index: int) -> Worker:
        environment = {**self._environment, **self._gpu_environments[index]}
        worker = self._new("gpu", f"gpu {index}", environment)
        self._gpus[index] = worker
        self.listen_to(worker.channel, lambda: self._hear_gpu(worker))
        return worker

    def _hear_gpu(self, worker: Worker) -> None:
        messages = worker.channel.receive()
        for message, _ in messages or ():
            if message["event"] == "begun":
                self.listener.on_begun(message["number"])
            else:
                self.listener.on_ended(message["number"], message)
        if messages is None:  # the files that ran there find it ended
            self.ignore(worker.channel)
            worker.await_end(1.0)  # which tells how; killed at once, it would tell of that
            worker.kill()

    def forget(self, worker: Worker) -> dict[str, Any]:
        """Reap a worker of its own process; return how it ended."""
        self.ignore(worker.channel)
        if worker in self._gpus:
            self._gpus[self._gpus.index(worker)] = None
        told = worker.reap()
        self._end_orphans()
        return told

    # -- processes -----------------------------------------------------------------------

    def _new(self, kind: str, name: str, environment: Mapping[str, str]) -> Worker:
        worker = Worker.start(kind, name, environment, self._words)
        self._own.append(worker)
        return worker

    def _end_orphans(self) -> None:
        """End what the workers that are reaped have left behind."""
        self._own = [worker for worker in self._own if worker.is_child()]
        self._orphans.end([worker.process.pid for worker in self._own if worker.process])

    # -- listening -----------------------------------------------------------------------

    def listen_to(self, source: Any, react: Callable[[], object]) -> None:
        """Call ``react`` whenever there is something to read, until it returns False."""

        def react_or_leave() -> None:
            if react() is False:
                self.ignore(source)

        self._selector.register(source, selectors.EVENT_READ, react_or_leave)

    def ignore(self, source: Any) -> None:
        """Listen to it no longer."""
        if source.fileno() in self._selector.get_map():
            self._selector.unregister(source)

    def listen(self, seconds: float) -> None:
        """React to what there is to read, waiting for it at most so long."""
        for key, _ in self._selector.select(seconds):
            if self._selector.get_map().get(key.fd) is key:  # not left by an earlier reaction
                key.data()

    def dismiss_zygotes(self) -> None:
        """End the zygotes, and what they have forked."""
        for branch in sorted(self._zygotes, key=len, reverse=True):
            worker = self._zygotes.pop(branch)
            self.ignore(worker.channel)
            if branch in self._opening:  # it would hear of it only after its imports
                worker.kill()
            worker.dismiss()
        self._opening.clear()

    def end(self) -> None:
        """End all workers, and what they have started."""
        self.dismiss_zygotes()
        for worker in filter(None, self._gpus):
            worker.dismiss()
        self._end_orphans()
        self._orphans.stop()
        self._selector.close()
        self._words.close()
