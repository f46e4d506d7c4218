"""Plans a run: what each file needs, where it runs, and how much may run at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hardware_detection.names import CPU, TORCH_PRIORITY
from rp_cli.runner.dispatch import Dispatcher
from rp_cli.runner.fleet import Fleet
from rp_cli.runner.history import Past, past_of
from rp_cli.runner.learning import Facts, ModelPlan, read_facts
from rp_cli.runner.limits import PROCESS_MARGIN
from rp_cli.runner.results import Watcher
from rp_cli.runner.scheduling import Lane, Task, imports_of, share
from rp_cli.runner.wishes import Settings, Wishes

_MB = 1 << 20
# What a file takes beside its models: its own imports, tokenizers, activations of small inputs.
BESIDE_MODELS = 300 * _MB
# What a model takes of which nothing is known.
UNKNOWN_MODEL = 1024 * _MB
# What a recorded peak may grow by until the next run.
_GROWTH = 1.1
# The share of the memory that is available now which a run may take.
_SHARE = 0.9
_GPUS = tuple(name for name in TORCH_PRIORITY if name != CPU)
_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "rocm": "HIP_VISIBLE_DEVICES"}


def run_side_by_side(
    files: Sequence[Path],
    wishes: Wishes,
    record: dict[str, Any],
    stop: Callable[[], bool],
    watcher: Watcher,
) -> None:
    """Run files, several at once, and write into ``record`` what was shared and not run.

    Raises:
        KeyboardInterrupt: ``stop`` said so.
    """
    record["not_run"] = list(map(str, files))
    wishes = replace(wishes, environment=_with_scratch(wishes))
    fleet = Fleet(wishes.environment)
    try:
        tasks, gpus = _read(files, wishes, fleet)
        ordered, settings = plan(tasks, wishes, gpus)
        record["jobs"] = settings.jobs
        dispatcher = Dispatcher(settings, fleet, stop, watcher)
        try:
            dispatcher.run(ordered)
        finally:
            record["not_run"] = dispatcher.not_run
            record["stopped_early"] = dispatcher.stopped_early
    finally:
        record["shared_models"] = fleet.loaded
        record["notes"] += fleet.notes
        fleet.end()


def _with_scratch(wishes: Wishes) -> dict[str, str]:
    """Return the environment with a folder for what a file that is killed would leave behind."""
    scratch = wishes.folder / "scratch"
    scratch.mkdir()
    return {**wishes.environment, "TMPDIR": str(scratch)}


def _read(
    files: Sequence[Path], wishes: Wishes, fleet: Fleet
) -> tuple[list[Task], list[dict[str, str]]]:
    """Read all files and look for GPUs, while the zygote imports already what the first needs."""
    facts = []
    if can_fork():
        fleet.start_zygote()
    for file in files:
        facts.append(read_facts(file))
        if facts[-1].uses_models and not any(one.uses_models for one in facts[:-1]):
            fleet.prepare({"imports": facts[-1].imports, "classes": (), "types": ()}, last=False)
    gpus = _gpus(wishes.environment) if any(one.uses_models for one in facts) else []
    fleet.use_gpus(gpus)
    tasks = [
        Task(number, file, known, _lane(known, bool(gpus), wishes.environment))
        for number, (file, known) in enumerate(zip(files, facts, strict=True))
    ]
    forked = [task for task in tasks if task.lane == "fork"]
    if forked:
        fleet.prepare(imports_of(forked))
    else:
        fleet.dismiss_zygotes()
    return tasks, gpus


def plan(
    tasks: Sequence[Task], wishes: Wishes, gpus: Sequence[Mapping[str, str]]
) -> tuple[list[Task], Settings]:
    """Return the tasks in the order in which they should start, and how to run them."""
    cores = _cores()
    at_once = max(1, min(wishes.jobs or cores, len(tasks)))
    ordered, sizes = estimate(tasks, wishes, asked=at_once > 1)
    return ordered, Settings(
        folder=wishes.folder,
        environment=wishes.environment,
        timeout_seconds=wishes.timeout_seconds,
        jobs=at_once,
        threads=threads_of(wishes.environment) or max(1, cores // at_once),
        gpus=gpus,
        budget=memory_budget(),
        sizes=sizes,
        selection=wishes.selection,
        fail_fast=wishes.fail_fast,
        process_limit=PROCESS_MARGIN,
        user_processes=user_processes(),
    )


def estimate(
    tasks: Sequence[Task], wishes: Wishes, *, asked: bool
) -> tuple[list[Task], dict[str, int]]:
    """Return the tasks as ``share`` orders them, with what each needs, and the models' bytes.

    Args:
        asked: whether models of which nothing is recorded are predicted, which takes a while.
    """
    past = {task.number: past_of(task.file, wishes.history) for task in tasks}
    timed = [
        replace(task, seconds=known.seconds) if (known := past[task.number]) else task
        for task in tasks
    ]
    ordered = share(timed)
    sizes = _SizeBook(wishes.environment, asked=asked)
    ordered = [replace(task, needs=_needs(task, past[task.number], sizes)) for task in ordered]
    shared = {key for task in ordered for key in task.branch}
    plans = {plan.key: plan for task in tasks for plan in task.facts.models}
    return ordered, {key: sizes.of(plans[key]) for key in shared}


def _needs(task: Task, past: Past | None, sizes: _SizeBook) -> int:
    if past is not None and past.peak_bytes is not None:
        return int(past.peak_bytes * _GROWTH)
    own = [plan for plan in task.facts.models if plan.key not in task.branch]
    unread = UNKNOWN_MODEL if task.facts.uses_models and not task.facts.models else 0
    return BESIDE_MODELS + unread + sum(sizes.of(plan) for plan in own)


class _SizeBook:
    """Predicted bytes of models, each asked for once."""

    def __init__(self, environment: Mapping[str, str], *, asked: bool) -> None:
        # A twin is a few MB, whatever the model is; and one file at a time always fits.
        self._ask = asked and environment.get("RP_WEIGHTS", "").strip() != "tiny"
        self._sizes: dict[str, int] = {}

    def of(self, plan: ModelPlan) -> int:
        """Return what a model takes on the CPU; a guess where nothing is known."""
        if not self._ask:
            return 0
        if plan.key not in self._sizes:
            self._sizes[plan.key] = _predicted(plan)
        return self._sizes[plan.key]


def _predicted(plan: ModelPlan) -> int:
    from rp_cli.errors import exit_code_for

    located = plan.located or {}
    try:
        from resource_pool.prediction import predict

        prediction = predict(
            located.get("model_name", plan.path),
            model_type=located.get("model_type"),
            auto_class=plan.auto_class if plan.auto_class.startswith("Auto") else None,
            deadline_s=0.0,
        )
    except Exception as error:
        if exit_code_for(error) is None and not isinstance(error, (OSError, TypeError)):
            raise
        return UNKNOWN_MODEL
    return prediction.needed_bytes


def _lane(facts: Facts, has_gpus: bool, environment: Mapping[str, str]) -> Lane:
    if has_gpus and wants_gpu(facts, environment, _available_backends):
        return "gpu"
    if facts.alone or not can_fork():
        return "alone"
    return "fork"


def can_fork() -> bool:
    """Whether a process may go on in a fork of another one."""
    # On macOS, system libraries are not safe to use in a forked process.
    return sys.platform.startswith("linux")


def wants_gpu(
    facts: Facts, environment: Mapping[str, str], available: Callable[[], Collection[str]]
) -> bool:
    """Whether the file's preferences, or those that replace them, lead to a GPU first.

    ``available`` names the backends that are there, where the preferences leave a choice.
    """
    if not facts.uses_models:
        return False
    preferences = _preferences(environment) or facts.preferences or {}
    named = preferences.get("device")
    if named not in (None, "auto"):
        return str(named).partition(":")[0] in _GPUS
    order = preferences.get("priority_list")
    if isinstance(order, (list, tuple)):
        usable, here = [str(name).partition(":")[0] for name in order], available()
        first = next((name for name in usable if name in here), "cpu")
        return first in _GPUS
    return True


def _preferences(environment: Mapping[str, str]) -> dict[str, Any]:
    from resource_pool import preferences_from_environment

    name = "TEST_HARDWARE_PREFERENCES"
    before = os.environ.get(name)
    if environment.get(name) == before:
        return preferences_from_environment({})
    os.environ[name] = environment.get(name, "")
    try:
        return preferences_from_environment({})
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _available_backends() -> set[str]:
    from hardware_detection import detect_available_hardware

    hardware = detect_available_hardware()["hardware"]
    return {name for name, there in hardware.items() if there}


def _gpus(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return one environment per GPU that computes: the one in which only that GPU is seen."""
    from hardware_detection import detect_available_hardware

    report = detect_available_hardware()
    backend = next((name for name in _GPUS if report["hardware"].get(name)), None)
    if backend is None:
        return []
    devices = [row for row in report["details"][backend]["devices"] if row.get("dtypes")]
    named = str(_preferences(environment).get("device", ""))
    variable = _VISIBLE.get(backend)
    if variable is None or len(devices) <= 1 or ":" in named:
        return [{}]  # one worker, which sees what there is
    seen = environment.get(variable, "").split(",") if environment.get(variable) else None
    return [{variable: seen[i] if seen else str(i)} for i in (row["index"] for row in devices)]


def _cores() -> int:
    from hardware_detection.machine import Machine

    return Machine().usable_cpus() or 1


def _available_bytes() -> int:
    from hardware_detection.machine import Machine

    return int(Machine().memory_mb()[1] * _MB)


def memory_budget() -> int:
    """Return the bytes of this machine that a run may take."""
    return int(_available_bytes() * _SHARE)


def threads_of(environment: Mapping[str, str]) -> int | None:
    """Return on how many threads each file computes, where the caller says so."""
    chosen = environment.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) else None


def user_processes() -> int | None:
    """Return how many processes and threads our user may have; None for root, who is not bound."""
    if not hasattr(os, "getuid") or os.getuid() == 0:
        return None
    import psutil

    mine = psutil.process_iter(["uids", "num_threads"])
    counts = (p.info["num_threads"] or 1 for p in mine if _is_mine(p.info["uids"]))
    return sum(counts) + PROCESS_MARGIN


def _is_mine(uids: Any) -> bool:
    return uids is not None and uids.real == os.getuid()
