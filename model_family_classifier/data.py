"""Finds the data: in a checkout at its top, in an installed package inside it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Return the folder ``name`` ("model_db" or "templates").

    A checkout is told by its pyproject.toml: in site-packages, a folder ``templates`` beside
    this package would belong to somebody else.
    """
    top = _PACKAGE.parent
    if (top / "pyproject.toml").is_file() and (top / name).is_dir():
        return top / name
    return _PACKAGE / "_data" / name


@functools.cache
def compiled_data() -> dict[str, Any]:
    """Return what ``rp models index`` compiled from YAML: names, hardware_matrix, …"""
    content: dict[str, Any] = json.loads((data_dir("model_db") / "compiled.json").read_bytes())
    return content


@functools.cache
def template_of(family: str) -> str:
    """Return the name of a family's template; that of the generic one where it has none."""
    name = f"hf_{family}_template.py"
    there = (data_dir("templates") / f"{name}.j2").is_file()
    return name if there else "hf_generic_template.py"


def known_names() -> dict[str, Any]:
    """Return what names.yaml says: known, purposes, organisations, patterns, browsers, …"""
    names: dict[str, Any] = compiled_data()["names"]
    return names
