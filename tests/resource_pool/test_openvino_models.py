"""Models on OpenVINO, really computed there, beside the same models on torch."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import (
    DeviceUnavailableError,
    ResourcePool,
    UnsupportedOperationError,
    WrongResultError,
)
from resource_pool.devices import openvino, openvino_convert
from resource_pool.devices.float32 import as_float32, in_float32
from resource_pool.weights import example_inputs, locate_weights

pytest.importorskip("openvino")
torch = pytest.importorskip("torch")

OPENVINO = {"device": "openvino"}


def load(model_type: str, auto_class: str):
    import transformers

    path = locate_weights(
        f"a/{model_type}", auto_class=auto_class, model_type=model_type, mode="tiny"
    ).path
    return getattr(transformers, auto_class).from_pretrained(path)


def with_bessel(model):
    """Let a model compute something for which neither OpenVINO nor ONNX has an operator."""

    class Bessel(torch.nn.Module):
        def forward(self, states):
            return torch.special.bessel_j0(states[:, 0])

    model.pooler = Bessel()
    return model


@pytest.fixture
def pool() -> ResourcePool:
    return ResourcePool()


@pytest.fixture(scope="module")
def shared() -> ResourcePool:
    """A pool with a BERT on OpenVINO, for the tests that leave it as it is."""
    pool = ResourcePool()
    pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), OPENVINO)
    return pool


def test_an_encoder_computes_there_what_it_computes_on_torch(shared):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    inputs = example_inputs(model, batch=3)
    inputs["attention_mask"][1, 5:] = 0  # padding, which tracing did not see
    got, expected = model(**inputs), load("bert", "AutoModel")(**inputs)
    assert type(got) is type(expected)
    torch.testing.assert_close(got.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-4)
    assert (model.backend, model.device) == ("openvino", torch.device("cpu"))
    assert model.config.model_type == "bert"
    shorter = {name: value[:, :7] for name, value in inputs.items()}
    torch.testing.assert_close(
        model(**shorter).pooler_output, load("bert", "AutoModel")(**shorter).pooler_output,
        rtol=0, atol=1e-4,
    )  # fmt: skip


def test_the_statistics_say_where_it_is_and_ram_is_charged_for_both_copies(shared):
    ((key, facts),) = shared.get_stats()["models"].items()
    assert key == "embedding:bert:openvino:0:float32"
    assert (facts["device"], facts["backend"], facts["dtype"], facts["weights"]) == (
        "openvino:0", "openvino", "float32", "tiny",
    )  # fmt: skip
    alone = sum(p.numel() * 4 for p in load("bert", "AutoModel").parameters()) / 2**20
    assert facts["memory_mb"] == pytest.approx(2 * alone, rel=0.05)
    assert shared.get_stats()["devices"]["cpu"]["used_mb"] == facts["memory_mb"]


def test_it_moves_to_torch_and_goes(pool):
    model = pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), OPENVINO)
    pool.move_model_to_device("embedding", "bert", "cpu")
    assert openvino.placement(model) is None
    assert not hasattr(model, "backend")
    assert [*pool.models] == ["embedding:bert:cpu:float32"]
    del model
    assert pool.clear()["held"] == {}


def require_bfloat16(model):
    """Skip where OpenVINO computes in float32 whatever is asked for: not every processor can."""
    if openvino.placement(model).dtype != "bfloat16":
        pytest.skip("this processor proved no bf16")


def test_after_a_move_the_key_names_the_dtype_of_the_module(pool):
    options = {**OPENVINO, "precision": "bf16"}
    model = pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), options)
    require_bfloat16(model)
    assert [*pool.models] == ["embedding:bert:openvino:0:bfloat16"]
    pool.move_model_to_device("embedding", "bert", "cpu")
    ((key, facts),) = pool.get_stats()["models"].items()
    assert (key, facts["dtype"]) == ("embedding:bert:cpu:float32", "float32")


def test_a_move_to_openvino_computes_in_float32_and_says_so(pool):
    options = {"device": "cpu", "precision": "bf16"}
    pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), options)
    pool.move_model_to_device("embedding", "bert", "openvino")
    ((key, facts),) = pool.get_stats()["models"].items()
    assert (key, facts["dtype"]) == ("embedding:bert:openvino:0:float32", "float32")
    pool.move_model_to_device("embedding", "bert", "cpu")
    ((key, facts),) = pool.get_stats()["models"].items()
    assert (key, facts["dtype"]) == ("embedding:bert:cpu:bfloat16", "bfloat16")


def test_generation_agrees_with_torch_token_by_token(pool):
    make = lambda: load("t5", "AutoModelForSeq2SeqLM")  # noqa: E731 - as a caller would write it
    model = pool.get_model("text_generation", "t5", make, OPENVINO)
    tokens = example_inputs(model, batch=2)["input_ids"]
    options = {"max_new_tokens": 4, "do_sample": False}
    got, expected = model.generate(tokens, **options), make().generate(tokens, **options)
    assert torch.equal(got, expected)
    # The encoder, which generate() calls by itself, is no exception.
    assert openvino.placement(model.get_encoder()).constant_bytes > 0


def test_an_asked_precision_is_the_one_that_it_computes_in(pool):
    wish = {**OPENVINO, "precision": "bf16"}
    make = lambda: load("vit", "AutoModel")  # noqa: E731
    model = pool.get_model("vision", "vit", make, wish)
    require_bfloat16(model)
    inputs = example_inputs(model, batch=2)
    difference = (model(**inputs)[0] - make()(**inputs)[0]).abs().max()
    assert 0 < difference < 0.3


@pytest.mark.parametrize(
    ("model_type", "stored"),
    [("bert", "float32"), ("vit", "bfloat16"), ("bert", "float16")],  # vit's inputs are floating
)
def test_whatever_the_weights_are_stored_in_it_computes_in_float32(pool, model_type, stored):
    make = lambda: load(model_type, "AutoModel").to(getattr(torch, stored))  # noqa: E731
    wish = OPENVINO | {"force_device": True}
    model = pool.get_model("embedding", "mine", make, wish)
    ((key, facts),) = pool.get_stats()["models"].items()
    assert (key, facts["dtype"]) == ("embedding:mine:openvino:0:float32", "float32")
    assert model.dtype == getattr(torch, stored)  # the model itself is as it was
    inputs = example_inputs(model, batch=3)
    wide = {name: as_float32(value) for name, value in inputs.items()}
    got, expected = model(**inputs).pooler_output, make().float()(**wide).pooler_output
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_the_copy_in_float32_is_not_kept(monkeypatch):
    copies = []

    def noted(model):
        copies.append(weakref.ref(made := in_float32(model)))
        assert made is not model
        return made

    for module in (openvino, openvino_convert):
        monkeypatch.setattr(module, "in_float32", noted)
    model = load("bert", "AutoModel").to(torch.bfloat16)
    openvino.place(model, "openvino", None)
    gc.collect()
    assert len(copies) == 3  # to convert, and to compare with at each of two sizes
    assert [copy() for copy in copies] == [None] * 3


def test_generation_is_no_exception_in_half_precision():
    half = load("t5", "AutoModelForSeq2SeqLM").to(torch.bfloat16)
    tokens = example_inputs(half, batch=2)["input_ids"]
    options = {"max_new_tokens": 3, "do_sample": False}
    expected = load("t5", "AutoModelForSeq2SeqLM").to(torch.bfloat16).float()
    openvino.place(half, "openvino", None)
    # The encoder is converted by itself, when the model is placed already.
    assert torch.equal(half.generate(tokens, **options), expected.generate(tokens, **options))


def test_a_precision_that_the_device_lacks_is_not_claimed():
    model = load("vit", "AutoModel")
    openvino.place(model, "openvino", "float16")
    placed = openvino.placement(model)
    compiled = next(iter(placed._converted.values()))._model
    really = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    names = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
    assert placed.dtype == names[really]  # a CPU without f16 takes bf16, or f32


def test_what_it_cannot_do_is_an_error_and_never_a_wrong_answer(shared):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    inputs = example_inputs(model, batch=1)
    with pytest.raises(UnsupportedOperationError, match="use_cache=False"):
        model(**inputs, use_cache=True)
    model.train()
    for options in ({}, {"output_hidden_states": True}):
        with pytest.raises(UnsupportedOperationError, match="eval"):
            model(**inputs, **options)
    model.eval()
    assert len(model(**inputs, output_hidden_states=True).hidden_states) > 1


def test_weights_that_changed_since_are_an_error_until_it_is_placed_again(pool):
    model = pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), OPENVINO)
    inputs = example_inputs(model, batch=1)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.mul_(3.0)
    with pytest.raises(UnsupportedOperationError, match="changed since"):
        model(**inputs)
    pool.move_model_to_device("embedding", "bert", "cpu")
    expected = model(**inputs).last_hidden_state
    pool.move_model_to_device("embedding", "bert", "openvino")
    torch.testing.assert_close(model(**inputs).last_hidden_state, expected, rtol=0, atol=1e-4)


def test_a_layer_that_was_replaced_is_a_change_of_weights(pool):
    model = pool.get_model("embedding", "bert", lambda: load("bert", "AutoModel"), OPENVINO)
    size = model.config.hidden_size
    model.pooler.dense = torch.nn.Linear(size, size)
    with pytest.raises(UnsupportedOperationError, match="changed since"):
        model(**example_inputs(model, batch=1))


@pytest.mark.parametrize("wrong", ["hello", torch.tensor([[10**6]])], ids=["text", "no such token"])
def test_arguments_that_torch_does_not_take_raise_what_they_do_there(shared, wrong):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    with pytest.raises((AttributeError, IndexError)) as on_torch:
        type(model).forward(model, input_ids=wrong, output_attentions=True)
    with pytest.raises(type(on_torch.value)) as here:
        model(input_ids=wrong, output_attentions=True)
    assert str(here.value) == str(on_torch.value)


def test_each_new_size_is_compared_and_an_image_of_another_size_is_traced_anew(monkeypatch):
    model = load("convnext", "AutoModel")
    openvino.place(model, "openvino", None)
    forward, asked = openvino.placement(model), []
    monkeypatch.setattr(openvino, "compare", lambda *_: asked.append(_[-1]) or 0.0)
    for side in (32, 64, 64):
        model(pixel_values=torch.rand(1, 3, side, side))
    assert len(asked) == 2
    assert len(forward._converted) == 3


def test_what_an_encoder_gives_is_compared_too(pool, monkeypatch):
    """Of an encoder-decoder, generate() runs graphs that the whole model's forward does not."""
    model = load("t5", "AutoModelForSeq2SeqLM")
    openvino.place(model, "openvino", None)
    encoder = openvino.placement(model.get_encoder())
    assert len(encoder._compared) == 1
    real = encoder._computation

    def negated(*given):
        compute = real(*given)

        def other(tensors):
            output = compute(tensors)
            output.last_hidden_state.neg_()
            return output

        return other

    monkeypatch.setattr(encoder, "_computation", negated)
    tokens = example_inputs(model, batch=1)["input_ids"][:, :3]
    with pytest.raises(WrongResultError):
        model.generate(tokens, max_new_tokens=2)


