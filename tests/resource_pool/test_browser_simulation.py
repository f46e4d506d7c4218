"""Models in a simulated browser: what they compute, in which precision, what is refused."""

from __future__ import annotations

import logging
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report, use_report
from resource_pool import DeviceUnavailableError, ResourcePool, UnsupportedOperationError
from resource_pool._meanings import STATISTICS
from resource_pool.devices import (
    browser,
    browser_runtime,
    forwards,
    onnx_precision,
    web_engines,
)
from resource_pool.weights import example_inputs, locate_weights

np = pytest.importorskip("numpy")


def load(model_type: str, auto_class: str = "AutoModel"):
    import transformers

    path = locate_weights(
        f"a/{model_type}", auto_class=auto_class, model_type=model_type, mode="tiny"
    ).path
    return getattr(transformers, auto_class).from_pretrained(path).eval()


def simulation(model, dtype: str) -> browser.WebForward:
    device = "webgpu:simulation"
    return browser.WebForward(model, browser.engine_for(device), device, dtype)


@pytest.fixture
def torch():
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    return pytest.importorskip("torch")


def test_a_simulation_is_called_one_everywhere(torch, caplog):
    pool = ResourcePool(hardware=fake_report)
    wish = {"device": "webgpu", "fallback_to_simulation": True}
    with caplog.at_level(logging.INFO, "resource_pool"):
        model = pool.get_model("embedding", "bert", lambda: load("bert"), wish)
    assert "webgpu:simulation" in caplog.text
    ((key, facts),) = pool.get_stats()["models"].items()
    assert key == "embedding:bert:webgpu:simulation:float32"
    assert (facts["simulated"], facts["weights"]) == (True, "tiny")
    assert model.backend == "webgpu:simulation"
    assert forwards.placement(model).facts()["simulated"] is True
    inputs = example_inputs(model, batch=3)
    inputs["attention_mask"][1, 5:] = 0
    shorter = {name: value[:, :7] for name, value in inputs.items()}
    for one in (inputs, shorter):
        got, expected = model(**one), load("bert")(**one)
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, rtol=0, atol=1e-4)


def test_of_many_sizes_the_ones_used_last_are_kept(torch, monkeypatch):
    monkeypatch.setattr(forwards, "MOST_CONVERTED", 3)
    model = load("bert")
    browser.place(model, "webnn:simulation")  # whose files are built for the very sizes
    inputs = example_inputs(model)
    engine = forwards.placement(model).engine
    loads = []
    real = engine.load
    monkeypatch.setattr(engine, "load", lambda *args: loads.append(args) or real(*args))

    def run(length: int) -> int:
        """Return how many files were loaded for it."""
        before = len(loads)
        model(**{name: value[:, :length] for name, value in inputs.items()})
        return len(loads) - before

    assert [run(3), run(4), run(5), run(3), run(6)] == [1, 1, 1, 0, 1]
    assert len(engine._sizes) == 3
    assert [run(3), run(6), run(4)] == [0, 0, 1]


def test_generation_agrees_with_torch_token_by_token(torch):
    model = load("gpt2", "AutoModelForCausalLM")
    browser.place(model, "webgpu:simulation")
    tokens = example_inputs(model, batch=2)["input_ids"]
    options = {"max_new_tokens": 4, "do_sample": False}
    expected = load("gpt2", "AutoModelForCausalLM").generate(tokens, **options)
    assert torch.equal(model.generate(tokens, **options), expected)
    with pytest.raises(UnsupportedOperationError, match="use_cache=False"):
        model(tokens, use_cache=True)


def test_another_answer_than_torchs_is_refused_at_placement_and_at_new_sizes(torch, monkeypatch):
    model = load("bert")
    browser.place(model, "webgpu:simulation")
    real = web_engines.SimulatedEngine._run

    def wrong(self, *args):
        return [array + 0.5 for array in real(self, *args)]

    monkeypatch.setattr(web_engines.SimulatedEngine, "_run", wrong)
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        browser.place(load("bert"), "webgpu:simulation")
    inputs = {name: value[:, :5] for name, value in example_inputs(model).items()}
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        model(**inputs)


@pytest.mark.parametrize(
    ("device", "told"), [("webgpu:1", "webgpu:1"), ("webgpu", "webgpu:0"), ("webnn:2", "webnn:2")]
)
def test_of_several_browsers_the_one_that_computes_is_told(torch, monkeypatch, device, told):
    """No machine here has two: a simulation that does not call itself one is the second."""
    provider = device.partition(":")[0]
    engine = web_engines.SimulatedEngine(provider)
    engine.simulated = False
    monkeypatch.setattr(browser, "engine_for", lambda name, **_: engine)
    model = load("bert")
    browser.place(model, device)
    placed = forwards.placement(model)
    assert placed.device == placed.facts()["device"] == told
    assert placed.for_part(model).device == told
    assert model.backend == provider


