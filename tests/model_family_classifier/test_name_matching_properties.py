"""Names are matched by whole tokens, and no name whatever breaks the classifier."""

from __future__ import annotations

import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_family_classifier import FAMILIES, ClassificationInputError, classify_model
from model_family_classifier.index import load_index
from model_family_classifier.names import judge_name

MODEL_TYPES = sorted(load_index()["model_types"])


@given(st.text(max_size=200))
def test_any_text_gives_a_legal_answer_or_the_one_error(name: str) -> None:
    with contextlib.suppress(ClassificationInputError):
        result = classify_model(name)
        assert result["family"] in FAMILIES
        assert 0.0 <= result["confidence"] <= 1.0
        assert result["hardware_priority"][-1] == "cpu"


@given(st.lists(st.text(string.ascii_letters + string.digits, min_size=1), min_size=1, max_size=8))
def test_names_of_the_hub_never_fail(words: list[str]) -> None:
    assert classify_model("org/" + "-".join(words))["family"] in FAMILIES


@given(st.sampled_from(["bert", "phi", "gpt2", "vit", "llama", "clip", "whisper", "t5"]), st.data())
def test_never_by_substring(word: str, data: st.DataObject) -> None:
    letters = st.text("qxz", min_size=3, max_size=6)
    assert judge_name(data.draw(letters) + word) is None
    assert judge_name(word + data.draw(letters)) is None


@pytest.mark.parametrize(
    ("name", "not_type"),
    [
        ("dolphin-7b", "phi"),
        ("hubert-base", "bert"),
        ("my-gypsum-4bit", "bit"),
        ("sapphire", "phi"),
    ],
)
def test_known_traps(name: str, not_type: str) -> None:
    assert classify_model(name)["model_type"] != not_type


@pytest.mark.parametrize("name", ["4-bit-thing", "my-git-model", "new-radio-thing"])
def test_everyday_words_count_only_at_the_start(name: str) -> None:
    assert classify_model(name)["family"] == "unknown"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_model_type_is_found_by_its_own_name(model_type: str) -> None:
    found = judge_name(model_type)
    assert found is not None
    assert found.model_type is not None


@given(st.sampled_from(["gpt-2", "GPT2", "gpt_2", "Gpt.2"]))
def test_separators_and_case_play_no_part(name: str) -> None:
    assert classify_model(name)["model_type"] == "gpt2"


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a\x00b", "a\nb", "\ud800", "../secrets", "/no/such/folder", "a/../b", "a//b"],
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ClassificationInputError):
        classify_model(name)


def test_very_long_names() -> None:
    assert classify_model("x" * 4000)["family"] == "unknown"
    with pytest.raises(ClassificationInputError, match="longer than"):
        classify_model("x" * 5000)


def test_purpose_goes_over_what_a_text_model_is_built_on_but_not_over_pictures() -> None:
    assert classify_model("acme/llama-7b-embedding")["family"] == "embedding"
    assert classify_model("acme/siglip-embedding")["family"] == "multimodal"
    assert classify_model("acme/something-embedding")["confidence"] < 0.7
