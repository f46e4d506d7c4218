"""``rp models``: the user's database is seen, edited whole or not at all, and never broken."""

from __future__ import annotations

import copy
import json
import os
import re
import stat
import threading
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_family_classifier import FAMILIES
from model_family_classifier.data import data_dir
from model_family_classifier.database import KNOWN_KEYS, check_entries
from model_family_classifier.index import load_index
from model_family_classifier.matrix import BACKENDS, OTHER_HARDWARE
from model_family_classifier.web import web_limits
from rp_cli.modeldb import staleness, user_database

SCHEMA = json.loads((data_dir("model_db") / "model_database.schema.json").read_text())


@pytest.fixture(params=["mine.yaml", "mine.json"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_add_list_show(rp: Any, database: Path) -> None:
    words = ["--family", "vision", "--subfamily", "segmentation", "--task", "mask-generation"]
    done = rp("models", "add", "acme/x", *words, "--db", database)
    assert (done.code, done.out) == (0, "")
    assert rp("models", "list", "--db", database).out == "acme/x  vision/segmentation\n"
    listed = rp("models", "list", "--db", database, "--json").json
    assert listed == {
        "acme/x": {
            "family": "vision",
            "subfamily": "segmentation",
            "tasks": ["mask-generation"],
        }
    }
    shown = rp("models", "show", "acme/x", "gpt2", "--db", database, "--json").json
    assert [one["entry"] is None for one in shown] == [False, True]
    assert shown[1]["family"] == "text_generation"
    assert "by itself: unknown" in rp("models", "show", "acme/x", "--db", database).out


@pytest.mark.parametrize("added", ["./my-bert", "absolute"])
@pytest.mark.parametrize("asked", ["my-bert", "./my-bert/", "../work/my-bert", "absolute"])
def test_a_folder_is_found_under_each_of_its_names(
    rp: Any, database: Path, tmp_path: Path, monkeypatch: Any, added: str, asked: str
) -> None:
    folder = tmp_path / "work" / "my-bert"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    monkeypatch.chdir(tmp_path / "work")
    added, asked = (str(folder) if name == "absolute" else name for name in (added, asked))
    assert rp("models", "add", added, "--family", "vision", "--db", database).code == 0
    assert list(rp("models", "list", "--db", database, "--json").json) == [str(folder)]
    words = ["classify", asked, "--model-db", database, "--json"]
    assert rp(*words).json[0]["family"] == "vision"
    assert rp("models", "show", asked, "--db", database, "--json").json[0]["entry"]
    done = rp("generate", "--model", asked, "--model-db", database, "--dry-run", "--json")
    assert done.json[0]["family"] == "vision"


def test_a_folder_that_was_written_by_hand_relative_is_found_where_it_is(
    rp: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "my-bert").mkdir()
    (tmp_path / "my-bert" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "mine.yaml").write_text("./my-bert: {family: vision}\n")
    monkeypatch.chdir(tmp_path)
    words = ["classify", tmp_path / "my-bert", "--model-db", "mine.yaml", "--json"]
    assert rp(*words).json[0]["family"] == "vision"
    words = ["models", "add", tmp_path / "my-bert", "--family", "audio", "--db", "mine.yaml"]
    assert rp(*words).code == 2
    assert rp(*words, "--replace").code == 0
    assert rp("models", "list", "--db", "mine.yaml").out == "./my-bert  audio\n"


@pytest.mark.parametrize("name", ["./later", "/nowhere/x", "https://huggingface.co/gpt2", "a b"])
def test_what_is_neither_a_folder_nor_a_name_of_the_hub_is_not_added(
    rp: Any, database: Path, name: str
) -> None:
    done = rp("models", "add", name, "--family", "vision", "--db", database)
    assert (done.code, database.exists()) == (2, False)
    assert "is neither a model folder nor a hub name" in done.err


def test_a_subfamily_that_rp_does_not_know_is_kept_with_a_word(rp: Any, database: Path) -> None:
    words = ["models", "add", "acme/x", "--family", "vision", "--db", database, "--subfamily"]
    done = rp(*words, "segmentaton")
    assert (done.code, done.out) == (0, "")
    assert "did you mean 'segmentation'?" in done.err
    assert rp("models", "list", "--db", database).out == "acme/x  vision/segmentaton\n"
    assert "rp: " not in rp(*words, "segmentation", "--replace").err


def test_without_a_name_the_database_lies_in_rps_folder(rp: Any, isolated_home: Path) -> None:
    assert rp("models", "add", "acme/x", "--family", "audio").code == 0
    assert (isolated_home / "models.yaml").is_file()
    assert "Family: audio (confidence: 1.00)" in rp("classify", "acme/x").out


def test_an_entry_is_replaced_only_when_asked(rp: Any, database: Path) -> None:
    rp("models", "add", "x", "--family", "vision", "--db", database)
    before = database.read_bytes()
    refused = rp("models", "add", "x", "--family", "audio", "--db", database)
    assert refused.code == 2
    assert "--replace" in refused.err
    assert database.read_bytes() == before
    assert rp("models", "add", "x", "--family", "audio", "--replace", "--db", database).code == 0
    assert rp("models", "list", "--db", database, "--json").json == {"x": {"family": "audio"}}


def test_comments_survive_a_new_entry(rp: Any, tmp_path: Path) -> None:
    database = tmp_path / "mine.yaml"
    database.write_text("# ours\nx: {family: vision}  # as Ann says\n")
    rp("models", "add", "y", "--family", "audio", "--db", database)
    text = database.read_text()
    assert text.startswith("# ours\nx: {family: vision}  # as Ann says\n")
    assert yaml.safe_load(text) == {"x": {"family": "vision"}, "y": {"family": "audio"}}


@pytest.mark.parametrize("before", ["{x: {family: vision}}\n", "x:\n  family: vision", ""])
def test_every_style_of_yaml_takes_an_entry(rp: Any, tmp_path: Path, before: str) -> None:
    database = tmp_path / "mine.yaml"
    if before:
        database.write_text(before)
    assert rp("models", "add", "y", "--family", "audio", "--db", database).code == 0
    assert yaml.safe_load(database.read_text())["y"] == {"family": "audio"}


def test_import(rp: Any, database: Path, tmp_path: Path) -> None:
    other = tmp_path / "theirs.json"
    other.write_text(json.dumps({"a": {"family": "audio"}, "b": {"family": "vision"}}))
    assert rp("models", "import", other, "--db", database).code == 0
    assert set(rp("models", "list", "--db", database, "--json").json) == {"a", "b"}
    # The same once more changes nothing and is no conflict.
    assert rp("models", "import", other, "--db", database).code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["add", "x", "--family", "sounds"],
        ["add", "x", "--family", "vision", "--model-type", "nothing"],
        ["add", "x", "--family", "vision", "--auto-class", "eval"],
        ["import", "/no/such/file.yaml"],
    ],
)
def test_wrong_words_are_one_sentence_and_write_nothing(
    rp: Any, database: Path, words: list[str]
) -> None:
    done = rp("models", *words, "--db", database)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert not database.exists()


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["add", "x"], "--family"),
        (["add", "--family", "vision"], "NAME"),
        (["import"], "FILE"),
        (["show"], "NAME"),
        (["frob"], "frob"),
    ],
)
def test_missing_words_are_named_and_nothing_is_written(
    rp: Any, isolated_home: Path, words: list[str], missing: str
) -> None:
    done = rp("models", *words)
    assert (done.code, done.out) == (2, "")
    assert missing in done.err
    assert not (isolated_home / "models.yaml").exists()


