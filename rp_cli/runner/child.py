"""Runs one test file in a process of its own and writes what happened as JSON.

Called as ``python -m rp_cli.runner.child TEST_FILE RESULT_FILE``. The exit status says only
whether the result was written; whether the tests passed stands in it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import time
import traceback
import types
import unittest
from pathlib import Path
from typing import Any, TextIO

from hardware_detection.files import write_atomically

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
        self._record(test, "failed", self.failures[-1][1])

    def addError(self, test: Test, err: Any) -> None:  # noqa: N802
        """Keep the traceback of an error, that of setUpClass included."""
        super().addError(test, err)
        self._record(test, "error", self.errors[-1][1])

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
            self._record(test, kind, "".join(traceback.format_exception(*err)))

    def _record(self, test: Test, status: str, detail: str) -> None:
        seconds = self.records.get(test.id(), {}).get("seconds", 0.0)
        self.records[test.id()] = {"status": status, "seconds": seconds, "detail": detail}


def run_file(path: Path, stream: TextIO) -> dict[str, Any]:
    """Import and run a test file; return ``{"tests": [...], "error": str, "pool": {...}}``."""
    try:
        module = _import(path)
    except BaseException:  # whatever a file does when it is imported, it is told
        return {"tests": [], "error": traceback.format_exc(), "pool": _pool_facts()}
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    runner = unittest.TextTestRunner(stream=stream, verbosity=2, resultclass=RecordingResult)
    result = runner.run(suite)
    records = result.records if isinstance(result, RecordingResult) else {}
    tests = [{"name": name, **record} for name, record in records.items()]
    return {"tests": tests, "error": "", "pool": _pool_facts()}


def _import(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _pool_facts() -> dict[str, Any]:
    """Say what ran where; a file that never used the pool has nothing to say."""
    from resource_pool import get_global_resource_pool

    pool = get_global_resource_pool()
    placed = [event for event in pool.events() if event.what == "place"]
    stats = pool.get_stats()
    return {
        "models": [{"key": event.key, **event.numbers, "note": event.reason} for event in placed],
        "hits": stats["hits"],
        "misses": stats["misses"],
        "low_memory_mode": stats["low_memory_mode"],
    }


def main() -> None:
    """Run the file named first and write the result to the file named second."""
    logging.basicConfig(level=os.environ.get("RP_LOG_LEVEL", "WARNING").upper())
    test_file, result_file = (Path(argument) for argument in sys.argv[1:3])
    sys.argv[1:] = []
    result = run_file(test_file, sys.stderr)
    write_atomically(result_file, json.dumps(result))


if __name__ == "__main__":
    main()
