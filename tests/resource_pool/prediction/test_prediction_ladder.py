"""Which method answers, what it takes from where, and what a prediction says about itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from model_family_classifier import ClassificationInputError
from resource_pool.errors import PredictionError
from resource_pool.prediction import isolation, ladder, predict, record_peak
from resource_pool.prediction.files import file_bytes, header_bytes
from resource_pool.prediction.trace import TraceRequest

MIB = 2**20
TRACED = {
    "config_class": "LlamaConfig",
    "architecture": "LlamaForCausalLM",
    "weights_bytes": 100 * MIB,
    "notes": [],
    "left_out": [],
    "seq": 128,
    "inputs": {"input_ids": [1, 128]},
    "peak_bytes": 30 * MIB,
    "kv_cache_bytes": 20 * MIB,
    "decode_peak_bytes": 25 * MIB,
    "kv_bytes_per_token": 1024,
}
_STEP = ("decode_peak_bytes", "kv_bytes_per_token")
WITHOUT_STEP = {key: value for key, value in TRACED.items() if key not in _STEP}
BUILT = {key: TRACED[key] for key in ("config_class", "architecture", "weights_bytes", "notes")}
BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 32, "vocab_size": 50}  # fmt: skip

Answering = Callable[[dict[str, Any]], list[TraceRequest]]


@pytest.fixture(autouse=True)
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    """Make every trace give one answer; return the list of what is asked."""

    def answer(known: dict[str, Any]) -> list[TraceRequest]:
        asked: list[TraceRequest] = []

        def traced(request: TraceRequest, deadline_s: float) -> dict[str, Any]:
            asked.append(request)
            return known

        monkeypatch.setattr(ladder, "traced", traced)
        return asked

    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder: a config, and 3000 bytes of weights (500 float32, 500 int16)."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(BERT))
    tensors = {
        "a": torch.zeros(20, 25),
        "b": torch.zeros(500, dtype=torch.int16),
    }
    save_file(tensors, model / "model.safetensors")
    return model


# The methods -------------------------------------------------------------------------------------


def test_a_trace_splits_the_peak(answering: Answering) -> None:
    answering(TRACED)
    found = predict("gpt2")
    assert (found.method, found.architecture) == ("trace", "LlamaForCausalLM")
    assert found.weights_bytes == 100 * MIB
    assert found.kv_cache_bytes == 20 * MIB
    assert found.activations_bytes == 10 * MIB
    assert found.total_bytes == 130 * MIB
    assert found.kv_bytes_per_token == 1024
    assert found.notes == ()


def test_the_step_of_one_more_token_may_be_the_peak(answering: Answering) -> None:
    answering({**TRACED, "decode_peak_bytes": 40 * MIB})
    assert predict("gpt2").total_bytes == 140 * MIB


def test_a_failed_step_of_one_more_token_is_a_note(answering: Answering) -> None:
    answering({**WITHOUT_STEP, "problem": "KeyError: x"})
    found = predict("gpt2")
    assert (found.method, found.kv_bytes_per_token) == ("trace", None)
    assert found.notes == ("the step of one further token was not traced: KeyError: x",)


def test_a_problem_after_the_last_answer_is_no_note(answering: Answering) -> None:
    late = {"problem": "the trace ended with status 1 ()"}
    answering({**TRACED, **late})
    assert predict("gpt2").notes == ()
    answering({**WITHOUT_STEP, "kv_cache_bytes": 0, **late})
    assert predict("gpt2").notes == ()


def test_a_recorded_peak_of_the_same_goes_before_a_trace(answering: Answering) -> None:
    answering(TRACED)
    record_peak(predict("gpt2", batch=2), 150 * MIB)
    again = predict("gpt2", batch=2)
    assert (again.method, again.total_bytes) == ("recorded", 150 * MIB)
    assert (again.weights_bytes, again.kv_cache_bytes) == (100 * MIB, 20 * MIB)


@pytest.mark.parametrize(
    "other", [{"batch": 3}, {"seq": 64}, {"dtype": "fp16"}, {"backend": "cuda"}], ids=str
)
def test_a_recorded_peak_of_something_else_does_not_count(
    answering: Answering, other: dict[str, Any]
) -> None:
    answering(TRACED)
    record_peak(predict("gpt2", batch=2), 150 * MIB)
    assert predict("gpt2", **{"batch": 2, **other}).method == "trace"


def test_a_forward_that_fails_leaves_the_weights_and_a_headroom(answering: Answering) -> None:
    answering({**BUILT, "problem": "RuntimeError: no"})
    found = predict("gpt2")
    assert found.method == "headroom"
    assert found.weights_bytes == 100 * MIB
    assert found.activations_bytes == 10 * MIB
    assert found.notes[-1] == "not traced: RuntimeError: no"


def test_headroom_grows_with_rows_and_tokens(answering: Answering) -> None:
    answering({**BUILT, "problem": "RuntimeError: no"})
    sizes = [
        predict("gpt2", batch=batch, seq=seq).activations_bytes
        for batch, seq in [(1, 64), (1, 128), (1, 256), (2, 256)]
    ]
    assert sizes == [10 * MIB, 10 * MIB, 20 * MIB, 40 * MIB]


def test_without_a_trace_the_header_of_the_weights_is_read(
    answering: Answering, folder: Path
) -> None:
    answering({"problem": "ValueError: no such thing"})
    found = predict(folder)
    assert (found.method, found.weights_bytes) == ("headroom", 3000)
    assert predict(folder, dtype="fp16").weights_bytes == 2000


def test_without_a_header_the_files_count(answering: Answering, folder: Path) -> None:
    answering({"problem": "ValueError: no such thing"})
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x" * 1000)
    found = predict(folder)
    assert (found.method, found.total_bytes) == ("file_size", 1200)
    assert len(found.notes) == 3


def test_without_anything_there_is_one_sentence(answering: Answering) -> None:
    answering({"problem": "ValueError: no such thing"})
    with pytest.raises(
        PredictionError, match=r"^The memory of gpt2 cannot be .*no such thing.*\.$"
    ):
        predict("gpt2")


def test_worse_methods_have_wider_margins(answering: Answering, folder: Path) -> None:
    answering(TRACED)
    traced = predict(folder)
    answering({"problem": "no"})
    header = predict(folder)
    (folder / "model.safetensors").write_bytes(b"cut short")
    files = predict(folder)
    assert [p.method for p in (traced, header, files)] == ["trace", "headroom", "file_size"]
    assert traced.margin < header.margin < files.margin


# What is asked about -----------------------------------------------------------------------------


def test_defaults_are_said_to_be_defaults(answering: Answering) -> None:
    asked = answering(TRACED)
    assert predict("meta-llama/Llama-2-7b-hf").config == "defaults of LlamaConfig, not the real one"
    assert asked[0].config is None


def test_a_folder_is_asked_about_with_its_config(answering: Answering, folder: Path) -> None:
    asked = answering(TRACED)
    assert predict(folder).config == "config.json in the folder"
    assert (asked[0].model_type, json.loads(asked[0].config or "")["vocab_size"]) == ("bert", 50)


def test_a_mapping_is_a_config(answering: Answering) -> None:
    asked = answering(TRACED)
    assert predict(BERT).config == "the given config"
    assert asked[0].model_type == "bert"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_is_the_configs_own_unless_asked(answering: Answering, key: str) -> None:
    answering(TRACED)
    config = {**BERT, key: "bfloat16"}
    assert predict(config).dtype == "bfloat16"
    assert predict(config, dtype="fp16").dtype == "float16"
    assert predict(BERT).dtype == "float32"


def test_code_and_quantization_of_a_config_are_left_out(answering: Answering) -> None:
    asked = answering(TRACED)
    found = predict({**BERT, "auto_map": {"AutoModel": "x.Y"}, "quantization_config": {"bits": 4}})
    assert {"auto_map", "quantization_config"}.isdisjoint(json.loads(asked[0].config or ""))
    assert found.notes == ("its quantization_config is ignored: this is the model unquantized",)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": "gpt2", "batch": 0}, "batch is 0"),
        ({"model": "gpt2", "batch": True}, "batch is True"),
        ({"model": "gpt2", "seq": -1}, "seq is -1"),
        ({"model": "gpt2", "dtype": "int8"}, "int8 needs quantized layers"),
        ({"model": "gpt2", "dtype": "fp12"}, "'fp12' is no dtype"),
        ({"model": "gpt2", "backend": "toaster"}, "backend is 'toaster'"),
        ({"model": "gpt2", "auto_class": "os.system"}, "no Auto class"),
        ({"model": {"vocab_size": 3}}, "names no model_type"),
        ({"model": {"model_type": "bert", "x": {1, 2}}}, "cannot be written as JSON"),
        ({"model": "nobody/knows-this", "deadline_s": 0}, "its architecture is unknown"),
    ],
)
def test_bad_input_is_a_sentence(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(PredictionError, match=says) as raised:
        predict(**arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "/no/such/folder", "a\x00b"])
def test_an_impossible_name_is_the_classifiers_error(name: str) -> None:
    with pytest.raises(ClassificationInputError):
        predict(name)


def test_more_tokens_than_positions_is_an_error(answering: Answering) -> None:
    answering({**BUILT, "too_long": "it has 512 positions, and seq is 600"})
    with pytest.raises(PredictionError, match="gpt2 takes no 600 tokens: it has 512 positions"):
        predict("gpt2", seq=600)


def test_a_result_is_json(answering: Answering) -> None:
    answering(TRACED)
    found = predict("gpt2")
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert found.to_dict()["needed_bytes"] == found.needed_bytes


# Files -------------------------------------------------------------------------------------------


def test_quantized_tensors_count_as_they_are_stored(folder: Path) -> None:
    assert header_bytes(folder, "bfloat16") == 500 * 2 + 500 * 2


def test_one_format_of_several_counts(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x" * 10)
    assert file_bytes(folder) == (folder / "model.safetensors").stat().st_size


# The process of its own --------------------------------------------------------------------------


def test_a_config_that_never_ends_is_stopped_at_the_deadline() -> None:
    endless = {"model_type": "gpt2", "n_layer": 10**9, "n_embd": 8, "n_head": 1}
    with pytest.raises(PredictionError, match="the trace was stopped after 4 s"):
        predict(endless, deadline_s=4)


def test_what_was_known_at_the_deadline_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = json.dumps(BUILT) + '\n{"peak_by'
    monkeypatch.setattr(
        isolation, "_START", f"print({lines!r}, end='', flush=True)\nwhile True: pass"
    )
    found = predict(BERT, deadline_s=3)
    assert (found.method, found.weights_bytes) == ("headroom", 100 * MIB)
    assert found.notes[-1] == "not traced: the trace was stopped after 3 s"


def test_a_trace_that_dies_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_START", "raise SystemExit('out of luck')")
    with pytest.raises(PredictionError, match=r"ended with status 1 \(out of luck\)"):
        predict(BERT, batch=7)


def test_no_time_means_no_trace(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert predict(folder, deadline_s=0).method == "headroom"


def test_the_same_question_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = predict(BERT, batch=3)
    monkeypatch.setattr(subprocess, "run", None)
    assert predict(BERT, batch=3) == first
    assert first.method == "trace"


def printed_by(script: str) -> str:
    """Run a script in a Python of its own, whose only child is the trace."""
    argv = [sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_model_of_70_billion_parameters_is_traced_in_little_memory() -> None:
    script = """
