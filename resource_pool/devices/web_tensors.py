"""Tensors on their way to a browser's page and back: one binary body each way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resource_pool.errors import UnsupportedOperationError

# The dtypes that the page knows; NumPy and onnxruntime-web call them the same.
DTYPES = {"float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"}
_ANSWERED = DTYPES | {"float16", "uint16", "uint32", "uint64"}

# By the names of the file's inputs.
Arrays = Mapping[str, Any]


def packed(arrays: Arrays) -> tuple[list[dict[str, Any]], bytes]:
    """Return arrays as one body, each at a multiple of eight bytes, and where each is.

    Raises:
        UnsupportedOperationError: a dtype that the page does not take.
    """
    tensors, body = [], bytearray()
    for name, array in arrays.items():
        kind = str(array.dtype)
        if kind not in DTYPES:
            raise UnsupportedOperationError(f"A browser is not given tensors of {array.dtype}.")
        place = {"offset": len(body), "length": int(array.size)}
        tensors.append({"name": name, "type": kind, "dims": list(array.shape), **place})
        body += array.tobytes()
        body += bytes(-len(body) % 8)
    return tensors, bytes(body)


def unpacked(told: Sequence[Mapping[str, Any]], body: bytes) -> list[Any]:
    """Return the arrays of a body.

    Raises:
        UnsupportedOperationError: the body is not what it is said to be.
    """
    import numpy as np

    try:
        return [
            np.frombuffer(body, _dtype(one["type"]), math.prod(one["dims"]), one["offset"])
            .reshape(one["dims"])
            .copy()
            for one in told
        ]
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise UnsupportedOperationError(f"The browser's answer is malformed: {error!r}.") from error


def _dtype(name: str) -> str:
    if name not in _ANSWERED:
        raise ValueError(f"unknown dtype {name!r:.40}")
    return name
