"""File and class names: the guides' form, and safe for every name that a hub can hold."""

from __future__ import annotations

import keyword

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from rp_cli.codegen.names import MAX_STEM, class_name, file_name, is_hub_name, resolve_model_name
from rp_cli.errors import BadInputError


@pytest.mark.parametrize(
    ("model", "file", "cls"),
    [
        ("bert-base-uncased", "test_hf_bert_base_uncased.py", "TestBertBaseUncased"),
        ("t5-small", "test_hf_t5_small.py", "TestT5Small"),
        ("google/vit-base-patch16-224", "test_hf_google_vit_base_patch16_224.py",
         "TestGoogleVitBasePatch16224"),
        ("01-ai/Yi-1.5-6B", "test_hf_01_ai_yi_1_5_6b.py", "Test01AiYi156b"),
    ],
)  # fmt: skip
def test_names_of_well_known_models(model, file, cls):
    assert file_name(model) == file
    assert class_name(model) == cls


def test_a_local_folder_gives_its_last_part(tmp_path):
    assert file_name(str(tmp_path / "my-model")) == "test_hf_my_model.py"


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("my-bert/model", "test_hf_my_bert_model.py"),
        ("my-bert/checkpoints/checkpoint-500", "test_hf_my_bert_checkpoints_checkpoint_500.py"),
        ("models/my-bert", "test_hf_my_bert.py"),
        (f"models--org--m/snapshots/{'0a' * 20}",
         f"test_hf_models_org_m_snapshots_{'0a' * 20}.py"),
    ],
)  # fmt: skip
def test_a_folder_that_says_only_what_it_holds_takes_its_parents_name(tmp_path, folder, file):
    assert file_name(str(tmp_path / folder)) == file


def test_folders_all_the_way_up_that_say_nothing_have_a_name():
    assert file_name("/models/model") == "test_hf_models_model.py"


@pytest.mark.parametrize(
    "name",
    ["gpt2", "a", "org/name", "01-ai/Yi-1.5-6B", "a_b/c.d-e", "_x", "x" * 96, "o" * 96 + "/n"],
)
def test_names_that_the_hub_can_hold(name):
    validate_repo_id(name)
    assert is_hub_name(name)


@pytest.mark.parametrize(
    "name",
    ["a--b", "a..b", "a.git", "-a", "a-", ".a", "a.", "a/b/c", "a b", "a'b", 'a"b', "a\n",
     "x" * 97, "o" * 97 + "/n", "/a", "a/", "", "a/-b"],
)  # fmt: skip
def test_names_that_the_hub_refuses(name):
    with pytest.raises(HFValidationError):
        validate_repo_id(name)
    assert not is_hub_name(name)


@given(st.from_regex(r"[\w./-]{0,12}", fullmatch=True).filter(str.isascii))
def test_the_hubs_own_rules_are_kept(name):
    try:
        validate_repo_id(name)
    except HFValidationError:
        assert not is_hub_name(name)
    else:
        assert is_hub_name(name)


def test_names_that_lose_characters_stay_apart():
    names = ["模型", "模板", "a'b", 'a"b', "a b", "x" * 500, "x" * 501]
    assert len({file_name(name) for name in names}) == len(names)


@given(st.text(min_size=1))
def test_any_name_gives_a_plain_file_in_the_folder_and_an_identifier(name):
    file = file_name(name)
    assert file.isascii()
    assert file.removeprefix("test_hf_").removesuffix(".py").replace("_", "").isalnum()
    assert len(file) < MAX_STEM + 30
    assert class_name(name).isidentifier()
    assert not keyword.iskeyword(class_name(name))


@pytest.mark.parametrize(
    "name", ["", "   ", "../evil", "a/../../b", "/etc", "./x", "~/x", "..\\x", "a\nb", "a\0b"]
)
def test_names_that_are_empty_or_climb_are_refused(name, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    if name == "/etc":
        name = str(tmp_path / "absent")
    with pytest.raises(BadInputError, match=r"model name|neither a model folder"):
        resolve_model_name(name)


def test_a_folder_is_resolved_and_a_hub_name_is_kept(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert resolve_model_name("../inner") == str(tmp_path / "inner")
    assert resolve_model_name(" org/name ") == "org/name"