import resource
from resource_pool.prediction import predict
found = predict({"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
    dtype="bf16", seq=4096)
print(found.method, found.weights_bytes, found.kv_cache_bytes,
      resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    method, weights, cache, mebibytes = done.stdout.split()
    parameters = 80 * (8192 * (2 * 8192 + 2 * 1024 + 3 * 28672 + 2)) + 8192 * (2 * 32000 + 1)
    inverse_frequencies = 2 * 64 * 4  # buffers, and in float32
    assert method == "trace"
    assert int(weights) == pytest.approx(parameters * 2 + inverse_frequencies, abs=1024)
    assert int(cache) == 2 * 80 * 4096 * 1024 * 2
    assert int(mebibytes) < 500


def test_a_prediction_imports_no_torch_here() -> None:
    script = (
        "import sys; from resource_pool.prediction import predict\n"
        "try: predict('nobody/knows-this')\n"
        "except ValueError: print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Records -----------------------------------------------------------------------------------------


def test_recorded_errors_become_the_margin(answering: Answering) -> None:
    answering(TRACED)
    traced = predict("gpt2")
    before = traced.margin
    for number in range(10):
        record_peak(traced, traced.total_bytes * (200 + number) // 100)
    other = predict("gpt2", batch=5)
    assert other.method == "trace"
    assert other.margin == pytest.approx(1.09, abs=0.001)
    assert before < 0.1
