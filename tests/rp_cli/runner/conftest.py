"""Runs files as ``rp run`` does, in this process, and gives the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hardware_detection.testing import fake_report, use_report
from rp_cli.runner.run import new_record, run_tests

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for test files, apart from everything else."""
    path = tmp_path / "files"
    path.mkdir()
    return path


@pytest.fixture
def run(folder: Path) -> Run:
    """Write files, given as name -> source, and run them; return the record."""

    def call(sources: dict[str, str], report: Any = None, **options: Any) -> dict[str, Any]:
        files = []
        for name, source in sources.items():
            files.append(folder / f"{name}.py")
            files[-1].write_text(source)
        record = new_record(files)
        options = {"timeout_seconds": 120.0, "environment": {}, **options}
        with use_report(report or fake_report()):
            run_tests(files, record, **options)
        return record

    return call


@pytest.fixture
def late_when(monkeypatch):
    """Let the run's clock jump past every deadline as soon as a file is there."""

    def install(path: Path) -> None:
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1e6 * path.exists())
        monkeypatch.setattr("rp_cli.runner.dispatch.time", clock)

    return install
