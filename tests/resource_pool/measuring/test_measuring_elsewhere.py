"""Tests on other hardware: one per backend, skipped for a precise reason before anything starts."""

from __future__ import annotations

import unittest
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hardware_detection.testing import fake_report, use_report
from resource_pool import get_global_resource_pool, measuring
from resource_pool.devices import browser_runtime, forwards
from resource_pool.errors import UnsupportedOperationError, WrongResultError
from resource_pool.measuring import elsewhere
from resource_pool.prediction import recorded_bytes
from resource_pool.weights import Weights

WEBGPU = {"device": "webgpu", "force_device": True}


def test_there_is_a_test_of_its_own_for_each_backend():
    seen = []

    class Tests(unittest.TestCase):
        @measuring.also_on("cuda", "webgpu")
        def test_it(self, elsewhere: dict | None) -> None:
            """A docstring."""
            seen.append(elsewhere)
            if elsewhere == WEBGPU:
                self.skipTest("not here")

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert (result.testsRun, result.failures, result.errors) == (3, [], [])
    assert seen == [{"device": "cuda", "force_device": True}, None, WEBGPU]
    ((skipped, reason),) = result.skipped
    assert (skipped.id().rpartition(".")[2], reason) == ("test_webgpu_it", "not here")
    assert Tests.test_it.__doc__ == "A docstring."


def test_an_engine_that_cannot_take_a_model_is_a_skip_that_names_it():
    with (
        pytest.raises(unittest.SkipTest, match="webgpu: no operator Foo"),
        measuring.reported("m", WEBGPU),
    ):
        raise UnsupportedOperationError("no operator Foo")


def test_an_engine_that_computes_something_else_is_no_skip():
    with pytest.raises(WrongResultError), measuring.reported("m", WEBGPU):
        raise WrongResultError("by 2.4 of the greatest value")


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    save_file({"a": torch.zeros(64, 64, dtype=torch.float16)}, tmp_path / "model.safetensors")
    return Weights("gpt2", tmp_path, "pretrained", "", 8192)


@pytest.fixture
def set_up(isolated_home: Path) -> None:
    """A home in which `rp web setup` seems to have been run."""
    folder = browser_runtime.runtime_folder()
    folder.mkdir(parents=True)
    for name in browser_runtime.ENGINE.files:
        (folder / name).touch()


def test_where_nothing_is_set_up_no_browser_is_asked(weights, monkeypatch):
    monkeypatch.setattr("resource_pool._hardware._detector", lambda: pytest.fail("asked"))
    with pytest.raises(unittest.SkipTest, match=r"^webgpu: .*run `rp web setup`"):
        measuring.need_engine(WEBGPU, "embedding", "bert", weights)


def test_a_copy_of_the_weights_beside_them_does_not_count(weights):
    save_file({"b": torch.zeros(512, 512)}, weights.path / "consolidated.safetensors")
    assert elsewhere._float32_sizes(weights.path) == {
        "weights_bytes": 4 * 64 * 64,
        "largest_tensor_bytes": 4 * 64 * 64,
    }


def test_other_devices_pass(weights):
    for preferences in (None, {"device": "cuda", "force_device": True}, {"priority_list": ["cpu"]}):
        measuring.need_engine(preferences, "embedding", "bert", weights)


@pytest.mark.usefixtures("set_up")
def test_a_package_that_is_missing_is_named(weights, monkeypatch):
    monkeypatch.setattr(elsewhere.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(unittest.SkipTest, match="webgpu: playwright is not installed"):
        measuring.need_engine(WEBGPU, "embedding", "bert", weights)


@pytest.mark.usefixtures("set_up")
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"maxBufferSize": 16383}, "the weights take 0 MiB, and max_buffer_size is 0 MiB"),
        ({"maxStorageBufferBindingSize": 16383}, "the largest tensor takes"),
        ({"maxBufferSize": 16384, "maxStorageBufferBindingSize": 16384}, ""),
    ],
)
def test_sizes_in_float32_are_held_against_what_the_browser_reports(weights, limits, why):
    report = fake_report(webgpu=True)
    report["details"]["webgpu"]["devices"][0]["limits"] = limits
    with use_report(report):
        if not why:
            measuring.need_engine(WEBGPU, "text_generation", "gpt2", weights)
            return
        with pytest.raises(unittest.SkipTest, match=f"webgpu: {why}"):
            measuring.need_engine(WEBGPU, "text_generation", "gpt2", weights)


class Model(torch.nn.Module):
    dtype, device = torch.float16, torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))


FORWARD = measuring.Forward({}, 123_456, frozenset())


@pytest.fixture
def model():
    pool = get_global_resource_pool()
    yield pool.get_model("text_generation", "gpt2", Model, {"device": "cpu"})
    pool.clear()


def test_what_a_forward_took_is_known_to_later_plans(model, weights):
    measuring.record_use(model, weights, FORWARD)
    assert recorded_bytes("gpt2", "", None) == FORWARD.peak_bytes
    assert recorded_bytes("gpt2", "", "float32") is None


def test_a_dtype_that_is_not_the_one_it_is_loaded_in_is_recorded_by_name(model, weights):
    save_file({"a": torch.zeros(2)}, weights.path / "model.safetensors")
    measuring.record_use(model, weights, FORWARD)
    assert recorded_bytes("gpt2", "", "float16") == FORWARD.peak_bytes
    assert recorded_bytes("gpt2", "", None) is None


def test_of_twins_engines_and_several_devices_nothing_is_recorded(model, weights, monkeypatch):
    measuring.record_use(model, Weights("gpt2", weights.path, "tiny", "", 0), FORWARD)
    with monkeypatch.context() as patched:
        patched.setattr(forwards, "placement", lambda _: object())
        measuring.record_use(model, weights, FORWARD)
    stats = {"models": {"text_generation:gpt2:cpu:float16": {"device": "cuda:0+cuda:1"}}}
    with monkeypatch.context() as patched:
        patched.setattr(type(get_global_resource_pool()), "get_stats", lambda _: stats)
        measuring.record_use(model, weights, FORWARD)
    assert recorded_bytes("gpt2", "", None) is None


def test_a_model_that_is_not_in_the_pool_is_told_nothing_of(model):
    assert measuring.told_of(model)["device"] == "cpu"
    with pytest.raises(LookupError, match="not in the pool"):
        measuring.told_of(Model())