def test_models_are_placed_side_by_side():
    kinds = ("bert", "roberta", "albert", "electra")
    models = [load(kind, "AutoModel") for kind in kinds]
    filters = [*warnings.filters]
    with ThreadPoolExecutor(4) as threads:
        for placed in [threads.submit(openvino.place, one, "openvino", None) for one in models]:
            placed.result()
    assert all(openvino.placement(one) for one in models)
    assert filters == warnings.filters


def test_a_call_waits_for_no_conversion_of_other_arguments(shared, monkeypatch):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    inputs, new = example_inputs(model, batch=1), {"output_attentions": True}
    model(**inputs)
    forward, inside, done = openvino.placement(model), threading.Event(), threading.Event()

    def slow(*_):
        inside.set()
        assert done.wait(60)
        raise UnsupportedOperationError("planted")

    monkeypatch.setattr(forward, "convert", slow)
    with ThreadPoolExecutor(1) as threads:
        slow_call = threads.submit(lambda: model(**inputs, **new))
        assert inside.wait(60)
        model(**inputs)  # while the other is converted
        done.set()
        with pytest.raises(UnsupportedOperationError, match="planted"):
            slow_call.result()


def test_threads_share_it(shared):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    batches = [example_inputs(model, batch=1, seed=seed) for seed in range(8)]
    alone = [model(**batch).pooler_output for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        together = [*threads.map(lambda batch: model(**batch).pooler_output, batches * 4)]
    assert all(torch.equal(one, alone[i % 8]) for i, one in enumerate(together))


def test_a_model_that_cannot_be_converted_falls_back_and_the_log_says_why(pool, caplog):
    model = pool.get_model("embedding", "plain", lambda: torch.nn.Linear(4, 4), OPENVINO)
    assert openvino.placement(model) is None
    assert pool.get_stats()["models"]["embedding:plain:cpu:float32"]["backend"] == "cpu"
    assert "OpenVINO" in caplog.text


def test_a_conversion_that_fails_is_an_error_report_with_the_operation_and_goes_on(
    pool, caplog, tmp_path
):
    make = lambda: with_bessel(load("bert", "AutoModel"))  # noqa: E731
    model = pool.get_model("embedding", "bert", make, {"priority_list": ["openvino", "cpu"]})
    assert openvino.placement(model) is None
    fallback, placed = pool.events()
    assert (fallback.what, placed.what) == ("fallback", "place")
    report = fallback.numbers
    assert (report["error_type"], report["operation"], report["hardware_type"]) == (
        "unsupported_operation", "aten::special_bessel_j0", "openvino:0",
    )  # fmt: skip
    assert report["recommendations"][0] == "Keep the model on torch: device='cpu'."
    assert "aten::special_bessel_j0" in caplog.text
    assert pool.save_error_report(report, tmp_path).endswith(".json")


@pytest.mark.parametrize("model_type", ["gpt2", "llama"])
def test_positions_that_see_nothing_are_zero_as_in_torch_and_not_nan(model_type):
    model = load(model_type, "AutoModelForCausalLM")
    openvino.place(model, "openvino", None)
    inputs = example_inputs(model, batch=2) | {"use_cache": False}
    mask = torch.ones_like(inputs["input_ids"])
    mask[0, :4] = 0  # padding on the left
    with torch.no_grad():
        got = model(**inputs | {"attention_mask": mask}).logits
        expected = load(model_type, "AutoModelForCausalLM")(
            **inputs | {"attention_mask": mask}
        ).logits
    assert not expected.isnan().any()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_a_nan_of_the_model_itself_is_not_mended():
    from resource_pool.devices.flat import Inputs

    class Attention(torch.nn.Module):
        def forward(self, x, mask):
            return (torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask),)

    x, mask = torch.randn(1, 2, 3, 4), torch.ones(1, 1, 3, 3, dtype=torch.bool).tril(-1)
    model = Attention()
    compiled = openvino.Compiled(model, Inputs({"x": x, "mask": mask}, ""), "openvino:0", "float32")
    (got,) = compiled([x, mask])
    torch.testing.assert_close(got, model(x, mask)[0], rtol=0, atol=1e-5)
    x[0, 1, 0, 2] = float("nan")
    (got,) = compiled([x, mask])
    assert got.isnan().any(-1).tolist() == [[[False] * 3, [False, True, True]]]


