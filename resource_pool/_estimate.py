"""How many bytes a model takes: as recorded, or by the headers of its files; none is built."""

from __future__ import annotations

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


def needed_bytes(model_name: str, revision: str, dtype: str | None) -> int | None:
    """Return the bytes that a model takes on a device, or None where its files are not here.

    What was measured or predicted before (weights, activations and key-value cache), or else the
    weights alone.

    Args:
        model_name: a folder, or a name whose files may lie in the hub's cache. The cache is
            looked at only in a process that uses the hub's client already.
        dtype: torch's name of the dtype that floating point weights are cast to; None: as stored.
    """
    from resource_pool.weights import folders

    if os.environ.get("RP_WEIGHTS", "").strip() == "tiny":
        return None  # a twin is loaded in place of what the name stands for
    folder = folders.as_folder(model_name) or _snapshot(model_name, revision)
    if folder is None:
        return None
    try:
        weights = sum(_bytes_in(file, dtype) for file in folders.weight_files(folder))
    except (folders.MissingWeightsError, OSError, ValueError, KeyError):
        return None
    return max(weights, _recorded(model_name, revision, dtype))


def _recorded(model_name: str, revision: str, dtype: str | None) -> int:
    try:
        from resource_pool.prediction import recorded_bytes

        return recorded_bytes(model_name, revision, dtype) or 0
    except ImportError:  # the detector, which knows where rp keeps its records
        return 0


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
