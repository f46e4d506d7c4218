"""Files on real Ray clusters: one of two nodes, of which one is lost, and one of rp's own.

No test file runs before a cluster is there; what is decided without Ray is in
test_ray_decisions.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

_MB = 1 << 20
# Starts a cluster and says where; kills its second node when told so; ends with its input.
CLUSTER = """\
import json, sys
from ray.cluster_utils import Cluster
checks = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000,
          "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}
common = {"num_cpus": 2, "object_store_memory": 80 << 20, "include_dashboard": False}
head = {**common, "memory": 250 << 20, "num_gpus": 1, "_system_config": checks}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(**common, memory=4 << 30)
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """A folder with a short name: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="rp_", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def environment(tmp_path_factory, short) -> dict[str, str]:
    """A place of its own for all that Ray and rp keep, and a token for the cluster."""
    home = tmp_path_factory.mktemp("home")
    return {
        **os.environ,
        "HOME": str(home),
        "RP_HOME": str(home / "rp"),
        "RP_WEIGHTS": "tiny",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "ab" * 32,
        "RAY_TMPDIR": str(short / "ray"),
        "TMPDIR": str(short),
    }


class TwoNodes:
    """A cluster in a process of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], env=environment, stdin=pipe, stdout=pipe, text=True
        )
        self.address = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill_second(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self._line() == "killed"


@pytest.fixture(scope="module")
def cluster(environment):
    found = TwoNodes(environment)
    yield found
    found.process.communicate(timeout=60)


@pytest.fixture
def start(rp_command, environment, tmp_path):
    """Start ``rp run --engine ray`` on files given as name -> source."""
    running = []

    def call(
        sources: dict[str, str], *options: object, env: dict[str, str] = environment
    ) -> subprocess.Popen[str]:
        for name, source in sources.items():
            (tmp_path / f"test_{name}.py").write_text(source)
        files = [tmp_path / f"test_{name}.py" for name in sources]
        command = rp_command("run", *files, "--engine", "ray", "--json", *options)
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(
                command, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=_obey_ctrl_c
            )
        )
        return running[-1]

    yield call
    for process in running:
        process.kill()
        process.communicate()


def _obey_ctrl_c() -> None:
    """What a shell has started in the background inherits that Ctrl-C is ignored, and rp obeys."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, json.loads(out), err


def by_name(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    names = [Path(result["path"]).stem.removeprefix("test_") for result in record["files"]]
    assert len(names) == len(set(names)), "a file has two results"
    return dict(zip(names, record["files"], strict=True))


TEST = """\
import os, signal, unittest
class T(unittest.TestCase):
    def test_a(self):
"""


def doing(*lines: str) -> str:
    return TEST + "".join(f"        {line}\n" for line in lines)


def begins_once(fifo: Path) -> list[str]:
    """Return what a test does that says when it begins, and hangs the first time."""
    os.mkfifo(fifo)
    mark = str(fifo.with_suffix(".once"))
    return [
        f"if not os.path.exists({mark!r}):",
        f"    open({mark!r}, 'w').close()",
        f"    open({str(fifo)!r}, 'w').write(str(os.getpid()))",
        "    signal.pause()",
    ]


def begun(process: subprocess.Popen[str], fifo: Path) -> int:
    """Wait until the test behind the fifo has begun; return its process."""
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while process.poll() is None:
            ready, _, _ = select.select([reader], [], [], 1.0)
            if ready and (said := os.read(reader, 100)):
                return int(said)
    finally:
        os.close(reader)
    raise AssertionError(process.communicate())


MODEL = """\
import os, signal, unittest
import transformers
from resource_pool import get_global_resource_pool
HARDWARE_PREFERENCES = {{"device": "cpu"}}
PATH = {path!r}
class T(unittest.TestCase):
    def test_a(self):
        pool = get_global_resource_pool()
        before = pool.get_stats()["hits"]
        model = pool.get_model("embedding", PATH, constructor=lambda: (
            transformers.BertModel.from_pretrained(PATH)))
        self.assertEqual(pool.get_stats()["hits"], before + 1)
"""


# Ray believes what it is told of GPUs, and shows each file the one that it got.
GPU = """\
import os, resource_pool, unittest
HARDWARE_PREFERENCES = {"device": "cuda"}
class T(unittest.TestCase):
    def test_a(self): self.assertEqual(os.environ["CUDA_VISIBLE_DEVICES"], "0")
