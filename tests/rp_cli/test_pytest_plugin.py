"""The pytest plugin, in pytest runs of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

INSTALLED = any(one.value == "rp_cli.pytest_plugin" for one in entry_points(group="pytest11"))
Pytest = Callable[..., str]

# A model of no size: what is tested is the way, not the arithmetic.
LOADS = """\
import torch

def load():
    return torch.nn.Linear(2, 2)
"""


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """Run pytest on a source in a process of its own; return what it printed."""

    def call(source: str, *options: str, name: str = "test_it.py", count: int = 1) -> str:
        (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n")
        for number in range(count):
            text = source.replace("NUMBER", str(number))
            (tmp_path / name.replace(".py", f"_{number}.py")).write_text(text)
        plugin = [] if INSTALLED else ["-p", "rp_cli.pytest_plugin"]
        words = ["-p", "no:cacheprovider", "-p", "no:randomly", *plugin, *options]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words, str(tmp_path)],
            cwd=tmp_path, env={**os.environ, "RP_WEIGHTS": "tiny"},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    return call


def test_a_marker_skips_with_what_is_missing(run_pytest):
    out = run_pytest(
        "import pytest\n"
        "@pytest.mark.requires_hardware('cpu', memory='1MiB')\ndef test_here(): pass\n"
        "@pytest.mark.requires_hardware('tpu', vram='900TiB')\ndef test_there(): assert False\n"
        "@pytest.mark.requires_hardware('gpuu')\ndef test_wrong(): pass\n",
        "-rs",
    )
    assert "1 passed, 1 skipped, 1 error" in out
    assert "tpu is not met" in out
    assert "vram>=900TiB is not met" in out
    assert out.count("unknown name 'gpuu'") == 1
    assert "UsageError" not in out


def test_fixtures_load_through_the_pool_and_the_end_says_so(run_pytest, tmp_path):
    out = run_pytest(
        "def test_a(model, tokenizer, resource_pool, hardware):\n"
        "    words = tokenizer('bert-base-uncased')(['some words'], return_tensors='pt')\n"
        "    bert = model('bert-base-uncased', {'device': 'cpu'})\n"
        "    assert bert(**words).last_hidden_state.shape[0] == 1\n"
        "    assert model('bert-base-uncased', {'device': 'cpu'}) is bert\n"
        "    assert resource_pool.get_stats()['cached_models'] == 1\n"
        "    assert hardware['hardware']['cpu']\n"
        "def test_b(model):\n"
        "    model('bert-base-uncased', {'device': 'cpu'}).train()\n",
        f"--junitxml={tmp_path / 'out.xml'}",
    )
    assert "2 passed" in out, out
    assert "rp: pool" in out
    assert "2 hits, 2 misses" in out
    assert "test_it_0.py::test_b changed embedding:bert-base-uncased" in out
    properties = ElementTree.parse(tmp_path / "out.xml").iter("property")
    told = [(one.get("name"), one.get("value")) for one in properties]
    assert [name for name, _ in told] == ["rp_pool", "rp_model", "rp_changed"]
    assert "2 hits, 2 misses" in str(told[0][1])
    assert "on cpu float32, tiny weights" in str(told[1][1])


def test_what_the_database_says_of_a_model_is_what_it_is(run_pytest, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("acme/x: {family: vision, model_type: vit}\n")
    monkeypatch.setenv("RP_MODEL_DB", str(tmp_path / "mine.yaml"))
    out = run_pytest(
        "def test_a(model):\n"
        "    assert model('acme/x', {'device': 'cpu'}).config.model_type == 'vit'\n"
    )
    assert "1 passed" in out, out


def test_who_does_not_use_the_pool_hears_and_imports_nothing(run_pytest):
    out = run_pytest(
        "import sys\n"
        "def test_a():\n"
        "    ours = ('resource_pool', 'hardware_detection', 'torch', 'rp_cli.runner')\n"
        "    assert not [name for name in ours if name in sys.modules]\n"
    )
    assert "1 passed" in out, out
    assert "rp:" not in out


GROUPED = (
    LOADS
    + """
import os, pytest
from pathlib import Path
MODEL_NAME = "org/model-NUMBER"

@pytest.mark.parametrize("place", range(6))
def test_a(resource_pool, place):
    resource_pool.get_model("embedding", MODEL_NAME, load, {"device": "cpu"})
    with open(Path(__file__).with_suffix(".txt"), "a") as stream:
        stream.write(f"{os.getpid()}\\n")
"""
)


def test_with_xdist_a_model_is_loaded_by_one_worker_only(run_pytest, tmp_path):
    xml = tmp_path / "out.xml"
    out = run_pytest(GROUPED, "-n", "2", "--dist", "loadgroup", f"--junitxml={xml}", count=3)
    assert "18 passed" in out, out
    workers = [set(file.read_text().split()) for file in tmp_path.glob("test_it_*.txt")]
    assert [len(one) for one in workers] == [1, 1, 1]
    assert "rp: pool of gw0" in out
    assert {"rp_pool_of_gw0", "rp_pool_of_gw1"} <= {
        one.get("name") for one in ElementTree.parse(xml).iter("property")
    }
    assert sum(int(line.split(", ")[1].split()[0]) for line in out.splitlines()
               if "hits, " in line) == 3  # fmt: skip
