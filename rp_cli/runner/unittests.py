"""Runs the unittest classes of a module and keeps what each test did."""

from __future__ import annotations

import sys
import time
import traceback
import types
import unittest
from collections.abc import Iterator
from functools import partial
from typing import Any, TextIO

from rp_cli.runner.journal import NO_JOURNAL, Journal
from rp_cli.runner.selecting import Selection

Test = unittest.TestCase

# An assertion that shows two long texts can be as long as both.
_DETAIL_CHARACTERS = 32 * 1024
_RANK = {"passed": 0, "skipped": 1, "failed": 2, "error": 3}


def run_unittests(
    module: types.ModuleType, stream: TextIO, meant: Selection, journal: Journal = NO_JOURNAL
) -> dict[str, Any]:
    """Run a module's tests as unittest does; return ``tests`` and how many were ``deselected``."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    every = list(_tests(suite))
    chosen = [test for test in every if meant(test.id())]
    if len(chosen) < len(every):
        suite = unittest.TestSuite(chosen)
    recording = partial(RecordingResult, journal=journal)
    runner = unittest.TextTestRunner(stream=stream, verbosity=2, resultclass=recording)
    result = runner.run(suite)
    records = result.records if isinstance(result, RecordingResult) else {}
    tests = [{"name": name, **record} for name, record in records.items()]
    return {"tests": tests, "deselected": len(every) - len(chosen)}


def _tests(suite: unittest.TestSuite) -> Iterator[Test]:
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from _tests(part)
        elif isinstance(part, Test):
            yield part


class RecordingResult(unittest.TextTestResult):
    """Prints as unittest does, and keeps each test's status, seconds and detail."""

    def __init__(
        self, stream: Any, descriptions: bool, verbosity: int, journal: Journal = NO_JOURNAL
    ) -> None:
        super().__init__(stream, descriptions, verbosity)
        self.records: dict[str, dict[str, Any]] = {}
        self._started = 0.0
        self._running, self._journal = "", journal
        self._handled: BaseException | None = None

    def startTest(self, test: Test) -> None:  # noqa: N802
        """Note the time; a test that reports nothing more has passed."""
        super().startTest(test)
        self._started, self._handled = time.perf_counter(), sys.exc_info()[1]
        self._running = test.id()
        self._journal.begun(self._running)
        self._record(test, "passed", "")

    def stopTest(self, test: Test) -> None:  # noqa: N802
        """Note how long the test took; one that Ctrl-C breaks has not ended: it is what ran."""
        self.records[test.id()]["seconds"] = time.perf_counter() - self._started
        self._running = ""
        if sys.exc_info()[1] is self._handled:
            self._note(test.id())
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
        if err is not None and _RANK[self.records[test.id()]["status"]] < _RANK["failed"]:
            kind = "failed" if issubclass(err[0], test.failureException) else "error"
            self._record(test, kind, "".join(traceback.format_exception(*err)), err[0])

    def _record(
        self, test: Test, status: str, detail: str, kind: type[BaseException] | None = None
    ) -> None:
        known = self.records.get(test.id())
        if known is not None and _RANK[status] < _RANK[known["status"]]:
            return  # what failed stays so, whatever its tearDown or another run of it says
        self.records[test.id()] = {
            "status": status,
            "seconds": known["seconds"] if known is not None else 0.0,
            "detail": shortened(detail),
            "exception": kind.__name__ if kind else "",
        }
        if not self._running:  # a class that could not be set up, or not be taken down
            self._note(test.id())

    def _note(self, name: str) -> None:
        self._journal.ended({"name": name, **self.records[name]})


def skipped_whole(name: str, reason: str) -> dict[str, Any]:
    """Return the record of what was skipped before any test of it was found, under its name."""
    about = {"name": name, "status": "skipped", "seconds": 0.0}
    return {**about, "detail": reason, "exception": ""}


def shortened(detail: str) -> str:
    """Return the detail without its middle where it is longer than anybody reads."""
    if len(detail) <= _DETAIL_CHARACTERS:
        return detail
    half = _DETAIL_CHARACTERS // 2
    return f"{detail[:half]}\n[... {len(detail) - 2 * half} characters ...]\n{detail[-half:]}"
