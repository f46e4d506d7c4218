"""The guides' uses of the pool, in our words, with a real BERT (a tiny twin) on the CPU."""

from __future__ import annotations

import json
import logging
import unittest
from pathlib import Path

import pytest
import torch
import transformers

from hardware_detection import (
    CPU,
    CUDA,
    MPS,
    OPENVINO,
    HardwareDetector,
    detect_available_hardware,
)
from hardware_detection.testing import fake_report, use_report
from model_family_classifier import classify_model
from resource_pool import ResourcePool, _global, get_global_resource_pool
from resource_pool.testing import FakeMachine
from resource_pool.weights import locate_weights

NAME = "bert-base-uncased"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RP_HOME", str(tmp_path_factory.mktemp("guides")))
        return str(locate_weights(NAME, mode="tiny").path)


@pytest.fixture
def pool(monkeypatch):
    """The global pool, fresh, on a machine with nothing but a CPU."""
    monkeypatch.setattr(_global, "_global_pool", None)
    with use_report(fake_report()):
        yield get_global_resource_pool()


@pytest.fixture
def create_model(weights):
    return lambda: transformers.AutoModel.from_pretrained(weights)


def test_basic_usage(pool, weights):
    shared = pool.get_resource("torch", constructor=lambda: __import__("torch"))
    library = pool.get_resource("transformers", constructor=lambda: __import__("transformers"))
    assert (shared.__name__, library.__name__) == ("torch", "transformers")
    model = pool.get_model(
        "embedding",
        NAME,
        constructor=lambda: library.AutoModel.from_pretrained(weights),
        hardware_preferences={"device": "auto"},
    )
    tokenizer = pool.get_tokenizer(
        "embedding", NAME, constructor=lambda: library.AutoTokenizer.from_pretrained(weights)
    )
    with torch.no_grad():
        output = model(**tokenizer("Hello, world!", return_tensors="pt"))
    assert output.last_hidden_state.shape[0] == 1
    assert pool.get_stats()["cached_resources"] == 4
    assert pool.cleanup_unused_resources(max_age_minutes=30)["removed"] == 0
    assert pool.clear()["removed"] == 4


def test_the_device_is_chosen_automatically_and_logged(pool, create_model, caplog):
    with caplog.at_level(logging.INFO, "resource_pool"):
        pool.get_model("embedding", NAME, constructor=create_model)
    assert f"Selected optimal device for embedding:{NAME}: cpu" in caplog.messages


def test_advanced_preferences(pool, create_model):
    model = pool.get_model(
        "embedding",
        NAME,
        constructor=create_model,
        hardware_preferences={
            "priority_list": ["cuda", "mps", "cpu"],
            "preferred_index": 0,
            "precision": "fp16",
            "hw_compatibility": {
                "cuda": {"compatible": True, "memory_usage": {"peak": 500}},
                "mps": {"compatible": True},
                "openvino": {"compatible": True},
            },
        },
    )
    assert model.dtype == torch.float16


def test_manual_preferences_and_an_instance_per_hardware_configuration(pool, create_model):
    best = detect_available_hardware()["torch_device"]
    wishes = [
        {"device": best, "force_device": True, "precision": "fp16"},
        {"device": "cpu"},
        {"priority_list": [CUDA, CPU]},
    ]
    half, cpu, listed = (
        pool.get_model("embedding", NAME, constructor=create_model, hardware_preferences=wish)
        for wish in wishes
    )
    assert half is not cpu
    assert (half.dtype, cpu.dtype) == (torch.float16, torch.float32)
    assert listed is cpu


@pytest.mark.parametrize("first", [["webnn", "webgpu", "cpu"], ["webgpu", "webnn", "cpu"]])
def test_web_preferences_are_understood_and_the_model_runs_where_it_can(pool, create_model, first):
    model = pool.get_model(
        "embedding",
        NAME,
        constructor=create_model,
        hardware_preferences={
            "priority_list": first,
            "preferred_index": 0,
            "model_family": "embedding",
            "subfamily": "web_deployment",
            "fallback_to_simulation": True,
            "browser_optimized": True,
            "description": "Web deployment optimized for embedding models",
        },
    )
    assert model.device == torch.device("cpu")


def test_memory_tracking(pool, create_model):
    pool.get_model("embedding", NAME, constructor=create_model)
    stats = pool.get_stats()
    (model,) = pool.models.values()
    held = [*model.parameters(), *model.buffers()]
    assert stats["memory_usage"] == sum(one.nbytes for one in held)
    assert stats["memory_usage_mb"] == stats["memory_usage"] / 1024**2
    memory = stats["system_memory"]
    assert 0 < memory["available_mb"] < memory["total_mb"]
    used = 100 * (1 - memory["available_mb"] / memory["total_mb"])
    assert memory["percent_used"] == pytest.approx(used, abs=0.1)
    assert memory["under_pressure"] == (used >= 90)
    shown = [
        (
            pool._stats[key].get("memory_usage", 0) / (1024 * 1024),
            pool._stats[key].get("memory_estimation_method", "unknown"),
            pool._stats[key].get("device", "unknown"),
        )
        for key in pool.models
        if key in pool._stats
    ]
    assert shown == [(stats["memory_usage_mb"], "parameters_and_buffers", "cpu")]


