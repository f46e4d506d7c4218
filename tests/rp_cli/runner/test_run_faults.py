"""Whatever a test file does to its process or to the machine, it costs that file only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from run_files import PASSES

from rp_cli.errors import OutputError
from rp_cli.runner import capture
from rp_cli.runner.dispatch import Dispatcher
from rp_cli.runner.limits import adopt_orphans, processes_now


def doing(*lines: str) -> str:
    """Return a file whose one test does that."""
    return PASSES.replace("print('said')", "\n        " + "\n        ".join(lines))


def by_name(record):
    return {Path(result["path"]).stem: result for result in record["files"]}


# What a test does, the status of its file, and a word of the error.
FAULTS = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "crashed", "SIGKILL"),
    "abort": ("import os; os.abort()", "crashed", "SIGABRT"),
    "left": ("import os; os._exit(7)", "crashed", "status 7"),
    "left_well": ("import os; os._exit(0)", "crashed", "left no result"),
    "exits": ("import sys; sys.exit(3)", "failed", ""),
    "raises": ("raise KeyboardInterrupt", "crashed", "status 1"),
}


def test_each_fault_costs_its_own_file_only(run):
    sources = {f"test_{name}": doing(line) for name, (line, _, _) in FAULTS.items()}
    record = run({**sources, "test_good": PASSES})
    found = by_name(record)
    assert found["test_good"]["status"] == "passed"
    for name, (_, status, word) in FAULTS.items():
        result = found[f"test_{name}"]
        assert (result["status"], word in result["error"]) == (status, True), result
    assert not record["interrupted"]
    assert record["not_run"] == []


def test_an_endless_loop_ends_at_its_deadline_with_what_it_started(run, tmp_path, late_when):
    pids, begun = tmp_path / "pids", tmp_path / "begun"
    late_when(begun)
    endless = doing(
        "import os, subprocess, sys",
        "code = 'import threading; threading.Event().wait()'",
        "child = subprocess.Popen([sys.executable, '-c', code])",
        "other = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)",
        f"open({str(pids)!r}, 'w').write(f'{{child.pid}} {{other.pid}}')",
        f"open({str(begun)!r}, 'w').close()",
        "while True: pass",
    )
    record = run({"test_endless": endless, "test_good": PASSES}, timeout_seconds=1000.0, jobs=1)
    found = by_name(record)
    assert found["test_endless"]["status"] == "timeout"
    assert "1000 s" in found["test_endless"]["error"]
    assert found["test_good"]["status"] == "passed"
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    assert not any(map(psutil.pid_exists, started))


def leaving_a_daemon(pid: Path, *then: str) -> str:
    """Return a file that starts a process in a session of its own, and then does something."""
    return doing(
        "import os, threading",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0:",
        f"        open({str(pid)!r}, 'w').write(str(os.getpid()))",
        "        threading.Event().wait()",
        "    os._exit(0)",
        "os.wait()",
        f"while not os.path.exists({str(pid)!r}) or not open({str(pid)!r}).read(): pass",
        *then,
    )


def test_a_process_that_outlives_its_parent_is_found_and_killed(run, tmp_path):
    pid = tmp_path / "pid"
    assert by_name(run({"test_it": leaving_a_daemon(pid)}))["test_it"]["status"] == "passed"
    assert not psutil.pid_exists(int(pid.read_text()))


def test_what_outlives_a_python_that_crashes_is_found_too_and_nobody_elses_child(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr("rp_cli.runner.planning.can_fork", lambda: False)
    pid, waits = tmp_path / "pid", "import signal; signal.pause()"
    before = adopt_orphans(adopt=False)
    other = subprocess.Popen([sys.executable, "-c", waits], start_new_session=True)
    try:
        result = by_name(run({"test_it": leaving_a_daemon(pid, "os._exit(3)")}))["test_it"]
        assert (result["status"], result["ran_in"]) == ("crashed", "process")
        assert not psutil.pid_exists(int(pid.read_text()))
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert adopt_orphans(adopt=before) is False


def test_a_fork_bomb_is_stopped(run, monkeypatch):
    monkeypatch.setattr("rp_cli.runner.planning.PROCESS_MARGIN", 40)
    bomb = doing(
        "import os, signal",
        "for _ in range(150):",
        "    if os.fork() == 0:",
        "        signal.pause()",
        "signal.pause()",
    )
    before = processes_now()
    found = by_name(run({"test_bomb": bomb, "test_good": PASSES}))
    assert found["test_bomb"]["status"] == "crashed"
    assert "more than 40 processes" in found["test_bomb"]["error"]
    assert found["test_good"]["status"] == "passed"
    assert before is not None
    assert (processes_now() or 0) < before + 100


def test_more_output_than_memory_leaves_its_beginning_and_its_end(run):
    flood = doing(
        "import os",
        "os.write(1, b'first words')",
        "piece = b'x' * (1 << 20)",
        "for _ in range(1024): os.write(1, piece)",
        "os.write(2, b'last words')",
    )
    result = by_name(run({"test_flood": flood}))["test_flood"]
    assert result["status"] == "passed"
    assert "first words" in result["output"]
    assert "last words" in result["output"]
    assert "bytes left out" in result["output"]
    assert len(result["output"]) <= capture.HEAD_BYTES + capture.TAIL_BYTES + 100


def test_a_long_failure_is_shortened(run):
    result = by_name(run({"test_long": doing("self.fail('x' * 10_000_000)")}))["test_long"]
    assert result["status"] == "failed"
    assert len(result["tests"][0]["detail"]) < 100_000


def test_a_file_that_takes_all_memory_gets_a_memory_error(run, monkeypatch):
    monkeypatch.setattr("rp_cli.runner.planning._available_bytes", lambda: 300 << 20)
    greedy = doing("self.kept = bytearray(2 << 30)")
    found = by_name(run({"test_greedy": greedy, "test_good": PASSES}))
    assert found["test_greedy"]["status"] == "failed"
    assert found["test_greedy"]["tests"][0]["exception"] == "MemoryError"
    assert found["test_good"]["status"] == "passed"


def test_whoever_kills_the_process_that_forks_costs_a_retry(run, tmp_path):
    """The first time only, the file kills its parent."""
    once = tmp_path / "once"
    kills = doing(
        "import os",
        f"if not os.path.exists({str(once)!r}):",
        f"    open({str(once)!r}, 'w').close()",
        "    os.kill(os.getppid(), 9)",
        "    os.read(os.pipe()[0], 1)",
    )
    record = run({"test_kills": kills, "test_a": PASSES, "test_b": PASSES}, jobs=1)
    found = by_name(record)
    assert {result["status"] for result in found.values()} == {"passed"}
    assert found["test_kills"]["ran_in"] == "process"
    assert any("ended from outside" in note for note in record["notes"])


# Lets the first few forks of a process fail, as they do where no process or memory is left.
NO_FORK = """\
import errno, os
def fork(left=[COUNT], real=os.fork):
    if left[0] == 0:
        return real()
    left[0] -= 1
    raise BlockingIOError(errno.EAGAIN, "no process is left")