def test_forced_it_is_an_error(pool):
    wish = {**OPENVINO, "force_device": True}
    with pytest.raises(UnsupportedOperationError, match="OpenVINO"):
        pool.get_model("embedding", "plain", lambda: torch.nn.Linear(4, 4), wish)
    with pytest.raises(DeviceUnavailableError, match="openvino:7"):
        pool.get_model("embedding", "bert", object, {"device": "openvino:7", "force_device": True})


def test_another_answer_than_torchs_is_refused(pool, monkeypatch):
    """A conversion that goes wrong without an error must not pass."""
    real = openvino.Compiled.__call__

    def wrong(self, tensors):
        output = real(self, tensors)
        output["last_hidden_state"] = output["last_hidden_state"] + 0.5
        return output

    monkeypatch.setattr(openvino.Compiled, "__call__", wrong)
    with pytest.raises(UnsupportedOperationError, match="something else than torch"):
        openvino.place(load("bert", "AutoModel"), "openvino", None)


def test_nothing_is_told_to_openvinos_telemetry():
    source = """
import sys
from resource_pool.devices.openvino_convert import import_openvino
import_openvino()
import openvino.tools.ovc.telemetry_utils as used
assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub", used.tm
assert "openvino_telemetry" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], check=True)


def test_saving_saves_the_model_itself(shared, tmp_path):
    model = shared.get_model("embedding", "bert", None, OPENVINO)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