OPTIMIZED = {
    "priority_list": ["webgpu"], "fallback_to_simulation": True, "browser_optimized": True,
}  # fmt: skip


def test_an_optimized_model_is_smaller_by_measure_and_differs_by_measure(torch, caplog):
    pool = ResourcePool(hardware=fake_report)
    with caplog.at_level(logging.INFO, "resource_pool"):
        model = pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    plain = pool.get_model(
        "embedding", "bert", lambda: load("bert"), {**OPTIMIZED, "browser_optimized": False}
    )
    assert plain is not model
    assert [*pool.models] == [f"embedding:bert:webgpu:simulation:{t}" for t in ("int8", "float32")]
    small, full = (row["web"] for row in pool.get_stats()["models"].values())
    assert {f"models.*.web.{key}" for key in small} == {
        key for key in STATISTICS if key.startswith("models.*.web.")
    }
    assert pool.events()[0].numbers["web"] == small
    assert small["download_bytes"] < 0.4 * small["float32_download_bytes"]
    assert full["download_bytes"] == full["float32_download_bytes"]
    assert 1e-3 < small["difference"] <= small["tolerance"] == 1e-1
    assert full["difference"] < full["tolerance"] == 1e-3
    assert "its file is in int8: " in caplog.text
    assert "0.1 passes" in caplog.text


def test_an_optimized_model_moves_to_torch_in_float32(torch):
    pool = ResourcePool(hardware=fake_report)
    pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    pool.move_model_to_device("embedding", "bert", "cpu")
    assert [*pool.models] == ["embedding:bert:cpu:float32"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_smaller_files_keep_their_inputs_and_what_they_compute(torch, tmp_path, dtype):
    onnx = pytest.importorskip("onnx")
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("gpt2", "AutoModelForCausalLM")
    forward = simulation(model, dtype)
    given = example_inputs(model, batch=2)
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["attention_mask"][0, :3] = 0
    forward(**given)  # which compares
    measured = forward.measured()
    share = {"float16": 0.55, "int8": 0.35}[dtype]
    assert measured["download_bytes"] < share * measured["float32_download_bytes"]
    (exported,) = forward.exports.values()
    full = Exported(model, Inputs({**given, "use_cache": False}, ""), tmp_path / "full.onnx")
    kinds = [
        [(one.name, one.type.tensor_type.elem_type) for one in onnx.load(str(path)).graph.output]
        for path in (exported.path, full.path)
    ]
    assert kinds[0] == kinds[1]


def test_real_weights_in_int8_keep_the_similarities(torch, minilm):
    expected = minilm.similarities(minilm.load())
    model = minilm.load()
    browser.place(model, "webgpu:simulation", "int8")
    found = minilm.similarities(model)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2)
    measured = forwards.placement(model).measured()
    assert measured["download_bytes"] < 0.3 * measured["float32_download_bytes"]
    assert forwards.placement(model).dtype == "int8"


def test_small_outputs_are_compared_by_their_own_greatest_value(torch):
    from resource_pool.devices.flat import difference

    probabilities = {"scores": torch.full((1, 5000), 2e-4), "large": torch.full((1, 2), 50.0)}
    zeros = {**probabilities, "scores": torch.zeros(1, 5000)}
    assert difference(probabilities, zeros) == pytest.approx(1)
    assert difference(zeros, zeros) == 0
    assert difference(zeros, {**zeros, "scores": torch.full((1, 5000), 1e-9)}) < 1e-4
    unknown = {**zeros, "scores": torch.full((1, 5000), math.nan)}
    assert difference(zeros, unknown) == math.inf  # though what comes after it is right


def test_values_that_changed_places_do_not_correlate(torch):
    from resource_pool.devices.flat import correlation

    logits = torch.tensor([[0.11, 0.1], [0.1, 0.11]])
    assert correlation([logits], [logits + 1e-4]) == pytest.approx(1)
    assert correlation([logits, logits], [logits, logits.flip(1)]) == pytest.approx(-1)
    assert correlation([logits], [torch.zeros(2, 2)]) == 0
    assert correlation([torch.ones(3)], [torch.rand(3)]) == 1  # of nothing, nothing is known


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("kind", ["zeros", "swapped"])
def test_a_classifiers_wrong_labels_do_not_pass_in_less_than_float32(
    torch, monkeypatch, dtype, kind
):
    """Its logits are small: a tolerance must not be more than they are."""
    wrong = {"zeros": np.zeros_like, "swapped": lambda array: array[:, ::-1].copy()}[kind]
    real = web_engines.SimulatedEngine._run
    model = load("bert", "AutoModelForSequenceClassification")
    inputs = example_inputs(model, batch=2)
    simulation(model, dtype)(**inputs)  # the right ones do
    monkeypatch.setattr(
        web_engines.SimulatedEngine, "_run", lambda *args: [*map(wrong, real(*args))]
    )
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        simulation(model, dtype)(**inputs)


