"""Every Python block of both guides runs as it stands, and does what the guide says of it."""

from __future__ import annotations

import gc
import logging
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from guide_blocks import block, blocks

from hardware_detection.testing import fake_report, use_report
from resource_pool import ResourcePool, _global, get_global_resource_pool
from resource_pool._preferences import parse_preferences
from resource_pool.testing import FakeMachine

GPUS = {"cpu": 10_000, "cuda:0": 1000, "cuda:1": 1000}


@dataclass(frozen=True)
class Ran:
    """What a block left behind: its names, the pool, what it printed and what was logged."""

    names: Mapping[str, Any]
    pool: ResourcePool
    out: str
    log: list[str]

    def __getattr__(self, name: str) -> Any:
        return self.names[name]


# Blocks that are files of their own, with tests of their own below.
FILES = ("A465", "B410", "B1141", "B1274")
PROMISES: dict[str, Callable[[Ran], None]] = {}


def promise(*names: str) -> Callable[[Callable[[Ran], None]], Callable[[Ran], None]]:
    def note(check: Callable[[Ran], None]) -> Callable[[Ran], None]:
        PROMISES.update(dict.fromkeys(names, check))
        return check

    return note


def injected(name: str) -> dict[str, Any]:
    """Return what a block uses and does not import."""
    return {
        "logger": logging.getLogger("guide"),
        "AutoModel": transformers.AutoModel,
        "AutoModelForCausalLM": transformers.AutoModelForCausalLM,
        "AutoModelForImageClassification": transformers.AutoModelForImageClassification,
        "get_global_resource_pool": get_global_resource_pool,
        **{f"create_{model}_model": lambda: torch.nn.Linear(2, 2) for model in (
            "llama", "bert", "vision"
        )},
        **({"pool": get_global_resource_pool()} if name == "B849" else {}),
    }  # fmt: skip


@pytest.fixture
def execute(pool, offline_hub, tmp_path, monkeypatch, capsys, caplog) -> Callable[[str], Ran]:
    """Run a block in a file, in a folder of its own."""

    def run(name: str) -> Ran:
        monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", "0")  # a block may set it: undone
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        file = tmp_path / f"{name}.py"
        names = {"__name__": "guide", "__file__": str(file), **injected(name)}
        caplog.set_level(logging.INFO)
        exec(compile(block(name).text, file, "exec"), names)
        return Ran(names, get_global_resource_pool(), capsys.readouterr().out, caplog.messages)

    return run


@promise("A57", "B32")
def basic_usage(ran: Ran) -> None:
    assert type(ran.model).__name__ == "BertModel"
    assert ran.tokenizer("Hello, world!")["input_ids"]
    assert ran.torch is torch
    assert ran.stats["cached_models"] == ran.stats["cached_tokenizers"] == 1
    assert f"Resource pool stats: {ran.stats}\n" == ran.out
    assert ran.pool.get_stats()["cached_resources"] == 0


@promise("A181", "B154", "A213", "A650")
def preferences_are_understood(ran: Ran) -> None:
    found = {name: value for name, value in ran.names.items() if name.endswith("preferences")}
    assert found
    for preferences in found.values():
        assert set(preferences) <= set(vars(parse_preferences(preferences)))
        model = ran.pool.get_model(
            "embedding", str(id(preferences)), lambda: torch.nn.Linear(2, 2), preferences
        )
        assert next(model.parameters()).device == torch.device("cpu")


@promise("A277", "B222")
def automatic_selection(ran: Ran) -> None:
    assert ran.model.device == torch.device("cpu")
    assert "Selected optimal device for embedding:bert-base-uncased: cpu" in ran.log


@promise("A302", "B247")
def advanced_selection(ran: Ran) -> None:
    assert ran.hardware_info["hardware"]["cpu"] is True
    assert (ran.model.device, ran.model.dtype) == (torch.device("cpu"), torch.float16)


@promise("A333", "B278")
def manual_selection(ran: Ran) -> None:
    assert ran.best_device == "cpu"
    assert ran.model is not ran.cpu_model
    assert (ran.model.dtype, ran.cpu_model.dtype) == (torch.float16, torch.float32)
    assert ran.cuda_model is ran.cpu_model


@promise("A426", "B371")
def memory_tracking(ran: Ran) -> None:
    assert "Total memory usage: 0.00 MB\nSystem memory: " in ran.out
    assert "CUDA" not in ran.out


@promise("A590", "B535")
def statistics(ran: Ran) -> None:
    assert f"Resource pool stats: {ran.stats}\n" == ran.out
    promised = {"hits", "misses", "hit_ratio", "cached_resources", "cached_models"}
    promised |= {"cached_tokenizers", "memory_usage_mb", "devices", "system_memory", "cpu"}
    promised |= {"cuda_memory", "mps", "openvino", "webnn", "webgpu", "low_memory_mode"}
    assert promised | {"management"} <= set(ran.stats)


@promise("B629")
def the_best_device(ran: Ran) -> None:
    assert ran.get_best_device() == "cpu"  # by torch, for want of the detector's file
    Path(ran.names["__file__"]).with_name("hardware_detection.py").touch()
    assert ran.get_best_device() == "cpu"