def test_low_memory_mode_by_the_environment_reaches_the_same_pool(pool, monkeypatch):
    monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", "1")
    assert get_global_resource_pool() is pool
    assert pool.get_stats()["low_memory_mode"]


def test_models_are_distributed_over_gpus_by_preferred_index():
    gpus = [{"name": "A", "memory_total_mb": 1000}, {"name": "B", "memory_total_mb": 1000}]
    with use_report(fake_report(cuda=gpus)):
        detector = HardwareDetector()
        assert detector.is_available(CUDA)
        assert detector.get_hardware_details()[CUDA]["device_count"] > 1
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 1000, "cuda:1": 1000})
    pool = machine.pool()
    found = [
        pool.get_model(family, name, machine.loader(10), {
            "priority_list": priority, "preferred_index": index
        }).device
        for family, name, priority, index in (
            ("text_generation", "gpt2", [CUDA, CPU], 0),
            ("text_generation", "t5-small", [CUDA, CPU], 1),
            ("embedding", NAME, [CUDA, CPU], 1),
            ("vision", "vit-base-patch16-224", [CUDA, MPS, OPENVINO, CPU], 1),
        )
    ]  # fmt: skip
    assert found == ["cuda:0", "cuda:1", "cuda:1", "cuda:1"]


def test_each_family_goes_where_its_row_of_the_matrix_leads():
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100})
    pool = machine.pool()
    asked = {
        "text_generation": ("llama-7b", 200),
        "embedding": ("bert-base", 20),
        "vision": ("vit-base", 30),
    }
    found = {
        family: pool.get_model(family, name, machine.loader(mib), needs=mib * 2**20).device
        for family, (name, mib) in asked.items()
    }
    # What the GPU has no room for computes on the CPU; what has room goes to the GPU.
    assert found == {"text_generation": "cpu", "embedding": "cuda:0", "vision": "cuda:0"}


def test_the_best_device_is_proved_asked_for_or_taken_from_torch(pool):
    from hardware_detection import detect_hardware_with_comprehensive_checks

    ways = (detect_hardware_with_comprehensive_checks, detect_available_hardware)
    assert [ask()["torch_device"] for ask in ways] == ["cpu", "cpu"]
    assert pool.get_recommended_device("embedding") == "cpu"


def test_the_classifier_and_the_detector_by_hand(pool):
    hardware = detect_available_hardware()["hardware"]
    available = [name for name in ("cuda", "mps") if hardware.get(name, False)] + ["cpu"]
    found = classify_model(NAME)
    assert (found["family"], available) == ("embedding", ["cpu"])
    model = pool.get_model(
        model_type=found["family"],
        model_name=NAME,
        constructor=lambda: ...,
        hardware_preferences={
            "compatible_devices": available,
            "hw_compatibility": {"mps": {"compatible": False, "reason": "not fully supported"}},
        },
    )
    assert model is ...
    assert pool.get_model("bert", NAME, constructor=lambda: pytest.fail("loaded")) is ...


def test_an_error_report_is_generated_and_saved(pool, tmp_path):
    report = pool.generate_error_report(
        NAME, "cuda", "CUDA out of memory. Tried to allocate 2.00 GiB", stack_trace="..."
    )
    path = pool.save_error_report(report, output_dir=tmp_path / "hardware_reports")
    saved = json.loads(Path(path).read_text())
    assert saved == report
    assert (saved["error_type"], saved["model_family"]) == ("out_of_memory", "embedding")
    assert saved["recommendations"]
    assert saved["alternatives"][0]["hardware"] == "cpu"


def test_reports_go_to_hardware_reports_unless_it_is_said_otherwise(pool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path(pool.save_error_report(pool.generate_error_report(NAME, "cpu", "boom")))
    assert path.resolve().parent == tmp_path / "hardware_reports"


def test_a_test_class_shares_a_model_in_set_up_class_and_cleans_up_in_the_end(pool, weights):
    class TestBert(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            shared = get_global_resource_pool()
            cls.model = shared.get_model(
                "embedding", NAME,
                constructor=lambda: transformers.AutoModel.from_pretrained(weights),
                hardware_preferences={
                    "priority_list": ["cuda", "mps", "openvino", "cpu"],
                    "preferred_index": 0,
                    "precision": "fp16" if torch.cuda.is_available() else None,
                },
            )  # fmt: skip
            cls.tokenizer = shared.get_tokenizer(
                "embedding", NAME,
                constructor=lambda: transformers.AutoTokenizer.from_pretrained(weights),
            )  # fmt: skip
            cls.device = cls.model.device

        def test_device(self) -> None:
            self.assertEqual(str(next(self.model.parameters()).device), str(self.device))

        def test_embedding(self) -> None:
            inputs = self.tokenizer("Hello, world!", return_tensors="pt").to(self.device)
            with torch.no_grad():
                self.assertEqual(self.model(**inputs).last_hidden_state.shape[0], 1)

        @classmethod
        def tearDownClass(cls) -> None:
            get_global_resource_pool().cleanup_unused_resources(max_age_minutes=0.1)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(TestBert).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    assert pool.get_stats()["cached_models"] == 1  # used less than 6 seconds ago
    assert isinstance(pool, ResourcePool)