def test_only_positions_that_the_mask_leaves_out_are_not_compared(torch):
    from resource_pool.devices.flat import without_masked

    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    output = {
        "states": torch.ones(2, 3, 4), "pooled": torch.ones(2, 4), "scores": torch.ones(2, 3),
        "labels": torch.ones(2, 3),
    }  # fmt: skip
    left = without_masked(output, {"attention_mask": mask}, {0, 2})
    assert torch.equal(left["states"][..., 0], mask.float())
    assert torch.equal(left["scores"], mask.float())
    assert torch.equal(left["pooled"], output["pooled"])
    assert torch.equal(left["labels"], output["labels"])  # as many as tokens, by chance
    assert torch.equal(without_masked(output, {}, {0, 2})["states"], output["states"])


def test_the_encoders_mask_leaves_out_nothing_of_the_decoder(torch):
    from resource_pool.devices.flat import without_masked

    given = {
        "attention_mask": torch.tensor([[1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[1, 2, 3]]),
    }
    output = {"logits": torch.ones(1, 3, 9), "encoder_last_hidden_state": torch.ones(1, 3, 4)}
    left = without_masked(output, given, set())
    assert torch.equal(left["logits"], output["logits"])
    assert left["encoder_last_hidden_state"].sum() == 4
    given["decoder_attention_mask"] = torch.tensor([[1, 1, 0]])
    assert without_masked(output, given, set())["logits"].sum() == 18


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_labels_are_compared_though_there_are_as_many_as_tokens(torch, dtype):
    model = load("bert", "AutoModelForSequenceClassification")
    labels = model.config.num_labels
    given = {name: value[:, :labels] for name, value in example_inputs(model, batch=2).items()}
    given["attention_mask"][1, 1:] = 0
    forward = simulation(model, dtype)
    forward(**given)
    (exported,) = forward.exports.values()
    assert exported.graph.changing == frozenset()
    (computation,) = forward._converted.values()
    forward._compared.clear()
    real = computation._run

    def other_second_label(arrays):
        (logits,) = real(arrays)
        logits[1, 1] += 1
        return [logits]

    computation._run = other_second_label
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        forward(**given)


def test_an_export_that_fails_prints_nothing(torch, capfd, monkeypatch, tmp_path):
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("bert")
    monkeypatch.setattr(type(model), "forward", lambda _, input_ids: torch.special.bessel_j0(
        input_ids.float()
    ))  # fmt: skip
    inputs = Inputs({"input_ids": torch.ones(1, 3, dtype=torch.long)}, "")
    with pytest.raises(UnsupportedOperationError, match="bessel"):
        Exported(model, inputs, tmp_path / "m.onnx")
    assert "graph(" not in "".join(capfd.readouterr())


def test_what_onnxruntime_refuses_is_an_error_of_ours(torch, tmp_path, monkeypatch):
    import onnxruntime

    def refuse(*_, **__):
        raise NotImplementedError("could not find an implementation for NonMaxSuppression(11)")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    model = load("bert")
    with pytest.raises(UnsupportedOperationError, match="onnxruntime cannot run the file"):
        browser.place(model, "webgpu:simulation")
    assert browser.forwards.placement(model) is None


def test_what_cannot_be_converted_to_less_goes_there_in_float32(torch, monkeypatch, caplog):
    monkeypatch.setitem(onnx_precision._CONVERSIONS, "int8", lambda _: 1 / 0)
    model = load("bert")
    browser.place(model, "webgpu:simulation", "int8")
    assert browser.forwards.placement(model).dtype == "float32"
    assert "cannot be converted to int8" in caplog.text


def test_of_two_browsers_of_one_name_the_one_that_computed_is_started(monkeypatch):
    stable, unstable = (
        {"name": "Chrome", "path": f"/opt/{name}", "flags": []} for name in ("stable", "unstable")
    )
    device = {
        "index": 0, "dtypes": ["fp32"], "adapter": "hardware", "browser": "Chrome", "flags": [],
        "browser_path": "/opt/unstable",
    }  # fmt: skip
    details = {"webgpu": {"devices": [device], "browsers": [stable, unstable]}}
    monkeypatch.setattr(browser, "detect", lambda **_: {"details": details})
    program, kind = browser.proved("webgpu", 0)
    assert (program.path, kind) == ("/opt/unstable", "hardware")


def test_scores_of_tokens_are_known_from_the_file(torch, tmp_path):
    from resource_pool.devices.flat import Inputs
    from resource_pool.devices.onnx_export import Exported

    model = load("bert", "AutoModelForQuestionAnswering")
    inputs = Inputs(example_inputs(model, batch=2), "")
    exported = Exported(model, inputs, tmp_path / "m.onnx", "int8")
    assert exported.graph.changing == {0, 1}  # where the answer starts and ends


@given(
    st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, -1]),
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=25, max_size=25),
)  # fmt: skip
@example(1, 1, 0, [1e-45] * 25)  # a step of which is zero
def test_weights_in_int8_are_off_by_half_a_step_of_their_channel_at_most(
    rows, columns, axis, drawn
):
    from resource_pool.devices.onnx_precision import _quantised

    values = np.array(drawn[: rows * columns], "float32").reshape(rows, columns)
    whole, scales = _quantised(values, axis)
    assert whole.dtype == np.int8
    scale = scales.reshape((-1, 1) if axis == 0 else (1, -1))
    assert (abs(whole * scale - values) <= scale * 0.501 + 1e-6).all()


