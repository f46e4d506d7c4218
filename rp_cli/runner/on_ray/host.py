"""What runs on a node: one file after the other, each as the local engine runs it.

The process that Ray gives to a task or an actor imports no test. It has a zygote of its own, with
the models that files to come want, and each file runs in a child of that. So a file that crashes
or hangs costs neither Ray's process nor the models that are loaded.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rp_cli import __version__
from rp_cli.runner import planning
from rp_cli.runner.dispatch import Dispatcher
from rp_cli.runner.fleet import ROOT, Fleet
from rp_cli.runner.learning import read_facts
from rp_cli.runner.limits import PROCESS_MARGIN
from rp_cli.runner.results import FileResult, Watcher
from rp_cli.runner.scheduling import Task
from rp_cli.runner.wishes import Settings

Message = dict[str, Any]

_MOST_REPORTS = 20
_MOST_REPORT_BYTES = 1 << 20
# What Ray sets for its own processes, the cluster's token among it, is none of a test's business.
_RAYS_OWN = ("RAY_", "PYTHONBREAKPOINT")

_host: Host | None = None


def run_single(order: str) -> Iterator[str]:
    """Run a file; the zygote stays for the next one that Ray gives to this process."""
    global _host
    _host = _host or Host()
    yield from _host.run(order)


class Host:
    """Runs files one after the other and keeps their models between them: an actor's class."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._told, self._loaded = 0, 0

    def run(self, order: str) -> Iterator[str]:
        """Run a file; yield "started" and then "ended" with its result, or "refused".

        Args:
            order: JSON, as ``orders.order_of`` writes it.
        """
        wanted = json.loads(order)
        if wanted["rp_version"] != __version__:
            there = f"rp {__version__}, and rp {wanted['rp_version']} asks"
            yield json.dumps({"event": "refused", "why": f"{_node()} has {there}"})
            return
        yield json.dumps({"event": "started", "node": _node()})
        with tempfile.TemporaryDirectory(prefix="rp_run_", ignore_cleanup_errors=True) as folder:
            ended = self._run(wanted, Path(folder).resolve())
            # What is told of the file names it by a placeholder, which the caller knows.
            inside = json.dumps(wanted["folder"])[1:-1]
            yield json.dumps(ended).replace(f"{Path(folder).resolve()}{os.sep}", inside)

    def _run(self, wanted: Mapping[str, Any], folder: Path) -> Message:
        fleet = self._fleet_for(wanted)
        file = folder / wanted["name"]
        file.write_bytes(wanted["text"].encode("latin-1"))
        facts = replace(read_facts(file), alone="")
        lane = wanted["lane"]
        if lane == "fork" and not planning.can_fork():
            lane = "alone"
        branch = tuple(wanted["branch"]) if lane == "fork" else ()
        task = Task(wanted["number"], file, facts, lane, branch, wanted["needs"])
        if lane == "fork" and ROOT not in fleet.branches:
            fleet.start_zygote()
            fleet.prepare(wanted["imports"])
        watcher = _Keeper()
        try:
            Dispatcher(_settings(wanted, folder), fleet, _is_cancelled, watcher).run([task])
        except BaseException:  # Ray ends a task with a KeyboardInterrupt
            self._fleet = None
            fleet.end()
            raise
        notes, self._told = fleet.notes[self._told :], len(fleet.notes)
        loaded, self._loaded = fleet.loaded - self._loaded, fleet.loaded
        return {
            "event": "ended",
            "result": {**watcher.results[0], "node": _node()},
            "loaded": loaded,
            "notes": notes,
            "error_reports": _reports(folder / "hardware_reports"),
        }

    def _fleet_for(self, wanted: Mapping[str, Any]) -> Fleet:
        if self._fleet is None:
            mine = {k: v for k, v in os.environ.items() if not k.startswith(_RAYS_OWN)}
            self._fleet = Fleet({**mine, **wanted["environment"]})
            self._fleet.use_gpus([{}])
        return self._fleet


class _Keeper(Watcher):
    def __init__(self) -> None:
        self.results: list[FileResult] = []

    def finished(self, result: FileResult) -> None:
        self.results.append(result)


def _settings(wanted: Mapping[str, Any], folder: Path) -> Settings:
    return Settings(
        folder=folder,
        environment={},
        timeout_seconds=wanted["timeout_seconds"],
        threads=wanted["threads"],
        gpus=[{}],
        budget=planning.memory_budget(),
        sizes=wanted["sizes"],
        selection=wanted["selection"],
        process_limit=PROCESS_MARGIN,
        user_processes=planning.user_processes(),
        work_folder=folder,
        later_branches=[tuple(branch) for branch in wanted["later_branches"]],
        later_names=wanted["later_names"],
    )


def _is_cancelled() -> bool:
    import ray

    return bool(ray.get_runtime_context().is_canceled())


def _node() -> str:
    """Return the node's name, and the beginning of its number at Ray: names may be shared."""
    import ray

    return f"{platform.node()}/{ray.get_runtime_context().get_node_id()[:6]}"


def _reports(folder: Path) -> list[Message]:
    """Return the error reports that a file's pool has saved: its folder goes now."""
    found: list[Message] = []
    for path in sorted(folder.glob("*.json"))[:_MOST_REPORTS]:
        with suppress(OSError, ValueError, RecursionError):
            if path.stat().st_size <= _MOST_REPORT_BYTES:
                report = json.loads(path.read_bytes())
                found += [{**report, "path": path.name}] if isinstance(report, dict) else []
    return found
