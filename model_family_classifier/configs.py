"""Finds and reads a model's config.json: in a local folder, or in the hub's cache on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier.documents import read_text
from model_family_classifier.errors import ClassificationInputError

_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"[0-9a-f]{7,64}")
# What they say is printed and may end up in generated code: words only.
_WORD = re.compile(r"[\w.+-]{1,200}")


class Config(NamedTuple):
    """The part of a config.json that tells what a model is."""

    path: Path
    model_type: str | None
    architectures: tuple[str, ...]
    parts: frozenset[str]
    sentence_transformer: bool


def local_folder(name: str) -> Path | None:
    """Return the folder that ``name`` is, or None for a name of the hub.

    As in transformers, a folder of that name goes before the hub.

    Raises:
        ClassificationInputError: a path that is no folder.
    """
    path = Path(name)
    if _holds(path.is_dir):
        return path
    if _is_path(name):
        raise ClassificationInputError(
            f"{name!r} is not a folder here; give a folder with a config.json, or a name of the "
            "hub (organisation/name)."
        )
    return None


def read_folder(folder: Path) -> Config:
    """Return the config of a model folder.

    Raises:
        ClassificationInputError: no config.json, or one that is not a model's.
    """
    path = folder / "config.json"
    if not _holds(path.is_file):
        raise ClassificationInputError(
            f"the folder {str(folder)!r} has no config.json; is it a model's folder?"
        )
    raw = _read_object(path)
    return Config(
        path=path,
        model_type=_model_type(raw, path),
        architectures=_architectures(raw, path),
        parts=frozenset(key for key, value in raw.items() if isinstance(value, dict)),
        sentence_transformer=_holds((folder / "modules.json").is_file),
    )


def cached_snapshot(name: str) -> Path | None:
    """Return the folder of a hub model's main revision in the cache on disk, if it has one.

    The layout is huggingface_hub's: models--org--name/refs/main holds the commit under snapshots/.
    """
    if not _HUB_NAME.fullmatch(name):
        return None
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    try:
        with (repository / "refs" / "main").open(encoding="ascii") as stream:
            revision = stream.read(65).strip()
    except (OSError, ValueError):
        return None
    # The file is untrusted: only a commit may become part of a path.
    if not _REVISION.fullmatch(revision):
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if _holds((snapshot / "config.json").is_file) else None


def _hub_cache() -> Path:
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable])
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"], "hub")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - never raises
    return Path(cache, "huggingface", "hub")


def _is_path(name: str) -> bool:
    parts = name.split("/")
    return name.startswith(("/", ".", "~")) or len(parts) > 2 or ".." in parts or "" in parts


def _read_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(read_text(path, what="config"))
    except ClassificationInputError:
        raise
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ClassificationInputError(f"config {str(path)!r} is not JSON: {problem}.") from None
    if not isinstance(raw, dict):
        raise ClassificationInputError(f"config {str(path)!r} is not a JSON object.")
    return raw


def _model_type(raw: dict[str, Any], path: Path) -> str | None:
    value = raw.get("model_type")
    if value is None or _is_word(value):
        return value
    raise ClassificationInputError(f"config {str(path)!r}: model_type must be a word.")


def _architectures(raw: dict[str, Any], path: Path) -> tuple[str, ...]:
    value = raw.get("architectures") or []
    if isinstance(value, list) and all(_is_word(one) and one.isidentifier() for one in value):
        return tuple(value)
    raise ClassificationInputError(
        f"config {str(path)!r}: architectures must be a list of class names."
    )


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _holds(check: Callable[[], bool]) -> bool:
    """Ask the file system; what it cannot look at (permissions, over-long names) is not there."""
    try:
        return check()
    except (OSError, ValueError):
        return False
