"""Runs a file under pytest, with whatever plugins it has, and keeps what each test did."""

from __future__ import annotations

import tempfile
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rp_cli.runner.journal import NO_JOURNAL, Journal
from rp_cli.runner.selecting import Selection
from rp_cli.runner.unittests import shortened, skipped_whole


def run_pytest(
    path: Path, meant: Selection, journal: Journal = NO_JOURNAL
) -> tuple[dict[str, Any], types.ModuleType | None]:
    """Run a file's tests; return ``tests``, ``deselected``, ``error``, and the file's module."""
    recorder = Recorder(meant, journal)
    # Records are ours to keep: what a project's settings want of its cache (--ff) finds it empty.
    with tempfile.TemporaryDirectory(prefix="rp_pytest_", ignore_cleanup_errors=True) as cache:
        # rp and its modules are here before pytest is, which a project may have made an error.
        known = "ignore::pytest.PytestAssertRewriteWarning"
        options = ["-q", "-W", known, "-o", f"cache_dir={cache}"]
        code = pytest.main([*options, str(path)], plugins=[recorder])
    done = {"tests": list(recorder.tests.values()), "deselected": recorder.deselected}
    return {**done, "error": recorder.problem(code)}, recorder.module


class Recorder:
    """A plugin that notes results in the form of ``RecordingResult``."""

    def __init__(self, meant: Selection, journal: Journal = NO_JOURNAL) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.deselected = 0
        self.module: types.ModuleType | None = None
        self._meant, self._journal = meant, journal
        self._running = ""
        self._broken: list[str] = []
        # By test and phase: the type's name, and its name with the message in one line.
        self._raised: dict[tuple[str, str], tuple[str, str]] = {}

    def problem(self, code: int) -> str:
        """Return what kept the file from running, or ""."""
        if self._broken:
            return "\n".join(self._broken)
        ended = (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        )
        return "" if code in ended else f"pytest ended with status {int(code)}"

    @pytest.hookimpl(wrapper=True)  # before xdist, which wants to be the first itself
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, Any, Any]:
        """Keep xdist, where it is loaded, from starting processes: one is what this file gets."""
        if hasattr(config.option, "numprocesses"):
            config.option.numprocesses = 0
        return (yield)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what is not meant."""
        self.module = next((getattr(item, "module", None) for item in items), None)
        chosen = [item for item in items if self._meant(item.nodeid)]
        left_out = [item for item in items if not self._meant(item.nodeid)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
        self.deselected += len(left_out)
        items[:] = chosen

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep why a file could not be collected, or was skipped as a whole."""
        if report.failed:
            self._broken.append(shortened(str(report.longrepr)))
        elif report.skipped:
            name = report.nodeid.rpartition("/")[2]
            self.tests[report.nodeid] = skipped_whole(name, _reason(report))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keep what ended all tests at once, ``pytest.exit`` included: with whatever status."""
        running = f"; it was running {self._running}" if self._running else ""
        why = f"the tests were ended by {_one_line(excinfo)}{running}"
        self._broken.append(why)
        if self._running in self.tests:
            known = {"status": "error", "exception": excinfo.typename, "detail": why}
            self.tests[self._running].update(known)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note which test runs."""
        self._running = nodeid
        self._journal.begun(nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note what it did."""
        self._running = ""
        if nodeid in self.tests:
            self._journal.ended(self.tests[nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what was raised: a report's text need not name it."""
        report = yield
        if call.excinfo is not None:
            told = (call.excinfo.typename, _one_line(call.excinfo))
            self._raised[item.nodeid, call.when] = told
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the worst of setup, call and teardown, and the seconds of all three."""
        known = self.tests.setdefault(
            report.nodeid,
            {"name": report.nodeid, "status": "passed", "seconds": 0.0, "detail": "",
             "exception": ""},
        )  # fmt: skip
        known["seconds"] += report.duration
        if report.skipped and known["status"] == "passed":
            expected = hasattr(report, "wasxfail")
            known["status"] = "passed" if expected else "skipped"
            known["detail"] = "failed as expected" if expected else _reason(report)
        elif report.failed and known["status"] != "failed":
            known["status"] = "failed" if report.when == "call" else "error"
            raised = self._raised.get((report.nodeid, str(report.when)), ("", ""))
            known["exception"], said = raised
            known["detail"] = shortened(f"{report.longrepr}\n{said}".rstrip())


def _one_line(raised: pytest.ExceptionInfo[BaseException]) -> str:
    return " ".join(raised.exconly().split())


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    detail = report.longrepr
    reason = detail[2] if isinstance(detail, tuple) else str(detail)
    return reason.removeprefix("Skipped: ").removeprefix("unittest.case.SkipTest: ")
