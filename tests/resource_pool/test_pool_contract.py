"""The pool's public methods, with the names and keys that the guides use."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
import torch

import resource_pool
from hardware_detection.testing import fake_report
from resource_pool import (
    DeviceUnavailableError,
    NoneResourceError,
    ResourceNotFoundError,
    ResourcePool,
    SharedObjectError,
    _global,
    get_global_resource_pool,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> ResourcePool:
    return ResourcePool(hardware=fake_report, clock=clock)


def linear() -> torch.nn.Module:
    return torch.nn.Linear(4, 8)


def test_importing_the_pool_imports_neither_torch_nor_transformers():
    code = "import resource_pool, sys; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importlib_util_is_there_for_a_script_that_imports_importlib_only():
    code = "import importlib, resource_pool; importlib.util.find_spec"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_global_pool_is_one_and_reads_the_environment_at_each_call(monkeypatch):
    monkeypatch.setattr(_global, "_global_pool", None)
    pool = get_global_resource_pool()
    for off in ("0", "", "false"):
        monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", off)
        assert get_global_resource_pool() is pool
        assert not pool.get_stats()["low_memory_mode"]
    monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", "1")
    assert get_global_resource_pool() is pool
    assert pool.get_stats()["low_memory_mode"]


def test_resources_of_one_type_are_told_apart_by_id(pool):
    assert pool.get_resource("torch", constructor=lambda: torch) is torch
    first = pool.get_resource("data", "first", constructor=lambda: ["first"])
    second = pool.get_resource("data", "second", constructor=lambda: ["second"])
    assert (first, second) == (["first"], ["second"])
    assert pool.get_resource("data", "first") is first


def test_a_model_is_loaded_once_under_family_and_model_type(pool):
    first = pool.get_model("embedding", "bert-base-uncased", constructor=linear)
    again = pool.get_model("bert", "bert-base-uncased", constructor=lambda: pytest.fail("loaded"))
    assert first is again


def test_a_family_is_taken_at_its_word(pool):
    one = pool.get_model("embedding", "gpt2", constructor=linear)
    other = pool.get_model("text_generation", "gpt2", constructor=linear)
    assert one is not other


def test_the_key_holds_device_dtype_revision_and_variant(pool):
    requests = [
        {},
        {"hardware_preferences": {"precision": "fp16"}},
        {"revision": "v2"},
        {"variant": "AutoModelForMaskedLM"},
    ]
    models = [pool.get_model("embedding", "m", constructor=linear, **r) for r in requests]
    assert len({id(model) for model in models}) == len(requests)
    assert len(pool.models) == len(requests)


def test_preferences_that_lead_to_the_same_place_share_an_instance(pool):
    first = pool.get_model("embedding", "m", constructor=linear)
    for preferences in ({"device": "cpu"}, {"device": "auto"}, {"priority_list": ["cuda", "cpu"]}):
        again = pool.get_model("embedding", "m", hardware_preferences=preferences)
        assert again is first


def test_a_model_is_moved_and_cast_before_it_is_handed_out(pool):
    model = pool.get_model(
        "embedding", "m", constructor=linear, hardware_preferences={"precision": "bf16"}
    )
    assert model.weight.dtype == torch.bfloat16
    (facts,) = pool.get_stats()["models"].values()
    assert (facts["device"], facts["dtype"]) == ("cpu", "bfloat16")


def test_statistics_say_where_a_model_is_and_not_where_it_was_wanted(pool):
    class Mapped(torch.nn.Linear):
        hf_device_map = {"": "cpu"}  # noqa: RUF012

    pool.get_model(
        "embedding",
        "m",
        constructor=lambda: Mapped(2, 2),
        hardware_preferences={"precision": "fp16"},
    )
    (facts,) = pool.get_stats()["models"].values()
    assert facts["dtype"] == "float32"


def test_the_selected_device_is_logged_in_the_guides_words(pool, caplog):
    with caplog.at_level(logging.INFO, "resource_pool"):
        pool.get_model("embedding", "bert-base-uncased", constructor=linear)
    assert "Selected optimal device for embedding:bert-base-uncased: cpu" in caplog.messages


def test_a_fallback_is_logged_in_one_line_and_a_forced_device_is_an_error(pool, caplog):
    pool.get_model("embedding", "m", constructor=linear, hardware_preferences={"device": "cuda"})
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cuda is not used" in warnings[0]
    with pytest.raises(DeviceUnavailableError):
        pool.get_model(
            "embedding",
            "m",
            constructor=linear,
            hardware_preferences={"device": "cuda", "force_device": True},
        )


def test_an_object_that_is_no_torch_module_is_cached_as_it_is(pool):
    assert pool.get_model("bert", "bert-base-uncased", constructor=lambda: ...) is ...
    (facts,) = pool.get_stats()["models"].values()
    assert (facts["device"], facts["method"]) == ("unknown", "unknown")


def test_a_cached_object_is_never_moved_behind_its_holders_back(pool):
    shared = linear()
    pool.get_model("embedding", "m", constructor=lambda: shared)
    with pytest.raises(SharedObjectError, match="load an instance of its own"):
        pool.get_model(
            "embedding",
            "m",
            constructor=lambda: shared,
            hardware_preferences={"precision": "fp16"},
        )
    assert shared.weight.dtype == torch.float32


def test_errors_of_getting(pool):
    with pytest.raises(ResourceNotFoundError, match="embedding:m"):
        pool.get_model("embedding", "m")
    with pytest.raises(NoneResourceError):
        pool.get_tokenizer("embedding", "m", constructor=lambda: None)
    with pytest.raises(ZeroDivisionError):
        pool.get_model("embedding", "m", constructor=lambda: 1 / 0)
    assert pool.get_stats()["cached_resources"] == 0


def test_get_stats_has_every_group_and_only_plain_values(pool):
    pool.get_resource("data", constructor=list)
    pool.get_model("embedding", "m", constructor=linear)
    pool.get_model("embedding", "m")
    pool.get_tokenizer("embedding", "m", constructor=object)
    stats = pool.get_stats()
    counts = ("hits", "misses", "total_requests", "cached_resources", "cached_models")
    assert [stats[name] for name in counts] == [1, 3, 4, 3, 1]
    assert stats["cached_tokenizers"] == 1
    assert stats["hit_ratio"] == 0.25
    assert stats["memory_usage"] == (4 * 8 + 8) * 4
    assert stats["memory_usage_mb"] == stats["memory_usage"] / 2**20
    assert stats["system_memory"].keys() == {
        "total_mb",
        "available_mb",
        "percent_used",
        "under_pressure",
        "age_seconds",
    }
    assert stats["cpu"].keys() == {"percent", "count", "age_seconds"}
    assert stats["cuda_memory"]["devices"] == []
    assert stats["cuda_memory"]["device_count"] == 0
    assert stats["devices"]["cpu"]["used_mb"] == stats["memory_usage_mb"]
    assert stats["devices"]["cpu"]["reserved_mb"] == 0
    assert stats["devices"]["cpu"]["budget_mb"] == stats["system_memory"]["total_mb"]
    assert {"mps", "openvino", "webnn", "webgpu", "management", "timestamp"} <= stats.keys()
    json.dumps(stats)


def test_the_guides_loop_over_models_and_stats(pool):
    pool.get_model("embedding", "m", constructor=linear)
    for key in pool.models:
        assert key in pool._stats
        facts = pool._stats[key]
        assert facts["memory_usage"] == 160
        assert facts["memory_estimation_method"] == "parameters_and_buffers"
        assert facts["device"] == "cpu"


def test_memory_counts_tied_weights_once(pool):
    def tied() -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
        model[1].weight = model[0].weight
        return model

    pool.get_model("embedding", "m", constructor=tied)
    assert pool.get_stats()["memory_usage"] == (8 * 8 + 8 + 8) * 4


def test_cleanup_drops_what_is_older_and_keeps_what_is_younger(pool, clock):
    pool.get_model("embedding", "old", constructor=linear)
    clock.now += 5.0
    pool.get_model("embedding", "young", constructor=linear)
    done = pool.cleanup_unused_resources(max_age_minutes=0.05)  # 3 seconds
    assert done["removed"] == 1
    assert done["freed_bytes"] == 160
    assert list(done["kept"].values()) == ["used recently"]
    assert [key.split(":")[1] for key in pool.models] == ["young"]


@pytest.mark.parametrize(("low_memory", "minutes"), [(False, 30), (True, 10)])
def test_the_default_age_is_30_minutes_and_10_in_low_memory_mode(pool, clock, low_memory, minutes):
    if low_memory:
        pool.enable_low_memory_mode()
    pool.get_resource("data", constructor=list)
    clock.now += 60 * minutes - 1
    assert pool.cleanup_unused_resources()["removed"] == 0
    clock.now += 2
    assert pool.cleanup_unused_resources()["removed"] == 1


@pytest.mark.parametrize("wrong", [-1, float("nan")])
def test_a_wrong_age_is_refused(pool, wrong):
    with pytest.raises(ValueError, match="0 minutes or more"):
        pool.cleanup_unused_resources(max_age_minutes=wrong)


def test_clear_drops_all_and_says_what_a_caller_still_holds(pool):
    held = pool.get_model("embedding", "held", constructor=linear)
    pool.get_model("embedding", "free", constructor=linear)
    done = pool.clear()
    assert done["removed"] == 2
    assert done["freed_bytes"] == 160
    assert [key.split(":")[1] for key in done["held"]] == ["held"]
    assert pool.get_stats()["cached_resources"] == 0
    assert pool.get_model("embedding", "held", constructor=linear) is not held


def test_details_of_a_key_and_the_nearest_keys_of_a_wrong_one(pool):
    pool.get_model("embedding", "bert-base-uncased", constructor=linear)
    (key,) = pool.models
    assert pool.get_resource_details(key)["device"] == "cpu"
    with pytest.raises(KeyError, match="bert-base-uncased"):
        pool.get_resource_details("embedding:bert-base-cased")


def test_small_questions(pool):
    assert pool.check_memory_pressure() in (True, False)
    assert pool.get_recommended_device("bert") == "cpu"
    assert (
        ResourcePool(
            hardware=lambda: fake_report(cuda=[{"name": "GPU", "memory_total_mb": 1000}])
        ).get_recommended_device("bert", "embedding")
        == "cuda:0"
    )
    assert repr(pool).startswith("<ResourcePool 0 models")
    pool.get_model("embedding", "m", constructor=linear)
    assert [event.what for event in pool.events()] == ["place"]


def test_every_public_name_is_there_and_no_other():
    assert all(getattr(resource_pool, name) is not None for name in resource_pool.__all__)
    with pytest.raises(AttributeError, match="no attribute 'ResourcePol'"):
        resource_pool.ResourcePol  # noqa: B018