"""


def test_a_lost_node_costs_a_retry(cluster, start, tmp_path):
    """All but the GPU is on the second node: the first has too little memory for the files."""
    from transformers import BertConfig, BertModel

    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 50}
    model = tmp_path / "bert"
    BertModel(BertConfig(**tiny, intermediate_size=8)).save_pretrained(model)
    shared = MODEL.format(path=str(model))
    hangs = "".join(f"        {line}\n" for line in begins_once(tmp_path / "actor"))
    sources = {
        "first": shared + hangs,
        "second": shared,
        "third": shared,
        "single": doing(*begins_once(tmp_path / "task")),
        "aborts": doing("os.abort()"),
        "gpu": GPU,
    }
    process = start(sources, "--address", cluster.address)
    pids = [begun(process, tmp_path / fifo) for fifo in ("actor", "task")]
    cluster.kill_second()
    code, record, err = ended(process)
    found = by_name(record)
    assert {name: result["status"] for name, result in found.items()} == {
        "first": "passed", "second": "passed", "third": "passed", "single": "passed",
        "aborts": "crashed", "gpu": "passed",
    }, err  # fmt: skip
    assert code == 1
    assert "SIGABRT" in found["aborts"]["error"]
    assert found["gpu"]["ran_in"] == "gpu 0"
    again = [note for note in record["notes"] if "was run again" in note]
    assert {note.split()[0] for note in again} >= {"test_first.py", "test_single.py"}
    # The model was loaded once on each node, and every file of it found it there. What aborts may
    # have done so before the node was lost.
    assert record["shared_models"] == 1
    assert len({result["node"] for name, result in found.items() if name != "aborts"}) == 1
    assert not any(map(psutil.pid_exists, pids))


def test_ctrl_c_ends_the_files_and_leaves_the_cluster(cluster, start, tmp_path):
    cwd = tmp_path / "cwd"
    hangs = [f"open({str(cwd)!r}, 'w').write(os.getcwd())", *begins_once(tmp_path / "begun")]
    process = start(
        {"good": doing("pass"), "hangs": doing(*hangs)},
        "--address", cluster.address, "-j", 1,
    )  # fmt: skip
    pid = begun(process, tmp_path / "begun")
    process.send_signal(signal.SIGINT)
    code, record, err = ended(process)
    assert code == 130, err
    assert record["interrupted"]
    assert list(by_name(record)) == ["good"]
    assert [Path(path).stem for path in record["not_run"]] == ["test_hangs"]
    assert not _runs(pid)
    scratch = Path(cwd.read_text())
    assert scratch.name.startswith("rp_run_")
    assert not scratch.exists()
    code, record, err = ended(start({"good": doing("pass")}, "--address", cluster.address))
    assert (code, record["files"][0]["status"]) == (0, "passed"), err


def test_a_cluster_of_its_own_ends_with_the_run(start, environment, short, tmp_path):
    own = short / "own"
    own.mkdir()
    alone = {name: value for name, value in environment.items() if not name.startswith("RAY_")}
    pids = tmp_path / "pids"
    endless = doing(
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{os.getppid()}}')",
        "assert not any(name.startswith('RAY_') for name in os.environ)",
        "while True: pass",
    )
    fails = doing("print('said', flush=True)", "self.fail(__file__)")
    loopback = doing(
        "import psutil",
        "ends = [c for c in psutil.net_connections('tcp') if c.status == 'LISTEN' and c.pid]",
        "rays = [c for c in ends if psutil.Process(c.pid).name() in ('gcs_server', 'raylet')]",
        "self.assertTrue(rays)",
        "self.assertEqual({c.laddr.ip.rpartition(':')[2] for c in rays}, {'127.0.0.1'})",
    )
    sources = {"endless": endless, "fails": fails, "loopback": loopback}
    code, record, err = ended(start(sources, "--timeout", 10, env={**alone, "TMPDIR": str(own)}))
    found = by_name(record)
    assert code == 1
    assert found["endless"]["status"] == "timeout", err
    assert "10 s" in found["endless"]["error"]
    assert found["loopback"]["status"] == "passed", found["loopback"]["tests"]
    assert found["fails"]["status"] == "failed"
    # A result names the file as the caller knows it, wherever it ran.
    assert f"AssertionError: {tmp_path}/test_fails.py" in found["fails"]["tests"][0]["detail"]
    assert "said" in found["fails"]["output"]
    assert not any(_runs(int(pid)) for pid in pids.read_text().split())
    assert list(own.iterdir()) == []
    assert not [p for p in psutil.process_iter(["name", "username"]) if _is_rays(p, environment)]


def _runs(pid: int) -> bool:
    """Whether a process is there that is not only waiting for its end to be noted."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_rays(process: psutil.Process, environment: dict[str, str]) -> bool:
    """Whether a process is of the cluster that the run started: it has our home, no address."""
    try:
        found = process.environ()
    except psutil.Error:
        return False
    ours = found.get("HOME") == environment["HOME"] and "raylet" in process.info["name"]
    return ours and found.get("RAY_AUTH_TOKEN") != environment["RAY_AUTH_TOKEN"]
