"""How the tests of the command line call it: as a user does, in this process or in another."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rp_cli.output
from hardware_detection.testing import fake_report, use_report
from rp_cli import app


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Rp = Callable[..., Done]


@pytest.fixture(autouse=True)
def quiet_loggers() -> Iterator[None]:
    """Undo what --debug does to the loggers of this process."""
    loggers = [logging.getLogger(name) for name in (*rp_cli.output.LOGGERS, "")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def rp(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Rp:
    """Call ``rp`` in this process, on a machine that has a CPU and nothing else."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["rp", *map(str, arguments)])
        capfd.readouterr()
        with use_report(fake_report()), pytest.raises(SystemExit) as stop:
            app.main()
        captured = capfd.readouterr()
        return Done(int(stop.value.code or 0), captured.out, captured.err)

    return call


# As the installed script does, and unlike a plain "-c": the current folder is not on the path.
RP = (
    "import sys; sys.path[:] = [sys.argv.pop(1), *filter(None, sys.path)];"
    " from rp_cli.app import main; main()"
)


@pytest.fixture
def rp_command() -> Callable[..., list[str]]:
    """Return the command line that runs ``rp`` in a process of its own."""

    def command(*arguments: object, first: str = "") -> list[str]:
        top = str(Path(rp_cli.output.__file__).parents[1])
        return [sys.executable, "-c", first + RP, top, *map(str, arguments)]

    return command


@pytest.fixture
def rp_process(rp_command: Callable[..., list[str]]) -> Rp:
    """Call ``rp`` in a process of its own."""

    def call(*arguments: object, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            rp_command(*arguments),
            capture_output=True, text=True, check=False, cwd=cwd, timeout=240,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return call
