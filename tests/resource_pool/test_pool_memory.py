"""Memory: room is made for what comes, and nobody loses what he holds a lease on."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import (
    DeviceBusyError,
    DeviceUnavailableError,
    InsufficientMemoryError,
    LoadTimeoutError,
    ResourceNotFoundError,
    ResourcePool,
    _system,
)
from resource_pool._maintenance import Maintenance
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

GPU = {"device": "cuda:0"}
WAIT = 30.0


@pytest.fixture
def machine() -> FakeMachine:
    """RAM for everything, and one GPU of 100 MiB."""
    return FakeMachine({"cpu": 10_000, "cuda:0": 100})


@pytest.fixture
def pool(machine: FakeMachine) -> ResourcePool:
    return machine.pool()


def load(pool: ResourcePool, machine: FakeMachine, name: str, mib: float, **options) -> FakeModel:
    options = {"hardware_preferences": GPU, "needs": int(mib * MIB), **options}
    return pool.get_model("embedding", name, constructor=machine.loader(mib), **options)


def places(pool: ResourcePool) -> dict[str, str]:
    """Name -> device of what is cached."""
    return {f["identity"].name: f["device"] for f in pool._stats.values()}


# -- eviction ----------------------------------------------------------------------------


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


def test_keep_alive_outlives_the_cleanup(pool, machine):
    load(pool, machine, "short", 10)
    load(pool, machine, "long", 10, keep_alive=120)
    machine.clock.now += 3600
    assert pool.cleanup_unused_resources()["removed"] == 1
    assert set(places(pool)) == {"long"}
    machine.clock.now += 3601
    assert pool.cleanup_unused_resources()["removed"] == 1


def test_explain_does_nothing(pool, machine):
    load(pool, machine, "a", 80)
    decision = pool.explain("embedding", "b", GPU, needs=80 * MIB)
    assert decision.device == "cuda:0"
    assert [key.split(":")[1] for key in decision.evict] == ["a"]
    assert set(places(pool)) == {"a"}


# -- when memory runs out ----------------------------------------------------------------


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


# -- several GPUs ------------------------------------------------------------------------


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


# -- moving ------------------------------------------------------------------------------


def test_a_move_updates_key_ledger_and_statistics_and_returns_the_model(pool, machine):
    model = load(pool, machine, "m", 40, hardware_preferences=None)
    assert model.device == "cuda:0"
    assert pool.move_model_to_device("embedding", "m", "cpu") is model
    assert places(pool) == {"m": "cpu"}
    assert pool.get_stats()["devices"].keys() == {"cpu"}
    assert list(pool.models) == ["embedding:m:cpu:float32"]
    assert load(pool, machine, "m", 40, hardware_preferences=None) is model
    assert machine.loads == [40]


def test_a_move_is_no_load_and_leaves_the_seconds_of_the_load_alone(pool, machine):
    load(pool, machine, "m", 40)
    machine.clock.now += 1000
    pool.move_model_to_device("embedding", "m", "cpu")
    (facts,) = pool.get_stats()["models"].values()
    assert facts["load_seconds"] == 1.0
    assert facts["age_seconds"] == 1001.0


def test_a_move_is_refused_while_somebody_leases_the_model(pool, machine):
    with (
        pool.lease("embedding", "m", machine.loader(10), GPU),
        pytest.raises(DeviceBusyError, match="leased or pinned"),
    ):
        pool.move_model_to_device("embedding", "m", "cpu")


def test_of_several_instances_from_device_tells_which(pool, machine):
    load(pool, machine, "m", 10)
    load(pool, machine, "m", 10, hardware_preferences={"device": "cpu", "precision": "fp16"})
    with pytest.raises(DeviceBusyError, match="say which by from_device"):
        pool.move_model_to_device("embedding", "m", "cpu")
    assert pool.move_model_to_device("embedding", "m", "cpu", from_device="cuda:0").device == "cpu"


def test_a_move_to_what_is_not_there_or_of_what_is_not_cached(pool, machine):
    with pytest.raises(ResourceNotFoundError, match="not cached"):
        pool.move_model_to_device("embedding", "m", "cpu")
    load(pool, machine, "m", 10)
    with pytest.raises(DeviceUnavailableError):
        pool.move_model_to_device("embedding", "m", "cuda:7")
    assert places(pool) == {"m": "cuda:0"}


# -- the guard on shared models ----------------------------------------------------------


def test_a_model_that_was_changed_under_lease_is_named_and_loaded_again(pool, machine, caplog):
    with pool.lease("embedding", "m", machine.loader(10), GPU) as model:
        model.training = True
    assert any("was changed" in m and "training" in m for m in caplog.messages)
    assert load(pool, machine, "m", 10) is not model
    assert pool.get_stats()["management"]["mutations"] == 1


def test_a_model_that_was_not_changed_stays(pool, machine):
    with pool.lease("embedding", "m", machine.loader(10), GPU) as model:
        pass
    assert load(pool, machine, "m", 10) is model


# -- low memory --------------------------------------------------------------------------


def test_low_memory_keeps_models_in_ram_while_the_gpu_is_full(pool, machine):
    load(pool, machine, "a", 85)
    pool.enable_low_memory_mode()
    assert load(pool, machine, "b", 10).device == "cpu"


def test_low_memory_demotes_an_idle_gpu_model_before_it_is_handed_out_again(pool, machine):
    load(pool, machine, "m", 85, hardware_preferences=None)
    pool.enable_low_memory_mode()
    model = load(pool, machine, "m", 85, hardware_preferences=None)
    assert model.device == "cpu"
    assert machine.loads == [85]


def test_a_model_that_somebody_holds_is_not_demoted(pool, machine):
    held = load(pool, machine, "m", 85, hardware_preferences=None)
    pool.enable_low_memory_mode()
    assert load(pool, machine, "m", 85, hardware_preferences=None) is held
    assert held.device == "cuda:0"


def test_low_memory_empties_the_caches_of_every_device_after_an_eviction(pool, machine):
    with pool.lease("embedding", "busy", machine.loader(10), {"device": "cpu"}):
        load(pool, machine, "a", 10)
        pool.clear()
        assert machine.devices.released[-1] == ("cuda:0",)
        load(pool, machine, "b", 10)
        pool.enable_low_memory_mode()
        pool.clear()
        assert machine.devices.released[-1] == ("cpu", "cuda:0")


def test_low_memory_keeps_fewer_events(pool, machine):
    for number in range(150):
        load(pool, machine, f"m{number}", 0.01, hardware_preferences={"device": "cpu"})
    assert len(pool.events()) == 150
    pool.enable_low_memory_mode()
    assert len(pool.events()) == 100


@pytest.mark.parametrize(("available_mb", "low"), [(4200.5, True), (4700.0, False)])
def test_low_memory_mode_turns_itself_on(pool, monkeypatch, caplog, available_mb, low):
    memory = {"total_mb": 16_000.0, "available_mb": available_mb, "percent_used": 70.0,
              "under_pressure": False}  # fmt: skip
    monkeypatch.setattr(_system, "system_memory", lambda: memory)
    monkeypatch.setattr(_system, "container_memory", lambda: (None, 0))
    pool.get_model("embedding", "m", constructor=lambda: ...)
    assert pool.get_stats()["low_memory_mode"] is low
    message = "Low memory detected (4200.5 MB). Enabling low memory mode."
    assert (message in caplog.messages) is low


@pytest.mark.parametrize(("low_memory", "seconds"), [(False, 300), (True, 30)])
def test_pressure_is_warned_of_more_often_in_low_memory_mode(
    pool, machine, monkeypatch, caplog, low_memory, seconds
):
    memory = {"total_mb": 100_000.0, "available_mb": 5000.0, "percent_used": 95.0,
              "under_pressure": True}  # fmt: skip
    monkeypatch.setattr(_system, "system_memory", lambda: memory)
    maintenance: Maintenance = pool._maintenance
    if low_memory:
        pool.enable_low_memory_mode()
    for _ in range(2):
        maintenance.look()
        machine.clock.now += seconds - 1
        maintenance.look()
        machine.clock.now += 1
    assert sum("under memory pressure" in message for message in caplog.messages) == 2


def test_pressure_drops_what_is_idle(pool, machine, monkeypatch):
    load(pool, machine, "idle", 10)
    machine.clock.now += 3600
    memory = {"total_mb": 100_000.0, "available_mb": 5000.0, "percent_used": 95.0,
              "under_pressure": True}  # fmt: skip
    monkeypatch.setattr(_system, "system_memory", lambda: memory)
    load(pool, machine, "new", 10)
    assert set(places(pool)) == {"new"}


def test_the_monitor_looks_by_itself_and_can_be_stopped(machine, monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr(Maintenance, "look", lambda _: looked.set())
    pool = machine.pool(monitor_interval=0.001)
    assert looked.wait(WAIT)
    pool._monitor.stop()
    assert not pool._monitor._thread.is_alive()
    assert machine.pool()._monitor is None


def test_container_limits_are_read_from_both_versions_of_control_groups(tmp_path):
    assert _system.container_memory(tmp_path) == (None, 0)
    (tmp_path / "memory.max").write_text("max\n")
    assert _system.container_memory(tmp_path) == (None, 0)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    assert _system.container_memory(tmp_path) == (1000, 400)
    old = tmp_path / "old" / "memory"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("2000")
    (old / "memory.usage_in_bytes").write_text("100")
    assert _system.container_memory(tmp_path / "old") == (2000, 100)


# -- deadlines ---------------------------------------------------------------------------


def test_a_constructor_that_never_returns_does_not_hold_the_others_for_ever(machine):
    pool, begun, go = machine.pool(load_deadline=0.05), threading.Event(), threading.Event()

    def stuck() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 10)

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_model, "embedding", "m", stuck, GPU)
        assert begun.wait(WAIT)
        with pytest.raises(LoadTimeoutError, match="did not end within"):
            load(pool, machine, "m", 10)
        fresh = load(pool, machine, "m", 10)
        go.set()
        assert owner.result(WAIT) is fresh  # its own came too late, and goes
    assert list(pool.models.values()) == [fresh]


def test_an_interrupted_load_leaves_no_reservation(pool):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.get_model("embedding", "m", interrupted, GPU, needs=50 * MIB)
    assert pool.get_stats()["devices"] == {}


# -- what reviews have found -------------------------------------------------------------


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


def test_the_deadline_is_for_tokenizers_and_resources_too(machine):
    pool, begun, go = machine.pool(load_deadline=0.05), threading.Event(), threading.Event()

    def stuck() -> list[int]:
        begun.set()
        assert go.wait(WAIT)
        return [1]

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_resource, "data", None, stuck)
        assert begun.wait(WAIT)
        with pytest.raises(LoadTimeoutError):
            pool.get_resource("data")
        go.set()
        assert owner.result(WAIT) == [1]


def test_keep_alive_counts_on_a_hit_as_well(pool, machine):
    constructor = machine.loader(10)
    pool.get_model("embedding", "m", constructor)
    pool.get_model("embedding", "m", constructor, keep_alive=60)
    machine.clock.now += 120
    assert pool.cleanup_unused_resources(max_age_minutes=1)["removed"] == 0


def test_a_pool_with_a_monitor_can_go(machine):
    pool = machine.pool(monitor_interval=0.001)
    thread = pool._monitor._thread
    model = weakref.ref(load(pool, machine, "m", 10))
    del pool
    gc.collect()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert model() is None
