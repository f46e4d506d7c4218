"""How many bytes a model takes, by what is known without building it: records, files' headers."""

from __future__ import annotations

import functools
import json
import os
import struct
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Bytes per element in a safetensors file; from the format's description.
_ITEM_SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2,
    "U16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_TORCH_ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
_MAX_HEADER = 100 * 1024 * 1024

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
    from resource_pool.weights import folders

    try:
        # Folders whose one weight file, config and records are those of the last time need no
        # second look at them: at each load, this would take longer than all the planning.
        stamps = (
            _stamp(os.path.join(model_name, folders.SINGLE)),  # noqa: PTH118 - a Path takes longer
            _stamp(os.path.join(model_name, folders.CONFIG)),  # noqa: PTH118
            _stamp(_records()),
        )
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
    from resource_pool.weights import folders

    folder = folders.as_folder(model_name) or _snapshot(model_name, revision)
    if folder is None:
        return None
    try:
        weights = sum(_bytes_in(file, dtype) for file in folders.weight_files(folder))
    except (folders.MissingWeightsError, OSError, ValueError, KeyError):
        return None
    known = _recorded(model_name, revision, dtype)
    if known is not None:
        return max(weights, known)
    return weights + _headroom(weights, family)


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


def _bytes_in(file: Path, dtype: str | None) -> int:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _MAX_HEADER:
            raise ValueError(f"{file} has no safetensors header")
        header = json.loads(stream.read(length))
    tensors = (tensor for name, tensor in header.items() if name != "__metadata__")
    return sum(_tensor_bytes(tensor, dtype) for tensor in tensors)


def _tensor_bytes(tensor: dict[str, Any], dtype: str | None) -> int:
    count = 1
    for length in tensor["shape"]:
        count *= int(length)
    stored = tensor["dtype"]
    floating = stored.startswith(("F", "BF"))
    size = _TORCH_ITEM_SIZES.get(dtype or "") if floating else None
    return count * (size or _ITEM_SIZES[stored])