@promise("B755")
def several_gpus_where_there_are_none(ran: Ran) -> None:
    assert type(ran.llm_model).__name__ == "GPT2LMHeadModel"
    assert type(ran.vision_model).__name__ == "ViTForImageClassification"
    assert ran.llm_model.device == ran.vision_model.device == torch.device("cpu")


@promise("B793")
def a_list_of_ones_own(ran: Ran) -> None:
    assert ran.model.device == torch.device("cpu")


@promise("B822")
def low_memory_mode_by_the_environment(ran: Ran) -> None:
    assert ran.names["pool"] is ran.pool
    assert ran.pool.get_stats()["low_memory_mode"]


@promise("B849")
def memory_status(ran: Ran) -> None:
    shown = f"{ran.available_mb:.2f} MB available, {ran.percent_used}% used"
    assert f"System memory: {shown}" in ran.out
    assert ran.available_mb > 0


@promise("B875")
def the_parts_work_together(ran: Ran) -> None:
    assert ran.model is ...
    # A model type and its family are one instance.
    assert ran.pool.get_model("embedding", "bert-base-uncased") is ...


@promise("B901")
def models_by_family(ran: Ran) -> None:
    assert ran.pool.get_stats()["cached_models"] == 3
    assert {key.split(":")[0] for key in ran.pool.models} == {
        "text_generation", "embedding", "vision"
    }  # fmt: skip


@promise("B969")
def the_parts_by_hand(ran: Ran) -> None:
    assert (ran.available_devices, ran.model_family) == (["cpu"], "embedding")
    assert ran.subfamily == "masked_lm"
    assert ran.model is ...


@promise("B1083")
def one_device_for_all(ran: Ran) -> None:
    assert ran.has_multiple_gpus is False
    assert ran.pool.get_stats()["cached_models"] == 3
    assert {str(m.device) for m in (ran.gpt2_model, ran.t5_model, ran.bert_model)} == {"cpu"}


@pytest.mark.parametrize("name", PROMISES)
def test_block(execute, name):
    PROMISES[name](execute(name))


@pytest.mark.parametrize("guide", ["A", "B"])
def test_no_block_is_left_out(guide):
    python = {found.name for found in blocks(guide) if found.language == "python"}
    assert python == {name for name in (*PROMISES, *FILES) if name[0] == guide}


@pytest.fixture
def gpus(pool, monkeypatch) -> FakeMachine:
    """Put the global pool on a machine with two GPUs; every class gives a model of that machine."""
    machine = FakeMachine(GPUS)
    monkeypatch.setattr(_global, "_global_pool", machine.pool())
    for auto in ("AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM",
                 "AutoModelForImageClassification"):  # fmt: skip
        load = machine.loader(10)
        monkeypatch.setattr(
            getattr(transformers, auto), "from_pretrained", lambda name, load=load: load()
        )
    return machine


def test_block_on_two_gpus(gpus, execute):
    with use_report(gpus.report()):
        advanced = execute("B755")
        distributed = execute("B1083")
    assert advanced.llm_model.device == "cuda:0"
    assert advanced.vision_model.device == "cuda:1"
    assert distributed.has_multiple_gpus is True
    assert distributed.gpt2_model is advanced.llm_model
    assert (distributed.t5_model.device, distributed.bert_model.device) == ("cuda:1", "cuda:1")


def test_memory_blocks_on_two_gpus(gpus, execute):
    with use_report(gpus.report()):
        get_global_resource_pool().get_model("vision", "m", gpus.loader(60))
        tracked, status = execute("A426"), execute("B849")
    assert "  Device 0 (cuda:0): " in tracked.out
    assert "Model vision:m:cuda:0:float32: 60.00 MB (method: fake, device: cuda:0)" in tracked.out
    assert "CUDA device 1 (cuda:1): " in status.out


def run_as_script(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a block as ``python FILE`` does; return its exit status."""
    file = folder / f"test_{name.lower()}.py"
    file.write_text(block(name).text, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [str(file)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(file), run_name="__main__")
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", ["A465", "B410"])
def test_file(pool, offline_hub, name, tmp_path, monkeypatch, capsys, caplog):
    caplog.set_level(logging.INFO)
    assert run_as_script(name, tmp_path, monkeypatch) == 0
    assert "Ran 2 tests" in capsys.readouterr().err
    assert "Model loaded and ready on device: cpu" in caplog.messages
    assert any(line.startswith("Resource pool stats: {") for line in caplog.messages)


def test_file_on_openvino(pool, offline_hub, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openvino")
    with use_report(fake_report(openvino=True)):
        assert run_as_script("A465", tmp_path, monkeypatch) == 0
    assert "Ran 2 tests" in capsys.readouterr().err
    (row,) = pool.get_stats()["models"].values()
    assert row["backend"] == "openvino"
    gc.collect()


def test_block_that_adds_the_folder_above_to_the_path(execute):
    added = execute("B1274")
    assert added.names["get_global_resource_pool"]() is added.pool
    assert added.names["sys"].path[-1] == str(Path(added.names["__file__"]).parents[1])
