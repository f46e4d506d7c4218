"""Says whether the index still is what the installed transformers and our own YAML give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier.data import compiled_data, data_dir
from model_family_classifier.index import load_index
from rp_cli.errors import BadInputError, OutputError
from rp_cli.modeldb.build_index import build_index, write_index
from rp_cli.modeldb.compile_data import compile_data, write_data

_SHOWN = ("family", "subfamily", "auto_class")


class Difference(NamedTuple):
    """What building anew would change, as lines for people."""

    lines: list[str]
    architectures: dict[str, Any]
    data: dict[str, Any]


def compare() -> Difference:
    """Build everything anew, which takes some twenty seconds, and compare.

    Raises:
        BadInputError: transformers is not installed.
    """
    try:
        index, data = build_index(), compile_data()
    except ModuleNotFoundError as error:
        raise BadInputError(
            f"the index is built from transformers, and {error.name!r} is not installed; install "
            "it and try again."
        ) from None
    lines = list(_index_lines(load_index(), index))
    lines += [f"{part}: changed" for part in data if data[part] != compiled_data().get(part)]
    return Difference(lines, index, data)


def write(difference: Difference, folder: Path | None = None) -> list[Path]:
    """Write what was built and return the files.

    Raises:
        OutputError: a file cannot be written.
    """
    folder = folder or data_dir("model_db")
    index, data = folder / "architectures.json", folder / "compiled.json"
    try:
        write_index(difference.architectures, index)
        write_data(difference.data, data)
    except OSError as error:
        raise OutputError(
            f"{error.filename or folder} cannot be written: {error.strerror or error}."
        ) from None
    return [index, data]


def _index_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old["transformers"] != new["transformers"]:
        yield f"transformers: {old['transformers']} -> {new['transformers']}"
    for table in ("auto_classes", "classes", "tasks"):
        if old.get(table) != new[table]:
            yield f"{table}: changed"
    yield from _type_lines(old["model_types"], new["model_types"])


def _type_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {name}" for name in old if name not in new)
    for name, entry in new.items():
        if name not in old:
            yield f"+ {name}: {_said(entry)}"
        elif _comparable(old[name]) != _comparable(entry):
            was, now = _said(old[name]), _said(entry)
            yield f"~ {name}: {was} -> {now}" if was != now else f"~ {name}: {was}, other classes"


def _comparable(entry: Mapping[str, Any]) -> dict[str, Any]:
    # A class whose optional package is missing here has no main input here.
    return {key: value for key, value in entry.items() if key != "main_input"}


def _said(entry: Mapping[str, Any]) -> str:
    return "/".join(str(entry[key]) for key in _SHOWN)