@pytest.mark.parametrize(
    ("action", "option"),
    [
        ("list", "--json"),
        ("show", "--json"),
        ("add", "--family"),
        ("import", "--replace"),
        ("index", "--check"),
    ],
)
def test_each_subcommand_has_its_own_help(rp: Any, action: str, option: str) -> None:
    done = rp("models", action, "--help")
    assert done.code == 0
    assert f"rp models {action}" in done.out
    assert option in done.out
    assert action in rp("models", "--help").out


def test_a_date_in_a_note_is_kept_as_it_is_written(rp: Any, database: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.yaml"
    source.write_text("a/b:\n  family: vision\n  added: 2024-01-01\n")
    assert rp("models", "import", source, "--model-db", database).code == 0
    listed = rp("models", "list", "--db", database, "--json").json
    assert listed == {"a/b": {"family": "vision", "added": "2024-01-01"}}


def test_half_of_a_surrogate_pair_is_written_or_refused(
    rp: Any, database: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in.json"
    source.write_text(r'{"a": {"family": "vision", "note": "\ud800"}}')
    done = rp("models", "import", source, "--db", database)
    if database.suffix == ".json":
        assert user_database.entries_of(database)["a"]["note"] == "\ud800"
    else:
        assert (done.code, done.err.count("\n"), database.exists()) == (2, 1, False)


def test_a_linked_database_stays_a_link_and_private(rp: Any, tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "mine.yaml", tmp_path / "models.yaml"
    real.parent.mkdir()
    real.write_text("{}\n")
    real.chmod(0o600)
    link.symlink_to(real)
    assert rp("models", "add", "a/b", "--family", "vision", "--db", link).code == 0
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert set(user_database.entries_of(real)) == {"a/b"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_database(rp: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "db.yaml")
    done = rp("models", "list", "--db", tmp_path / "db.yaml")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("words", [("list",), ("add", "x", "--family", "vision")])
def test_a_place_that_cannot_be_is_one_sentence(
    rp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    too_long = tmp_path / ("a" * 300)
    done = rp("models", *words, "--db", too_long)
    assert done.code in (2, 4)
    assert done.err.count("\n") == 1
    monkeypatch.setenv("RP_MODEL_DB", "~nosuchuser/x")
    done = rp("models", *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "RP_MODEL_DB is '~nosuchuser/x'" in done.err
    monkeypatch.delenv("RP_MODEL_DB")
    monkeypatch.setenv("RP_HOME", str(too_long))
    assert rp("classify", "gpt2").code == 0  # nothing is remembered, and nothing else is wrong


@pytest.mark.parametrize("content", ["[", "x: !!python/name:os.system", "x: {family: y}", "- a"])
def test_a_broken_database_is_left_as_it_is(rp: Any, database: Path, content: str) -> None:
    database.write_text(content)
    for words in (["list"], ["add", "y", "--family", "audio"]):
        done = rp("models", *words, "--db", database)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert database.read_text() == content


def test_a_database_that_cannot_be_written_is_said(rp: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = rp("models", "add", "y", "--family", "audio", "--db", blocked / "mine.yaml")
    assert (done.code, done.err.count("\n")) == (4, 1)


def test_a_failure_while_writing_leaves_the_old_file(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_database.add_entries(database, {"x": {"family": "vision"}})
    before = database.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="cannot be written"):
        user_database.add_entries(database, {"y": {"family": "audio"}})
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.glob("*.tmp")] == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="Linux has a folder that takes no file")
def test_a_place_where_no_file_can_be_made_is_said_and_no_other_command(
    rp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_database, "_LOCK_SECONDS", 0.1)
    done = rp("models", "add", "acme/x", "--family", "vision", "--db", "/proc/mine.yaml")
    assert (done.code, done.err.count(".\n")) == (4, 1)
    assert "/proc/mine.yaml cannot be written: no file can be made in /proc." in done.err


def test_a_database_that_another_command_edits_is_said(
    rp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_database, "_LOCK_SECONDS", 0.1)
    with user_database._locked(tmp_path / "mine.yaml"):
        words = ["models", "add", "acme/x", "--family", "vision", "--db", tmp_path / "mine.yaml"]
        done = rp(*words)
    assert done.code == 4
    assert "another command is editing it; try again." in done.err


def test_writers_at_the_same_time_lose_nothing(database: Path) -> None:
    def add(number: int) -> None:
        user_database.add_entries(database, {f"m{number}": {"family": "vision"}})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(user_database.entries_of(database)) == {f"m{number}" for number in range(8)}


NAMES = st.text(min_size=1, max_size=20).filter(str.isprintable)
ENTRIES = st.dictionaries(
    NAMES, st.fixed_dictionaries({"family": st.sampled_from(FAMILIES), "note": st.text()})
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=ENTRIES, second=ENTRIES)
def test_what_is_written_is_read_back(
    database: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    database.unlink(missing_ok=True)
    user_database.add_entries(database, first)
    user_database.add_entries(database, second, replace=True)
    assert user_database.entries_of(database) == {**first, **second}


def test_the_schema_says_what_the_checks_say() -> None:
    entry = SCHEMA["$defs"]["entry"]
    assert set(entry["properties"]) == set(KNOWN_KEYS)
    assert entry["properties"]["family"]["enum"] == list(FAMILIES)
    hardware = entry["properties"]["hw_compatibility"]["propertyNames"]["enum"]
    assert set(hardware) == {*BACKENDS, *OTHER_HARDWARE}
    assert set(entry["properties"]["auto_class"]["enum"]) == {
        None,
        "AutoModel",
        *load_index()["auto_classes"],
    }
    limits = SCHEMA["$defs"]["cell"]["properties"]["size_limit"]["enum"]
    assert limits == [*web_limits()["limits"], None]


def test_the_schema_takes_the_characters_that_can_be_printed() -> None:
    refused = re.compile(SCHEMA["$defs"]["text"]["not"]["pattern"])
    for letter in map(chr, range(0x10000)):
        known = unicodedata.category(letter) != "Cn"  # newer versions of Unicode assign more
        assert not known or (refused.search(letter) is None) == letter.isprintable(), letter


@pytest.mark.parametrize(
    ("entries", "legal"),
    [
        ({"x": {"family": "vision", "note": 3}}, True),
        ({"x": {"family": "video", "deployment": "web_deployment", "tasks": ["a"]}}, True),
        ({"x": {"family": "vision", "hw_compatibility": {"mps": {"compatible": False}}}}, True),
        ({"x": {"family": "none"}}, False),
        ({"": {"family": "vision"}}, False),
        ({"a\x1bb": {"family": "vision"}}, False),
        ({"a\u200bb": {"family": "vision"}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"cpu": {"compatible": False}}}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"cpu": {"level": "high"}}}}, True),
        ({"x": {"family": "vision", "hw_compatibility": {"cpu": {"level": "best"}}}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"cuda": {"size_limit": "huge"}}}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"cuda": {"size_limit": None}}}}, True),
        ({"x": {"family": "vision", "hw_compatibility": {"cuda": {"reason": 3}}}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"cuda": {"reason": None}}}}, True),
        ({"x": {"family": "vision", "hw_compatibility": None, "subfamily": None}}, True),
        ({"x": {"family": None}}, False),
        ({"x": {"family": "vision", "auto_class": "AutoConfig"}}, False),
        ({"x": {"family": "vision", "auto_class": ""}}, False),
        ({"x": {"family": "vision", "architecture": ""}}, False),
        ({"x": {"family": "vision", "architecture": "Model\n"}}, False),
        ({"x": {"family": "vision", "architecture": "4Model"}}, False),
        ({"x": {"family": "vision", "architecture": "_Model4"}}, True),
        ({"x": {"family": "vision", "subfamily": "a\n"}}, False),
        ({"x": {"family": "vision", "architecture": "Modèle"}}, False),
        ({"x": {"family": "vision", "auto_class": "AutoModel", "architecture": None}}, True),
        ({"x": {}}, False),
        ({"x": {"family": "vision", "deployment": "mars"}}, False),
        ({"x": {"family": "vision", "tasks": "a"}}, False),
        ({"x": {"family": "vision", "hw_compatibility": {"abacus": {}}}}, False),
        (["x"], False),
    ],
)
def test_schema_and_checks_agree(entries: Any, legal: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(entries) is legal
    try:
        check_entries(entries, "it")
    except ValueError:
        assert not legal
    else:
        assert legal


def test_index_check_says_what_changed(rp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = copy.deepcopy(load_index())
    del changed["model_types"]["bert"]
    changed["model_types"]["gpt2"]["family"] = "vision"
    changed["model_types"]["brand_new"] = changed["model_types"]["t5"]
    monkeypatch.setattr(staleness, "build_index", lambda: changed)
    done = rp("models", "index", "--check")
    assert done.code == 1
    lines = done.out.splitlines()
    assert "- bert" in lines
    assert any(line.startswith("+ brand_new: text_generation/seq2seq") for line in lines)
    assert any(line.startswith("~ gpt2: text_generation/causal_lm") for line in lines)
    assert "rp models index" in done.err


def test_index_check_of_an_index_that_is_up_to_date(
    rp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "build_index", load_index)
    done = rp("models", "index", "--check")
    assert (done.code, done.out) == (0, "")


def test_index_is_written_where_it_belongs(tmp_path: Path) -> None:
    index = load_index()
    difference = staleness.Difference([], index, {"names": {"known": {}}})
    files = staleness.write(difference, tmp_path)
    assert json.loads(files[0].read_text()) == index
    assert json.loads(files[1].read_text()) == {"names": {"known": {}}}
