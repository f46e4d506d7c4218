"""Optional parts that are not installed: the pool imports, caches, adapts, and says what lacks.

Each case is a process of its own in which the parts cannot be imported.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROLOGUE = """
import logging, sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        missing = name.partition(".")[0] in {blocked!r}
        return None if missing else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path = [Without(finder) for finder in sys.meta_path]
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
from resource_pool import ResourcePool
"""

CACHES_PLAIN_RESOURCES = """
pool = ResourcePool(**options)
made = []
for _ in range(2):
    assert pool.get_resource("data", "a", lambda: made.append(1) or [1]) == [1]
    assert pool.get_tokenizer("embedding", "bert-base-uncased", lambda: "tokens") == "tokens"
    assert pool.get_model("embedding", "bert-base-uncased", lambda: len) is len
assert made == [1]
stats = pool.get_stats()
assert (stats["hits"], stats["misses"], stats["cached_resources"]) == (3, 3, 3)
assert pool.check_memory_pressure() in (True, False)
assert pool.clear()["removed"] == 3
"""


def without(*blocked: str, script: str) -> list[str]:
    """Run a script in a process without these packages; return what it logged."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE.format(blocked=set(blocked)) + script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    "missing",
    [
        ("torch",),
        ("transformers",),
        ("hardware_detection",),
        ("model_family_classifier",),
        ("psutil", "torch", "transformers", "hardware_detection", "model_family_classifier"),
    ],
    ids=" ".join,
)
def test_the_pool_imports_and_caches_without(missing):
    without(*missing, script="options = {}" + CACHES_PLAIN_RESOURCES)


def test_without_psutil_it_says_once_that_pressure_cannot_be_seen():
    script = (
        "from hardware_detection.testing import fake_report\n"
        "options = {'hardware': fake_report}"
        + CACHES_PLAIN_RESOURCES
        + "assert pool.get_stats()['system_memory'] == {}\n"
    )
    logged = without("psutil", script=script)
    assert logged.count("psutil is missing: memory pressure cannot be seen and is taken as none.")
    assert sum("psutil" in line for line in logged) == 1


def test_without_the_classifier_it_says_once_how_families_are_taken():
    script = """
pool = ResourcePool()
first = pool.get_model("embedding", "bert-base-uncased", object)
assert pool.get_model("embedding", "bert-base-uncased") is first
assert pool.get_model("bert", "bert-base-uncased", object) is not first  # nobody knows better
assert pool.get_recommended_device("embedding") == "cpu"
assert pool.generate_error_report("bert-base-uncased", "cpu", "boom")["model_family"] == "unknown"
"""
    logged = without("model_family_classifier", script=script)
    (line,) = [line for line in logged if "model_family_classifier is missing" in line]
    assert "families are taken as they are given" in line


def test_without_the_detector_it_says_whom_it_asks_instead_and_goes_on():
    script = """
pool = ResourcePool()
assert pool.get_model("embedding", "m", object) is not None
assert pool.get_recommended_device("bert") == "cpu"
assert pool.explain("embedding", "m", {"priority_list": ["mps", "cpu"]}).device == "cpu"
"""
    logged = without("hardware_detection", "torch", script=script)
    assert any("hardware_detection is missing" in x and "asking torch" in x for x in logged)


def test_without_torch_the_statistics_and_the_reports_are_whole():
    script = """
import json
pool = ResourcePool()
stats = pool.get_stats()
json.dumps(stats)
assert stats["cuda_memory"]["devices"] == []
report = pool.generate_error_report("bert-base-uncased", "cuda", "CUDA out of memory")
json.dumps(report)
assert (report["error_type"], report["model_family"]) == ("out_of_memory", "embedding")
"""
    without("torch", "transformers", script=script)


def test_without_accelerate_a_model_is_not_spread_and_goes_where_it_fits():
    script = """
from resource_pool.testing import FakeMachine
machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
pool = machine.pool()
wish = {"device": "cuda"}
assert pool.get_model("vision", "m", machine.loader(150), wish, needs=150 * 2**20).device == "cpu"
"""
    without("accelerate", script=script)


def test_neither_the_import_nor_a_plain_resource_needs_any_optional_part():
    script = """
ResourcePool().get_resource("data", constructor=list)
optional = {"torch", "transformers", "model_family_classifier", "psutil", "yaml", "pydantic"}
assert not optional & set(sys.modules), optional & set(sys.modules)
"""
    without(script=script)


def test_a_missing_detector_is_said_once():
    logged = without(
        "hardware_detection",
        script="""
pool = ResourcePool()
for name in "abc":
    pool.get_model("vision", name, object)
""",
    )
    assert sum("hardware_detection is missing" in line for line in logged) == 1


def test_a_report_is_saved_without_the_detector(tmp_path):
    without(
        "hardware_detection",
        script=f"""
pool = ResourcePool()
report = pool.generate_error_report("bert-base-uncased", "cuda", "CUDA out of memory")
pool.save_error_report(report, {str(tmp_path)!r})
""",
    )
    assert len([*tmp_path.iterdir()]) == 1


def test_models_load_without_psutil(tmp_path, monkeypatch):
    monkeypatch.setenv("RP_HOME", str(tmp_path))  # no cached detection
    without(
        "psutil",
        script="""
assert ResourcePool().get_model("embedding", "m", lambda: len) is len
""",
    )
