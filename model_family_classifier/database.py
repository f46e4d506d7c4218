"""The user's model database: what it says is right. Only ``rp models`` writes it."""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from model_family_classifier.documents import read_cached, read_document
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.hardware import check_hw_compatibility
from model_family_classifier.index import FAMILIES, entry_of, load_index

_TEXTS = ("family", "subfamily", "model_type", "auto_class", "architecture", "deployment")
KNOWN_KEYS = (*_TEXTS, "tasks", "hw_compatibility")
_WHAT = "model database"
_DEPLOYMENTS = (None, "web_deployment")


def look_up(path: str | Path, name: str) -> Mapping[str, Any] | None:
    """Return the database's entry for this name, or for the folder that it is, or None.

    The file is JSON or YAML: {name: {family, subfamily?, model_type?, auto_class?,
    architecture?, deployment?, tasks?, hw_compatibility?}}; further keys are the user's own notes.

    Raises:
        ClassificationInputError: the file or one of its entries is malformed.
    """
    return entry_for(read_database(path), name)


def entry_for(entries: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Return what entries say of a name: as it stands there, or as another name of its folder."""
    key = key_for(entries, name)
    return None if key is None else entries[key]


def key_for(entries: Collection[str], name: str) -> str | None:
    """Return under which name a model has its entry; None where it has none."""
    if name in entries:
        return name
    folder = folder_of(name)
    if folder is None:
        return None
    return next((key for key in entries if folder_of(key) == folder), None)


def folder_of(name: str) -> str | None:
    """Return the absolute path of the folder that a model's name is, or None."""
    path = os.path.expanduser(name)  # noqa: PTH111 - these never raise, whatever the name
    return os.path.realpath(path) if os.path.isdir(path) else None  # noqa: PTH112


def read_database(path: str | Path) -> Mapping[str, Mapping[str, Any]]:
    """Return all entries of a database.

    Raises:
        ClassificationInputError: the file or one of its entries is malformed.
    """
    return read_cached(_load, path, what=_WHAT)


@functools.lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _size: int) -> Mapping[str, Mapping[str, Any]]:
    """Read and check the whole file; time and size only make a changed file a new one."""
    content = read_document(path, what=_WHAT)
    check_entries(content, f"{_WHAT} {str(path)!r}")
    return content  # type: ignore[no-any-return]  # checked: a dict of dicts


def check_entries(content: Any, what: str) -> None:
    """Check the content of a database.

    Raises:
        ClassificationInputError: not a mapping of names to legal entries; says ``what`` it is in.
    """
    if not isinstance(content, dict):
        raise ClassificationInputError(f"{what} must map model names to entries.")
    for name, entry in content.items():
        problem = _problem(name, entry)
        if problem:
            raise ClassificationInputError(f"{what}, {name!r}: {problem}.")


def _problem(name: Any, entry: Any) -> str | None:
    if not isinstance(name, str):
        return "a model name must be text; put it in quotes"
    if not name or not name.isprintable():
        return "a model name must have characters, and none that cannot be printed"
    if not isinstance(entry, dict):
        return "the entry must be a mapping with at least 'family'"
    return _key_problem(entry) or _value_problem(entry)


def _key_problem(entry: Mapping[Any, Any]) -> str | None:
    """Tell a misspelt key from a note of the user's."""
    if not all(isinstance(key, str) for key in entry):
        return "keys must be text"
    unknown = [key for key in entry if key not in KNOWN_KEYS]
    if unknown:
        from difflib import get_close_matches

        for key in unknown:
            near = get_close_matches(key, KNOWN_KEYS, n=1, cutoff=0.8)
            if near:
                return f"unknown key {key!r}; did you mean {near[0]!r}?"
    return None


def _value_problem(entry: Mapping[str, Any]) -> str | None:
    for key in _TEXTS:
        value = entry.get(key)
        if value is not None and not (isinstance(value, str) and value.isprintable()):
            return f"{key!r} must be text"
    if entry.get("family") not in FAMILIES:
        return f"'family' must be one of {', '.join(FAMILIES)}"
    if entry.get("deployment") not in _DEPLOYMENTS:
        return "'deployment' must be web_deployment, where it is said"
    if not _is_texts(entry.get("tasks", [])):
        return "'tasks' must be a list of names"
    return _reference_problem(entry) or _hardware_problem(entry)


def _reference_problem(entry: Mapping[str, Any]) -> str | None:
    model_type, auto_class = entry.get("model_type"), entry.get("auto_class")
    architecture = entry.get("architecture")
    if architecture is not None and not (architecture.isidentifier() and architecture.isascii()):
        return "'architecture' must be the name of a class"
    if model_type is not None and not entry_of(model_type):
        return f"'model_type' {model_type!r} is not one of transformers"
    if auto_class not in (None, "AutoModel", *load_index()["auto_classes"]):
        return f"'auto_class' {auto_class!r} is not an Auto class of transformers"
    return None


def _hardware_problem(entry: Mapping[str, Any]) -> str | None:
    try:
        check_hw_compatibility(entry.get("hw_compatibility"))
    except ClassificationInputError as error:
        return str(error).rstrip(".")
    return None


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
