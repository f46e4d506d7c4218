"""`rp run`: every way in which a test file can end, and the record of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from json_schemas import assert_fits

from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.results import lacking_weights
from rp_cli.runner.run import new_record, run_one, run_tests
from rp_cli.runner.stopping import StopSignals
from rp_cli.runner.telling import result_line, total_line

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


STARTS = """\
import subprocess, sys
from pathlib import Path
code = "import sys, threading; print('here', flush=True); threading.Event().wait()"
process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
process.stdout.readline()
Path({pid!r}).write_text(str(process.pid))
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not, or ends when it is given the time."""
    for _ in range(30):
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(1)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            continue
    return False


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


def test_a_signal_without_a_name_is_told(tmp_path):
    number = signal.SIGRTMIN + 1
    source = f"import os, signal\nos.kill(os.getpid(), {number})\n"
    result = run_one(write(tmp_path, source), 60, {})
    assert result["status"] == "crashed"
    assert str(number) in result["error"]


def test_the_tests_have_no_input_to_wait_for(tmp_path):
    source = PASSES.replace("print('said')", "import sys; self.assertEqual(sys.stdin.read(), '')")
    assert run_one(write(tmp_path, source), 60, {})["status"] == "passed"


def test_the_files_own_folder_is_on_the_path_and_the_current_one_is_not(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    for name in ("torch", "json", "rp_cli", "resource_pool", "planted"):
        write(here, "raise SystemExit('planted')\n", f"{name}.py")
    write(there, "value = 1\n", "beside.py")
    source = "import importlib.util, beside, json, resource_pool\n" + PASSES.replace(
        "print('said')", "self.assertIsNone(importlib.util.find_spec('planted'))"
    )
    monkeypatch.chdir(here)
    result = run_one(write(there, source), 60, {})
    assert result["status"] == "passed", result


def test_folders_and_files_are_run_and_recorded(rp, tmp_path):
    write(tmp_path, PASSES, "test_a.py")
    other = write(tmp_path, FAILS, "test_b.py")
    write(tmp_path, FAILS, "helper.py")
    done = rp("run", tmp_path, other)
    assert done.code == ExitCode.FAILED
    assert "PASSED" in done.err
    assert "FAILED" in done.err
    (record,) = Store().last("run", 5)
    # In the order in which they ended.
    assert {Path(result["path"]).name for result in record["files"]} == {"test_a.py", "test_b.py"}


def test_json_is_alone_on_stdout(rp, tmp_path):
    done = rp("run", write(tmp_path, PASSES), "--json")
    assert done.code == 0
    assert_fits(done.json, "run")
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
        (["{tmp}/test_it.txt"], "no Python file"),
    ],
)
def test_bad_input_is_one_sentence(rp, tmp_path, arguments, word):
    if "test_it" in arguments[0]:
        write(tmp_path, PASSES, Path(arguments[0]).name)
    done = rp("run", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert done.code == ExitCode.BAD_INPUT
    assert word in done.err
    assert len(done.err.splitlines()) == 1
    assert Store().last("run", 1) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RP_WEIGHTS", "big"),
        ("RP_MAX_DOWNLOAD", "much"),
        ("TEST_HARDWARE_PREFERENCES", "__import__('os')"),
        ("TEST_HARDWARE_PREFERENCES", "{'device': 'gpu9'}"),
    ],
)
def test_a_wrong_variable_is_one_sentence_before_any_test(
    rp, tmp_path, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    done = rp("run", write(tmp_path, PASSES))
    assert done.code == ExitCode.BAD_INPUT
    assert len(done.err.splitlines()) == 1
    assert Store().last("run", 1) == []


def test_an_option_replaces_a_wrong_variable(rp, tmp_path, monkeypatch):
    monkeypatch.setenv("RP_WEIGHTS", "big")
    monkeypatch.setenv("TEST_HARDWARE_PREFERENCES", "nonsense")
    arguments = ("--weights", "tiny", "--device", "cpu")
    assert rp("run", write(tmp_path, PASSES), *arguments).code == 0


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


RUNS = "from pathlib import Path\nPath({ran!r}).touch()\n" + PASSES


def test_a_home_that_cannot_be_written_is_said_before_any_test(rp, tmp_path, monkeypatch):
    path = write(tmp_path, RUNS.format(ran=str(tmp_path / "ran")))
    monkeypatch.setenv("RP_HOME", str(path / "below a file"))
    done = rp("run", path)
    assert done.code == ExitCode.CANNOT_WRITE
    assert "choose a folder that can be written with RP_HOME" in done.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("other_table", [False, True])
def test_a_corrupt_record_file_is_said_before_any_test(rp, tmp_path, isolated_home, other_table):
    records = isolated_home / "records.sqlite3"
    if other_table:
        with contextlib.closing(sqlite3.connect(records)) as connection, connection:
            connection.execute("CREATE TABLE records (something INTEGER)")
    else:
        records.write_text("this is no database, it is a long text" * 9)
    done = rp("run", write(tmp_path, RUNS.format(ran=str(tmp_path / "ran"))))
    assert done.code == ExitCode.BAD_INPUT
    assert "move it away" in done.err
    assert not (tmp_path / "ran").exists()


def test_json_is_printed_although_the_record_cannot_be_kept_at_the_end(rp, tmp_path, isolated_home):
    home = str(isolated_home)
    source = "import shutil\nfrom pathlib import Path\n"
    source += f"shutil.rmtree({home!r}); Path({home!r}).touch()\n" + PASSES
    done = rp("run", write(tmp_path, source), "--json")
    assert done.code == ExitCode.CANNOT_WRITE
    assert done.json["files"][0]["status"] == "passed"


@pytest.mark.parametrize(
    ("source", "code"), [(FAILS, ExitCode.FAILED), (PASSES, ExitCode.BAD_INPUT)]
)
def test_a_database_that_is_damaged_meanwhile_does_not_hide_a_failure(
    rp, tmp_path, isolated_home, source, code
):
    damage = (
        "from pathlib import Path\n"
        f"for file in Path({str(isolated_home)!r}).glob('records.sqlite3*'):\n"
        "    file.write_bytes(b'nothing that SQLite reads' * 400)\n"
    )
    done = rp("run", write(tmp_path, damage + source))
    assert done.code == code
    assert "rp: " in done.err
    assert "sqlite3.DatabaseError" not in done.err


def test_records_that_another_run_has_locked_stop_no_file(rp, tmp_path, monkeypatch):
    """They are locked whenever a file ends, and free again for the last save."""
    monkeypatch.setattr("rp_cli.commands.run._KEEP_SECONDS", 0.01)

    def run_locked(*arguments, real=run_tests, **options):
        with contextlib.closing(sqlite3.connect(Store().path)) as other:
            other.execute("BEGIN EXCLUSIVE")
            real(*arguments, **options)
        assert Store().last("run", 1)[0]["files"] == []

    monkeypatch.setattr("rp_cli.runner.run.run_tests", run_locked)
    write(tmp_path, PASSES, "test_a.py")
    write(tmp_path, FAILS, "test_b.py")
    assert rp("run", tmp_path).code == ExitCode.FAILED
    (record,) = Store().last("run", 1)
    assert {result["status"] for result in record["files"]} == {"passed", "failed"}


def test_what_the_pool_decided_is_recorded(rp, tmp_path):
    source = PASSES.replace(
        "print('said')",
        "__import__('resource_pool').get_global_resource_pool()"
        ".get_model('embedding', 'm', dict, {'device': 'cpu'})",
    )
    rp("run", write(tmp_path, source))
    (record,) = Store().last("run", 1)
    (event,) = record["files"][0]["pool"]["events"]
    assert (event["what"], event["key"].split(":")[:2]) == ("place", ["embedding", "m"])


LACKS = (
    "from resource_pool import WeightsUnavailableError\nMODEL_NAME = 'org/m'\n"
    + PASSES.replace("print('said')", "raise WeightsUnavailableError('none of org/m')")
)


def test_a_run_that_fails_only_for_want_of_weights_says_whose(rp, tmp_path):
    write(tmp_path, LACKS, "test_a.py")
    write(tmp_path, PASSES, "test_b.py")
    done = rp("run", tmp_path)
    assert done.code == ExitCode.NOT_HERE
    assert done.err.endswith("rp: no weights of org/m are here; fetch them.\n")
    write(tmp_path, FAILS, "test_c.py")
    assert rp("run", tmp_path).code == ExitCode.FAILED


def test_a_twin_is_advised_only_where_one_can_be_made(rp, tmp_path):
    source = LACKS.replace("raise W", "from resource_pool.weights import locate_weights; raise W")
    ask = "locate_weights({!r}, mode='pretrained')"
    raised = source.replace("raise WeightsUnavailableError('none of org/m')", ask)
    write(tmp_path, raised.format("bert-base-uncased"), "test_a.py")
    assert "--weights auto" in rp("run", tmp_path).err
    write(tmp_path, raised.format("nobody/knows-this"), "test_a.py")
    done = rp("run", tmp_path)
    assert done.code == ExitCode.NOT_HERE
    assert "auto" not in done.err


def test_a_class_that_cannot_be_set_up_for_want_of_weights_counts_too(rp, tmp_path):
    setup = LACKS.replace("def test_a(self)", "def setUpClass(cls)").replace(
        "    def", "    @classmethod\n    def"
    )
    assert rp("run", write(tmp_path, setup + "    def test_b(self): pass\n")).code == 3


def test_a_crash_is_never_for_want_of_weights():
    crash = {"status": "crashed", "tests": [], "exception": "", "model_name": "m", "path": "p"}
    assert lacking_weights({"interrupted": False, "files": [crash]}) == []


def test_tests_that_were_all_skipped_are_no_failure(rp, tmp_path):
    done = rp("run", write(tmp_path, SKIPS))
    assert done.code == 0
    assert "(not here)" in done.err


RESULT = {
    "path": "skills/test_hf_m.py",
    "node": None,
    "status": "passed",
    "seconds": 9.04,
    "asked": "cuda",
    "weights": [{"kind": "tiny", "reason": "the file\x1b[2J is damaged"}],
    "tests": [{"status": "skipped"}, {"status": "passed"}, {"status": "passed"}],
    "pool": {
        "models": [
            {
                "device": "cpu",
                "dtype": "float32",
                "weights": "tiny",
                "note": "cuda is not used: no driver is here",
            }
        ]
    },
}


def test_a_files_line_says_what_it_ran_on_and_what_was_asked_for():
    assert result_line(RESULT) == (
        "PASSED skills/test_hf_m.py on cpu float32, tiny weights: 2 passed, 1 skipped in 9.0 s "
        "(cuda was asked for: no driver is here; tiny because the file\ufffd[2J is damaged)"
    )


def test_a_place_that_was_asked_for_and_taken_is_told_so():
    placed = {**RESULT["pool"]["models"][0], "backend": "cuda", "note": "cuda is slow for it"}
    line = result_line({**RESULT, "weights": [], "pool": {"models": [placed]}})
    assert line.endswith("(as asked for, although cuda is slow for it)")


def test_a_place_that_nobody_asked_for_needs_no_excuse():
    line = result_line({**RESULT, "asked": None, "weights": []})
    assert line.endswith("2 passed, 1 skipped in 9.0 s")


def test_a_file_of_a_cluster_names_its_node():
    line = result_line({**RESULT, "asked": None, "weights": [], "node": "gpu-7/3fa2b1"})
    assert line.endswith("(node gpu-7/3fa2b1)")


def test_several_files_end_with_a_total():
    record = {**new_record([]), "files": [RESULT, {**RESULT, "status": "failed"}], "seconds": 20.0}
    assert total_line(record) == (
        "2 files: 1 passed, 1 failed; 6 tests: 4 passed, 2 skipped; 20.0 s"
    )


def test_what_a_generated_class_says_is_recorded(tmp_path):
    source = (
        "from types import SimpleNamespace\nMODEL_NAME = 'm'\n"
        + PASSES
        + "    weights = SimpleNamespace(kind='tiny', reason='damaged')\n"
        "    preferences = {'device': 'cuda:1'}\n"
    )
    result = run_one(write(tmp_path, source), 60, {})
    assert json.loads(json.dumps(result)) == result
    assert (result["model_name"], result["asked"]) == ("m", "cuda:1")
    assert result["weights"] == [{"kind": "tiny", "reason": "damaged"}]
