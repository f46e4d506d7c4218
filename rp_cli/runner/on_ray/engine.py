"""Runs test files on a Ray cluster: asks for one after the other, and records what comes back."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rp_cli.errors import BadInputError
from rp_cli.runner.fleet import READY_SECONDS
from rp_cli.runner.on_ray.assigning import MOST_LOSSES, Assigning, Node, Retire
from rp_cli.runner.on_ray.link import Link
from rp_cli.runner.on_ray.orders import Orders
from rp_cli.runner.on_ray.planning import plan
from rp_cli.runner.on_ray.reaching import connected, nodes_in
from rp_cli.runner.results import Ending, Watcher, file_result, is_failure
from rp_cli.runner.scheduling import Task
from rp_cli.runner.wishes import Wishes

Message = Mapping[str, Any]

_TICK_SECONDS = 0.05
# The node ends a file at its deadline. If nothing is heard of that, the node hangs.
_SILENCE_SECONDS = READY_SECONDS + 60.0


def run_on_ray(
    files: Sequence[Path],
    wishes: Wishes,
    record: dict[str, Any],
    stop: Callable[[], bool],
    watcher: Watcher,
    address: str,
) -> None:
    """Run files on a cluster, and write into ``record`` what was shared, lost and not run.

    Args:
        address: as ``cluster_address`` gives it.

    Raises:
        BadInputError: the cluster cannot be reached or cannot run our files.
        KeyboardInterrupt: ``stop`` said so.
    """
    record["not_run"] = list(map(str, files))
    with Link(wishes.environment, wishes.folder) as link:
        link.send({"address": address})
        nodes = connected(link, address, stop)
        engine = Engine(*plan(files, wishes, nodes, record), wishes, record, link, watcher)
        engine.run(stop)


@dataclass
class _Asked:
    """A file that Ray was asked to run; ``started`` is None until a node has begun.

    What was said of an earlier attempt may still be on its way: ``attempt`` tells them apart.
    """

    task: Task
    attempt: int
    started: float | None = None


class Engine:
    """The loop of a run. All of it happens in one thread, in ``run``."""

    def __init__(
        self,
        assigning: Assigning,
        orders: Orders,
        wishes: Wishes,
        record: dict[str, Any],
        link: Link,
        watcher: Watcher,
    ) -> None:
        self._assigning, self._orders, self._wishes = assigning, orders, wishes
        self._record, self._link, self._watcher = record, link, watcher
        self._asked: dict[int, _Asked] = {}
        self._attempts = itertools.count()

    def run(self, stop: Callable[[], bool]) -> None:
        """Run all files.

        Raises:
            BadInputError: a node cannot run our files, or Ray is gone.
            KeyboardInterrupt: ``stop`` said so.
        """
        try:
            while self._assigning.left and not self._record["stopped_early"]:
                if stop():
                    raise KeyboardInterrupt
                self._ask()
                for message in self._link.receive(_TICK_SECONDS):
                    self._hear(message)
                self._look()
        finally:
            self._record["not_run"] = [str(task.file) for task in self._assigning.left]

    def _ask(self) -> None:
        for step in self._assigning.next_steps():
            if isinstance(step, Retire):
                self._link.send({"do": "retire", "host": step.host})
                continue
            task = step.task
            attempt = next(self._attempts)
            self._asked[task.number] = _Asked(task, attempt)
            try:
                order = self._orders.order_of(task, self._assigning.later(task))
            except OSError as error:
                self._end(task, f"{task.file} cannot be read: {error.strerror or error}", "error")
                continue
            request = vars(step.request)
            self._link.send(
                {"do": "run", "number": task.number, "attempt": attempt, "host": step.host,
                 "request": request, "order": order}
            )  # fmt: skip

    def _hear(self, message: Message) -> None:
        event, number = message["event"], message.get("number")
        if event == "nodes":
            self._take_nodes(nodes_in(message))
        elif number not in self._asked or self._asked[number].attempt != message["attempt"]:
            return  # that attempt was ended while this was on its way
        elif event == "started":
            self._asked[number].started = time.monotonic()
            self._watcher.started(self._asked[number].task.file, message["node"])
        elif event == "ended":
            self._ended(number, message)
        elif event == "lost":
            self._lost(number, message["why"])
        elif event == "refused":
            raise BadInputError(
                f"The cluster cannot run rp's files ({message['why']}); install the same version "
                "of rp with its packages on every node."
            )

    def _ended(self, number: int, message: Message) -> None:
        task = self._asked.pop(number).task
        message = self._orders.named_here(message, task)
        self._record["shared_models"] += message["loaded"]
        self._record["notes"] += message["notes"]
        self._record["error_reports"] += message["error_reports"]
        self._assigning.ended(number)
        self._tell({**message["result"], "path": str(task.file)})

    def _lost(self, number: int, why: str) -> None:
        """Let a file run again whose node, or whose process there, is gone: nobody knows why."""
        task = self._asked.pop(number).task
        if self._assigning.lost(number):
            self._record["notes"].append(f"{task.file.name} was run again: {why}")
            return
        error = f"what ran it was lost {MOST_LOSSES} times, the last time with: {why}"
        self._tell(_unheard(task, error, "crashed"))

    def _end(self, task: Task, error: str, status: str) -> None:
        """End a file of which no node says anything."""
        del self._asked[task.number]
        self._assigning.give_up(task.number)
        self._tell(_unheard(task, error, status))

    def _tell(self, result: dict[str, Any]) -> None:
        self._watcher.output(result["output"].encode())
        self._watcher.finished(result)
        self._record["stopped_early"] |= self._wishes.fail_fast and is_failure(result)

    def _take_nodes(self, nodes: Sequence[Node]) -> None:
        waiting = [number for number, asked in self._asked.items() if asked.started is None]
        for number in self._assigning.shrink(nodes, waiting):
            self._cancel(number)
            del self._asked[number]
            self._assigning.put_back(number)

    def _cancel(self, number: int) -> None:
        attempt = self._asked[number].attempt
        self._link.send({"do": "cancel", "number": number, "attempt": attempt})

    def _look(self) -> None:
        late = time.monotonic() - self._wishes.timeout_seconds - _SILENCE_SECONDS
        for number, asked in list(self._asked.items()):
            if asked.started is not None and asked.started < late:
                self._cancel(number)
                after = f"{self._wishes.timeout_seconds:g} s"
                self._end(
                    asked.task, f"timeout: its node says nothing, long after {after}", "timeout"
                )


def _unheard(task: Task, error: str, status: str) -> dict[str, Any]:
    """Return the result of a file that left none."""
    ending = Ending(code=None, seconds=0.0, killed=error, ran_in="")
    return {**file_result(task.file, Path(os.devnull), ending), "status": status}
