"""Statistics, details and events: every group, plain values, true numbers."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hardware_detection.testing import fake_report
from resource_pool import ResourcePool
from resource_pool.devices import Memory
from resource_pool.testing import MIB, FakeMachine

GPU = {"device": "cuda:0"}
GIB = 2**30
GPU_ROW = {
    "id", "name", "total_mb", "allocated_mb", "reserved_mb", "free_mb", "percent_used",
    "under_pressure", "utilization", "tensor_cores",
}  # fmt: skip
MODEL_ROW = {
    "memory_mb", "method", "device", "dtype", "weights", "age_seconds", "idle_seconds", "hits",
    "load_seconds",
}  # fmt: skip


def with_gpus() -> ResourcePool:
    gpus = [
        {"name": "A", "memory_total_mb": 1000.0, "memory_free_mb": 250.0},
        {"name": "B", "memory_total_mb": 2000.0, "memory_free_mb": 100.0},
    ]
    pool = ResourcePool(hardware=lambda: fake_report(cuda=gpus))
    pool.get_recommended_device("bert")
    return pool


def test_every_group_is_there_from_the_first_moment_and_none_is_none(pool):
    stats = pool.get_stats()
    assert {
        "hits", "misses", "total_requests", "hit_ratio", "cached_resources", "cached_models",
        "cached_tokenizers", "memory_usage", "memory_usage_mb", "low_memory_mode", "timestamp",
        "system_memory", "cpu", "cuda_memory", "mps", "openvino", "webnn", "webgpu", "models",
        "devices", "management",
    } <= stats.keys()  # fmt: skip
    assert None not in stats.values()
    assert stats["hit_ratio"] == 0
    assert {"devices"} <= stats["openvino"].keys()
    assert {"cleanups", "evictions", "oom_recoveries", "freed_mb"} <= stats["management"].keys()


@pytest.mark.skipif(torch.cuda.is_available(), reason="then torch's own word counts")
def test_each_gpu_has_every_field_of_the_contract():
    group = with_gpus().get_stats()["cuda_memory"]
    assert {"device_count", "devices", "cuda_version", "rocm_version"} <= group.keys()
    assert group["device_count"] == len(group["devices"]) == 2
    assert all(row.keys() >= GPU_ROW for row in group["devices"])
    first, second = group["devices"]
    assert (first["id"], first["name"], first["free_mb"]) == (0, "A", 250.0)
    assert (first["percent_used"], first["under_pressure"]) == (75.0, False)
    assert (second["percent_used"], second["under_pressure"]) == (95.0, True)
    json.dumps(group)


@pytest.mark.skipif(torch.cuda.is_available(), reason="then torch's own word counts")
def test_without_cuda_the_list_is_empty(pool):
    assert ResourcePool(hardware=fake_report).get_stats()["cuda_memory"]["devices"] == []


def test_sampled_values_carry_their_age():
    stats = with_gpus().get_stats()
    assert stats["system_memory"]["age_seconds"] >= 0
    assert stats["cpu"]["age_seconds"] >= 0
    assert all("age_seconds" in row for row in stats["cuda_memory"]["devices"])


def test_each_model_has_its_row_with_true_ages_and_counts(pool, machine):
    pool.get_model("vision", "m", machine.loader(8, seconds=3.0), GPU)
    machine.clock.now += 10
    pool.get_model("vision", "m", None, GPU)
    machine.clock.now += 4
    (row,) = pool.get_stats()["models"].values()
    assert row.keys() >= MODEL_ROW
    assert (row["memory_mb"], row["device"], row["dtype"]) == (8.0, "cuda:0", "float32")
    assert (row["hits"], row["load_seconds"]) == (1, 3.0)
    assert (row["age_seconds"], row["idle_seconds"]) == (17.0, 4.0)


def test_each_device_has_used_reserved_and_budget(pool, machine):
    during = {}

    def load():
        during.update(pool.get_stats()["devices"])
        return machine.loader(30)()

    pool.get_model("vision", "m", load, GPU, needs=40 * MIB)
    assert during == {"cuda:0": {"used_mb": 0.0, "reserved_mb": 40.0, "budget_mb": 100.0}}
    assert pool.get_stats()["devices"] == {
        "cuda:0": {"used_mb": 30.0, "reserved_mb": 0.0, "budget_mb": 100.0}
    }


def test_hits_misses_and_their_ratio_add_up(pool, machine):
    pool.get_model("vision", "m", machine.loader(1))
    for _ in range(3):
        pool.get_model("vision", "m")
    with pytest.raises(ZeroDivisionError):
        pool.get_resource("broken", constructor=lambda: 1 / 0)
    stats = pool.get_stats()
    assert (stats["hits"], stats["misses"], stats["total_requests"]) == (3, 2, 5)
    assert stats["hit_ratio"] == 3 / 5


def test_management_counts_what_the_pool_did(pool, machine):
    pool.get_model("vision", "a", machine.loader(60), GPU, needs=60 * MIB)
    pool.get_model("vision", "b", machine.loader(60), GPU, needs=60 * MIB)
    pool.cleanup_unused_resources()
    management = pool.get_stats()["management"]
    assert (management["evictions"], management["cleanups"]) == (1, 1)
    assert management["freed_mb"] == 60.0


@pytest.mark.parametrize(("free", "pressure"), [(48 * GIB, False), (6 * GIB, True)])
def test_memory_pressure_is_a_bool_and_the_statistics_agree(pool, machine, free, pressure):
    machine.system.ram = Memory(64 * GIB, free)
    assert pool.check_memory_pressure() is pressure
    memory = pool.get_stats()["system_memory"]
    assert memory["under_pressure"] is pressure
    assert memory["available_mb"] == free / MIB
    assert memory["total_mb"] == 64 * 1024


def test_unknown_memory_is_no_pressure(pool, machine):
    machine.system.ram = None
    assert pool.check_memory_pressure() is False
    assert pool.get_stats()["system_memory"] == {}


def test_details_are_plain_for_models_tokenizers_and_resources(pool, machine):
    pool.get_model("vision", "m", machine.loader(1), {"device": "cpu"})
    pool.get_tokenizer("vision", "m", dict)
    pool.get_resource("data", "big", list)
    for key, kind in (
        ("vision:m:cpu:float32", "model"),
        ("tokenizer:vision:m", "tokenizer"),
        ("resource:data:big", "resource"),
    ):
        details = pool.get_resource_details(key)
        assert (details["key"], details["kind"]) == (key, kind)
        json.dumps(details)
        with pytest.raises(KeyError, match=key):
            pool.get_resource_details(f"{key}x")


def test_models_and_stats_have_the_same_keys_and_plain_facts(pool, machine):
    for name in ("a", "b:c", "d@e"):
        pool.get_model("vision", name, machine.loader(1))
    assert pool.models.keys() == pool._stats.keys()
    for facts in pool._stats.values():
        assert type(facts["memory_usage"]) is int
        assert isinstance(facts["memory_estimation_method"], str)
        assert isinstance(facts["device"], str)


def test_models_are_iterated_safely_while_others_load():
    machine = FakeMachine({"cpu": 10_000})
    pool = machine.pool()
    done = threading.Event()

    def load_and_drop() -> None:
        for number in range(300):
            pool.get_model("vision", f"m{number % 20}", machine.loader(1))
            if number % 30 == 29:
                pool.clear()
        done.set()

    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(load_and_drop)
        while not done.is_set() and not loading.done():
            for key in pool.models:
                if key in pool._stats:
                    assert pool._stats.get(key, {"memory_usage": MIB})["memory_usage"] == MIB
            pool.get_stats()
        loading.result()


def test_the_pool_is_shown_in_one_line(pool, machine):
    pool.get_model("vision", "m", machine.loader(2))
    pool.get_model("vision", "m")
    assert repr(pool) == "<ResourcePool 1 models, 1 entries, 2.0 MB, 1 hits, 1 misses>"


def test_events_record_what_was_predicted_what_came_and_why(pool, machine):
    pool.get_model("vision", "a", machine.loader(70), GPU, needs=80 * MIB)
    pool.get_model("vision", "b", machine.loader(70), GPU, needs=70 * MIB)
    placed, evicted, _ = pool.events()
    assert placed.what == "place"
    assert placed.numbers["predicted"] == 80 * MIB
    assert placed.numbers["memory_usage"] == 70 * MIB
    assert (evicted.what, evicted.key) == ("evict", "vision:a:cuda:0:float32")
    assert "room for vision:b" in evicted.reason
    assert evicted.numbers == {
        "memory_usage": 70 * MIB,
        "held": False,
        "free_before": {"cuda:0": 30 * MIB},
        "free_after": {"cuda:0": 100 * MIB},
    }


def test_explain_says_what_would_go_and_why_not_elsewhere_and_does_nothing(pool, machine):
    pool.get_model("vision", "idle", machine.loader(70), GPU)
    decision = pool.explain("vision", "m", {"priority_list": ["mps", "cuda"]}, needs=70 * MIB)
    assert decision.device == "cuda:0"
    assert decision.evict == ("vision:idle:cuda:0:float32",)
    assert decision.needed == 70 * MIB
    assert any("mps is not used" in note for note in decision.notes)
    stats = pool.get_stats()
    assert (stats["cached_models"], stats["misses"], len(pool.events())) == (1, 1, 1)
