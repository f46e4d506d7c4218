"""`rp run`: every way in which a test file can end, and the record of it."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest
from json_schemas import assert_fits
from run_files import (
    CLASS_SKIP,
    CRASHES,
    EMPTY,
    EXITS,
    EXPECTED,
    FAILS,
    LEAVES,
    PASSES,
    SETUP,
    SKIPS,
    SUBTESTS,
    write,
)

from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.run import find_tests, run_one, run_tests


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


def test_a_file_that_is_named_twice_runs_once(rp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, PASSES)
    assert len(rp("run", path, path.name, ".", "--json").json["files"]) == 1


def test_the_tests_below_a_folder_are_run_but_not_those_of_others(rp, tmp_path):
    kept = ["test_it.py", "a/test_it.py", "a/b/test_it.py"]
    others = [".hidden/test_it.py", "build/test_it.py", "env/lib/test_it.py", "a/it_test.py"]
    for name in kept + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write((tmp_path / name).parent, PASSES, Path(name).name)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    files = find_tests([tmp_path])
    assert [str(file.relative_to(tmp_path)) for file in files] == kept
    assert rp("run", tmp_path / "a").code == 0


UNSET = (
    ["report", "--html"],
    ["report", "errors"],
    ["run"],
    ["run", "test_it.py", "--junit"],
    ["detect", "--export"],
    ["--hardware"],
    ["models", "list", "--db"],
)


@pytest.mark.parametrize("words", UNSET, ids=lambda words: words[-1])
def test_an_unset_variable_is_not_the_current_folder(rp, tmp_path, monkeypatch, words):
    write(tmp_path, PASSES)
    monkeypatch.chdir(tmp_path)
    done = rp(*words, "", *(["detect"] if words == ["--hardware"] else []))
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert "it is empty; name a file or a folder" in done.err
    assert Store().last("run", 1) == []


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
        (["{tmp}/absent.py::test_a"], "-k picks tests by name"),
        (["{tmp}/test_it.py", "--device", ""], "device"),
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
