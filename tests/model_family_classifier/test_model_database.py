"""The user's model database: what it says is right; what is wrong in it is said."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_family_classifier import ClassificationInputError, classify_model, documents
from model_family_classifier.database import look_up
from model_family_classifier.documents import MAX_BYTES


def write(tmp_path: Path, content: Any, name: str = "db.yaml") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["db.yaml", "db.yml", "db.json", "database"])
def test_database_is_authoritative(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, {"bert-base": {"family": "vision", "subfamily": "segmentation"}}, name)
    before = path.read_bytes()
    result = classify_model("bert-base", model_db_path=path, tasks=["fill-mask"])
    assert (result["family"], result["subfamily"]) == ("vision", "segmentation")
    assert (result["confidence"], result["subfamily_confidence"]) == (1.0, 1.0)
    assert result["evidence"][0]["source"] == "model_database"
    assert path.read_bytes() == before


def test_entry_facts_are_used(tmp_path: Path) -> None:
    entry = {
        "family": "text_generation",
        "subfamily": "seq2seq",
        "model_type": "t5",
        "hw_compatibility": {"mps": {"compatible": False, "reason": "too slow"}},
        "owner": "a note of my own",
    }
    path = write(tmp_path, {"acme/x": entry})
    result = classify_model("acme/x", model_db_path=path)
    assert result["auto_class"] == "AutoModelForSeq2SeqLM"
    assert result["compatibility"]["mps"]["reason"] == "too slow"
    assert result["hardware_priority"] == ["cuda", "rocm", "xpu", "cpu"]
    given = {"mps": {"compatible": True}}
    again = classify_model("acme/x", model_db_path=path, hw_compatibility=given)
    assert "mps" in again["hardware_priority"]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("t5-small", {"family": "embedding", "auto_class": "AutoModel"}),
        (
            "org/gpt2-with-own-code",
            {"family": "text_generation", "auto_class": "AutoModelForSeq2SeqLM"},
        ),
    ],
)
def test_the_users_auto_class_is_not_overwritten_by_inference(
    tmp_path: Path, name: str, entry: dict[str, Any]
) -> None:
    path = write(tmp_path, {name: entry})
    assert classify_model(name, model_db_path=path)["auto_class"] == entry["auto_class"]
    # That nothing is said is no statement: what is inferred counts.
    bare = {"family": entry["family"]}
    said, unsaid = (
        write(tmp_path, {name: one}, f"{number}.yaml")
        for number, one in enumerate([{**bare, "auto_class": None}, bare])
    )
    assert classify_model(name, model_db_path=said) == classify_model(name, model_db_path=unsaid)


@pytest.mark.parametrize(
    ("said", "deployment"), [({"deployment": None}, None), ({}, "web_deployment")]
)
def test_the_user_can_say_that_it_is_not_for_browsers(
    tmp_path: Path, said: dict[str, Any], deployment: str | None
) -> None:
    path = write(tmp_path, {"Xenova/x": {"family": "embedding", **said}})
    assert classify_model("Xenova/x", model_db_path=path)["deployment"] == deployment


def test_family_unknown_is_respected(tmp_path: Path) -> None:
    path = write(tmp_path, {"gpt2": {"family": "unknown"}})
    result = classify_model("gpt2", model_db_path=path)
    assert (result["family"], result["template"]) == ("unknown", "hf_generic_template.py")


def test_without_an_entry_the_other_evidence_decides(tmp_path: Path) -> None:
    path = write(tmp_path, {"other": {"family": "vision"}})
    result = classify_model("gpt2", model_db_path=path)
    assert result == classify_model("gpt2")


def test_a_changed_database_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, {"x": {"family": "vision"}})
    assert classify_model("x", model_db_path=path)["family"] == "vision"
    write(tmp_path, {"x": {"family": "multimodal"}})
    assert classify_model("x", model_db_path=path)["family"] == "multimodal"


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "map model names"),
        ("[]", "map model names"),
        ("a: [", "malformed"),
        ("a: !!python/object/apply:os.system ['true']", "tag"),
        ("a: !custom {family: vision}", "tag"),
        (BOMB, "alias"),
        ("[" * 100_000, "nest"),  # of ours, or of newer releases of PyYAML
        ("{a: " * 50_000, "nest"),
        ("1.0: {family: vision}", "quotes"),
        ("[" + "1," * 500_000 + "]", "parts"),
        ("x: vision", "mapping"),
        ("x: {subfamily: y}", "'family' must be one of"),
        ("x: {family: visoin}", "'family' must be one of"),
        ("x: {family: [vision]}", "'family' must be text"),
        ("x: {family: vision, subfamly: y}", "did you mean 'subfamily'"),
        ("x: {family: vision, tasks: fill-mask}", "tasks"),
        ("x: {family: vision, model_type: no-such}", "model_type"),
        ("x: {family: vision, auto_class: eval}", "auto_class"),
        ("x: {family: vision, architecture: 'a b'}", "architecture"),
        ('x: {family: vision, subfamily: "a\\eb"}', "subfamily"),
        ("x: {family: vision, hw_compatibility: {cuda: 1}}", "cuda"),
        ("x: {family: vision}\nx: {family: audio}", "'x' stands there twice in line 2"),
        ("x: {family: vision, family: audio}", "'family' stands there twice"),
        ("? [x]\n: {family: vision}", "malformed"),
        ("null: {family: vision}", "quotes"),
        ("'': {family: vision}", "must have characters"),
        ('"a\\eb": {family: vision}', "cannot be printed"),
        ("x: {family: vision, tasks: [1]}", "tasks"),
        ("x: {family: vision, 3: y}", "keys must be text"),
        ("x: {family: 1:1:1.0}", "'family' must be one of"),
        ("x: {family: =}", "malformed"),
        ("x: {family: vision, size: " + "9" * 5000 + "}", "malformed"),
    ],
)
def test_faulty_yaml(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ClassificationInputError, match=message) as caught:
        classify_model("x", model_db_path=path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        "[" * 100_000,
        '{"x": {"family": NaN}}',
        '{"x": {"family": "vision", "note": Infinity}}',
        "\x00",
        '{"x": {"family": "vision"}, "x": {"family": "audio"}}',
        '{"x": {"family": "vision", "size": ' + "9" * 5000 + "}}",
    ],
)
def test_faulty_json(tmp_path: Path, content: str) -> None:
    with pytest.raises(ClassificationInputError, match="model database"):
        classify_model("x", model_db_path=write(tmp_path, content, "db.json"))


def test_a_number_to_the_base_of_60_is_text_and_costs_nothing(tmp_path: Path) -> None:
    note = "1" + ":1" * 20_000
    path = write(tmp_path, f"x: {{family: vision, note: {note}, other: {note}.5}}")
    assert look_up(path, "x") == {"family": "vision", "note": note, "other": f"{note}.5"}


@pytest.mark.parametrize(
    "note", ["2024-01-01", "2024-13-41", "2001-12-14t21:59:43", ".nan", "-.inf"]
)
def test_what_json_does_not_have_is_text(tmp_path: Path, note: str) -> None:
    cell = {"compatible": True, "since": note}
    entry = {"family": "vision", "note": note, "hw_compatibility": {"cuda": cell}}
    path = write(
        tmp_path,
        f"x: {{family: vision, note: {note},"
        f" hw_compatibility: {{cuda: {{compatible: true, since: {note}}}}}}}",
    )
    assert look_up(path, "x") == entry
    assert classify_model("x", model_db_path=path)["compatibility"]["cuda"]["since"] == note


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 100 * 2**20])
def test_oversized_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "db.yaml"
    with path.open("wb") as stream:
        stream.truncate(size)
    with pytest.raises(ClassificationInputError, match="larger than 8 MiB"):
        classify_model("x", model_db_path=path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, "bad\x00name"):
        with pytest.raises(ClassificationInputError, match="cannot be read"):
            classify_model("x", model_db_path=path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_and_a_device_are_no_database(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ClassificationInputError, match="not a regular file"):
            classify_model("x", model_db_path=path)


def test_a_key_twice_in_a_large_file_is_found_in_one_pass() -> None:
    class Name(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, str(other))

        __hash__ = str.__hash__

    names = [Name(number) for number in range(5000)]
    with pytest.raises(ValueError, match="'4999' stands there twice"):
        documents._unique([(name, None) for name in [*names, Name(4999)]])
    assert Name.compared < 3 * len(names)  # a few share a slot


def test_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "db.yaml"
    path.write_bytes(b"x: \xff")
    with pytest.raises(ClassificationInputError, match="UTF-8"):
        classify_model("x", model_db_path=path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from(["json", "yaml"]))
def test_any_bytes_give_an_answer_or_the_one_error(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"db.{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(ClassificationInputError):
        assert classify_model("gpt2", model_db_path=path)["family"] == "text_generation"
