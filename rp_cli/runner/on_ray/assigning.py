"""Which file is handed to Ray next, with what request; nothing is done here.

Ray places what it is asked for by its resources. What is left to decide is which files have a
model in common, so that one actor loads it for all of them, and what was lost and comes again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rp_cli.runner.scheduling import Task

# A file that takes its node along so often is not tried again.
MOST_LOSSES = 3
# So many files wait at Ray at once: enough for a cluster that grows with what waits.
_MOST_ASKED = 1000


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has in all; ``memory`` is in bytes."""

    cpus: float
    memory: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Request:
    """What a file or an actor asks Ray for; ``memory`` is in bytes."""

    cpus: int
    memory: int
    gpus: int = 0

    def fits(self, node: Node) -> bool:
        """Whether an empty node has it."""
        return self.cpus <= node.cpus and self.memory <= node.memory and self.gpus <= node.gpus


def within(request: Request, nodes: Sequence[Node]) -> Request:
    """Return the request, cut to the largest node where none has it: it then has that to itself."""
    if any(request.fits(node) for node in nodes):
        return request
    able = [node for node in nodes if node.gpus >= request.gpus] or list(nodes)
    able = [node for node in able if node.cpus >= 1] or able
    if not able:
        return request
    best = max(able, key=lambda node: (node.memory, node.cpus))
    return Request(
        cpus=min(request.cpus, int(best.cpus)),
        memory=min(request.memory, int(best.memory)),
        gpus=min(request.gpus, int(best.gpus)),
    )


def threads_per_file(nodes: Sequence[Node], at_once: int) -> int:
    """Return each file's share of the cluster's CPUs, as far as the smallest node has them."""
    cpus = [int(node.cpus) for node in nodes if node.cpus >= 1]
    return max(1, min(sum(cpus) // max(1, at_once), min(cpus))) if cpus else 1


class Start(NamedTuple):
    """Hand a file to Ray: as a task (``host`` is None) or to the actor of that name."""

    task: Task
    host: str | None
    request: Request


class Retire(NamedTuple):
    """Let an actor go, and its models with it."""

    host: str


@dataclass
class _Group:
    """Files that have a model in common, and the actors that keep it: name -> busy with."""

    waiting: deque[Task]
    most_hosts: int
    hosts: dict[str, int | None] = field(default_factory=dict)
    made: int = 0


class Assigning:
    """What waits, what is asked for, and which actors there are.

    Args:
        tasks: in the order of ``share``.
        groups: task number -> the model that its actor keeps; the others are single tasks.
        requests: task number -> what it asks for; in a group, what its actor asks for.
        slots: how many files the cluster can run at once.
        jobs: the most files at once, None for what Ray finds room for.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        groups: Mapping[int, str],
        requests: Mapping[int, Request],
        *,
        slots: int,
        jobs: int | None,
    ) -> None:
        self._group_of, self._requests = dict(groups), dict(requests)
        self._most = jobs or _MOST_ASKED
        self._single = deque(task for task in tasks if task.number not in groups)
        self._asked: dict[int, tuple[Task, str | None]] = {}
        self._losses: Counter[int] = Counter()
        self._groups: dict[str, _Group] = {}
        for task in tasks:
            if task.number in groups:
                new = _Group(deque(), 1)
                self._groups.setdefault(groups[task.number], new).waiting.append(task)
        for group in self._groups.values():
            share = slots * len(group.waiting) // len(tasks)
            group.most_hosts = max(1, min(len(group.waiting) // 2, share, self._most))

    @property
    def left(self) -> list[Task]:
        """The files that have not ended: those that were asked for, then those that wait."""
        waiting = [task for group in self._groups.values() for task in group.waiting]
        return [*(task for task, _ in self._asked.values()), *waiting, *self._single]

    def later(self, task: Task) -> list[Task]:
        """Return the files of a task's group that still wait: their models should stay."""
        name = self._group_of.get(task.number)
        return list(self._groups[name].waiting) if name is not None else []

    def next_steps(self) -> list[Start | Retire]:
        """Return what to do now; it counts as done."""
        steps: list[Start | Retire] = []
        for name, group in self._groups.items():
            steps += self._steps_of(name, group)
        while self._single and len(self._asked) < self._most:
            steps.append(self._start(self._single.popleft(), None))
        return steps

    def _steps_of(self, name: str, group: _Group) -> Iterable[Start | Retire]:
        idle = [host for host, busy in group.hosts.items() if busy is None]
        for host in idle if not group.waiting else ():
            del group.hosts[host]
            yield Retire(host)
        while group.waiting and len(self._asked) < self._most:
            if not idle:
                if len(group.hosts) >= group.most_hosts:
                    return
                group.made += 1
                idle.append(f"{name}/{group.made}")
            yield self._start(group.waiting.popleft(), idle.pop(0))

    def _start(self, task: Task, host: str | None) -> Start:
        self._asked[task.number] = (task, host)
        if host is not None:
            self._groups[self._group_of[task.number]].hosts[host] = task.number
        return Start(task, host, self._requests[task.number])

    def ended(self, number: int) -> None:
        """A file has its result; its actor is idle."""
        _, host = self._asked.pop(number)
        if host is not None:
            self._groups[self._group_of[number]].hosts[host] = None

    def lost(self, number: int) -> bool:
        """What ran a file is gone, and its actor with it.

        Returns:
            Whether the file comes again; False: it was lost too often, and has ended.
        """
        self._losses[number] += 1
        if self._losses[number] < MOST_LOSSES:
            self.put_back(number)
            return True
        self.give_up(number)
        return False

    def give_up(self, number: int) -> None:
        """A file has ended without a result; its actor is gone."""
        self._forget(number)

    def put_back(self, number: int) -> None:
        """Ask for a file again, first of all; its actor is gone."""
        task = self._forget(number)
        name = self._group_of.get(number)
        (self._single if name is None else self._groups[name].waiting).appendleft(task)

    def _forget(self, number: int) -> Task:
        task, host = self._asked.pop(number)
        if host is not None:
            self._groups[self._group_of[number]].hosts.pop(host, None)
        return task

    def shrink(self, nodes: Sequence[Node], waiting_at_ray: Iterable[int]) -> list[int]:
        """Cut all requests to the nodes that are there; return what Ray would wait with for ever.

        Args:
            waiting_at_ray: files that were asked for and have not begun.
        """
        cut = {number: within(request, nodes) for number, request in self._requests.items()}
        stuck = [n for n in waiting_at_ray if n in self._asked and cut[n] != self._requests[n]]
        self._requests = cut
        return stuck
