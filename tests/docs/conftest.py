"""rp called in this process, as the tests of the command line do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest

from hardware_detection.testing import fake_report, use_report
from rp_cli import app


@pytest.fixture
def rp_says(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call ``rp`` on a machine with a CPU only; return exit code, stdout and stderr.

    With ``detected=False`` the detection is the real one.
    """

    def call(*arguments: object, detected: bool = True) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rp", *map(str, arguments)])
        capfd.readouterr()
        machine = use_report(fake_report()) if detected else nullcontext()
        with machine, pytest.raises(SystemExit) as stop:
            app.main()
        captured = capfd.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call
