"""What a model's weight files say about its memory, without loading any of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resource_pool.weights import folders
from resource_pool.weights.folders import MissingWeightsError

ITEM_SIZES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
# What ``from_pretrained`` casts; integers and 8-bit floats are quantised or are no weights.
_CAST = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# A header that says something else than the format has.
_UNREADABLE = (MissingWeightsError, OSError, ValueError, KeyError, TypeError)


def header_bytes(folder: Path, dtype: str | None) -> int | None:
    """Return the bytes of a folder's safetensors weights, by their headers.

    Args:
        folder: the model's.
        dtype: torch's name of what floating point weights are cast to; None: as stored.

    Returns:
        None where the folder has no such weights, or a header that says nothing of their sizes.
    """
    try:
        return sum(_size(entry, dtype) for entry in weight_entries(folder))
    except _UNREADABLE:
        return None


def stored_dtype(folder: Path) -> str | None:
    """Return torch's name of the dtype in which weights load where their config names none.

    Of a folder's safetensors weights, transformers takes the first floating point tensor by name.
    None where there is no such tensor.
    """
    try:
        named = sorted(_named_entries(folders.weight_files(folder)[0]))
        found = (_CAST.get(entry["dtype"]) for _, entry in named)
        return next(filter(None, found), None)
    except _UNREADABLE:
        return None


def weight_entries(folder: Path) -> list[Mapping[str, Any]]:
    """Return what the headers of a folder's safetensors weights say of each tensor.

    As the format has it: ``dtype`` ("BF16"), ``shape`` and ``data_offsets``. A copy of the weights
    beside those that transformers loads (``consolidated.safetensors``) is left out.

    Raises:
        MissingWeightsError: there are none, or they are not whole.
    """
    files = folders.weight_files(folder)
    return [entry for file in files for _, entry in _named_entries(file)]


def _named_entries(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # The format: 8 bytes with the header's length, then the header; it was checked as whole.
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    yield from ((name, entry) for name, entry in header.items() if name != "__metadata__")


def _size(entry: Mapping[str, Any], dtype: str | None) -> int:
    if dtype is not None and entry["dtype"] in _CAST:
        return int(math.prod(entry["shape"])) * ITEM_SIZES[dtype]
    start, end = entry["data_offsets"]
    return int(end - start)


def file_bytes(folder: Path) -> int:
    """Return the size of a folder's weight files; of one format where it has several."""
    sizes: dict[str, int] = {}
    for file in folder.iterdir():
        if file.suffix in (".safetensors", *folders.PICKLED) and file.is_file():
            sizes[file.suffix] = sizes.get(file.suffix, 0) + file.stat().st_size
    return max(sizes.values(), default=0)
