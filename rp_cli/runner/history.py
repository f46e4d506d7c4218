"""What earlier runs say of a file: how it ended, how long it took, how much memory it had."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FINE = ("passed", "skipped", "deselected")
_MB = 1 << 20


@dataclass(frozen=True)
class Past:
    """The newest result of a file; ``peak_bytes`` is None where it was not measured."""

    failed: bool
    seconds: float
    peak_bytes: int | None


def read_history(runs: Iterable[Mapping[str, Any]]) -> dict[str, Past]:
    """Return absolute path -> newest result. Runs come newest first; odd values count as none."""
    found: dict[str, Past] = {}
    for run in runs:
        folder, files = run.get("folder"), run.get("files")
        for result in files if isinstance(files, list) else ():
            ran = isinstance(result, dict) and result.get("status") != "deselected"
            path = result.get("path") if ran else None
            if isinstance(folder, str) and isinstance(path, str):
                found.setdefault(_absolute(folder, path), _past(result))
    return found


def past_of(file: Path, history: Mapping[str, Past]) -> Past | None:
    """Return the newest result of a file; None for a new one."""
    return history.get(_absolute(os.getcwd(), str(file)))  # noqa: PTH109 - a str is wanted


def _absolute(folder: str, path: str) -> str:
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - cheap, for thousands


def _past(result: Mapping[str, Any]) -> Past:
    resources = result.get("resources")
    resources = resources if isinstance(resources, dict) else {}
    peak, shared = resources.get("peak_mb"), resources.get("shared_mb")
    own = None if peak is None else _number(peak) - _number(shared)
    return Past(
        failed=result.get("status") not in _FINE,
        seconds=_number(result.get("seconds")),
        peak_bytes=None if own is None else max(0, int(own * _MB)),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
