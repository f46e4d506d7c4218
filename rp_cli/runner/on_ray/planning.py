"""Plans a run on a cluster: what each file asks for, and which files have a model in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rp_cli.runner.learning import read_facts
from rp_cli.runner.on_ray.assigning import Assigning, Node, Request, threads_per_file, within
from rp_cli.runner.on_ray.orders import Orders
from rp_cli.runner.planning import estimate, threads_of, wants_gpu
from rp_cli.runner.scheduling import Task
from rp_cli.runner.wishes import Wishes


def plan(
    files: Sequence[Path], wishes: Wishes, nodes: Sequence[Node], record: dict[str, Any]
) -> tuple[Assigning, Orders]:
    """Return which file is asked for when, with what, and what the nodes are told."""
    slots = max(1, sum(int(node.cpus) for node in nodes))
    at_once = min(wishes.jobs or slots, slots, len(files))
    threads = threads_of(wishes.environment) or threads_per_file(nodes, at_once)
    record["jobs"] = at_once = min(at_once, max(1, slots // threads))
    tasks = [Task(number, file, read_facts(file)) for number, file in enumerate(files)]
    record["notes"] += [
        f"{task.file.name} ran without what is beside it: only the file itself travels"
        for task in tasks
        if task.facts.alone
    ]
    ordered, sizes = estimate(tasks, wishes, asked=True)
    placed = _placed(ordered, wishes, has_gpus=any(node.gpus >= 1 for node in nodes))
    keys = {task.number: task.branch[0] for task in placed if task.branch}
    requests = {
        number: within(request, nodes)
        for number, request in requests_of(placed, keys, sizes, threads).items()
    }
    groups = _named(keys)
    assigning = Assigning(placed, groups, requests, slots=at_once, jobs=wishes.jobs)
    return assigning, Orders(placed, groups, wishes, sizes, threads)


def _placed(tasks: Sequence[Task], wishes: Wishes, *, has_gpus: bool) -> list[Task]:
    """Return the tasks, those marked that go to a GPU; of which kind it is, Ray does not say."""
    if not has_gpus:
        return list(tasks)
    backends = ("cpu", "cuda", "rocm")
    return [
        replace(task, lane="gpu")
        if wants_gpu(task.facts, wishes.environment, lambda: backends)
        else task
        for task in tasks
    ]


def _named(groups: Mapping[int, str]) -> dict[int, str]:
    """Return the groups by short names: a model's key is long."""
    names = {key: f"model {place}" for place, key in enumerate(dict.fromkeys(groups.values()), 1)}
    return {number: names[key] for number, key in groups.items()}


def requests_of(
    tasks: Sequence[Task], groups: Mapping[int, str], sizes: Mapping[str, int], threads: int
) -> dict[int, Request]:
    """Return what each file asks for; one of a group what its actor needs at the most."""
    most: Counter[str] = Counter()
    for task in tasks:
        if task.number in groups:
            needs = task.needs + sum(sizes[key] for key in task.branch)
            key = groups[task.number]
            most[key] = max(most[key], needs)
    gpu_groups = {groups.get(task.number) for task in tasks if task.lane == "gpu"} - {None}
    return {
        task.number: Request(
            threads,
            most[groups[task.number]] if task.number in groups else task.needs,
            int(task.lane == "gpu" or groups.get(task.number) in gpu_groups),
        )
        for task in tasks
    }
