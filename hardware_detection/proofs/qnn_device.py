"""Qualcomm's neural processor, through onnxruntime's QNN execution provider."""

from __future__ import annotations

import struct
import sys
from typing import Any

from hardware_detection.proofs import matrices

_PROVIDER = "QNNExecutionProvider"


def prove(provider: str = _PROVIDER) -> dict[str, Any]:
    """Run a matrix product on the HTP backend, with the fall-back to the CPU forbidden.

    Other providers can be named so that the model can be tried where there is no such processor.
    """
    import onnxruntime

    facts = {"onnxruntime": onnxruntime.__version__}
    if provider not in onnxruntime.get_available_providers():
        return {"devices": [], "facts": facts}
    row = {
        "index": 0,
        "name": "Hexagon NPU (QNN HTP)",
        # The graph is in float32; the processor computes it in float16.
        "results": {"fp16": _product(onnxruntime, provider)},
    }
    return {"devices": [row], "facts": facts}


def _product(onnxruntime: Any, provider: str) -> list[float]:
    import numpy

    session_options = onnxruntime.SessionOptions()
    options = {}
    if provider == _PROVIDER:
        library = "QnnHtp.dll" if sys.platform == "win32" else "libQnnHtp.so"
        options = {"backend_path": library}
        session_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(
        matrix_product_model(), session_options, providers=[(provider, options)]
    )
    result = session.run(None, {"left": numpy.array(matrices.left(), numpy.float32)})[0]
    values: list[float] = result.flatten().tolist()
    return values


def matrix_product_model() -> bytes:
    """Return an ONNX model that multiplies its input by ``matrices.right()``.

    Written as protocol-buffer bytes because the ``onnx`` package need not be installed.
    The field numbers are those of onnx.proto3 (IR version 8, operator set 13).
    """
    size = matrices.SIZE
    numbers = [value for row in matrices.right() for value in row]
    dims = _number(1, size) + _number(1, size)
    raw = struct.pack(f"<{size * size}f", *numbers)
    weight = dims + _number(2, 1) + _bytes(8, b"right") + _bytes(9, raw)
    node = b"".join(
        [_bytes(1, b"left"), _bytes(1, b"right"), _bytes(2, b"product"), _bytes(4, b"MatMul")]
    )
    graph = b"".join(
        [
            _bytes(1, node),
            _bytes(2, b"proof"),
            _bytes(5, weight),
            _bytes(11, _tensor(b"left")),
            _bytes(12, _tensor(b"product")),
        ]
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 13))


def _tensor(name: bytes) -> bytes:
    dimension = _bytes(1, _number(1, matrices.SIZE))
    tensor_type = _number(1, 1) + _bytes(2, dimension + dimension)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor_type))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
