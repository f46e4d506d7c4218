"""`rp run` is stopped, or stops what hangs: nothing is left running, and what ran is recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from run_files import HANGS, PASSES, is_gone, write

from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.run import run_one
from rp_cli.runner.stopping import StopSignals

STARTS = """\
import subprocess, sys
from pathlib import Path
code = "import sys, threading; print('here', flush=True); threading.Event().wait()"
process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
process.stdout.readline()
Path({pid!r}).write_text(str(process.pid))
"""


def test_a_file_that_hangs_is_killed_with_what_it_started(tmp_path, monkeypatch):
    """The deadline comes, by a clock of ours, when the file has begun and not before."""
    begun = tmp_path / "begun"
    pid = tmp_path / "pid"
    source = STARTS.format(pid=str(pid)) + f"open({str(begun)!r}, 'w').close()\n" + HANGS
    os.mkfifo(begun)
    at_deadline = threading.Event()

    def reach_the_deadline() -> None:
        with begun.open():
            at_deadline.set()

    thread = threading.Thread(target=reach_the_deadline)
    thread.start()
    monkeypatch.setattr(
        "rp_cli.runner.process.time.monotonic", lambda: 1e6 if at_deadline.is_set() else 0.0
    )
    result = run_one(write(tmp_path, source), 600, {})
    thread.join()
    assert result["status"] == "timeout"
    assert "600 s" in result["error"]
    assert is_gone(int(pid.read_text()))


def test_what_a_finished_file_left_running_is_killed(tmp_path):
    pid = tmp_path / "pid"
    result = run_one(write(tmp_path, STARTS.format(pid=str(pid)) + PASSES), 600, {})
    assert result["status"] == "passed"
    assert is_gone(int(pid.read_text()))


@pytest.fixture
def stopped_run(tmp_path, rp_command):
    """Start a run whose second file hangs, send it a signal there; return status and stderr."""
    write(tmp_path, PASSES, "test_a.py")
    fifo = tmp_path / "begun"
    os.mkfifo(fifo)
    write(tmp_path, f"open({str(fifo)!r}, 'w').close()\n" + HANGS, "test_b.py")
    # A parent that runs in the background may have handed down that these are ignored.
    first = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    )

    def stop(number: signal.Signals) -> tuple[int, str]:
        process = subprocess.Popen(
            rp_command("run", tmp_path, "-j", 1, first=first), stderr=subprocess.PIPE, text=True
        )
        try:
            with fifo.open():  # returns when test_b.py has begun
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert len(children) == 2  # the process that forks, and the file's
        assert all(is_gone(child.pid) for child in children)
        return process.returncode, err

    return stop


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGHUP, ExitCode.HUNG_UP),
    ],
)
def test_a_signal_ends_the_run_and_its_child_and_keeps_what_ran(stopped_run, number, code):
    returned, err = stopped_run(number)
    assert returned == code
    assert "Interrupted after 1 of 2 files" in err
    (record,) = Store().last("run", 5)
    assert record["interrupted"]
    assert record["signal"] == number.name
    assert [result["status"] for result in record["files"]] == ["passed"]


def test_what_was_done_survives_a_kill(stopped_run):
    stopped_run(signal.SIGKILL)
    (record,) = Store().last("run", 5)
    assert record["interrupted"]
    assert [Path(result["path"]).name for result in record["files"]] == ["test_a.py"]


def test_a_command_that_is_terminated_cleans_up(tmp_path):
    source = """
import os, signal, sys, tempfile
from rp_cli.runner.stopping import ended_cleanly
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with ended_cleanly(143), tempfile.TemporaryDirectory(dir=sys.argv[1]):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=False)
    assert done.returncode == ExitCode.TERMINATED == 143
    assert list(tmp_path.iterdir()) == []


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert stop.noted == "SIGTERM"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
