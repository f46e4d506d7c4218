"""The compatibility matrices: ours, and the user's cells over them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_family_classifier.data import compiled_data
from model_family_classifier.documents import printable, read_cached, read_document
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.index import FAMILIES
from model_family_classifier.web import web_limits

#: The backends that the matrix speaks of.
BACKENDS = (*compiled_data()["hardware_matrix"]["families"]["unknown"]["cells"], "cpu")
# Hardware that it says nothing about: never chosen automatically.
OTHER_HARDWARE = tuple(name for name in compiled_data()["backends"] if name not in BACKENDS)
_LEVELS = ("high", "medium", "low", "none")
_ROWS = ("families", "models")
_WHAT = "hardware matrix"
_CPU = {"level": "medium", "reason": "every model runs on the CPU"}

Row = Mapping[str, Mapping[str, Any]]


class Matrix:
    """The rows by family and by model type, each {backend: cell}, and the automatic choices."""

    def __init__(self, families: Mapping[str, Row], models: Mapping[str, Row], automatic: Any):
        self._families = families
        self._models = models
        self._automatic = automatic
        # Ten thousand names share a few dozen rows.
        self._complete: dict[tuple[str, str | None], dict[str, dict[str, Any]]] = {}

    def cells(self, family: str, model_type: str | None) -> dict[str, dict[str, Any]]:
        """Return {backend: cell} of a model, complete: its type's row over its family's."""
        model_type = model_type if model_type in self._models else None
        if (family, model_type) not in self._complete:
            row = {**self._families[family], **self._models.get(model_type or "", {})}
            row["cpu"] = {**_CPU, **row.get("cpu", {})}
            self._complete[family, model_type] = {k: complete(v) for k, v in row.items()}
        return {name: dict(cell) for name, cell in self._complete[family, model_type].items()}

    def automatic(self, family: str) -> tuple[str, ...]:
        """Return the backends that may be chosen without being asked for, best first."""
        return tuple(self._automatic[family])

    def overridden(self, rows: Mapping[str, Mapping[str, Row]]) -> Matrix:
        """Return this matrix with the user's cells over it, key by key."""
        families = {
            name: _merged(row, rows.get("families", {}).get(name, {}))
            for name, row in self._families.items()
        }
        models = dict(self._models)
        for name, row in rows.get("models", {}).items():
            models[name] = _merged(models.get(name, {}), row)
        return Matrix(families, models, self._automatic)


def load_matrix(path: str | Path | None = None) -> Matrix:
    """Return our matrix, with that of the file over it: {families: …, models: …} as in ours.

    Raises:
        ClassificationInputError: the file is malformed, or names what nobody knows.
    """
    return _ours() if path is None else read_cached(_load, path, what=_WHAT)


def complete(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell with all of level, compatible, condition, size_limit and reason."""
    condition, reason = (printable(cell.get(key) or "") for key in ("condition", "reason"))
    return {
        **cell,
        "level": cell.get("level", "none"),
        "compatible": cell.get("compatible", True),
        "condition": condition or None,
        "size_limit": cell.get("size_limit"),
        "reason": "; ".join(part for part in (condition, reason) if part),
    }


def cell_problem(name: Any, cell: Any) -> str | None:
    """Return what is wrong with a correction of one backend's cell, or None."""
    if name not in BACKENDS + OTHER_HARDWARE:
        return f"names {name!r}, which is none of {', '.join(BACKENDS + OTHER_HARDWARE)}"
    if not isinstance(cell, Mapping):
        return f"for {name!r} must be a mapping"
    if not isinstance(cell.get("compatible", True), bool):
        return f"for {name!r}: 'compatible' must be true or false"
    if not isinstance(cell.get("level", "high"), str) or cell.get("level", "high") not in _LEVELS:
        return f"for {name!r}: 'level' must be one of {', '.join(_LEVELS)}"
    for key in ("condition", "reason"):
        if not isinstance(cell.get(key), str | None):
            return f"for {name!r}: {key!r} must be text"
    if cell.get("size_limit") not in (None, *web_limits()["limits"]):
        known = ", ".join(web_limits()["limits"])
        return f"for {name!r}: 'size_limit' must be one of {known}"
    if not _is_json(cell):
        return f"for {name!r} has a value that JSON cannot hold"
    if name == "cpu" and cell.get("compatible") is False:
        return "cannot bar the CPU: it is the last resort of every model"
    return None


@functools.lru_cache(maxsize=4)
def _load(path: Path, _mtime: int, _size: int) -> Matrix:
    """Read and check a user's file; time and size only make a changed file a new one."""
    content = read_document(path, what=_WHAT)
    problem = _problem(content)
    if problem:
        raise ClassificationInputError(f"{_WHAT} {str(path)!r}: {problem}.")
    return _ours().overridden(content)


@functools.cache
def _ours() -> Matrix:
    content = compiled_data()["hardware_matrix"]
    families = content["families"]
    return Matrix(
        {name: row["cells"] for name, row in families.items()},
        content["models"],
        {name: row["automatic"] for name, row in families.items()},
    )


def _problem(content: Any) -> str | None:
    if not isinstance(content, dict):
        return "it must map 'families' and 'models' to rows"
    unknown = set(content) - {*_ROWS, "schema_version"}
    if unknown:
        return f"it has {sorted(map(str, unknown))[0]!r}, where only 'families' and 'models' count"
    for kind in _ROWS:
        rows = content.get(kind, {})
        if not isinstance(rows, dict):
            return f"{kind!r} must map names to rows"
        for name, row in rows.items():
            problem = _row_problem(kind, name, row)
            if problem:
                return f"{name!r} {problem}"
    return None


def _row_problem(kind: str, name: Any, row: Any) -> str | None:
    if kind == "families" and name not in FAMILIES:
        return f"is no family; the families are {', '.join(FAMILIES)}"
    if not isinstance(name, str):
        return "is no name of a model type; put it in quotes"
    if not isinstance(row, dict):
        return "must map backends to cells"
    if "cells" in row:
        return "must map backends to cells directly, without 'cells'"
    problems = (cell_problem(backend, cell) for backend, cell in row.items())
    return next((problem for problem in problems if problem), None)


def _merged(row: Row, over: Row) -> dict[str, dict[str, Any]]:
    names = [*row, *(name for name in over if name not in row)]
    return {name: {**row.get(name, {}), **over.get(name, {})} for name in names}


def _is_json(cell: Mapping[str, Any]) -> bool:
    try:
        json.dumps(dict(cell), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
