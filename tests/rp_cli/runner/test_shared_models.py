"""A model that several files use is loaded once, and stays each file's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardware_detection.testing import fake_report

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 64,
}  # fmt: skip

USES = """\
import os, unittest
from resource_pool import get_global_resource_pool
PATH = {path!r}

def load():
    from transformers import BertModel
    open({loads!r}, "a").write("loaded by the file\\n")
    return BertModel.from_pretrained(PATH)

class T(unittest.TestCase):
    def test_a(self):
        pool = get_global_resource_pool()
        model = pool.get_model("embedding", PATH, constructor=load)
        BODY
"""
# The same, but plain enough for somebody else to load it.
PLAIN = (
    USES.replace("def load():\n", "from transformers import BertModel\ndef load():\n")
    .replace("    from transformers import BertModel\n", "")
    .replace('    open({loads!r}, "a").write("loaded by the file\\n")\n', "")
)
HIT = 'self.assertEqual((pool.get_stats()["misses"], pool.get_stats()["hits"]), (1, 1))'


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Path]:
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models")
    for name in "ab":
        torch.manual_seed(0)
        BertModel(BertConfig(**SIZES)).save_pretrained(folder / name)
    return [folder / "a", folder / "b"]


def source(model: Path, *body: str, template: str = PLAIN, loads: Path = Path()) -> str:
    text = template.format(path=str(model), loads=str(loads))
    return text.replace("BODY", "\n        ".join(body))


def by_name(record):
    return {Path(result["path"]).stem: result for result in record["files"]}


def test_files_share_what_is_loaded_once_and_nothing_else(run, models):
    """One run for all of it: importing torch is what these tests cost."""
    first, second = models
    forward = (
        "import torch",
        "self.assertEqual(torch.get_num_threads(), int(os.environ['WANTED']))",
        "ids = torch.arange(64).reshape(2, 32)",
        "with torch.no_grad(): out = model(input_ids=ids).last_hidden_state",
        "self.assertTrue(bool(torch.isfinite(out).all()))",
    )
    sources = {
        "test_a": source(first, HIT, *forward),
        "test_b": source(first, HIT, *forward, "model.embeddings.word_embeddings.weight.data += 1"),
        "test_c": source(first, HIT, *forward, "self.assertTrue(-1 < float("
                         "model.embeddings.word_embeddings.weight.data.max()) < 1)"),
        "test_d": source(second, HIT),
        "test_e": source(second, HIT, "os.abort()"),
        "test_f": source(second, HIT, "model.cpu()"),
        "test_g": source(first, "import random", "print('drawn', random.random())"),
    }  # fmt: skip
    # Two threads in a child, after the process that it was forked from has loaded a model.
    threads = {"OMP_NUM_THREADS": "2", "WANTED": "2"}
    record = run(sources, environment=threads, jobs=2)
    found = by_name(record)
    assert record["shared_models"] == 2
    assert {name: result["status"] for name, result in found.items()} == {
        **dict.fromkeys(sources, "passed"), "test_e": "crashed",
    }  # fmt: skip
    assert record["notes"] == []
    resources = found["test_a"]["resources"]
    assert resources["peak_mb"] > 0 < resources["cpu_seconds"]
    assert resources["shared_mb"] > 50  # torch, at least
    (placed,) = found["test_a"]["pool"]["models"]
    assert placed["device"] == "cpu"


def test_in_one_slot_the_files_of_one_model_come_before_those_of_the_other(run, models):
    """Side by side, which of two models is there first is the machine's."""
    sources = {f"test_{name}": source(models[name in "bd"], HIT) for name in "abcd"}
    record = run(sources, jobs=1)
    assert [result["status"] for result in record["files"]] == ["passed"] * 4
    order = [Path(result["path"]).stem for result in record["files"]]
    assert set(order[:2]) in ({"test_a", "test_c"}, {"test_b", "test_d"}), order


def test_a_model_that_cannot_be_shared_is_left_to_its_files(run, models, tmp_path):
    loads = tmp_path / "loads"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    sources = {
        "test_a": source(models[0], HIT.replace("1, 1", "1, 0"), template=USES, loads=loads),
        "test_b": source(models[0], "pass", template=USES, loads=loads),
        "test_c": source(broken, "pass"),
        "test_d": source(broken, "pass"),
        "test_e": source(models[0], HIT.replace("1, 1", "1, 0")),
    }
    record = run(sources, jobs=1)
    found = by_name(record)
    assert [found[f"test_{name}"]["status"] for name in "abcde"] == [
        "passed", "passed", "failed", "failed", "passed",
    ]  # fmt: skip
    assert len(loads.read_text().splitlines()) == 2
    assert record["shared_models"] == 1
    assert any("a model is not shared" in note for note in record["notes"])


GPU = """\
import os, sys, unittest
from resource_pool import get_global_resource_pool
PATH = "org/m"
class T(unittest.TestCase):
    def test_a(self):
        pool = get_global_resource_pool()
        pool.get_model("embedding", PATH, object, {"device": "cpu"})
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        print("told", os.getpid(), seen, pool.get_stats()["hits"])
        os.environ["CUDA_VISIBLE_DEVICES"] = "7"
        BODY
"""


def test_files_for_gpus_run_in_one_process_per_gpu(run):
    gpus = [{"name": "X", "memory_total_mb": 1000}] * 2
    sources = {f"test_{n}": GPU.replace("BODY", "pass") for n in range(4)}
    sources["test_5"] = GPU.replace("BODY", "os._exit(3)")
    record = run(sources, report=fake_report(cuda=gpus), jobs=1)
    found = by_name(record)
    assert found.pop("test_5")["status"] == "crashed"
    assert {result["status"] for result in found.values()} == {"passed"}
    told = [result["output"].split("told ")[1].split()[:3] for result in found.values()]
    assert {seen for _, seen, _ in told} <= {"0", "1"}
    assert {result["ran_in"] for result in found.values()} <= {"gpu 0", "gpu 1"}
    # Warm: the second file of a worker hits the model that no file said was not needed any more.
    assert len({pid for pid, _, _ in told}) <= 3


def test_a_file_that_prefers_the_cpu_is_no_gpu_file(run):
    gpus = fake_report(cuda=[{"name": "X", "memory_total_mb": 1000}])
    text = GPU.replace("BODY", "pass")
    preferred = text + 'HARDWARE_PREFERENCES = {"priority_list": ["mps", "cpu", "cuda"]}\n'
    assert by_name(run({"test_a": preferred}, report=gpus))["test_a"]["ran_in"] == "fork"
    named = {"TEST_HARDWARE_PREFERENCES": str({"device": "cpu"})}
    found = by_name(run({"test_a": text}, report=gpus, environment=named))
    assert found["test_a"]["ran_in"] == "fork"
