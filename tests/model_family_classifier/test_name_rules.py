"""The rules by which a name is read, each shown on names that no table lists."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_family_classifier import ClassificationInputError, classify_model
from model_family_classifier.data import known_names
from model_family_classifier.index import load_index
from model_family_classifier.names import judge_name


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("acme/qwen2-7b-audio", "qwen2_audio"),  # the size stands between
        ("acme/bert-for-seq-generation", "bert-generation"),
        ("acme/qwen2-7b", "qwen2"),
        ("acme/audio-qwen2", "qwen2"),  # in another order it is another name
    ],
)
def test_a_type_may_go_on_behind_a_size(name: str, model_type: str) -> None:
    assert classify_model(name)["model_type"] == model_type


@pytest.mark.parametrize(("name", "model_type"), [("acme/mobilenet-2", "mobilenet_v2")])
def test_the_letter_of_a_version_may_be_missing(name: str, model_type: str) -> None:
    assert classify_model(name)["model_type"] == model_type


@pytest.mark.parametrize(
    ("name", "family", "subfamily"),
    [
        ("acme/TinyMistral", "text_generation", "causal_lm"),
        ("acme/SmallBERT-NER", "embedding", "token_classifier"),
        ("acme/ZebraTTS", "audio", "text_to_speech"),
        ("acme/zebratts", "audio", "text_to_speech"),
        ("acme/zebraASR", "audio", "speech_recognition"),
        ("acme/ZebraInstruct", "text_generation", "chat_model"),
    ],
)
def test_words_that_capitals_part_or_that_end_in_what_they_do_are_a_hint(
    name: str, family: str, subfamily: str
) -> None:
    found = classify_model(name)
    assert (found["family"], found["subfamily"]) == (family, subfamily)
    assert found["confidence"] < 0.7


def test_whole_words_go_before_words_that_capitals_part() -> None:
    assert classify_model("acme/DeBERTa-thing")["model_type"] == "deberta"


@pytest.mark.parametrize(
    ("name", "subfamily"),
    [
        ("acme/zebra-7b", "causal_lm"),
        ("acme/zebra-1.5B-chat", "chat_model"),
        ("acme/zebra-8x7b", "causal_lm"),
    ],
)
def test_billions_of_parameters_hint_at_a_language_model(name: str, subfamily: str) -> None:
    found = classify_model(name)
    assert (found["family"], found["subfamily"]) == ("text_generation", subfamily)
    assert found["confidence"] < 0.7


@pytest.mark.parametrize("name", ["acme/zebra-30m", "acme/zebra-4bit", "acme/7-bees", "acme/b7"])
def test_what_is_no_number_of_billions_stays_unknown(name: str) -> None:
    assert classify_model(name)["family"] == "unknown"


def test_an_organisation_may_be_named_after_a_type() -> None:
    found = classify_model("xlnet-people/zebra")
    assert found["model_type"] == "xlnet"
    assert found["confidence"] < 0.7
    assert "organisation 'xlnet-people'" in found["evidence"][0]["detail"]


def test_of_two_purposes_the_longer_one_counts() -> None:
    detector = classify_model("acme/vit-base-detection")
    classifier = classify_model("acme/vit-base-nsfw-image-detection")
    assert detector["subfamily"] == "object_detector"
    assert classifier["subfamily"] == "image_classifier"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("acme/llama-7b-embedding", "embedding"),
        ("acme/llama-7b-reranker", "embedding"),
        ("acme/llama-7b-speech", "audio"),
        ("acme/llama-7b-vl", "multimodal"),
        ("acme/whisper-large-chat", "audio"),
        ("acme/donut-base-chat", "vision"),
    ],
)
def test_what_is_built_on_a_language_model_and_what_keeps_its_modality(
    name: str, family: str
) -> None:
    assert classify_model(name)["family"] == family


def test_known_names_of_the_table_are_a_few_hundred_and_more() -> None:
    assert len(known_names()["known"]) > 300


def test_a_curated_name_goes_over_the_name_of_a_type() -> None:
    assert "aimv2" in load_index()["model_types"]
    found = judge_name("apple/aimv2-large-patch14-224")
    assert found is not None
    assert found.model_type == "aimv2_vision_model"


@pytest.mark.parametrize("name", [None, 3, b"gpt2", ["gpt2"]])
def test_a_name_must_be_text(name: object) -> None:
    with pytest.raises(ClassificationInputError, match="must be text"):
        classify_model(name)  # type: ignore[arg-type]  # the fault under test


def test_no_evidence_carries_what_a_terminal_would_obey(tmp_path: Path) -> None:
    found = classify_model(
        "gpt2",
        model_class="a\x1b[31m",
        tasks=["b\rc"],
        hub=lambda _: {"error": "d\x1b]0;e\x07\nf"},
    )
    assert json.dumps(found["evidence"], ensure_ascii=False).isprintable()
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert classify_model(str(tmp_path))["family"] == "embedding"


@pytest.mark.parametrize("answer", [[], "x", 3])
def test_a_hub_that_answers_no_mapping_says_nothing(answer: object) -> None:
    found = classify_model("gpt2", hub=lambda _: answer)  # type: ignore[arg-type,return-value]
    assert found == classify_model("gpt2")
