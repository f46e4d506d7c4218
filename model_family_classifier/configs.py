"""Finds and reads a model's config.json: in a local folder, or in the hub's cache on disk."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier.documents import read_head, read_text
from model_family_classifier.errors import ClassificationInputError

_HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"[0-9a-f]{7,64}")
_TELLING = ("config.json", "model_index.json", "adapter_config.json")
# What they say is printed and may end up in generated code: words only.
_WORD = re.compile(r"[\w.+-]{1,200}")


class Config(NamedTuple):
    """The part of a config.json that tells what a model is."""

    path: Path
    model_type: str | None
    architectures: tuple[str, ...]
    # The Auto classes for which the repository brings code of its own (`auto_map`).
    remote_auto_classes: tuple[str, ...]
    parts: frozenset[str]
    sentence_transformer: bool

    @classmethod
    def from_untrusted(cls, path: Path, raw: Any) -> Config:
        """Take what can be used of a config that came from elsewhere; never an error."""
        raw = raw if isinstance(raw, dict) else {}
        kind, named = raw.get("model_type"), raw.get("architectures")
        return cls(
            path=path,
            model_type=kind if is_word(kind) else None,
            architectures=tuple(filter(_is_class, named if isinstance(named, list) else ())),
            remote_auto_classes=_remote_auto_classes(raw),
            parts=_parts(raw),
            sentence_transformer=False,
        )


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
    raw = read_object(path)
    if raw is None:
        raise ClassificationInputError(
            f"the folder {str(folder)!r} has no config.json; is it a model's folder?"
        )
    _check(raw, path)
    config = Config.from_untrusted(path, raw)
    return config._replace(sentence_transformer=_holds((folder / "modules.json").is_file))


def read_adapter(folder: Path) -> str | None:
    """Return the name of the model that a folder with nothing but an adapter (PEFT) belongs to.

    Raises:
        ClassificationInputError: an adapter_config.json that is malformed.
    """
    if _holds((folder / "config.json").is_file):
        return None
    raw = read_object(folder / "adapter_config.json")
    base = (raw or {}).get("base_model_name_or_path")
    return base if isinstance(base, str) and _HUB_NAME.fullmatch(base) else None


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None for a file that is not there.

    Raises:
        ClassificationInputError: unreadable, too large, or not a JSON object.
    """
    if not _holds(path.is_file):
        return None
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


def is_word(value: Any) -> bool:
    """Say whether a value can be printed and used in generated code as it is."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def cached_snapshot(name: str) -> Path | None:
    """Return the folder of a hub model's main revision in the cache on disk, if it has one.

    The layout is huggingface_hub's: models--org--name/refs/main holds the commit under snapshots/.
    """
    if not _HUB_NAME.fullmatch(name):
        return None
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    revision = read_head(repository / "refs" / "main", 65).strip()
    # The file is untrusted: only a commit may become part of a path.
    if not _REVISION.fullmatch(revision):
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if any(_holds((snapshot / name).is_file) for name in _TELLING) else None


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


def _check(raw: dict[str, Any], path: Path) -> None:
    kind, named = raw.get("model_type"), raw.get("architectures") or []
    if kind is not None and not is_word(kind):
        raise ClassificationInputError(f"config {str(path)!r}: model_type must be a word.")
    if not isinstance(named, list) or not all(map(_is_class, named)):
        raise ClassificationInputError(
            f"config {str(path)!r}: architectures must be a list of class names."
        )


def _remote_auto_classes(raw: dict[str, Any]) -> tuple[str, ...]:
    mapping = raw.get("auto_map")
    keys = mapping if isinstance(mapping, dict) else ()
    # AutoConfig and AutoModel say nothing about what the model does.
    return tuple(key for key in keys if _is_class(key) and key.startswith("AutoModelFor"))


def _parts(raw: dict[str, Any]) -> frozenset[str]:
    return frozenset(key for key, value in raw.items() if isinstance(value, dict))


def _is_class(value: Any) -> bool:
    return is_word(value) and value.isidentifier()


def _holds(check: Callable[[], bool]) -> bool:
    """Ask the file system; what it cannot look at (permissions, over-long names) is not there."""
    try:
        return check()
    except (OSError, ValueError):
        return False
