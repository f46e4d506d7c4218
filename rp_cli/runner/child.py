"""Runs one test file in a process of its own and writes what happened as JSON.

``rp_cli.runner.process`` starts it. The exit status says only whether the result was written;
whether the tests passed stands in it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
import traceback
import types
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from hardware_detection.files import write_atomically
from resource_pool import get_global_resource_pool

Test = unittest.TestCase


class RecordingResult(unittest.TextTestResult):
    """Prints as unittest does, and keeps each test's status, seconds and detail."""

    def __init__(self, stream: Any, descriptions: bool, verbosity: int) -> None:
        super().__init__(stream, descriptions, verbosity)
        self.records: dict[str, dict[str, Any]] = {}
        self._started = 0.0

    def startTest(self, test: Test) -> None:  # noqa: N802
        """Note the time; a test that reports nothing more has passed."""
        super().startTest(test)
        self._started = time.perf_counter()
        self._record(test, "passed", "")

    def stopTest(self, test: Test) -> None:  # noqa: N802
        """Note how long the test took."""
        self.records[test.id()]["seconds"] = time.perf_counter() - self._started
        super().stopTest(test)

    def addFailure(self, test: Test, err: Any) -> None:  # noqa: N802
        """Keep the traceback of a failed assertion."""
        super().addFailure(test, err)
        self._record(test, "failed", self.failures[-1][1], err[0])

    def addError(self, test: Test, err: Any) -> None:  # noqa: N802
        """Keep the traceback of an error, that of setUpClass included."""
        super().addError(test, err)
        self._record(test, "error", self.errors[-1][1], err[0])

    def addSkip(self, test: Test, reason: str) -> None:  # noqa: N802
        """Keep the reason of a skip, that of a whole class included."""
        super().addSkip(test, reason)
        self._record(test, "skipped", reason)

    def addExpectedFailure(self, test: Test, err: Any) -> None:  # noqa: N802
        """An expected failure is a pass."""
        super().addExpectedFailure(test, err)
        self._record(test, "passed", "failed as expected")

    def addUnexpectedSuccess(self, test: Test) -> None:  # noqa: N802
        """A test that should fail and passes is a failure."""
        super().addUnexpectedSuccess(test)
        self._record(test, "failed", "passed although it is marked to fail")

    def addSubTest(self, test: Test, subtest: Test, err: Any) -> None:  # noqa: N802
        """A failed subtest fails its test; the first detail is kept."""
        super().addSubTest(test, subtest, err)
        if err is not None and self.records[test.id()]["status"] == "passed":
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self._record(test, kind, "".join(traceback.format_exception(*err)), err[0])

    def _record(
        self, test: Test, status: str, detail: str, kind: type[BaseException] | None = None
    ) -> None:
        self.records[test.id()] = {
            "status": status,
            "seconds": self.records.get(test.id(), {}).get("seconds", 0.0),
            "detail": detail,
            "exception": kind.__name__ if kind else "",
        }


def run_file(path: Path, stream: TextIO) -> dict[str, Any]:
    """Import and run a test file; return what it did.

    Returns:
        tests [{name, status, seconds, detail, exception}]; error and exception: the trace and
        the type of what stopped the import, or ""; model, asked (device) and weights [{kind,
        reason}], as far as the file is a generated one; pool: what ran where.
    """
    try:
        module = _import(path)
    except BaseException as error:  # whatever a file does when it is imported, it is told
        trace = traceback.format_exc()
        return {"tests": [], "error": trace, "exception": type(error).__name__, "pool": {}}
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    runner = unittest.TextTestRunner(stream=stream, verbosity=2, resultclass=RecordingResult)
    result = runner.run(suite)
    records = result.records if isinstance(result, RecordingResult) else {}
    tests = [{"name": name, **record} for name, record in records.items()]
    return {"tests": tests, "error": "", **_generated_facts(module), "pool": _pool_facts()}


def _import(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _generated_facts(module: types.ModuleType) -> dict[str, Any]:
    """Read what a generated file and its test class say; any other file has nothing to say."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    tests = [one for one in classes if issubclass(one, unittest.TestCase)]
    preferences = [getattr(one, "preferences", None) for one in tests]
    devices = [one.get("device") for one in preferences if isinstance(one, Mapping)]
    located: list[Any] = [getattr(one, "weights", None) for one in tests]
    model = getattr(module, "MODEL_NAME", None)
    return {
        "model": model if isinstance(model, str) else None,
        "asked": next((str(one) for one in devices if one not in (None, "auto")), None),
        "weights": [
            {"kind": str(one.kind), "reason": str(one.reason)}
            for one in located
            if hasattr(one, "kind") and hasattr(one, "reason")
        ],
    }


def _pool_facts() -> dict[str, Any]:
    """Say what ran where; a file that never used the pool has nothing to say."""
    pool = get_global_resource_pool()
    placed = [event for event in pool.events() if event.what == "place"]
    stats = pool.get_stats()
    return {
        "models": [{"key": event.key, **event.numbers, "note": event.reason} for event in placed],
        "hits": stats["hits"],
        "misses": stats["misses"],
        "low_memory_mode": stats["low_memory_mode"],
    }


def main(test_file: str, result_file: str) -> None:
    """Run a test file, which sees itself as a script does, and write the result as JSON."""
    logging.basicConfig(level=logging.WARNING)
    path = Path(test_file)
    sys.argv[:] = [test_file]
    sys.path.insert(0, str(path.resolve().parent))
    result = run_file(path, sys.stderr)
    write_atomically(Path(result_file), json.dumps(result, default=str))
