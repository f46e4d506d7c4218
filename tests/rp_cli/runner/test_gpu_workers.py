"""A GPU's files run in one process: what one does there costs that one only."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from hardware_detection.testing import fake_report
from resource_pool import ResourcePool
from rp_cli.runner import inside
from rp_cli.runner.workers import Worker

FILE = """\
import atexit, os, subprocess, sys, unittest
from resource_pool import get_global_resource_pool
class T(unittest.TestCase):
    def test_a(self):
        pool = get_global_resource_pool()
        pool.get_model("embedding", "org/m", object, {"device": "cpu"})
        BODY
"""
GPU = {"name": "X", "memory_total_mb": 1000}
# The end of the process comes with the module, when the next file's worker is made ready.
DIES_LATE = """
class Deadly:
    def __del__(self): os._exit(5)
deadly = Deadly()
deadly.itself = deadly
"""


def doing(*lines: str) -> str:
    """Return a file for a GPU whose one test does that."""
    return FILE.replace("BODY", "\n        ".join(lines) or "pass")


@pytest.fixture
def on_gpu(run):
    """Run files on a machine with one GPU; return their results by name."""

    def call(sources: dict[str, str]):
        record = run(sources, report=fake_report(cuda=[GPU]))
        return {Path(result["path"]).stem: result for result in record["files"]}

    return call


def test_a_worker_that_dies_while_it_cleans_up_costs_the_file_that_it_cleans_up_after(on_gpu):
    found = on_gpu({"test_a": doing() + DIES_LATE, "test_b": doing(), "test_c": doing()})
    assert [found[f"test_{name}"]["status"] for name in "abc"] == ["crashed", "passed", "passed"]
    assert "status 5" in found["test_a"]["error"]
    assert [test["status"] for test in found["test_a"]["tests"]] == ["passed"]
    assert {result["ran_in"] for result in found.values()} == {"gpu 0"}


@pytest.mark.parametrize(("deaths", "status"), [(1, "passed"), (9, "crashed")])
def test_a_file_whose_worker_is_gone_before_it_began_is_asked_for_once_more(
    on_gpu, monkeypatch, deaths, status
):
    killed = []

    def send(worker, message, *fds, real=Worker.send):
        if message.get("file", "").endswith("test_b.py") and len(killed) < deaths:
            killed.append(worker.process.pid)
            os.kill(worker.process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, worker.process.pid, os.WEXITED | os.WNOWAIT)
        real(worker, message, *fds)

    monkeypatch.setattr(Worker, "send", send)
    found = on_gpu({"test_a": doing(), "test_b": doing(), "test_c": doing()})
    assert [found[f"test_{name}"]["status"] for name in "abc"] == ["passed", status, "passed"]
    assert len(killed) == min(deaths, 2)


STARTS = (
    "code = 'import threading; threading.Event().wait()'",
    "end = os.open({fifo!r}, os.O_WRONLY)",
    "subprocess.Popen([sys.executable, '-c', code], pass_fds=[end], start_new_session={apart})",
)


@pytest.mark.parametrize(
    ("apart", "then"), [(False, ""), (True, ""), (False, "atexit.register(os._exit, 0)")]
)
def test_what_a_file_has_started_ends_with_the_worker(on_gpu, tmp_path, apart, then):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        lines = [line.format(fifo=fifo, apart=apart) for line in STARTS]
        found = on_gpu({"test_a": doing(*lines, then), "test_b": doing()})
        assert {result["status"] for result in found.values()} == {"passed"}
        # Nobody has the other end any more: that is where the stream ends.
        assert select.select([reader], [], [], 10.0)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_the_models_of_later_files_stay_and_those_that_a_file_has_pinned(monkeypatch):
    pool, cpu = ResourcePool(), {"device": "cpu"}
    monkeypatch.setattr("resource_pool.get_global_resource_pool", lambda: pool)
    for name in ("org/m", "org/m2", "c:/m@1", "org/n"):
        pool.get_model("embedding", name, object, cpu)
    pool.get_model("embedding", "org/m", object, cpu, variant="tiny")
    pool.get_model("embedding", "org/p", object, cpu)
    (pinned,) = (key for key in pool.models if "org/p" in key)
    pool.pin(pinned)
    inside._keep(["org/m", "c:/m@1", "org/p"])
    assert {key.removesuffix(":cpu:native") for key in pool.models} == {
        "embedding:org/m", "embedding:org/m#tiny", "embedding:c%3A/m%401", "embedding:org/p",
    }  # fmt: skip
    assert [key for key in pool.models if pool.get_resource_details(key)["pinned"]] == [pinned]
