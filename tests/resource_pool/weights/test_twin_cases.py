"""The table of exceptions holds data that can be used, and whatever else is in it is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model_family_classifier.data import data_dir
from resource_pool.weights import twin_case
from resource_pool.weights.cases import CAUSES, Case, read_cases
from resource_pool.weights.formulas import evaluate

CASES = read_cases(data_dir("model_db") / "twins.yaml")


def written(tmp_path: Path, types: str, version: int = 1) -> Path:
    file = tmp_path / "twins.yaml"
    file.write_text(f"schema_version: {version}\ntypes:\n  bert: {types}\n", encoding="utf-8")
    return file


def test_every_entry_is_for_a_type_that_transformers_knows() -> None:
    # Parts of a model have a model type of their own, and are in no table.
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for model_type in CONFIG_MAPPING:
        try:
            CONFIG_MAPPING[model_type]
        except (ImportError, AttributeError):
            continue
    known = {cls.model_type for cls in subclasses(PreTrainedConfig)} | set(CONFIG_MAPPING)
    assert CASES.keys() - known == set()


def subclasses(cls: type[Any]) -> set[type[Any]]:
    return {cls, *(one for child in cls.__subclasses__() for one in subclasses(child))}


def test_every_declaration_says_the_cause_and_what_it_would_take() -> None:
    declared = {name: case.declared for name, case in CASES.items() if case.declared}
    assert declared
    for name, reason in declared.items():
        assert reason.cause in CAUSES, name
        assert reason.detail, name
        assert reason.remedy, name


def test_a_type_without_an_entry_has_no_exceptions() -> None:
    assert twin_case("no such type") == Case()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("5", "no mapping"),
        ("{code: 'import os'}", "unknown keys: code"),
        ("{fields: [1]}", "fields is no mapping"),
        ("{declared: {cause: package}}", "needs cause, detail and remedy"),
        ("{declared: {cause: whim, detail: a, remedy: b}}", "cause is not one of"),
        ("{keep: 5}", "keep is no list"),
        ("{inputs: {bbox: shell rm}}", "inputs.bbox is no kind of value: shell rm"),
    ],
)
def test_a_malformed_entry_is_named(entry: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"bert.*{message}"):
        read_cases(written(tmp_path, entry))


def test_another_version_of_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="schema_version is not 1"):
        read_cases(written(tmp_path, "{}", version=2))


def test_the_table_cannot_hold_objects(tmp_path: Path) -> None:
    import yaml

    with pytest.raises(yaml.YAMLError):
        read_cases(written(tmp_path, "!!python/object/apply:os.getcwd []"))


@pytest.mark.parametrize(
    ("formula", "value"),
    [("7", 7), (7, 7), ("a", 6), ("2*a", 12), ("a/4", 1), ("2*a/4+1", 4), ("a+b*b", 31)],
)
def test_formulas(formula: str | int, value: int) -> None:
    assert evaluate(formula, {"a": 6, "b": 5}.__getitem__) == value


def test_an_unknown_size_in_a_formula_is_an_error() -> None:
    with pytest.raises(KeyError):
        evaluate("2*c", {}.__getitem__)