os.fork = fork
"""


@pytest.mark.parametrize(
    ("failures", "statuses"), [(1, {"passed"}), (3, {"crashed", "passed"}), (9, {"crashed"})]
)
def test_where_no_process_is_left_a_file_is_tried_again_and_then_says_so(
    run, tmp_path, failures, statuses
):
    (tmp_path / "sitecustomize.py").write_text(NO_FORK.replace("COUNT", str(failures)))
    environment = {"PYTHONPATH": str(tmp_path)}
    record = run({"test_a": PASSES, "test_b": PASSES}, jobs=1, environment=environment)
    assert {result["status"] for result in record["files"]} == statuses
    assert {result["ran_in"] for result in record["files"]} == {"fork"}
    bad = [result for result in record["files"] if result["status"] == "crashed"]
    assert all("no process is left" in result["error"] for result in bad)
    assert record["notes"] == []


def test_where_no_process_can_fork_each_file_has_its_own_python(
    run, monkeypatch, late_when, tmp_path
):
    monkeypatch.setattr("rp_cli.runner.planning.can_fork", lambda: False)
    begun = tmp_path / "begun"
    late_when(begun)
    hangs = doing(f"open({str(begun)!r}, 'w').close()", "import signal; signal.pause()")
    sources = {"test_a": PASSES, "test_b": doing("import os; os.abort()"), "test_c": hangs}
    found = by_name(run(sources, timeout_seconds=1000.0, jobs=1))
    statuses = [found[name]["status"] for name in sources]
    assert statuses == ["passed", "crashed", "timeout"]
    assert found["test_a"]["resources"]["peak_mb"] > 1
    assert {result["ran_in"] for result in found.values()} == {"process"}


def test_where_workers_cannot_be_driven_files_run_one_by_one(run, monkeypatch):
    monkeypatch.setattr("rp_cli.runner.run._has_fork_server", lambda: False)
    sources = {"test_a": PASSES, "test_b": doing("self.fail()"), "test_c": PASSES}
    record = run(sources, fail_fast=True)
    assert [result["status"] for result in record["files"]] == ["passed", "failed"]
    assert record["stopped_early"]
    assert [Path(path).stem for path in record["not_run"]] == ["test_c"]


def test_a_clock_that_goes_back_changes_nothing(run, monkeypatch):
    backwards = iter(range(2**31, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(backwards)))
    result = by_name(run({"test_a": PASSES}))["test_a"]
    assert result["status"] == "passed"
    assert 0 <= result["seconds"] < 120


def test_without_a_folder_for_temporary_files_the_way_out_is_told(run, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="TMPDIR"):
        run({"test_a": PASSES})


def test_what_a_file_that_is_killed_leaves_in_the_temporary_folder_goes(run, tmp_path):
    told = tmp_path / "folder"
    dies = doing(
        "import os, pathlib, signal, tempfile",
        "folder = tempfile.mkdtemp()",
        "pathlib.Path(folder, 'weights').write_bytes(bytes(1000))",
        f"pathlib.Path({str(told)!r}).write_text(folder)",
        "os.kill(os.getpid(), signal.SIGKILL)",
    )
    run({"test_a": dies})
    assert not Path(told.read_text()).exists()


def test_a_stop_kills_what_runs_and_keeps_what_ran(run, tmp_path):
    pid = tmp_path / "pid"
    hangs = doing(
        "import os, signal, threading",
        f"open({str(pid)!r}, 'w').write(str(os.getpid()))",
        f"os.kill({os.getpid()}, signal.SIGTERM)",
        "threading.Event().wait()",
    )
    record = run({"test_a": PASSES, "test_b": hangs, "test_c": PASSES}, jobs=1)
    assert record["interrupted"]
    assert record["signal"] == signal.SIGTERM.name
    assert [Path(result["path"]).stem for result in record["files"]] == ["test_a"]
    assert {Path(path).stem for path in record["not_run"]} == {"test_b", "test_c"}
    assert not psutil.pid_exists(int(pid.read_text()))


def test_two_runs_at_once_do_not_disturb_each_other(rp_command, folder, isolated_home):
    (folder / "test_a.py").write_text(PASSES)
    commands = [rp_command("run", folder, "--json") for _ in range(2)]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdout=pipe, stderr=pipe) for command in commands]
    outputs = [process.communicate(timeout=120)[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0]
    assert [json.loads(out)["files"][0]["status"] for out in outputs] == ["passed"] * 2


# The child asks to die with its parent when that has ended already.
ORPHAN = """
import os
from rp_cli.runner import limits
parent, (reader, writer) = os.getpid(), os.pipe()
if os.fork() == 0:
    os.close(writer)
    os.read(reader, 1)
    while os.getppid() == parent: pass
    limits.die_with_parent(parent)
    print("alive", flush=True)
"""


def test_a_process_whose_parent_ended_before_it_could_ask_ends_too():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, timeout=60)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_nothing_is_left_when_the_loop_itself_breaks(run, monkeypatch):
    def broken(self):
        if self._running:
            raise RuntimeError("a bug of ours")

    monkeypatch.setattr(Dispatcher, "_look", broken)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run({"test_a": doing("import threading", "threading.Event().wait()")})
    left = {child.pid for child in psutil.Process().children(recursive=True)}
    assert left <= before


def test_idle_workers_of_an_executor_do_not_keep_a_file_from_ending(run):
    lines = (
        "from concurrent.futures import ThreadPoolExecutor",
        "T.pool = ThreadPoolExecutor(2)",
        "self.assertEqual(T.pool.submit(len, 'ab').result(), 2)",
    )
    found = by_name(run({"test_it": doing(*lines)}))
    assert (found["test_it"]["status"], found["test_it"]["ran_in"]) == ("passed", "fork")
