"""Decides which file runs next, with what, and when a shared model is loaded; nothing is done here.

Models that several files use form a tree: below each model are those that are used together with
it. A file runs where all its shared models are, so that each is loaded once per branch, and a
branch is dropped as soon as no file below it is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from rp_cli.runner.learning import Facts

Lane = Literal["fork", "alone", "gpu"]
# The keys of the shared models of a file, those first that most files use.
Branch = tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """A file to run.

    Attributes:
        lane: "fork": in a child of a zygote; "alone": in a process of its own from the start;
            "gpu": in the worker of a GPU.
        needs: bytes that it is expected to take beside what is shared.
        seconds: what it took the last time; 0 where it is new.
    """

    number: int
    file: Path
    facts: Facts = field(default_factory=Facts)
    lane: Lane = "fork"
    branch: Branch = ()
    needs: int = 0
    seconds: float = 0.0


class Run(NamedTuple):
    """Start a file."""

    task: Task


class Open(NamedTuple):
    """Load the last model of a branch on top of the others."""

    branch: Branch


@dataclass(frozen=True)
class State:
    """What is under way.

    Attributes:
        free_slots: how many more files may run beside those that do.
        free_gpus: how many GPU workers are idle.
        ready: branches whose models are loaded; () is the zygote without any.
        opening: branches that are being loaded.
        failed: models that could not be loaded to be shared.
        budget: bytes for all files and shared models together.
        used: what those that run and those that are loaded are expected to take.
        idle: whether nothing runs.
    """

    free_slots: int
    free_gpus: int
    ready: Collection[Branch]
    opening: Collection[Branch]
    failed: Collection[str]
    budget: int
    used: int
    idle: bool


def share(tasks: Sequence[Task]) -> list[Task]:
    """Give each file its branch, and return the files in the order in which they should start.

    Files of a branch stand together, largest branches first; in a branch, those that take
    longest come first, so that no long one is left for the end.
    """
    forked = [task for task in tasks if task.lane == "fork"]
    uses = Counter(plan.key for task in forked for plan in task.facts.models)
    placed = [
        replace(task, branch=_branch(task, uses)) if task.lane == "fork" else task for task in tasks
    ]
    sizes = Counter(task.branch[:1] for task in placed)
    return sorted(
        placed,
        key=lambda t: (-sizes[t.branch[:1]], t.branch[:1], t.branch, -t.seconds, t.number),
    )


def _branch(task: Task, uses: Mapping[str, int]) -> Branch:
    shared = {plan.key for plan in task.facts.models if uses[plan.key] > 1}
    return tuple(sorted(shared, key=lambda key: (-uses[key], key)))


def choose(waiting: Iterable[Task], state: State, sizes: Mapping[str, int]) -> Run | Open | None:
    """Return what to start next; None: nothing fits now.

    Args:
        waiting: in the order of :func:`share`.
        sizes: model key -> bytes, for the models that are shared.
    """
    for task in waiting:
        if task.lane == "gpu":
            if state.free_gpus:
                return Run(task)
            continue
        if not state.free_slots:
            continue
        step = _step(task, state)
        if step is not None and _fits(step, state, sizes):
            return step
    return None


def home(task: Task, failed: Collection[str]) -> Branch:
    """Return the branch in which a file runs, without the models that could not be shared."""
    return without(task.branch, failed)


def without(branch: Branch, failed: Collection[str]) -> Branch:
    """Return a branch without the models that could not be shared."""
    return tuple(key for key in branch if key not in failed)


def _step(task: Task, state: State) -> Run | Open | None:
    """Return the next step towards running a file, memory left aside."""
    if task.lane == "alone":
        return Run(task)
    branch = home(task, state.failed)
    for depth in range(len(branch) + 1):
        part = branch[:depth]
        if part in state.opening:
            return None
        if part not in state.ready:
            return Open(part) if part else None
    return Run(task)


def _fits(step: Run | Open, state: State, sizes: Mapping[str, int]) -> bool:
    needs = step.task.needs if isinstance(step, Run) else sizes.get(step.branch[-1], 0)
    return state.idle or state.used + needs <= state.budget


def unneeded(branches: Iterable[Branch], homes: Iterable[Branch]) -> list[Branch]:
    """Return the branches below which no file is left, deepest first; never the root."""
    left = list(homes)
    gone = [b for b in branches if b and not any(home[: len(b)] == b for home in left)]
    return sorted(gone, key=len, reverse=True)


def imports_of(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return what a zygote should import for these files, by kind."""
    return {
        kind: list(dict.fromkeys(name for task in tasks for name in getattr(task.facts, kind)))
        for kind in ("imports", "classes", "types")
    }


def alone(task: Task) -> Task:
    """Return a task that is not run in a fork."""
    return replace(task, lane="alone", branch=()) if task.lane == "fork" else task
