"""The pool on a real GPU: where models go, what is freed, and what happens when memory is short."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import InsufficientMemoryError

pytestmark = pytest.mark.cuda

MIB = 2**20
GIB = 2**30
SLACK = 64 * MIB  # the driver gives and takes memory in blocks of 2 MiB, and kernels are loaded


def test_a_model_goes_to_the_gpu_by_itself_and_the_log_says_so(pool, block, caplog):
    caplog.set_level("INFO", logger="resource_pool")
    model = pool.get_model("embedding", "m", constructor=block(MIB))
    assert model.weight.device.type == "cuda"
    assert "Selected optimal device for embedding:m: cuda:0" in caplog.text


def test_what_the_ledger_says_is_what_the_driver_says(pool, block, free, gpu):
    before = free()
    pool.get_model("embedding", "m", block(2 * GIB), gpu)
    taken = before - free()
    assert abs(taken - 2 * GIB) <= SLACK
    stats = pool.get_stats()
    assert stats["devices"]["cuda:0"]["used_mb"] == pytest.approx(2048)
    (row,) = [row for row in stats["cuda_memory"]["devices"] if row["id"] == 0]
    assert row["allocated_mb"] >= 2048
    assert row["free_mb"] == pytest.approx(free() / MIB, abs=SLACK / MIB)
    assert stats["cuda_memory"]["cuda_version"]


def test_clear_gives_the_memory_back(pool, block, free, gpu):
    pool.get_model("embedding", "warm", block(MIB), gpu)
    pool.clear()
    before = free()
    pool.get_model("embedding", "m", block(2 * GIB), gpu)
    done = pool.clear()
    assert done["freed_bytes"] == 2 * GIB
    assert abs(free() - before) <= SLACK
    assert pool.get_stats()["devices"] == {}


def test_a_model_that_is_held_is_reported_and_not_waited_for(pool, block, free, gpu):
    held = pool.get_model("embedding", "m", block(GIB), gpu)
    before = free()
    done = pool.clear()
    assert (done["freed_bytes"], len(done["held"])) == (0, 1)
    assert abs(free() - before) <= SLACK
    assert held.weight.numel() == GIB // 4


def test_the_idle_model_makes_way_and_the_memory_is_really_free(pool, block, leave, free, gpu):
    leave(5 * GIB)
    pool.get_model("embedding", "old", block(3 * GIB), gpu)
    pool.get_model("embedding", "new", block(4 * GIB), gpu, needs=4 * GIB)
    assert list(pool.models) == ["embedding:new:cuda:0:float32"]
    assert abs(free() - GIB) <= SLACK
    management = pool.get_stats()["management"]
    assert (management["evictions"], management["not_freed"]) == (1, 0)


def test_a_leased_model_stays_and_the_error_states_the_arithmetic(pool, block, leave, gpu):
    leave(5 * GIB)
    wish = {**gpu, "force_device": True}
    with (
        pool.lease("embedding", "busy", block(3 * GIB), gpu) as model,
        pytest.raises(InsufficientMemoryError, match=r"needs 4\.0 GiB, 2\.0 GiB free, 3\.0 GiB"),
    ):
        pool.get_model("embedding", "new", block(4 * GIB), wish, needs=4 * GIB)
    assert model.weight.device.type == "cuda"


def test_memory_that_runs_out_in_a_load_leads_to_half_precision_there(pool, block, leave, gpu):
    leave(3 * GIB)
    model = pool.get_model("embedding", "m", block(4 * GIB), gpu)
    assert model.weight.device.type == "cuda"
    assert model.weight.element_size() == 2
    assert pool.get_stats()["management"]["oom_recoveries"] == 1


def test_memory_that_runs_out_in_a_load_of_a_given_precision_leads_to_the_cpu(
    pool, block, leave, free, gpu
):
    leave(3 * GIB)
    before = free()
    model = pool.get_model("embedding", "m", block(4 * GIB), {**gpu, "precision": "fp32"})
    assert model.weight.device.type == "cpu"
    assert model.weight.element_size() == 4
    assert abs(free() - before) <= SLACK  # nothing of the failed tries is left there


def test_memory_that_runs_out_in_a_forward_drops_what_is_idle(pool, block, leave, gpu):
    import torch

    leave(4 * GIB)
    pool.get_model("embedding", "idle", block(GIB), gpu)
    with (
        pytest.raises(torch.OutOfMemoryError),
        pool.lease("embedding", "m", block(GIB), gpu) as model,
    ):
        model(3)
    gc.collect()  # the traceback held what the forward had made until then
    assert [key.split(":")[1] for key in pool.models] == ["m"]
    with pool.lease("embedding", "m", block(GIB), gpu) as model:
        result = model(2)
    assert [copy.numel() for copy in result] == [GIB // 4] * 2


def test_a_report_of_a_real_lack_of_memory(pool, leave, block, gpu):
    import torch

    leave(GIB)
    with pytest.raises(torch.OutOfMemoryError) as caught:
        block(2 * GIB)().to("cuda:0")
    report = pool.generate_error_report("bert-base-uncased", "cuda", str(caught.value))
    assert report["error_type"] == "out_of_memory"
    assert report["memory"]["needed_mb"] == pytest.approx(2048)
    assert report["environment"]["driver"]


def test_a_move_to_the_cpu_and_back(pool, block, free, gpu):
    model = pool.get_model("embedding", "m", block(GIB), gpu)
    on_gpu = free()
    assert pool.move_model_to_device("embedding", "m", "cpu") is model
    assert model.weight.device.type == "cpu"
    assert free() - on_gpu == pytest.approx(GIB, abs=SLACK)
    pool.move_model_to_device("embedding", "m", "cuda:0")
    assert model.weight.device.type == "cuda"
    assert abs(free() - on_gpu) <= SLACK


def test_threads_load_side_by_side_and_the_ledger_is_exact(pool, block, gpu):
    def load(number: int) -> int:
        model = pool.get_model("embedding", f"m{number % 8}", block(64 * MIB), gpu)
        return id(model)

    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(load, range(64)))
    assert len(set(found)) == 8
    assert pool.get_stats()["devices"]["cuda:0"] == {
        "used_mb": 8 * 64.0,
        "reserved_mb": 0.0,
        "budget_mb": pytest.approx(pool.get_stats()["cuda_memory"]["devices"][0]["total_mb"]),
    }


def test_low_memory_mode_moves_an_idle_model_off_a_full_gpu(make_pool, block, leave, gpu):
    pool = make_pool()
    pool.get_model("embedding", "m", block(GIB))
    leave(2 * GIB)
    pool.enable_low_memory_mode()
    model = pool.get_model("embedding", "m", block(GIB))
    assert model.weight.device.type == "cpu"
    forced = pool.get_model("embedding", "m", block(GIB), {**gpu, "force_device": True})
    assert forced.weight.device.type == "cuda"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_precision_is_what_it_computes_in(pool, gpu, precision, report):
    import torch

    if precision not in report["details"]["cuda"]["devices"][0]["dtypes"]:
        pytest.skip(f"{precision} is not proved here")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()).eval()
    inputs = torch.randn(4, 64)
    with torch.no_grad():
        expected = layers(inputs)
        model = pool.get_model("embedding", "m", lambda: layers, {**gpu, "precision": precision})
        dtype = next(model.parameters()).dtype
        found = model(inputs.to("cuda", dtype))
    assert found.dtype == {"fp32": torch.float32, "fp16": torch.float16}.get(
        precision, torch.bfloat16
    )
    assert (found.cpu().float() - expected).abs().max() < 0.02
