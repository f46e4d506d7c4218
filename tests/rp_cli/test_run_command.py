"""`rp run`: every way in which a test file can end, and the record of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.run import run_one

PASSES = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): print('said')\n"
FAILS = PASSES.replace("print('said')", "self.fail('no good')")
SKIPS = PASSES.replace("print('said')", "self.skipTest('not here')")
SUBTESTS = PASSES.replace("print('said')", "\n        with self.subTest(1): self.fail('inner')")
SETUP = PASSES + "    @classmethod\n    def setUpClass(cls): raise OSError('no weights')\n"
CLASS_SKIP = PASSES.replace("class T", "@unittest.skip('no GPU')\nclass T")
EXPECTED = PASSES.replace("    def", "    @unittest.expectedFailure\n    def")
HANGS = "import threading\nthreading.Event().wait()\n"
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
LEAVES = "import os\nos._exit(3)\n"
EXITS = "import sys\nsys.exit(5)\n"
EMPTY = "x = 1\n"


def write(folder: Path, source: str, name: str = "test_it.py") -> Path:
    path = folder / name
    path.write_text(source)
    return path


@pytest.mark.parametrize(
    ("source", "status", "word"),
    [
        (PASSES, "passed", ""),
        (FAILS, "failed", "no good"),
        (SKIPS, "skipped", "not here"),
        (SUBTESTS, "failed", "inner"),
        (SETUP, "failed", "no weights"),
        (CLASS_SKIP, "skipped", "no GPU"),
        (EXPECTED, "failed", "passed although"),
        (CRASHES, "crashed", "SIGSEGV"),
        (LEAVES, "crashed", "status 3"),
        (EXITS, "error", "SystemExit"),
        ("def broken(:\n", "error", "SyntaxError"),
        (EMPTY, "no_tests", ""),
    ],
)
def test_every_end_of_a_file_is_told(tmp_path, source, status, word):
    result = run_one(write(tmp_path, source), 60, {})
    assert result["status"] == status
    assert word in result["error"] + "".join(test["detail"] for test in result["tests"])


def test_a_file_that_hangs_is_killed_with_what_it_started(tmp_path):
    child = (
        "import subprocess, sys, threading\n"
        "from pathlib import Path\n"
        "code = 'import threading; threading.Event().wait()'\n"
        "process = subprocess.Popen([sys.executable, '-c', code])\n"
        f"Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid))\n"
    )
    result = run_one(write(tmp_path, child + HANGS), 5, {})
    assert result["status"] == "timeout"
    assert "5 s" in result["error"]
    pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_folders_and_files_are_run_and_recorded(rp, tmp_path):
    write(tmp_path, PASSES, "test_a.py")
    other = write(tmp_path, FAILS, "test_b.py")
    write(tmp_path, FAILS, "helper.py")
    done = rp("run", tmp_path, other)
    assert done.code == ExitCode.FAILED
    assert "PASSED" in done.err
    assert "FAILED" in done.err
    (record,) = Store().last("run", 5)
    assert [Path(result["path"]).name for result in record["files"]] == ["test_a.py", "test_b.py"]


def test_json_is_alone_on_stdout(rp, tmp_path):
    done = rp("run", write(tmp_path, PASSES), "--json")
    assert done.code == 0
    assert done.json["files"][0]["status"] == "passed"
    assert "said" in done.err


def test_device_and_weights_reach_the_tests(rp, tmp_path):
    source = PASSES.replace(
        "print('said')",
        "import os; "
        "self.assertEqual(os.environ['RP_WEIGHTS'], 'tiny'); "
        "self.assertEqual(os.environ['TEST_HARDWARE_PREFERENCES'], str({'device': 'cuda:1'}))",
    )
    done = rp("run", write(tmp_path, source), "--weights", "tiny", "--device", "cuda:1")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["{tmp}/absent"], "does not exist"),
        (["{tmp}"], "No test_*.py"),
        (["{tmp}/test_it.py", "--weights", "big"], "--weights"),
        (["{tmp}/test_it.py", "--device", "gpu9"], "Unknown device"),
        (["{tmp}/test_it.py", "--timeout", "0"], "--timeout"),
    ],
)
def test_bad_input_is_one_sentence(rp, tmp_path, arguments, word):
    if "test_it" in arguments[0]:
        write(tmp_path, PASSES)
    done = rp("run", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert done.code == ExitCode.BAD_INPUT
    assert word in done.err
    assert len(done.err.splitlines()) == 1
    assert Store().last("run", 1) == []


def test_ctrl_c_ends_the_run_and_records_what_ran(tmp_path, isolated_home):
    write(tmp_path, PASSES, "test_a.py")
    fifo = tmp_path / "begun"
    os.mkfifo(fifo)
    write(tmp_path, f"open({str(fifo)!r}, 'w').close()\n" + HANGS, "test_b.py")
    # A parent that runs in the background may have handed down "ignore SIGINT".
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rp_cli.app import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(tmp_path)], stderr=subprocess.PIPE, text=True
    )
    try:
        with fifo.open():  # returns when test_b.py has begun
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "Interrupted after 1 of 2 files" in err
    (record,) = Store().last("run", 1)
    assert record["interrupted"]


def test_a_home_that_cannot_be_written_is_said(rp, tmp_path, monkeypatch):
    path = write(tmp_path, PASSES)
    monkeypatch.setenv("RP_HOME", str(path / "below a file"))
    done = rp("run", path)
    assert done.code == ExitCode.CANNOT_WRITE
    assert "RP_HOME" in done.err
