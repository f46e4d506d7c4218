"""Device choice through the pool: families, preferences, fallbacks and what the log says."""

from __future__ import annotations

import logging

import pytest

from hardware_detection.testing import fake_report
from resource_pool import (
    DeviceUnavailableError,
    InsufficientMemoryError,
    PreferenceError,
    ResourcePool,
)
from resource_pool.testing import MIB, FakeMachine

GPUS = [{"name": "A", "memory_total_mb": 1000}, {"name": "B", "memory_total_mb": 2000}]


def pool_on(**hardware) -> ResourcePool:
    """A pool that can be asked where it would put a model, and could not do it here."""
    return ResourcePool(hardware=lambda: fake_report(**hardware), estimate=lambda *_: None)


def fallbacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if " goes to " in message]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "resource_pool")


@pytest.mark.parametrize("nothing", [None, {}, {"device": "auto"}, {"precision": None}])
def test_no_preference_in_particular_is_legal_and_means_the_best_device(pool, machine, nothing):
    assert pool.get_model("embedding", "m", machine.loader(1), nothing).device == "cuda:0"


def test_an_unknown_preference_names_the_nearest_known_one_and_loads_nothing(pool, machine):
    with pytest.raises(PreferenceError, match="did you mean 'priority_list'"):
        pool.get_model("embedding", "m", machine.loader(1), {"priority_lst": ["cuda"]})
    assert machine.loads == []


@pytest.mark.parametrize(
    ("family", "name", "hardware", "device"),
    [
        ("embedding", "bert-base-uncased", {"mps": True}, "mps"),
        ("embedding", "bert-base-uncased", {"cuda": GPUS}, "cuda:1"),
        ("multimodal", "llava-hf/llava-1.5-7b-hf", {"mps": True}, "cpu"),
        ("multimodal", "llava-hf/llava-1.5-7b-hf", {"cuda": GPUS}, "cuda:1"),
        ("audio", "openai/whisper-tiny", {"rocm": GPUS}, "cuda:1"),
        ("vision", "google/vit-base-patch16-224", {}, "cpu"),
    ],
)
def test_the_familys_matrix_and_what_is_here_choose_the_device(family, name, hardware, device):
    assert pool_on(**hardware).explain(family, name).device == device


def test_the_recommended_device_is_torchs_name_of_it():
    assert pool_on(rocm=GPUS).get_recommended_device("bert") == "cuda:1"
    assert pool_on(mps=True).get_recommended_device("bert", "embedding") == "mps"
    assert pool_on(mps=True).get_recommended_device("llava", model_family="multimodal") == "cpu"
    assert pool_on().get_recommended_device("nothing-that-anybody-knows") == "cpu"


@pytest.mark.parametrize("device", ["mps", "rocm", "openvino", "webnn", "tpu", "qualcomm"])
def test_every_hardware_name_is_legal_and_falls_back_with_one_line(pool, machine, caplog, device):
    wish = {"device": device, "priority_list": ["cuda", "cpu"]}
    assert pool.get_model("embedding", "m", machine.loader(1), wish).device == "cuda:0"
    (line,) = fallbacks(caplog)
    assert line.startswith(f"embedding:m goes to cuda:0: {device} is not used: ")


def test_a_precision_that_is_not_there_falls_back_with_one_line(pool, machine, caplog):
    model = pool.get_model("embedding", "m", machine.loader(1), {"precision": "bf16"})
    assert model.dtype == "float32"
    (line,) = fallbacks(caplog)
    assert "bfloat16 does not work on cuda" in line


def test_a_forced_precision_or_device_that_is_not_there_is_an_error_before_the_load(pool, machine):
    for wish in ({"device": "mps"}, {"device": "cuda:0", "precision": "bf16"}, {"device": "tpu"}):
        with pytest.raises(DeviceUnavailableError, match="forced"):
            pool.get_model("embedding", "m", machine.loader(1), {**wish, "force_device": True})
    assert machine.loads == []


def test_a_forced_device_without_room_states_the_arithmetic(pool, machine):
    wish = {"device": "cuda:0", "force_device": True}
    with pytest.raises(InsufficientMemoryError, match=r"needs 200\.0 MiB, 100\.0 MiB free"):
        pool.get_model("embedding", "m", machine.loader(200), wish, needs=200 * MIB)


