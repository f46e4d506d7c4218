"""The shape of the answer, and the names that the guides use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from model_family_classifier import BACKENDS, FAMILIES, classify_model, hardware_fit

KEYS = {
    "model_name",
    "family",
    "subfamily",
    "deployment",
    "confidence",
    "subfamily_confidence",
    "model_type",
    "architecture",
    "auto_class",
    "main_input",
    "evidence",
    "analyses",
    "template",
    "hardware_priority",
    "compatibility",
}


@pytest.mark.parametrize("name", ["bert-base-uncased", "nobody/knows-this", "google/timesfm-2.0"])
def test_answer_has_every_key_and_is_json(name: str) -> None:
    result = classify_model(name)
    assert set(result) == KEYS
    assert json.loads(json.dumps(result)) == result
    assert result["family"] in FAMILIES
    assert set(result["compatibility"]) == set(BACKENDS)
    assert result["hardware_priority"][-1] == "cpu"


def test_guides_example() -> None:
    result = classify_model("bert-base-uncased")
    assert result["model_name"] == "bert-base-uncased"
    assert (result["family"], result["subfamily"]) == ("embedding", "masked_lm")
    assert result["template"] == "hf_embedding_template.py"
    assert 0.7 <= result["confidence"] <= 0.99
    assert result["analyses"]["name"]["family"] == "embedding"


def test_unknown_name_is_said_to_be_unknown() -> None:
    result = classify_model("nobody/knows-this")
    assert (result["family"], result["subfamily"], result["model_type"]) == ("unknown", None, None)
    assert result["confidence"] == 0.0
    assert result["auto_class"] == "AutoModel"
    assert result["template"] == "hf_generic_template.py"
    assert result["evidence"][0]["source"] == "name"


@pytest.mark.parametrize(
    ("name", "auto_class"),
    [
        ("bert-base-uncased", "AutoModel"),
        ("gpt2", "AutoModelForCausalLM"),
        ("t5-small", "AutoModelForSeq2SeqLM"),
        ("facebook/bart-base", "AutoModelForSeq2SeqLM"),
        ("Helsinki-NLP/opus-mt-en-de", "AutoModelForSeq2SeqLM"),
        ("google/vit-base-patch16-224", "AutoModelForImageClassification"),
        ("facebook/detr-resnet-50", "AutoModelForObjectDetection"),
        ("openai/whisper-tiny", "AutoModelForSpeechSeq2Seq"),
        ("facebook/wav2vec2-base-960h", "AutoModelForCTC"),
        ("openai/clip-vit-base-patch32", "AutoModel"),
        ("llava-hf/llava-1.5-7b-hf", "AutoModelForImageTextToText"),
        ("Qwen/Qwen3-Embedding-0.6B", "AutoModel"),
    ],
)
def test_auto_class_is_what_a_test_loads(name: str, auto_class: str) -> None:
    assert classify_model(name)["auto_class"] == auto_class


def test_guides_integration_example() -> None:
    info = classify_model("llava-hf/llava-1.5-7b-hf")
    assert info["family"] == "multimodal"
    fit = hardware_fit(info, {"cuda": True, "mps": False})
    assert fit["optimal_hardware"] == "cuda"
    assert fit["torch_device"] == "cuda:0"


def test_classifying_imports_no_heavy_package() -> None:
    program = (
        "import sys, model_family_classifier as m; m.classify_model('gpt2');"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_none_of_its_modules() -> None:
    program = (
        "import sys, model_family_classifier;"
        "print([name for name in sys.modules if name.startswith('model_family_classifier.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
