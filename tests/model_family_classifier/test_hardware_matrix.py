"""The matrices of the guides, cell by cell, and what follows from them for a machine."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection import HARDWARE_NAMES
from hardware_detection.testing import fake_report
from model_family_classifier import (
    BACKENDS,
    FAMILIES,
    ClassificationInputError,
    classify_model,
    hardware_fit,
    matrix,
)
from model_family_classifier.documents import read_document
from model_family_classifier.hardware import compatibility_of, priority_of
from model_family_classifier.web import WEB_BACKENDS, reported_web_limits, web_limits

COLUMNS = ("cuda", "rocm", "mps", "openvino", "webnn", "webgpu")
# h, m, l: compatible at that level; L: low and barred; n: not available.
FAMILY_ROWS = {
    "text_generation": "hmmlll",
    "embedding": "hhhmhm",
    "vision": "hmhhmh",
    "audio": "hmmmnn",
    "multimodal": "hnnnnn",
}
MODEL_ROWS = {
    ("embedding", "bert"): "hhhm",
    ("embedding", "roberta"): "hhhm",
    ("text_generation", "t5"): "hmmL",
    ("text_generation", "gpt2"): "hmlL",
    ("text_generation", "llama"): "hmLL",
    ("vision", "vit"): "hmhh",
    ("multimodal", "clip"): "hmml",
    ("audio", "whisper"): "hmmm",
    ("multimodal", "llava"): "hLLL",
}
CELL = {
    "h": ("high", True),
    "m": ("medium", True),
    "l": ("low", True),
    "L": ("low", False),
    "n": ("none", False),
}


def codes(family: str, model_type: str | None, width: int) -> list[tuple[str, bool]]:
    cells = compatibility_of(family, model_type)
    return [(cells[name]["level"], cells[name]["compatible"]) for name in COLUMNS[:width]]


@pytest.mark.parametrize(("family", "row"), FAMILY_ROWS.items())
def test_family_rows(family: str, row: str) -> None:
    assert codes(family, None, 6) == [CELL[code] for code in row]


@pytest.mark.parametrize(("model", "row"), MODEL_ROWS.items())
def test_model_rows_go_over_family_rows(model: tuple[str, str], row: str) -> None:
    assert codes(*model, 4) == [CELL[code] for code in row]
    family, model_type = model
    assert codes(family, model_type, 6)[4:] == codes(family, None, 6)[4:]


@pytest.mark.parametrize(
    ("name", "priority"),
    [
        ("bert-base-uncased", ["cuda", "rocm", "xpu", "mps", "cpu"]),
        ("google/vit-base-patch16-224", ["cuda", "rocm", "xpu", "mps", "openvino", "cpu"]),
        ("llama-7b", ["cuda", "rocm", "xpu", "cpu"]),
        ("llava-hf/llava-1.5-7b-hf", ["cuda", "cpu"]),
        ("openai/clip-vit-base-patch32", ["cuda", "rocm", "xpu", "mps", "cpu"]),
        ("openai/whisper-tiny", ["cuda", "rocm", "xpu", "mps", "cpu"]),
    ],
)
def test_priority(name: str, priority: list[str]) -> None:
    assert classify_model(name)["hardware_priority"] == priority


@pytest.mark.parametrize("family", FAMILIES)
def test_automatic_choice(family: str) -> None:
    priority = priority_of(family, compatibility_of(family, None))
    assert priority[-1] == "cpu"
    assert not {"webnn", "webgpu"} & set(priority)
    assert ("openvino" in priority) == (family == "vision")


def test_browser_condition_is_said() -> None:
    cell = compatibility_of("text_generation", None)["webgpu"]
    assert "tiny models only" in cell["reason"]


def test_callers_facts_are_merged() -> None:
    given_facts = {
        "cuda": {"compatible": True, "memory_usage": {"peak": 1200}},
        "mps": {"compatible": False, "reason": "not here"},
        "tpu": {"compatible": True},
    }
    result = classify_model("bert-base-uncased", hw_compatibility=given_facts)
    cells = result["compatibility"]
    assert cells["cuda"]["memory_usage"] == {"peak": 1200}
    assert cells["cuda"]["level"] == "high"
    assert (cells["mps"]["compatible"], cells["mps"]["reason"]) == (False, "not here")
    assert cells["tpu"]["compatible"] is True
    assert result["hardware_priority"] == ["cuda", "rocm", "xpu", "cpu"]


def test_rocm_is_driven_as_cuda_and_shown_only_where_it_is() -> None:
    bert = classify_model("bert-base-uncased")
    fit = hardware_fit(bert, {"rocm": True})
    assert (fit["optimal_hardware"], fit["torch_device"]) == ("rocm", "cuda:0")
    assert fit["hardware_priority"] == ["cuda", "rocm", "mps", "cpu"]
    assert hardware_fit(bert, {})["hardware_priority"] == ["cuda", "mps", "cpu"]


def test_every_hardware_that_detection_knows_is_known_here() -> None:
    assert {*BACKENDS, *matrix.OTHER_HARDWARE} == set(HARDWARE_NAMES), "run `rp models index`"


def test_what_detection_proves_is_chosen() -> None:
    gpt2 = classify_model("gpt2")
    fit = hardware_fit(gpt2, fake_report(xpu=[{}])["hardware"])
    assert (fit["optimal_hardware"], fit["torch_device"]) == ("xpu", "xpu:0")
    assert fit["hardware_priority"] == ["cuda", "xpu", "mps", "cpu"]
    assert "xpu" not in hardware_fit(gpt2, {})["hardware_priority"]


def test_what_is_known_not_to_fit_is_not_chosen_and_the_arithmetic_is_said() -> None:
    gpt2 = classify_model("gpt2")
    here = {"cuda": True, "mps": True}
    needs = {"memory_bytes": 10 * 1024 * MIB}
    fit = hardware_fit(gpt2, here, requirements=needs, memory_mb={"cuda": 8192.0, "mps": 10240.0})
    assert fit["optimal_hardware"] == "mps"
    cell = fit["compatibility"]["cuda"]
    assert (cell["compatible"], cell["system"], cell["effective"]) == (True, True, False)
    assert cell["reason"] == "it needs 10240 MiB, and the largest device has 8192 MiB"
    # The CPU is the last resort, and nothing is barred by what nobody knows.
    fit = hardware_fit(gpt2, {}, requirements=needs, memory_mb={"cpu": 1.0})
    assert fit["compatibility"]["cpu"]["effective"] is True
    assert hardware_fit(gpt2, here, requirements=needs)["optimal_hardware"] == "cuda"
    assert hardware_fit(gpt2, here, memory_mb={"cuda": 1.0})["optimal_hardware"] == "cuda"


def test_an_emulated_gpu_is_here_and_of_no_use() -> None:
    automatic = {"webgpu": False}
    fit = hardware_fit(classify_model("bert-base-uncased"), {"webgpu": True}, automatic=automatic)
    cell = fit["compatibility"]["webgpu"]
    assert (cell["system"], cell["effective"]) == (True, False)
    assert "no GPU" in cell["reason"]


@pytest.mark.parametrize("key", ["reason", "condition"])
def test_a_reason_is_nothing_that_a_terminal_obeys(tmp_path: Path, key: str) -> None:
    cell = {"cuda": {"compatible": False, key: "\x1b]0;owned\x07\x1b[2J"}}
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps({"families": {"text_generation": cell}}))
    for found in (
        classify_model("opt", matrix_path=path),
        classify_model("opt", hw_compatibility=cell),
    ):
        assert found["compatibility"]["cuda"][key].endswith("?]0;owned??[2J")
        assert found["compatibility"]["cuda"]["reason"].isprintable()


def test_barred_hardware_is_not_chosen_even_when_it_is_there() -> None:
    fit = hardware_fit(classify_model("llama-7b"), {"mps": True})
    assert (fit["optimal_hardware"], fit["torch_device"]) == ("cpu", "cpu")
    assert fit["compatibility"]["mps"]["system"] is True
    assert fit["compatibility"]["mps"]["effective"] is False


def test_openvino_serves_vision_where_there_is_no_gpu() -> None:
    vit = classify_model("google/vit-base-patch16-224")
    assert hardware_fit(vit, {"openvino": True})["optimal_hardware"] == "openvino"
    assert hardware_fit(vit, {"openvino": True, "mps": True})["optimal_hardware"] == "mps"
    bert = classify_model("bert-base-uncased")
    assert hardware_fit(bert, {"openvino": True})["optimal_hardware"] == "cpu"


NAMES = ["bert-base-uncased", "gpt2", "google/vit-base-patch16-224", "openai/whisper-tiny", "??"]


@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(BACKENDS), st.booleans()))
def test_fit_never_chooses_what_is_not_effective(name: str, hardware: dict[str, bool]) -> None:
    fit = hardware_fit(classify_model(name), hardware)
    assert fit["compatibility"][fit["optimal_hardware"]]["effective"] is True
    assert fit["hardware_priority"][-1] == "cpu"
    for backend, cell in fit["compatibility"].items():
        assert cell["system"] == (backend == "cpu" or hardware.get(backend, False))
        assert cell["effective"] == (cell["system"] and cell["compatible"])


def test_every_cell_has_a_legal_level() -> None:
    types = [None, *(model_type for _, model_type in MODEL_ROWS)]
    for family, model_type in product(FAMILIES, types):
        for cell in compatibility_of(family, model_type).values():
            assert cell["level"] in ("high", "medium", "low", "none")
            assert set(cell) == {"level", "compatible", "condition", "size_limit", "reason"}


def test_the_users_matrix_goes_over_ours_cell_by_cell_and_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(
        "families: {audio: {webgpu: {compatible: true, level: low}}}\n"
        "models: {whisper: {mps: {compatible: false, reason: crashes here}}}\n"
    )
    audio = classify_model("facebook/hubert-base", matrix_path=path)
    assert audio["compatibility"]["webgpu"]["compatible"] is True
    assert audio["compatibility"]["cuda"]["level"] == "high"
    whisper = classify_model("openai/whisper-tiny", matrix_path=path)
    assert whisper["hardware_priority"] == ["cuda", "rocm", "xpu", "cpu"]
    assert whisper["compatibility"]["mps"]["reason"] == "crashes here"
    assert classify_model("openai/whisper-tiny")["compatibility"]["mps"]["compatible"] is True


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "cells: {}",
        "families: {sounds: {cuda: {level: low}}}",
        "families: {audio: [cuda]}",
        "families: {audio: {abacus: {level: low}}}",
        "families: {audio: {cuda: {level: great}}}",
        "families: {audio: {cuda: {level: [low]}}}",
        "families: {audio: {cells: {cuda: {level: low}}}}",
        "models: {whisper: {cpu: {compatible: false}}}",
        "a: &a [*a]",
    ],
)
def test_a_wrong_matrix_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(content)
    with pytest.raises(ClassificationInputError) as caught:
        classify_model("openai/whisper-tiny", matrix_path=path)
    assert str(path) in str(caught.value)


MIB = 2**20
GPUS = ("cuda", "rocm", "xpu", "mps")


@pytest.mark.parametrize(
    ("name", "needs", "reported", "fits"),
    [
        ("bert-base-uncased", {"weights_bytes": 440 * MIB}, {}, True),
        ("bert-base-uncased", {"weights_bytes": 5000 * MIB}, {}, False),
        ("bert-base-uncased", {"largest_tensor_bytes": 129 * MIB}, {}, False),
        (
            "bert-base-uncased",
            {"largest_tensor_bytes": 129 * MIB},
            {"maxStorageBufferBindingSize": 1024 * MIB},
            True,
        ),
        ("gpt2", {"weights_bytes": 500 * MIB}, {}, False),
        ("gpt2", {"weights_bytes": 500 * MIB}, {"maxBufferSize": 1024 * MIB}, True),
        ("gpt2", {"weights_bytes": 100 * MIB}, {"maxBufferSize": "much"}, True),
        ("gpt2", {}, {}, True),
    ],
)
def test_web_size_limits(
    name: str, needs: dict[str, Any], reported: dict[str, Any], fits: bool
) -> None:
    found = classify_model(name)
    fit = hardware_fit(found, {"webgpu": True}, requirements=needs, web_limits=reported)
    cell = fit["compatibility"]["webgpu"]
    assert (cell["compatible"], cell["effective"]) == (fits, fits)
    assert fits or "MiB" in cell["reason"]
    assert fit["resource_requirements"] == (needs or None)


def test_each_browser_interface_has_its_own_limit_of_a_tensor() -> None:
    needs = {"largest_tensor_bytes": 300 * MIB}
    found = classify_model("bert-base-uncased")
    here = {"webgpu": True, "webnn": True}
    for limits, fits in (
        ({}, {"webgpu": False, "webnn": True}),
        ({"max_tensor_bytes": 200 * MIB}, {"webgpu": False, "webnn": False}),
        ({"maxStorageBufferBindingSize": 400 * MIB}, {"webgpu": True, "webnn": True}),
    ):
        fit = hardware_fit(found, here, requirements=needs, web_limits=limits)
        assert {name: fit["compatibility"][name]["effective"] for name in here} == fits


def test_reported_limits_are_those_of_the_best_browser_of_a_report() -> None:
    webgpu = {"devices": [{"limits": {"maxBufferSize": 7}}, {"limits": {"maxBufferSize": 9}}]}
    webnn = {"devices": [{"limits": {"max_tensor_bytes": 8}}]}
    assert reported_web_limits({"details": {"webgpu": webgpu, "webnn": webnn}}) == {
        "maxBufferSize": 7,
        "max_tensor_bytes": 8,
    }
    for empty in ({}, {"details": {}}, {"details": {"webgpu": {"devices": []}}}):
        assert reported_web_limits(empty) == {}
    assert reported_web_limits({"details": {"webnn": {"devices": [{"index": 0}]}}}) == {}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"size_limit": "huge"}, "'size_limit' must be one of"),
        ({"size_limit": ["max_buffer_size"]}, "'size_limit' must be one of"),
        ({"reason": 3}, "'reason' must be text"),
        ({"condition": ["tiny"]}, "'condition' must be text"),
    ],
)
def test_a_users_cell_is_checked_before_it_is_used(
    tmp_path: Path, cell: dict[str, Any], message: str
) -> None:
    path = tmp_path / "matrix.json"
    path.write_text(json.dumps({"families": {"vision": {"webgpu": cell}}}))
    with pytest.raises(ClassificationInputError, match=message):
        classify_model("gpt2", matrix_path=path)
    with pytest.raises(ClassificationInputError, match=message):
        classify_model("gpt2", hw_compatibility={"webgpu": cell})


def test_a_changed_matrix_is_read_again_and_an_unchanged_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "matrix.json"
    reads = []
    monkeypatch.setattr(
        matrix,
        "read_document",
        lambda one, what: reads.append(one) or read_document(one, what=what),
    )
    for compatible, wanted in ((False, ["cpu"]), (True, ["cuda", "cpu"])):
        cells = {name: {"compatible": compatible and name == "cuda"} for name in GPUS}
        path.write_text(json.dumps({"families": {"text_generation": cells}}))
        for _ in range(3):
            found = classify_model("facebook/opt-125m", matrix_path=path)
            assert found["hardware_priority"] == wanted
    assert len(reads) == 2


def test_an_answer_may_be_changed_without_changing_the_next() -> None:
    first = classify_model("gpt2")
    first["compatibility"]["cuda"]["compatible"] = False
    assert classify_model("gpt2")["compatibility"]["cuda"]["compatible"] is True


def test_every_size_limit_has_a_number_and_a_source() -> None:
    limits = web_limits()
    for limit in limits["limits"].values():
        assert limit["bytes"] is None or limit["bytes"] > 0
        assert limit["source"]
    assert set(limits["largest_tensor"]) == set(WEB_BACKENDS)
    assert set(limits["largest_tensor"].values()) <= set(limits["limits"])
    for family in FAMILIES:
        for cell in compatibility_of(family, None).values():
            assert cell["size_limit"] is None or cell["size_limit"] in limits["limits"]
    assert json.dumps(limits["browsers"])
