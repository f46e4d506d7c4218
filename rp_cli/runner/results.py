"""What a file's run comes to: its status, out of how its process ended and what it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hardware_detection.process import Outcome
from rp_cli.runner.journal import journal_of, read_journal

MISSING_WEIGHTS = "WeightsUnavailableError"
# Statuses that are no failure.
FINE = ("passed", "skipped", "deselected")

FileResult = dict[str, Any]

_MOST_RESULT_BYTES = 1 << 25
_MB = 1 << 20


@dataclass(frozen=True)
class Ending:
    """How a file's process ended; None is unknown.

    Attributes:
        code: exit status; negative: the signal that ended it.
        peak_bytes: the most that was resident at once, what is shared included.
        shared_bytes: what it had before it began, with the process from which it was forked.
        killed: why we killed it, or "".
        output: the beginning and the end of what it wrote.
        ran_in: "fork", "process" or "gpu N".
    """

    code: int | None
    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    shared_bytes: int = 0
    killed: str = ""
    output: str = ""
    ran_in: str = "process"


def file_result(file: Path, result_file: Path, ending: Ending) -> FileResult:
    """Return the record of one file.

    Its keys: path, status (passed, failed, error, skipped, deselected, no_tests, crashed or
    timeout), seconds, error, exception, model, asked, weights, tests and pool as ``run_file``
    tells them, resources {cpu_seconds, peak_mb, shared_mb}, output, ran_in, and the cluster's node.
    Of a file that broke, tests are those that had ended, and the one that ran as an error.
    """
    found = _read(result_file)
    wrote = found is not None
    ended, running = ([], None) if wrote else read_journal(journal_of(result_file))
    told = found or {"tests": ended}
    broken = _broken(ending, wrote=wrote)
    tests = told.get("tests", [])
    error = ending.killed or _crash(ending, wrote=wrote) or told.get("error", "")
    if running is not None:
        error = f"{error}; it was running {running['name']}"
        tests = [*tests, _cut_short(running, broken, error, ending.seconds)]
    return {
        "path": str(file),
        "status": broken or _status(error, tests, told.get("deselected", 0)),
        "seconds": ending.seconds,
        "error": error,
        "exception": told.get("exception", ""),
        "model_name": told.get("model_name"),
        "asked": told.get("asked"),
        "weights": told.get("weights", []),
        "tests": tests,
        "pool": told.get("pool", {}),
        "resources": {
            "cpu_seconds": ending.cpu_seconds,
            "peak_mb": None if ending.peak_bytes is None else ending.peak_bytes / _MB,
            # The zygote's at the fork, of which the file need not have touched all.
            "shared_mb": min(ending.shared_bytes, ending.peak_bytes or ending.shared_bytes) / _MB,
        },
        "output": ending.output,
        "ran_in": ending.ran_in,
        "node": None,
    }


class Watcher:
    """Is told what happens in a run; this one keeps silent."""

    def started(self, file: Path, where: str = "") -> None:
        """A file was started; ``where``: on which GPU or node, if not in a process here."""

    def finished(self, result: FileResult) -> None:
        """A file has ended."""

    def output(self, data: bytes) -> None:
        """A file has written something."""


def is_failure(result: Mapping[str, Any]) -> bool:
    """Whether a file did worse than to pass or to be skipped with a reason."""
    return result["status"] not in FINE


def passed(record: Mapping[str, Any]) -> bool:
    """Whether every file of the run passed, or was skipped with its reason."""
    return not record["interrupted"] and not any(map(is_failure, record["files"]))


def lacking_weights(record: Mapping[str, Any]) -> list[str]:
    """Return the models without weights, where that is the only failure of the whole run."""
    bad = [result for result in record["files"] if is_failure(result)]
    if record["interrupted"] or not all(_lacks_weights(result) for result in bad):
        return []
    return list(dict.fromkeys(result["model_name"] or result["path"] for result in bad))


def _lacks_weights(result: Mapping[str, Any]) -> bool:
    if result["status"] not in ("failed", "error"):
        return False
    bad = [test for test in result["tests"] if test["status"] in ("failed", "error")]
    kinds = {test["exception"] for test in bad} | ({result["exception"]} - {""})
    return kinds == {MISSING_WEIGHTS}


def _cut_short(running: Mapping[str, Any], why: str, error: str, seconds: float) -> dict[str, Any]:
    """Return the record of the test that ran when its file broke: an error, of the file's kind."""
    took = max(0.0, seconds - running["after"])
    about = {"name": running["name"], "status": "error", "seconds": took}
    return {**about, "detail": error, "exception": why}


def _broken(ending: Ending, *, wrote: bool) -> str:
    if ending.killed.startswith("timeout"):
        return "timeout"
    return "crashed" if ending.killed or ending.code != 0 or not wrote else ""


def _crash(ending: Ending, *, wrote: bool) -> str:
    if ending.code == 0:
        return "" if wrote else "the test process ended before its tests did, and left no result"
    if ending.code is None:
        return "the test process is gone, and nobody knows how"
    kind: Literal["crashed", "finished"] = "crashed" if ending.code < 0 else "finished"
    outcome = Outcome(kind, ending.code, "", "", ending.seconds)
    hint = "; the system does that when memory runs out" if ending.code == -9 else ""
    return f"the test process {outcome.describe()}{hint}"


def _read(result_file: Path) -> dict[str, Any] | None:
    """Return what a file's process wrote; None where it wrote nothing that can be read."""
    try:
        if result_file.stat().st_size > _MOST_RESULT_BYTES:
            return {"error": f"its results take more than {_MOST_RESULT_BYTES >> 20} MiB"}
        return dict(json.loads(result_file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def _status(error: str, tests: Sequence[Mapping[str, Any]], deselected: int) -> str:
    if error:
        return "error"
    found = {test["status"] for test in tests}
    if not found:
        return "deselected" if deselected else "no_tests"
    if found & {"failed", "error"}:
        return "failed"
    return "passed" if "passed" in found else "skipped"
