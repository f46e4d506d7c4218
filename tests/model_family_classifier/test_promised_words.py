"""What the agreement on the classifier says word by word, and that its table of tests is true."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from model_family_classifier import FAMILIES, classify_model, hardware_fit
from model_family_classifier.data import data_dir
from model_family_classifier.hardware import compatibility_of
from model_family_classifier.index import load_index

HERE = Path(__file__).parent
ROWS = re.findall(r"`([\w./]+\.py)::(\w+)`", (HERE / "README.md").read_text(encoding="utf-8"))

SUBFAMILIES = {
    "bert-base-uncased": "masked_lm",
    "sentence-transformers/all-MiniLM-L6-v2": "sentence_transformer",
    "dslim/bert-base-NER": "token_classifier",
    "gpt2": "causal_lm",
    "t5-small": "seq2seq",
    "Qwen/Qwen2.5-7B-Instruct": "chat_model",
    "mistralai/Mixtral-8x7B-v0.1": "mixture_of_experts",
    "state-spaces/mamba-130m-hf": "state_space",
    "google/vit-base-patch16-224": "image_classifier",
    "facebook/detr-resnet-50": "object_detector",
    "facebook/sam-vit-base": "segmentation",
    "Intel/dpt-large": "depth_estimation",
    "facebook/dinov2-base": "image_encoder",
    "openai/whisper-tiny": "speech_recognition",
    "MIT/ast-finetuned-audioset-10-10-0.4593": "audio_classifier",
    "suno/bark-small": "text_to_speech",
    "facebook/encodec_24khz": "audio_codec",
    "llava-hf/llava-1.5-7b-hf": "vision_language",
    "openai/clip-vit-base-patch32": "image_text_encoder",
    "microsoft/layoutlmv3-base": "document_qa",
}


def test_the_table_of_promises_is_read() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize(("file", "test"), ROWS)
def test_each_named_test_exists(file: str, test: str) -> None:
    assert re.search(rf"^def {test}\(", (HERE / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("name", "subfamily"), SUBFAMILIES.items())
def test_each_promised_subfamily_is_given(name: str, subfamily: str) -> None:
    assert classify_model(name)["subfamily"] == subfamily


def test_classify_model_has_the_arguments_of_the_guides() -> None:
    wanted = ["model_name", "model_class", "tasks", "methods", "hw_compatibility", "model_db_path"]
    parameters = inspect.signature(classify_model).parameters
    assert list(parameters)[: len(wanted)] == wanted
    assert all(parameters[name].default is None for name in wanted[1:])


def test_the_index_records_what_is_promised() -> None:
    index = load_index()
    assert re.fullmatch(r"\d+\.\d+.*", index["transformers"])
    assert len(index["model_types"]) > 700
    for entry in index["model_types"].values():
        assert {"config", "architectures", "family", "auto_class", "main_input"} <= set(entry)
        assert entry["family"] in FAMILIES
    tasks = {head["task"] for head in index["auto_classes"].values()}
    assert {"fill-mask", "text-generation", "image-classification"} <= tasks


def test_clip() -> None:
    found = classify_model("openai/clip-vit-base-patch32")
    assert (found["family"], found["subfamily"]) == ("multimodal", "image_text_encoder")


@pytest.mark.parametrize("name", ["bert-base", "gpt2", "vit", "whisper", "clip", "nobody/knows"])
def test_each_printed_template_is_a_file(name: str) -> None:
    template = classify_model(name)["template"]
    assert (data_dir("templates") / f"{template}.j2").is_file()


@pytest.mark.parametrize("family", FAMILIES)
def test_each_cell_has_level_condition_and_reason(family: str) -> None:
    for cell in compatibility_of(family, None).values():
        assert cell["level"] in ("high", "medium", "low", "none")
        assert {"compatible", "condition", "reason"} <= set(cell)
        assert cell["compatible"] or cell["reason"]


def test_openvino_is_chosen_for_vision_below_cuda_and_mps() -> None:
    vision = classify_model("google/vit-base-patch16-224")
    assert vision["hardware_priority"] == ["cuda", "rocm", "xpu", "mps", "openvino", "cpu"]
    assert hardware_fit(vision, {"openvino": True})["optimal_hardware"] == "openvino"
    assert hardware_fit(vision, {"openvino": True, "mps": True})["optimal_hardware"] == "mps"
    text = classify_model("gpt2")
    assert hardware_fit(text, {"openvino": True})["optimal_hardware"] == "cpu"