def test_a_preferred_index_out_of_range_is_the_best_other_index_and_logged(caplog):
    machine = FakeMachine({"cpu": 1000, "cuda:0": 50, "cuda:1": 100})
    wish = {"priority_list": ["cuda", "cpu"], "preferred_index": 5}
    assert machine.pool().get_model("vision", "m", machine.loader(1), wish).device == "cuda:1"
    assert fallbacks(caplog) == [
        "vision:m goes to cuda:1: cuda:5 is not used: there are 2 cuda devices, numbered from 0"
    ]


def test_a_number_of_the_cpu_is_passed_over_and_logged(pool, machine, caplog):
    assert pool.get_model("vision", "m", machine.loader(1), {"device": "cpu:3"}).device == "cpu"
    assert fallbacks(caplog) == [
        "vision:m goes to cpu: cpu:3 is not used: there is one cpu, without a number"
    ]


def test_a_preferred_index_without_room_is_the_other_gpu():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 50, "cuda:1": 100})
    pool = machine.pool()
    wish = {"device": "cuda", "preferred_index": 0}
    model = pool.get_model("vision", "m", machine.loader(70), wish, needs=70 * MIB)
    assert model.device == "cuda:1"


@pytest.mark.parametrize("wishes", [["mps"], ["mps", "webgpu"], ["tpu"]])
def test_an_exhausted_list_without_the_cpu_is_the_cpu_and_logged(caplog, wishes):
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    assert pool.get_model("vision", "m", machine.loader(1), {"priority_list": wishes}).device == (
        "cpu"
    )
    (line,) = fallbacks(caplog)
    assert all(f"{name} is not used" in line for name in wishes)
    with pytest.raises(DeviceUnavailableError):
        pool.get_model(
            "vision", "n", machine.loader(1), {"priority_list": wishes, "force_device": True}
        )


def test_the_peak_that_the_caller_knows_is_what_is_planned_with(pool, machine):
    wish = {"hw_compatibility": {"cuda": {"compatible": True, "memory_usage": {"peak": 120}}}}
    assert pool.get_model("embedding", "m", machine.loader(1), wish).device == "cpu"
    wish = {"hw_compatibility": {"cuda": {"compatible": True, "memory_usage": {"peak": 90}}}}
    assert pool.get_model("embedding", "n", machine.loader(1), wish).device == "cuda:0"


def test_what_is_said_to_be_incompatible_is_passed_over_for_the_reason_given(pool, machine, caplog):
    wish = {
        "device": "cuda",
        "compatible_devices": ["cuda", "cpu"],
        "hw_compatibility": {"cuda": {"compatible": False, "reason": "a kernel is missing"}},
    }
    assert pool.get_model("embedding", "m", machine.loader(1), wish).device == "cpu"
    assert "a kernel is missing" in fallbacks(caplog)[0]


def test_the_model_family_of_the_preferences_takes_the_place_of_the_type(pool, machine):
    model = pool.get_model("x", "made-in-house", machine.loader(1), {"model_family": "vision"})
    assert pool.get_model("vision", "made-in-house") is model


@pytest.mark.parametrize(
    "without_effect",
    [
        {"subfamily": "web_deployment", "description": "for the web"},
        {"fallback_to_simulation": True, "browser_optimized": True},
    ],
)
def test_preferences_without_effect_lead_to_the_same_instance(pool, machine, without_effect):
    model = pool.get_model("embedding", "m", machine.loader(1))
    assert pool.get_model("embedding", "m", machine.loader(1), without_effect) is model


def test_what_was_decided_is_one_line_in_the_guides_form(pool, machine, caplog):
    pool.get_model("embedding", "bert-base-uncased", machine.loader(1))
    chosen = [m for m in caplog.messages if m.startswith("Selected optimal device")]
    assert chosen == ["Selected optimal device for embedding:bert-base-uncased: cuda:0"]


def test_hardware_is_detected_once_a_model_is_asked_for_and_not_before(machine):
    asked = []

    def hardware():
        asked.append(1)
        return machine.report()

    pool = machine.pool(hardware=hardware)
    pool.get_resource("data", constructor=list)
    pool.get_tokenizer("vision", "m", constructor=dict)
    pool.get_stats()
    assert asked == []
    pool.get_model("vision", "m", machine.loader(1))
    count = len(asked)
    assert count
    pool.get_model("vision", "m")
    assert len(asked) == count
