"""The loop of a run: starts files while they fit, and ends those that overrun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rp_cli.runner import limits
from rp_cli.runner.capture import Capture
from rp_cli.runner.fleet import READY_SECONDS, ROOT, Fleet
from rp_cli.runner.results import Ending, Watcher, file_result, is_failure
from rp_cli.runner.scheduling import (
    Open,
    State,
    Task,
    alone,
    choose,
    home,
    imports_of,
    unneeded,
    without,
)
from rp_cli.runner.wishes import Settings
from rp_cli.runner.workers import Worker

# How long the loop sleeps when nothing happens: then it looks at deadlines and at Ctrl-C.
TICK_SECONDS = 0.05
# A process that hangs inside a driver does not die even when it is killed; it is left behind.
_KILLED_SECONDS = 5.0


@dataclass
class Running:
    """A file that runs; times are monotonic. ``started`` is None until its process is there.

    ``begun`` is what a GPU's worker says, which has run other files before.
    """

    task: Task
    worker: Worker
    output: Capture
    result: Path
    asked: float
    started: float | None = None
    pid: int | None = None
    begun: bool = False
    shared_bytes: int = 0
    killed: str = ""
    killed_at: float = 0.0


class Dispatcher:
    """Runs tasks to their end. All of it happens in one thread, in ``run``.

    Attributes:
        stopped_early: whether a failure ended the run (``fail_fast``).
    """

    def __init__(
        self, settings: Settings, fleet: Fleet, stop: Callable[[], bool], watcher: Watcher
    ) -> None:
        self._settings, self._fleet = settings, fleet
        self._stop, self._watcher = stop, watcher
        self._waiting: list[Task] = []
        self._running: dict[int, Running] = {}
        self._asked_again: set[int] = set()
        self._processes = limits.processes_now()
        self.stopped_early = False
        fleet.listener = self

    def run(self, tasks: Sequence[Task]) -> None:
        """Run all tasks.

        Raises:
            KeyboardInterrupt: ``stop`` said so; what ran is killed.
        """
        self._waiting = list(tasks)
        try:
            while (self._waiting or self._running) and not self.stopped_early:
                if self._stop():
                    raise KeyboardInterrupt
                self._fill()
                self._fleet.listen(TICK_SECONDS)
                self._look()
        finally:
            self._abandon()

    @property
    def not_run(self) -> list[str]:
        """The files that were not run to their end."""
        left = [*(run.task for run in self._running.values()), *self._waiting]
        return [str(task.file) for task in left]

    # -- starting ------------------------------------------------------------------------

    def _fill(self) -> None:
        while True:
            self._provide_zygote()
            step = choose(self._waiting, self._state(), self._settings.sizes)
            if step is None:
                return
            if isinstance(step, Open):
                self._open(step)
            else:
                self._start(step.task)

    def _provide_zygote(self) -> None:
        forked = [task for task in self._waiting if task.lane == "fork"]
        if forked and self._fleet.exhausted:
            self._waiting = [alone(task) for task in self._waiting]
        elif forked and ROOT not in self._fleet.branches:
            self._fleet.start_zygote()
            self._fleet.prepare(imports_of(forked))

    def _state(self) -> State:
        opening = [branch for branch in self._fleet.opening if branch != ROOT]
        forked = [run for run in self._running.values() if run.worker.kind != "gpu"]
        on_gpus = len(self._running) - len(forked)
        branches = [branch for branch in self._fleet.branches if branch != ROOT]
        models = sum(self._settings.sizes.get(branch[-1], 0) for branch in branches)
        return State(
            free_slots=self._settings.jobs - len(forked) - len(opening),
            free_gpus=len(self._settings.gpus) - on_gpus,
            ready=[b for b in self._fleet.branches if b not in self._fleet.opening],
            opening=self._fleet.opening,
            failed=self._fleet.failed,
            budget=self._settings.budget,
            used=models + sum(run.task.needs for run in self._running.values()),
            idle=not self._running and not opening,
        )

    def _open(self, step: Open) -> None:
        plans = (plan for task in self._waiting for plan in task.facts.models)
        self._fleet.open(step.branch, next(plan for plan in plans if plan.key == step.branch[-1]))

    def _start(self, task: Task) -> None:
        self._waiting.remove(task)
        worker, output = self._worker_for(task), Capture(self._watcher.output)
        result = self._settings.folder / f"{task.number}.json"
        run = Running(task, worker, output, result, time.monotonic())
        self._running[task.number] = run
        self._fleet.listen_to(output, output.read)
        worker.send(self._request(task, result), output.writer)
        output.hand_over()
        if worker.process is not None and worker.kind != "zygote":
            run.started, run.pid = run.asked, worker.process.pid
        self._watcher.started(task.file, worker.name if worker.kind == "gpu" else "")

    def _worker_for(self, task: Task) -> Worker:
        if task.lane == "fork":
            return self._fleet.zygote(home(task, self._fleet.failed))
        if task.lane == "alone":
            return self._fleet.start_alone(self._settings.threads)
        busy = [run.worker for run in self._running.values()]
        return self._fleet.gpu_worker(lambda worker: worker in busy)

    def _request(self, task: Task, result: Path) -> dict[str, Any]:
        waiting = {plan.name for other in self._waiting for plan in other.facts.models}
        later = waiting | {*self._settings.later_names}
        on_gpu = task.lane == "gpu"
        return {
            "do": "run",
            "number": task.number,
            "file": str(task.file),
            "work_folder": str(self._settings.work_folder or ""),
            "result": str(result),
            "style": task.facts.style,
            "selection": self._settings.selection,
            "threads": self._settings.threads,
            "memory_bytes": None if on_gpu else self._settings.budget,
            "processes": self._settings.user_processes,
            "keep": sorted(later) if on_gpu else [],
        }

    # -- what the fleet tells ------------------------------------------------------------

    def on_started(self, number: int, pid: int, shared_bytes: int) -> None:
        """Let the deadline begin."""
        if number in self._running:
            run = self._running[number]
            run.started, run.pid, run.shared_bytes = time.monotonic(), pid, shared_bytes

    def on_begun(self, number: int) -> None:
        """From now on, the end of its worker is a file's own doing."""
        if number in self._running:
            self._running[number].begun = True

    def on_unforked(self, number: int, why: str) -> None:
        """Try it once more, when others may have ended."""
        if number in self._running:
            self._ask_again(number, {"code": None, "why": why})

    def on_ended(self, number: int, ended: Mapping[str, Any]) -> None:
        """Record a file that has ended, and drop the models that no other file needs."""
        if number not in self._running:
            return
        self._record(self._running.pop(number), ended)
        left = [*self._waiting, *(run.task for run in self._running.values())]
        homes = [home(task, self._fleet.failed) for task in left]
        homes += [without(one, self._fleet.failed) for one in self._settings.later_branches]
        for branch in unneeded(self._fleet.branches, homes):
            self._fleet.drop(branch)

    def on_lost(self, worker: Worker) -> None:
        """Run again, alone, what ran under a zygote that is gone: it is not known who did it."""
        for number, run in list(self._running.items()):
            if run.worker is not worker:
                continue
            if run.killed:
                self.on_ended(number, {"code": -9})
            else:
                self._waiting.insert(0, alone(self._withdrawn(number)))

    def _ask_again(self, number: int, ended: Mapping[str, Any]) -> None:
        """Run once more what did nothing yet; the second time, it has ended like that."""
        if number in self._asked_again:
            self.on_ended(number, ended)
            return
        self._asked_again.add(number)
        self._waiting.append(self._withdrawn(number))

    def _withdrawn(self, number: int) -> Task:
        run = self._running.pop(number)
        self._fleet.ignore(run.output)
        run.output.close()
        return run.task

    def _record(self, run: Running, ended: Mapping[str, Any]) -> None:
        self._fleet.ignore(run.output)
        ending = Ending(
            code=ended.get("code"),
            seconds=ended.get("seconds", time.monotonic() - (run.started or run.asked)),
            cpu_seconds=ended.get("cpu_seconds"),
            peak_bytes=ended.get("peak_bytes"),
            shared_bytes=run.shared_bytes,
            killed=run.killed or ended.get("why", ""),
            output=run.output.close(),
            ran_in=run.worker.name,
        )
        result = file_result(run.task.file, run.result, ending)
        self._watcher.finished(result)
        self.stopped_early |= self._settings.fail_fast and is_failure(result)

    # -- looking -------------------------------------------------------------------------

    def _look(self) -> None:
        self._look_at_workers()
        now = time.monotonic()
        for number, run in list(self._running.items()):
            if run.killed and now - run.killed_at >= _KILLED_SECONDS:
                self.on_ended(number, {"code": None})
            elif run.started is not None and now - run.started >= self._settings.timeout_seconds:
                after = f"{self._settings.timeout_seconds:g} s"
                self._kill(run, f"timeout: not done after {after} and killed")
            elif run.started is None and now - run.asked >= READY_SECONDS:
                self._fleet.end_zygotes()
        self._fleet.look()
        self._look_at_processes()

    def _look_at_workers(self) -> None:
        """Tell the end of the files whose worker has ended, and has not told it."""
        own = [run for run in self._running.values() if run.worker.kind != "zygote"]
        ended = [run for run in own if run.worker.has_ended()]
        if ended:
            self._fleet.listen(0.0)  # what they said before
        for run in ended:
            number = run.task.number
            if number not in self._running:
                continue
            told = self._fleet.forget(run.worker)
            if run.worker.kind == "gpu" and not (run.begun or run.killed):
                self._ask_again(number, told)
            else:
                self.on_ended(number, told)

    def _look_at_processes(self) -> None:
        """Kill a file that starts processes without end; root is bound by no other limit."""
        limit = self._settings.process_limit
        if self._processes is None or (limits.processes_now() or 0) - self._processes <= limit:
            return
        for run in self._running.values():
            if run.pid is not None and limits.session_size(run.pid) > limit:
                self._kill(run, f"killed: it had started more than {limit} processes")

    def _kill(self, run: Running, why: str) -> None:
        """Kill a file's process and what it started; its end is told as any other."""
        if run.killed:
            return
        run.killed, run.killed_at = why, time.monotonic()
        if run.worker.kind == "zygote":
            run.worker.send({"do": "kill", "number": run.task.number})
        else:
            run.worker.kill()

    def _abandon(self) -> None:
        """End what still runs; its files count as not run."""
        for run in self._running.values():
            if run.worker.kind != "zygote":
                self._fleet.forget(run.worker)
            self._fleet.ignore(run.output)
            run.output.close()
