"""How many bytes a model takes, by what is known without building it: records, files' headers."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_Stamp = tuple[int, ...] | None


def needed_bytes(
    model_name: str, revision: str, dtype: str | None, family: str | None = None
) -> int | None:
    """Return the bytes that a model takes in use, or None where its files are not here.

    The first that is known of: the highest peak that was measured of it; the total that
    ``rp predict`` found out; the weights by the headers of its files, with the family's headroom
    for activations and attention cache. Nothing is traced for it.

    Args:
        model_name: a folder, or a name whose files may lie in the hub's cache. The cache is
            looked at only in a process that uses the hub's client already.
        revision: "" is the hub's default.
        dtype: torch's name of the dtype that floating point weights are cast to; None: as stored.
        family: whose headroom to add; None: the weights alone.
    """
    if os.environ.get("RP_WEIGHTS", "").strip() == "tiny":
        return None  # a twin is loaded in place of what the name stands for
    try:
        # Folders whose one weight file, config and records are those of the last time need no
        # second look at them: at each load, this would take longer than all the planning.
        stamps = (*folder_stamp(model_name), _stamp(_records()))
    except ValueError:  # a null byte
        return None
    if stamps[0] is None:
        return _needed(model_name, revision, dtype, family)
    return _remembered(model_name, revision, dtype, family, stamps)


@functools.lru_cache(maxsize=1024)
def _remembered(
    model_name: str,
    revision: str,
    dtype: str | None,
    family: str | None,
    stamps: tuple[_Stamp, ...],  # noqa: ARG001 - part of the key
) -> int | None:
    return _needed(model_name, revision, dtype, family)


def _needed(model_name: str, revision: str, dtype: str | None, family: str | None) -> int | None:
    from resource_pool.prediction import files
    from resource_pool.weights import folders

    folder = folders.as_folder(model_name) or _snapshot(model_name, revision)
    weights = None if folder is None else files.header_bytes(folder, dtype)
    if weights is None:
        return None
    known = _recorded(model_name, revision, dtype)
    if known is not None:
        return max(weights, known)
    return weights + _headroom(weights, family)


def folder_stamp(model_name: str) -> tuple[_Stamp, ...]:
    """Return what changes with the weight file and the config of a folder; Nones for a name."""
    from resource_pool.weights import folders

    try:
        files = (folders.SINGLE, folders.CONFIG)
        return tuple(_stamp(os.path.join(model_name, file)) for file in files)  # noqa: PTH118
    except ValueError:  # a null byte
        return (None, None)


def _headroom(weights: int, family: str | None) -> int:
    if family is None:
        return 0
    from resource_pool.prediction.margins import HEADROOM

    return round(weights * HEADROOM.get(family, HEADROOM["unknown"]))


def _stamp(path: str) -> _Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _records() -> str:
    try:
        from resource_pool.prediction.records import path_of_records

        return str(path_of_records())
    except (ImportError, OSError, RuntimeError, ValueError):  # no detector, no such home
        return ""


def _recorded(model_name: str, revision: str, dtype: str | None) -> int | None:
    try:
        from resource_pool.prediction import recorded_bytes
    except ImportError:  # the detector, which knows where rp keeps its records
        return None
    return recorded_bytes(model_name, revision, dtype)


def _snapshot(model_name: str, revision: str) -> Path | None:
    if "huggingface_hub" not in sys.modules:
        return None
    from resource_pool.weights.hub import HuggingFaceHub

    return HuggingFaceHub().snapshot(model_name, revision or None)
