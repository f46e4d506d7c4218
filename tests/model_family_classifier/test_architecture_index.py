"""The generated index, the rules that write it, and the data it is written from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from model_family_classifier import FAMILIES
from model_family_classifier.data import data_dir
from model_family_classifier.documents import read_document
from model_family_classifier.index import load_index
from rp_cli.errors import BadInputError, OutputError
from rp_cli.modeldb import staleness
from rp_cli.modeldb.build_index import read_rules, render
from rp_cli.modeldb.compile_data import compile_data, render_data
from rp_cli.modeldb.rules import Facts, Head, decide


def facts(model_type: str = "thing", **known: Any) -> Facts:
    defaults: dict[str, Any] = {
        "config": "ThingConfig",
        "architectures": {},
        "main_input": None,
        "modalities": frozenset(),
        "sub_configs": frozenset(),
        "experts": 0,
    }
    return Facts(model_type, **{**defaults, **known})


def verdict(subject: Facts, **exceptions: dict[str, str]) -> tuple[str, str | None, str]:
    found = decide(subject, read_rules().heads, exceptions)
    return found.family, found.subfamily, found.auto_class


@pytest.mark.slow
def test_committed_index_is_what_the_installed_transformers_gives() -> None:
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ != load_index()["transformers"]:
        pytest.skip(f"the index is of transformers {load_index()['transformers']}")
    assert staleness.compare().lines == [], "run: rp models index"


def test_compiled_data_is_what_the_yaml_gives() -> None:
    text = (data_dir("model_db") / "compiled.json").read_text(encoding="utf-8")
    assert render_data(compile_data()) == text, "run: rp models index"


def test_every_entry_is_legal() -> None:
    index = load_index()
    assert len(index["model_types"]) > 600
    for entry in index["model_types"].values():
        assert entry["family"] in FAMILIES
        assert entry["basis"] in ("table", "inputs", "name")
        assert entry["auto_class"] == "AutoModel" or entry["auto_class"] in entry["architectures"]


def test_hardly_a_loadable_type_is_unknown() -> None:
    types = load_index()["model_types"]
    unknown = [n for n, e in types.items() if e["family"] == "unknown" and e["architectures"]]
    assert len(unknown) <= 5, unknown
    assert types["timesfm"]["family"] == "time_series"


@pytest.mark.parametrize(
    ("model_type", "family", "subfamily"),
    [
        ("videomae", "video", "video_classifier"),
        ("vjepa2", "video", "video_encoder"),
        ("patchtst", "time_series", "forecasting"),
        ("decision_transformer", "reinforcement", "decision_transformer"),
        ("esmfold2", "protein", "protein_folding"),
        ("mamba", "text_generation", "state_space"),
        ("mixtral", "text_generation", "mixture_of_experts"),
        ("layoutlmv3", "multimodal", "document_qa"),
        ("encodec", "audio", "audio_codec"),
    ],
)
def test_families_and_subfamilies(model_type: str, family: str, subfamily: str) -> None:
    entry = load_index()["model_types"][model_type]
    assert (entry["family"], entry["subfamily"]) == (family, subfamily)


def test_every_task_names_a_family() -> None:
    for row in load_index()["tasks"].values():
        assert row["family"] in FAMILIES
        assert (
            row["auto_class"] in (None, "AutoModel")
            or row["auto_class"] in load_index()["auto_classes"]
        )


def test_render_gives_the_committed_bytes_back() -> None:
    text = (data_dir("model_db") / "architectures.json").read_text(encoding="utf-8")
    assert render(json.loads(text)) == text


@pytest.mark.parametrize(
    "name", ["families.yaml", "names.yaml", "hardware_matrix.yaml", "web_limits.yaml"]
)
def test_our_own_yaml_passes_the_checks_for_untrusted_files(name: str) -> None:
    content = read_document(data_dir("model_db") / name, what="data")
    assert content["schema_version"] == 1


def test_exceptions_and_names_speak_of_model_types_that_exist() -> None:
    types = load_index()["model_types"]
    assert set(read_rules().exceptions) <= set(types)
    names = read_document(data_dir("model_db") / "names.yaml", what="data")
    for group in names["names"] + names["organisations"]:
        assert {one for one in group["names"].values() if one} <= set(types)
        assert group.get("family", "unknown") in FAMILIES
    for row in names["purposes"] + names["patterns"]:
        assert row["family"] in FAMILIES


def test_the_first_deciding_head_wins() -> None:
    both = facts(architectures={"AutoModelForCausalLM": ["A"], "AutoModelForSpeechSeq2Seq": ["B"]})
    assert verdict(both) == ("audio", "speech_recognition", "AutoModelForSpeechSeq2Seq")


def test_a_classification_head_decides_nothing() -> None:
    subject = facts(
        architectures={"AutoModelForSequenceClassification": ["A"], "AutoModel": ["B"]},
        main_input="pixel_values",
    )
    assert verdict(subject) == ("vision", "image_encoder", "AutoModel")


def test_experts_make_a_mixture() -> None:
    subject = facts(architectures={"AutoModelForCausalLM": ["A"]}, experts=8)
    assert verdict(subject)[1] == "mixture_of_experts"


@pytest.mark.parametrize(
    ("known", "family"),
    [
        ({"main_input": "pixel_values"}, "vision"),
        ({"main_input": "input_features"}, "audio"),
        ({"main_input": "input_ids"}, "embedding"),
        ({"main_input": "input_ids", "modalities": frozenset({"image", "text"})}, "multimodal"),
        ({"sub_configs": frozenset({"text_config", "vision_config"})}, "multimodal"),
        ({"model_type": "thing_vision_model", "main_input": "input_ids"}, "vision"),
        ({"model_type": "thing_vision_text"}, "embedding"),
    ],
)
def test_base_models_are_judged_by_their_inputs(known: dict[str, Any], family: str) -> None:
    assert verdict(facts(architectures={"AutoModel": ["A"]}, **known))[0] == family


def test_parts_that_nothing_loads_are_judged_by_name_or_not_at_all() -> None:
    assert verdict(facts("thing_audio_encoder"))[0] == "audio"
    assert verdict(facts("thing_mask_decoder")) == ("unknown", None, "AutoModel")


def test_an_exception_corrects_only_what_it_names() -> None:
    subject = facts(architectures={"AutoModelForCausalLM": ["A"]})
    assert verdict(subject, thing={"subfamily": "state_space"}) == (
        "text_generation",
        "state_space",
        "AutoModelForCausalLM",
    )


def test_heads_are_unique() -> None:
    heads = read_rules().heads
    assert len({head.auto_class for head in heads}) == len(heads)
    assert all(isinstance(head, Head) and head.family in FAMILIES for head in heads)


def test_an_index_that_cannot_be_built_or_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInputError, match="'transformers' is not installed"):
        staleness.compare()
    nothing = staleness.Difference([], load_index(), {"names": {"known": {}}})
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        staleness.write(nothing, blocked / "folder")
