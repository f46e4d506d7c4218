"""The parent's side of a run: which files, each in a child with a deadline, and the record."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hardware_detection.process import Outcome
from rp_cli import __version__
from rp_cli.errors import BadInputError
from rp_cli.runner.process import run_child
from rp_cli.runner.stopping import StopSignals

SCHEMA_VERSION = 1
MISSING_WEIGHTS = "WeightsUnavailableError"

FileResult = dict[str, Any]
Record = dict[str, Any]


def find_tests(paths: Sequence[Path]) -> list[Path]:
    """Return the test files named, and those (``test_*.py``) in the folders named, sorted.

    Raises:
        BadInputError: a path does not exist or is no Python file, or there is no test at all.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise BadInputError(f"{path} does not exist; generate tests with `rp generate`.")
        if not path.is_dir() and not (path.suffix == ".py" and path.is_file()):
            raise BadInputError(f"{path} is no Python file; name test files or their folder.")
        inside = sorted(file for file in path.glob("test_*.py") if file.is_file())
        files = inside if path.is_dir() else [path]
        found.update(dict.fromkeys(files))
    if not found:
        raise BadInputError(
            f"No test_*.py in {', '.join(map(str, paths))}; generate some with `rp generate`."
        )
    return list(found)


def new_record(files: Sequence[Path]) -> Record:
    """Return the record of a run that has not begun; it counts as interrupted until its end."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "started_at": datetime.now(timezone.utc).isoformat(),
        "rp_version": __version__,
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "host": platform.node(),
        "file_count": len(files),
        "interrupted": True,
        "signal": None,
        "files": [],
        "seconds": 0.0,
    }


def run_tests(
    files: Sequence[Path],
    record: Record,
    *,
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    on_result: Callable[[FileResult], None] = lambda _: None,
) -> None:
    """Run each file in a child of its own, one after the other, and write into ``record``.

    Args:
        record: as ``new_record`` gives it.
        timeout_seconds: the deadline of each file; it is killed then with all that it started.
        environment: variables on top of this process's own.
        output: a file descriptor for the children's stdout; None lets them share ours.
        on_result: called with each file's result, which is in the record already.

    Ctrl-C, SIGTERM and SIGHUP end the run: the record stays "interrupted", names the signal
    and holds the files that were done.
    """
    started = time.perf_counter()
    with StopSignals() as stop:
        try:
            for file in files:
                result = run_one(file, timeout_seconds, environment, output, stop=stop.__bool__)
                record["files"].append(result)
                record["seconds"] = time.perf_counter() - started
                on_result(result)
            record["interrupted"] = False
        except KeyboardInterrupt:
            record["signal"] = stop.noted
    record["seconds"] = time.perf_counter() - started


def run_one(
    file: Path,
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    errors: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> FileResult:
    """Run one file and return its result; a crash or a hang is a result too.

    ``output`` and ``errors`` are file descriptors for the child's stdout and stderr; None
    lets it share ours.

    Raises:
        KeyboardInterrupt: ``stop``, which is asked all the time, said so.
    """
    with tempfile.TemporaryDirectory(prefix="rp_run_") as folder:
        result_file = Path(folder) / "result.json"
        outcome = run_child(
            file,
            result_file,
            deadline_seconds=timeout_seconds,
            environment={**os.environ, **environment},
            output=output,
            errors=errors,
            stop=stop,
        )
        told = _read(result_file)
    broken = "" if outcome.ok else "timeout" if outcome.kind == "timeout" else "crashed"
    tests = told.get("tests", [])
    error = _problem(outcome, timeout_seconds) or told.get("error", "")
    return {
        "path": str(file),
        "status": broken or _status(error, tests),
        "seconds": outcome.seconds,
        "error": error,
        "exception": told.get("exception", ""),
        "model": told.get("model"),
        "asked": told.get("asked"),
        "weights": told.get("weights", []),
        "tests": tests,
        "pool": told.get("pool", {}),
    }


def passed(record: Mapping[str, Any]) -> bool:
    """Whether every file of the run passed, or was skipped with its reason."""
    fine = all(result["status"] in ("passed", "skipped") for result in record["files"])
    return fine and not record["interrupted"]


def lacking_weights(record: Mapping[str, Any]) -> list[str]:
    """Return the models without weights, where that is the only failure of the whole run."""
    bad = [result for result in record["files"] if result["status"] not in ("passed", "skipped")]
    if record["interrupted"] or not all(_lacks_weights(result) for result in bad):
        return []
    return list(dict.fromkeys(result["model"] or result["path"] for result in bad))


def _lacks_weights(result: Mapping[str, Any]) -> bool:
    if result["status"] not in ("failed", "error"):
        return False
    bad = [test for test in result["tests"] if test["status"] in ("failed", "error")]
    kinds = {test["exception"] for test in bad} | ({result["exception"]} - {""})
    return kinds == {MISSING_WEIGHTS}


def _problem(outcome: Outcome, timeout_seconds: float) -> str:
    if outcome.kind == "timeout":
        return f"timeout: not done after {timeout_seconds:g} s and killed"
    return "" if outcome.ok else f"the test process {outcome.describe()}"


def _read(result_file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(result_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _status(error: str, tests: Sequence[Mapping[str, Any]]) -> str:
    if error:
        return "error"
    found = {test["status"] for test in tests}
    if not found:
        return "no_tests"
    if found & {"failed", "error"}:
        return "failed"
    return "passed" if "passed" in found else "skipped"
