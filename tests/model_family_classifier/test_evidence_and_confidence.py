"""How pieces of evidence are weighed against each other."""

from __future__ import annotations

from typing import Any

import pytest

from model_family_classifier import ClassificationInputError, classify_model
from model_family_classifier.data import data_dir


class BertForTokenClassification:
    """Stands for the class of transformers of this name."""


def test_class_object_and_its_name_say_the_same() -> None:
    by_object = classify_model("some/thing", model_class=BertForTokenClassification)
    by_name = classify_model("some/thing", model_class="BertForTokenClassification")
    assert by_object == by_name
    assert (by_name["family"], by_name["subfamily"]) == ("embedding", "token_classifier")
    assert by_name["auto_class"] == "AutoModelForTokenClassification"


@pytest.mark.parametrize(
    ("model_class", "family", "subfamily"),
    [
        ("AutoModelForCausalLM", "text_generation", "causal_lm"),
        ("GPT2LMHeadModel", "text_generation", "causal_lm"),
        ("GPT2Model", "embedding", "text_encoder"),
        ("ViTModel", "vision", "image_encoder"),
        ("CLIPModel", "multimodal", "image_text_encoder"),
        ("WhisperForConditionalGeneration", "audio", "speech_recognition"),
        ("RemoteThingForCausalLM", "text_generation", "causal_lm"),
        ("RemoteThingForImageClassification", "vision", "image_classifier"),
        ("Nonsense", "unknown", None),
    ],
)
def test_model_class(model_class: str, family: str, subfamily: str | None) -> None:
    result = classify_model("some/thing", model_class=model_class)
    assert (result["family"], result["subfamily"]) == (family, subfamily)


@pytest.mark.parametrize(
    ("task", "family"),
    [
        ("fill-mask", "embedding"),
        ("text-generation", "text_generation"),
        ("translation", "text_generation"),
        ("image-classification", "vision"),
        ("automatic-speech-recognition", "audio"),
        ("image-text-to-text", "multimodal"),
        ("juggling", "unknown"),
    ],
)
def test_tasks(task: str, family: str) -> None:
    assert classify_model("some/thing", tasks=[task])["family"] == family


def test_methods_are_hints() -> None:
    assert classify_model("some/thing", methods=["encode"])["family"] == "embedding"
    # A hint does not outweigh a known name: Whisper has "generate", too.
    assert classify_model("openai/whisper-tiny", methods=["generate"])["family"] == "audio"


@pytest.mark.parametrize("name", ["Foo\x1b[2J\nimport os", "a.b", "", "9"])
def test_a_class_that_is_no_name_is_nothing_that_is_printed(name: str) -> None:
    found = classify_model("x", model_class=name)
    assert found["architecture"] is None
    assert all(one["detail"].isprintable() for one in found["evidence"])


def test_conflict_lowers_the_confidence_and_everything_is_reported() -> None:
    alone = classify_model("bert-base-uncased")
    torn = classify_model("bert-base-uncased", tasks=["image-classification"])
    assert torn["family"] == "vision"
    assert torn["confidence"] < 0.9
    assert {one["family"] for one in torn["evidence"]} == {"vision", "embedding"}
    assert torn["confidence"] < alone["confidence"]


def test_agreement_does_not_lower_it() -> None:
    alone = classify_model("some/thing", tasks=["fill-mask"])
    agreed = classify_model("bert-base-uncased", tasks=["fill-mask"])
    assert agreed["confidence"] >= alone["confidence"]


def test_task_changes_the_class_but_not_the_model_type() -> None:
    result = classify_model("gpt2", tasks=["text-classification"])
    assert result["model_type"] == "gpt2"
    assert result["auto_class"] == "AutoModelForSequenceClassification"
    assert result["architecture"] == "GPT2ForSequenceClassification"


def test_evidence_is_best_first_and_analyses_hold_the_best_of_each_source() -> None:
    result = classify_model("gpt2", "GPT2LMHeadModel", ["translation", "fill-mask"], ["generate"])
    order = [one["source"] for one in result["evidence"]]
    assert order == ["model_class", "tasks", "tasks", "name", "methods"]
    assert set(result["analyses"]) == {"model_class", "tasks", "methods", "name"}
    assert result["analyses"]["tasks"]["detail"] == "task translation"


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_class": 5},
        {"tasks": [1]},
        {"tasks": {"a": 1}},
        {"methods": 3},
        {"hw_compatibility": ["cuda"]},
        {"hw_compatibility": {"abacus": {"compatible": True}}},
        {"hw_compatibility": {"cuda": True}},
        {"hw_compatibility": {"cuda": {"compatible": "yes"}}},
        {"hw_compatibility": {"cuda": {"level": "superb"}}},
        {"hw_compatibility": {"cuda": {"since": object()}}},
        {"hw_compatibility": {"cpu": {"compatible": False}}},
    ],
)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ClassificationInputError):
        classify_model("bert-base-uncased", **wrong)


@pytest.mark.parametrize(
    ("name", "task", "subfamily"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "text-generation", "chat_model"),
        ("BAAI/bge-base-en", "fill-mask", "sentence_transformer"),
    ],
)
def test_the_more_precise_word_for_the_same_thing_wins(
    name: str, task: str, subfamily: str
) -> None:
    assert classify_model(name, tasks=[task])["subfamily"] == subfamily


def test_a_classifier_of_sound_stays_audio() -> None:
    result = classify_model("some/thing", model_class="Wav2Vec2ForSequenceClassification")
    assert result["family"] == "audio"


@pytest.mark.parametrize(
    ("task", "family"),
    [
        ("text-to-image", "diffusion"),
        ("time-series-forecasting", "time_series"),
        ("reinforcement-learning", "reinforcement"),
        ("tabular-classification", "tabular"),
        ("graph-ml", "graph"),
        ("video-classification", "video"),
    ],
)
def test_further_families_get_their_template_or_the_generic_one(task: str, family: str) -> None:
    result = classify_model("some/thing", tasks=[task])
    own = f"hf_{family}_template.py"
    has_own = (data_dir("templates") / f"{own}.j2").is_file()
    expected = own if has_own else "hf_generic_template.py"
    assert (result["family"], result["template"]) == (family, expected)