def test_a_browser_that_cannot_compute_in_less_computes_in_float32_and_says_so(
    torch, monkeypatch, caplog
):
    real = web_engines.SimulatedEngine.load

    def refuse(self, exported, dimensions):
        if exported.path.stat().st_size != exported.float32_bytes:
            raise UnsupportedOperationError("no kernel for DequantizeLinear.")
        return real(self, exported, dimensions)

    monkeypatch.setattr(web_engines.SimulatedEngine, "load", refuse)
    pool = ResourcePool(hardware=fake_report)
    model = pool.get_model("embedding", "bert", lambda: load("bert"), OPTIMIZED)
    told = [r for r in caplog.records if "no kernel for DequantizeLinear" in r.getMessage()]
    assert len(told) == 1
    ((key, facts),) = pool.get_stats()["models"].items()
    assert key == "embedding:bert:webgpu:simulation:float32"
    assert (facts["dtype"], facts["web"]["tolerance"]) == ("float32", 1e-3)
    assert pool.get_model("embedding", "bert", None, OPTIMIZED) is model
    forced = {
        "device": "webgpu", "fallback_to_simulation": True, "force_device": True,
        "precision": "int8",
    }  # fmt: skip
    with pytest.raises(DeviceUnavailableError, match="int8 is forced"):
        pool.get_model("embedding", "other", lambda: load("bert"), forced)


def test_half_precision_comes_to_float32_and_an_encoder_decoder_goes_with_its_encoder(torch):
    model = load("t5", "AutoModelForSeq2SeqLM").half()
    browser.place(model, "webgpu:simulation")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    whole, part = forwards.placement(model), forwards.placement(model.get_encoder())
    assert part is not whole
    assert part.engine is whole.engine


def test_an_export_that_fails_names_the_operation_and_goes_on_on_the_cpu(torch):
    class Bessel(torch.nn.Module):
        def forward(self, states):
            return torch.special.bessel_j0(states[:, 0])

    def make():
        model = load("bert")
        model.pooler = Bessel()
        return model

    pool = ResourcePool(hardware=fake_report)
    wish = {"priority_list": ["webgpu", "cpu"], "fallback_to_simulation": True}
    assert pool.get_model("embedding", "bert", make, wish).device == torch.device("cpu")
    fallback, placed = pool.events()
    assert (fallback.what, placed.what) == ("fallback", "place")
    report = fallback.numbers
    assert (report["error_type"], report["operation"], report["hardware_type"]) == (
        "unsupported_operation",
        "aten::special_bessel_j0",
        "webgpu:simulation",
    )
    assert report["recommendations"][0] == "`rp web check` says what does not work there."


def test_no_model_of_transformers_and_no_proved_browser_are_one_sentence(torch):
    with pytest.raises(UnsupportedOperationError, match="transformers"):
        browser.place(torch.nn.Linear(2, 2), "webgpu:simulation")
    folder = browser_runtime.runtime_folder()
    folder.mkdir(parents=True)
    for name in browser_runtime.ENGINE.files:
        (folder / name).touch()
    with use_report(fake_report()), pytest.raises(UnsupportedOperationError, match="No browser"):
        browser.place(load("bert"), "webgpu")
