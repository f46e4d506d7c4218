"""What a node is told of a file: its text and how to run it, and nothing of this machine's."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from rp_cli import __version__
from rp_cli.runner.scheduling import Task, imports_of
from rp_cli.runner.wishes import Wishes

# The variables that tell tests what is wanted. Folders and secrets of this machine are not sent.
_SENT = (
    "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "RESOURCE_POOL_LOW_MEMORY", "RESOURCE_POOL_MONITOR",
    "RP_MAX_DOWNLOAD", "RP_WEIGHTS", "TEST_HARDWARE_PREFERENCES", "TRANSFORMERS_OFFLINE",
)  # fmt: skip


class Orders:
    """Writes orders; what the files of a run, or of an actor, have in common is kept here.

    Args:
        groups: task number -> the actor's group; the others are single tasks.
        sizes: key of a shared model -> bytes.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        groups: Mapping[int, str],
        wishes: Wishes,
        sizes: Mapping[str, int],
        threads: int,
    ) -> None:
        self._groups, self._sizes = groups, sizes
        # Stands for a file's folder, in what is told of it; nothing that a test prints is it.
        self._folder = f"rp-folder-{secrets.token_hex(16)}/"
        of_group: dict[str, list[Task]] = {}
        for task in tasks:
            if task.lane == "fork":
                of_group.setdefault(groups.get(task.number, ""), []).append(task)
        self._imports = {group: imports_of(mine) for group, mine in of_group.items()}
        self._common = {
            "rp_version": __version__,
            "environment": {k: v for k, v in wishes.environment.items() if k in _SENT},
            "timeout_seconds": wishes.timeout_seconds,
            "selection": wishes.selection,
            "threads": threads,
        }

    def order_of(self, task: Task, later: Sequence[Task]) -> dict[str, Any]:
        """Return what the node needs to know of a file, as JSON takes it.

        Args:
            later: the files that the same actor may get next.

        Raises:
            OSError: the file cannot be read.
        """
        return {
            **self._common,
            "number": task.number,
            "imports": self._imports.get(self._groups.get(task.number, "")),
            "name": task.file.name,
            "folder": self._folder,
            "text": task.file.read_bytes().decode("latin-1"),  # bytes, each as one character
            "lane": task.lane,
            "branch": task.branch,
            "needs": task.needs,
            "sizes": {key: self._sizes[key] for key in task.branch},
            "later_branches": sorted({other.branch for other in later}),
            "later_names": sorted({one.name for other in later for one in other.facts.models}),
        }

    def named_here(self, message: Mapping[str, Any], task: Task) -> dict[str, Any]:
        """Return what a node told of a file, with the file's folder where its placeholder is."""
        folder = str(task.file)[: -len(task.file.name)]
        told = json.dumps(message).replace(self._folder, json.dumps(folder)[1:-1])
        return dict(json.loads(told))
