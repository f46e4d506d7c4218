"""The exceptions to the rules by which twins and their inputs are made, one entry per model type.

``model_db/twins.yaml`` holds data only: fields of configs, sizes, and specifications of inputs
(see `resource_pool.weights.facts`). It is checked when it is read.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resource_pool.weights.values import KINDS

SCHEMA_VERSION = 1
CAUSES = ("package", "no_forward", "library", "random_weights")


@dataclass(frozen=True)
class Declared:
    """Why a type has no twin that runs here: a cause of `CAUSES`, the fact, what it would take.

    signs: of which one stands in what the failure says; another failure is not the declared one.
    """

    cause: str
    detail: str
    remedy: str
    signs: tuple[str, ...]

    def explains(self, observed: str) -> bool:
        """Whether a failure that says this is the one that was declared."""
        return any(sign in observed for sign in self.signs)


@dataclass(frozen=True)
class Case:
    """What one model type needs beyond the rules.

    original: arguments of the original config, where its class's defaults leave a part out.
    defaults: field -> value, where the class's default is unusable; a real config.json wins.
    fields: path in the tiny config -> value, or a formula over fields that begins with "=".
    keep: fields that stay as they are in the original.
    facts: size -> number or formula, for its inputs.
    inputs: argument -> specification, literal, or None to leave it out.
    join: argument -> the axis along which its rows are joined, where that is not the first.
    processor: arguments of its processor, or image processor, that its config does not tell.
    """

    original: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    join: Mapping[str, int] = field(default_factory=dict)
    processor: Mapping[str, Any] = field(default_factory=dict)
    declared: Declared | None = None


def twin_case(model_type: str) -> Case:
    """Return the exceptions of a model type; an empty case where the rules are enough."""
    return _cases().get(model_type, _NO_EXCEPTIONS)


_NO_EXCEPTIONS = Case()


@functools.cache
def _cases() -> Mapping[str, Case]:
    from model_family_classifier.data import data_dir

    return read_cases(data_dir("model_db") / "twins.yaml")


def read_cases(file: Path) -> dict[str, Case]:
    """Read and check a table of exceptions.

    Raises:
        ValueError: the file is not such a table; the message names the entry.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{file}: schema_version is not {SCHEMA_VERSION}")
    return {name: _case(name, entry) for name, entry in content["types"].items()}


_MAPPINGS = ("original", "defaults", "fields", "facts", "inputs", "join", "processor")


def _case(name: str, entry: Any) -> Case:
    if not isinstance(entry, dict):
        raise ValueError(f"twins.yaml: {name} is no mapping")
    unknown = entry.keys() - {*_MAPPINGS, "keep", "declared"}
    if unknown:
        raise ValueError(f"twins.yaml: {name} has unknown keys: {', '.join(sorted(unknown))}")
    for key in _MAPPINGS:
        if not isinstance(entry.get(key, {}), dict):
            raise ValueError(f"twins.yaml: {name}.{key} is no mapping")
    if not isinstance(entry.get("keep", []), list):
        raise ValueError(f"twins.yaml: {name}.keep is no list")
    for argument, value in entry.get("inputs", {}).items():
        if isinstance(value, str) and value.split(" ")[0] not in KINDS:
            raise ValueError(f"twins.yaml: {name}.inputs.{argument} is no kind of value: {value}")
    values = {key: entry[key] for key in _MAPPINGS if key in entry}
    return Case(
        **values,
        keep=tuple(entry.get("keep", ())),
        declared=_declared(name, entry.get("declared")),
    )


def _declared(name: str, entry: Any) -> Declared | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or entry.keys() - {"signs"} != {"cause", "detail", "remedy"}:
        raise ValueError(f"twins.yaml: {name}.declared needs cause, detail and remedy")
    if entry["cause"] not in CAUSES:
        raise ValueError(f"twins.yaml: {name}: cause is not one of {', '.join(CAUSES)}")
    usual = ["ImportError"] if entry["cause"] == "package" else [entry["detail"]]
    signs = entry.get("signs", usual)
    if not isinstance(signs, list) or not signs or not all(isinstance(s, str) and s for s in signs):
        raise ValueError(f"twins.yaml: {name}.declared.signs is no list of texts")
    return Declared(**{**entry, "signs": tuple(signs)})
