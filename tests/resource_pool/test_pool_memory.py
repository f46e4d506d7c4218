"""Memory: room is made for what comes, and nobody loses what he holds a lease on."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import (
    DeviceBusyError,
    DeviceUnavailableError,
    InsufficientMemoryError,
    ResourcePool,
)
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

GPU = {"device": "cuda:0"}
WAIT = 30.0


def load(pool: ResourcePool, machine: FakeMachine, name: str, mib: float, **options) -> FakeModel:
    options = {"hardware_preferences": GPU, "needs": int(mib * MIB), **options}
    return pool.get_model("embedding", name, constructor=machine.loader(mib), **options)


def places(pool: ResourcePool) -> dict[str, str]:
    """Name -> device of what is cached."""
    return {f["identity"].name: f["device"] for f in pool._stats.values()}


def test_idle_models_go_when_room_is_needed_and_no_more_than_needed(pool, machine):
    for name, mib in (("a", 30), ("b", 30), ("c", 30)):
        load(pool, machine, name, mib)
    load(pool, machine, "d", 40)
    assert places(pool)["d"] == "cuda:0"
    assert len(places(pool)) == 3
    assert pool.get_stats()["management"]["evictions"] == 1


def test_the_least_worth_goes_first(pool, machine):
    load(pool, machine, "slow to load", 30)
    machine.clock.now += 1
    pool.get_model(
        "embedding", "quick", constructor=machine.loader(30, seconds=0.01),
        hardware_preferences=GPU, needs=30 * MIB,
    )  # fmt: skip
    load(pool, machine, "often asked for", 30)
    for _ in range(5):
        load(pool, machine, "often asked for", 30)
    load(pool, machine, "new", 30)
    assert set(places(pool)) == {"slow to load", "often asked for", "new"}


def test_a_leased_or_pinned_model_is_never_evicted(pool, machine):
    with pool.lease("embedding", "leased", machine.loader(40), GPU, needs=40 * MIB):
        load(pool, machine, "pinned", 40)
        pool.pin(next(key for key in pool.models if "pinned" in key))
        model = load(pool, machine, "new", 40)
        assert model.device == "cpu"
        assert places(pool) == {"leased": "cuda:0", "pinned": "cuda:0", "new": "cpu"}
        assert set(pool.clear()["kept"].values()) == {"leased", "pinned"}


def test_a_model_that_is_held_stays_charged_until_it_is_gone(pool, machine):
    held = load(pool, machine, "held", 60)
    done = pool.clear()
    assert list(done["held"].values()) == ["the caller still holds it"]
    assert done["freed_bytes"] == 0
    assert load(pool, machine, "new", 60).device == "cpu"
    del held
    gc.collect()
    assert load(pool, machine, "newer", 60).device == "cuda:0"
    assert pool.get_stats()["devices"]["cuda:0"]["used_mb"] == 60


def test_if_nothing_can_go_the_error_states_the_arithmetic(machine):
    small = FakeMachine({"cpu": 50, "cuda:0": 100})
    pool = small.pool()
    with (
        pool.lease("embedding", "a", small.loader(40), GPU, needs=40 * MIB),
        pytest.raises(
            InsufficientMemoryError,
            match=r"embedding:b fits nowhere: cuda:0 .* needs 70\.0 MiB, 60\.0 MiB free, "
            r"40\.0 MiB held by embedding:a:cuda:0:float32; cpu .* 50\.0 MiB free",
        ),
    ):
        load(pool, small, "b", 70)


def test_memory_that_does_not_come_back_is_waited_for_only_to_the_deadline(pool, machine):
    load(pool, machine, "a", 80)
    machine.devices.leaks.add("cuda:0")
    before = machine.clock.now
    assert load(pool, machine, "b", 80).device == "cpu"
    assert 2.0 <= machine.clock.now - before < 10.0
    assert pool.get_stats()["management"]["not_freed"] == 1


def test_the_ledger_is_empty_after_clear(pool, machine):
    for name in "abc":
        load(pool, machine, name, 20)
    done = pool.clear()
    assert (done["removed"], done["freed_bytes"]) == (3, 60 * MIB)
    assert pool.get_stats()["devices"] == {}
    assert machine.devices.memory("cuda:0").free == 100 * MIB


def test_what_is_loading_counts_before_it_is_there(machine):
    pool, begun, go = machine.pool(), threading.Event(), threading.Event()

    def slow() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 70)

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.get_model, "embedding", "a", slow, GPU, needs=70 * MIB)
        assert begun.wait(WAIT)
        assert pool.get_stats()["devices"]["cuda:0"]["reserved_mb"] == 70
        assert load(pool, machine, "b", 70).device == "cpu"
        go.set()
        assert first.result(WAIT).device == "cuda:0"


def test_explain_does_nothing(pool, machine):
    load(pool, machine, "a", 80)
    decision = pool.explain("embedding", "b", GPU, needs=80 * MIB)
    assert decision.device == "cuda:0"
    assert [key.split(":")[1] for key in decision.evict] == ["a"]
    assert set(places(pool)) == {"a"}


def test_out_of_memory_at_load_evicts_what_is_idle_and_loads_again(pool, machine):
    load(pool, machine, "idle", 60)
    model = pool.get_model("embedding", "unforeseen", machine.loader(80), GPU)
    assert model.device == "cuda:0"
    assert set(places(pool)) == {"unforeseen"}
    assert pool.get_stats()["management"]["oom_recoveries"] >= 1


def test_then_a_smaller_dtype_is_tried(pool, machine):
    with pool.lease("embedding", "busy", machine.loader(40), GPU):
        model = pool.get_model("embedding", "big", machine.loader(100), GPU)
        assert (model.device, model.dtype) == ("cuda:0", "float16")


def test_then_another_gpu_and_then_the_cpu():
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100, "cuda:1": 90}, dtypes=["fp32"])
    pool = machine.pool()
    with pool.lease("embedding", "busy", machine.loader(50), GPU):
        assert pool.get_model("embedding", "one", machine.loader(80), GPU).device == "cuda:1"
        with pool.lease("embedding", "one", None, GPU):
            assert pool.get_model("embedding", "two", machine.loader(80), GPU).device == "cpu"


def test_a_chosen_precision_and_a_forced_device_are_kept(pool, machine):
    with pool.lease("embedding", "busy", machine.loader(40), GPU):
        model = pool.get_model("embedding", "a", machine.loader(80), {**GPU, "precision": "fp32"})
        assert (model.device, model.dtype) == ("cpu", "float32")
        with pytest.raises(OutOfFakeMemoryError):
            pool.get_model("embedding", "b", machine.loader(300), {**GPU, "force_device": True})
    assert pool.get_stats()["devices"].get("cuda:0", {"reserved_mb": 0})["reserved_mb"] == 0


def test_a_constructor_without_memory_fails_with_its_own_error(pool):
    calls = []

    def constructor() -> None:
        calls.append(1)
        raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        pool.get_model("embedding", "m", constructor, GPU)
    assert 1 < len(calls) < 10
    assert pool.get_stats()["cached_models"] == 0


def test_out_of_memory_in_use_makes_room_for_another_try(pool, machine):
    load(pool, machine, "idle", 50)
    with (
        pytest.raises(OutOfFakeMemoryError),
        pool.lease("embedding", "m", machine.loader(40), GPU) as model,
    ):
        machine.devices.put(model, {"cuda:0": 90 * MIB})
    assert set(places(pool)) == {"m"}


def test_a_device_where_a_model_failed_is_passed_over_for_a_while(pool, machine):
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: unspecified launch failure")
    assert load(pool, machine, "m", 10).device == "cpu"
    with pytest.raises(DeviceUnavailableError, match="failed there a short while ago"):
        load(pool, machine, "m", 10, hardware_preferences={**GPU, "force_device": True})
    pool.clear()
    machine.devices.broken.clear()
    machine.clock.now += 61
    assert load(pool, machine, "m", 10).device == "cuda:0"


def test_a_gpu_that_disappears_is_no_longer_chosen_and_what_is_cached_stays(pool, machine):
    there = load(pool, machine, "there", 10)
    del machine.devices.totals["cuda:0"]
    assert load(pool, machine, "new", 10).device == "cpu"
    assert load(pool, machine, "there", 10) is there


def test_models_go_where_there_is_most_room():
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100, "cuda:1": 120})
    pool = machine.pool()
    wish = {"device": "cuda"}
    found = [load(pool, machine, n, 50, hardware_preferences=wish).device for n in "abcd"]
    assert sorted(found) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]


def test_a_model_that_fits_no_single_gpu_is_spread_over_several(caplog):
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    with caplog.at_level(logging.INFO, "resource_pool"):
        model = load(pool, machine, "large", 150, hardware_preferences={"device": "cuda"})
    assert model.device == "cuda:0+cuda:1"
    assert any("is spread over" in message for message in caplog.messages)
    with pytest.raises(DeviceBusyError, match="device map"):
        pool.move_model_to_device("embedding", "large", "cpu")


def test_a_gpu_model_leaves_together_with_tokenizers_and_resources(pool, machine):
    load(pool, machine, "m", 10)
    pool.get_tokenizer("embedding", "m", constructor=dict)
    pool.get_resource("data", constructor=list)
    assert pool.clear()["removed"] == 3


def test_a_request_whose_dtype_was_reduced_is_not_loaded_again(pool, machine):
    wish = {"device": "cuda"}
    model = pool.get_model("embedding", "m", machine.loader(150), wish)
    assert (model.device, model.dtype) == ("cuda:0", "float16")
    loads = len(machine.loads)
    assert pool.get_model("embedding", "m", machine.loader(150), wish) is model
    assert len(machine.loads) == loads


def test_a_load_that_went_to_the_cpu_is_charged_there(pool, machine):
    reserved = []

    def constructor() -> FakeModel:
        reserved.append({n: d["reserved_mb"] for n, d in pool.get_stats()["devices"].items()})
        return FakeModel(machine, 250)

    assert pool.get_model("embedding", "m", constructor, GPU, needs=90 * MIB).device == "cpu"
    assert reserved[0] == {"cuda:0": 90}
    assert reserved[-1] == {"cpu": 90}


def test_a_model_that_is_held_is_not_evicted_for_nothing(pool, machine):
    held = load(pool, machine, "a", 60)
    assert load(pool, machine, "b", 60).device == "cpu"
    assert load(pool, machine, "a", 60) is held


def test_memory_that_a_holder_gives_back_later_is_counted_as_freed(pool, machine):
    held = load(pool, machine, "a", 60)
    pool.clear()
    assert pool.get_stats()["management"]["freed_mb"] == 0
    del held
    gc.collect()
    assert pool.get_stats()["management"]["freed_mb"] == 60


def test_a_gpu_whose_memory_cannot_be_asked_for_costs_only_itself(machine):
    report = machine.report()
    pool = machine.pool(hardware=lambda: report)
    load(pool, machine, "there", 10)
    asked = machine.devices.memory

    def broken(device: str):
        if device == "cuda:0":
            raise RuntimeError("CUDA error: the GPU has fallen off the bus")
        return asked(device)

    machine.devices.memory = broken
    assert load(pool, machine, "m", 10).device == "cpu"
    assert pool.get_stats()["devices"]["cuda:0"]["budget_mb"] is None
    assert pool.cleanup_unused_resources(max_age_minutes=0)["removed"] == 2
