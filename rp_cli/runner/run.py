"""The parent's side of a run: which files, each in a child with a deadline, and the record."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rp_cli import __version__
from rp_cli.errors import BadInputError

SCHEMA_VERSION = 1

FileResult = dict[str, Any]


def find_tests(paths: Sequence[Path]) -> list[Path]:
    """Return the test files named, and those (``test_*.py``) in the folders named, sorted.

    Raises:
        BadInputError: a path does not exist, or there is no test file at all.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise BadInputError(f"{path} does not exist; generate tests with `rp generate`.")
        files = sorted(path.glob("test_*.py")) if path.is_dir() else [path]
        found.update(dict.fromkeys(files))
    if not found:
        raise BadInputError(
            f"No test_*.py in {', '.join(map(str, paths))}; generate some with `rp generate`."
        )
    return list(found)


def run_tests(
    files: Sequence[Path],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    on_result: Callable[[FileResult], None] = lambda _: None,
) -> dict[str, Any]:
    """Run each file in a child of its own, one after the other, and return the run's record.

    Args:
        timeout_seconds: the deadline of each file; its whole process group is killed then.
        environment: variables on top of this process's own.
        output: a file descriptor for the children's stdout; None lets them share ours.
        on_result: called with each file's result as it comes.

    A KeyboardInterrupt ends the run: the record says "interrupted" and holds what ran.
    """
    started = time.perf_counter()
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "started_at": datetime.now(timezone.utc).isoformat(),
        "rp_version": __version__,
        "folder": str(Path.cwd()),
        "python": platform.python_version(),
        "host": platform.node(),
        "interrupted": False,
        "files": [],
    }
    try:
        for file in files:
            result = run_one(file, timeout_seconds, environment, output)
            record["files"].append(result)
            on_result(result)
    except KeyboardInterrupt:
        record["interrupted"] = True
    record["seconds"] = time.perf_counter() - started
    return record


def run_one(
    file: Path,
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None = None,
    errors: int | None = None,
) -> FileResult:
    """Run one file and return its result; a crash or a hang is a result too.

    ``output`` and ``errors`` are file descriptors for the child's stdout and stderr; None
    lets it share ours.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rp_run_") as folder:
        result_file = Path(folder) / "result.json"
        command = [sys.executable, "-m", "rp_cli.runner.child", str(file), str(result_file)]
        status = _wait(command, timeout_seconds, {**os.environ, **environment}, output, errors)
        told = _read(result_file)
    tests = told.get("tests", [])
    problem = status or told.get("error", "")
    return {
        "path": str(file),
        "status": _status(status, problem, tests),
        "seconds": time.perf_counter() - started,
        "error": problem,
        "tests": tests,
        "pool": told.get("pool", {}),
    }


def passed(record: Mapping[str, Any]) -> bool:
    """Whether every file of the run passed, or was skipped with its reason."""
    fine = all(result["status"] in ("passed", "skipped") for result in record["files"])
    return fine and not record["interrupted"]


def _wait(
    command: Sequence[str],
    timeout_seconds: float,
    environment: Mapping[str, str],
    output: int | None,
    errors: int | None,
) -> str:
    """Run a child to its end; return what went wrong with the process, or ""."""
    child = subprocess.Popen(
        command, env=environment, stdout=output, stderr=errors, start_new_session=True
    )
    try:
        code = child.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        return f"timeout: not done after {timeout_seconds:g} s and killed"
    finally:
        _kill_group(child)
    if code < 0:
        return f"crashed: killed by {signal.Signals(-code).name}"
    return "" if code == 0 else f"crashed: the process exited with status {code}"


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the child and of what it started, and nobody else's process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _read(result_file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(result_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _status(process: str, problem: str, tests: Sequence[Mapping[str, Any]]) -> str:
    if process:
        return process.partition(":")[0]
    if problem:
        return "error"
    found = {test["status"] for test in tests}
    if not found:
        return "no_tests"
    if found & {"failed", "error"}:
        return "failed"
    return "passed" if "passed" in found else "skipped"
