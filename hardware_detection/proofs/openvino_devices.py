"""OpenVINO's devices: everything that its Core lists (CPU, GPU, NPU)."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from hardware_detection.proofs import matrices, short

_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_MEMORY_PROPERTIES = ("GPU_DEVICE_TOTAL_MEM_SIZE", "NPU_DEVICE_TOTAL_MEM_SIZE")
_MIB = 1 << 20


def prove() -> dict[str, Any]:
    """Compile and run a matrix product on each device, in each precision that it accepts."""
    # The converter of other frameworks' models takes a quarter of the import and computes nothing;
    # openvino does without it where it cannot be found, and what is None cannot.
    sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
    import openvino

    core = openvino.Core()
    devices = [
        _prove_device(core, index, name) for index, name in enumerate(core.available_devices)
    ]
    return {"devices": devices, "facts": {"openvino": openvino.__version__}}


def _prove_device(core: Any, index: int, device: str) -> dict[str, Any]:
    # Compiling takes longest, and does not hold the interpreter's lock.
    with ThreadPoolExecutor() as threads:
        products = threads.map(partial(_product, core, device), _PRECISIONS.values())
        results = dict(zip(_PRECISIONS, products, strict=True))
    return {
        "index": index,
        "name": str(core.get_property(device, "FULL_DEVICE_NAME")),
        "memory_total_mb": _memory_total_mb(core, device),
        "results": results,
        "facts": {
            "openvino_device": device,
            "capabilities": list(core.get_property(device, "OPTIMIZATION_CAPABILITIES")),
        },
    }


def _product(core: Any, device: str, hint: str) -> list[float] | str:
    """Return the product that the device computed, or why there is none."""
    try:
        return _computed(core, device, hint)
    except Exception as error:
        return short(error)


def _computed(core: Any, device: str, hint: str) -> list[float]:
    import numpy
    import openvino
    from openvino import opset13 as operations

    shape = [matrices.SIZE, matrices.SIZE]
    left = operations.parameter(shape, numpy.float32)
    right = operations.constant(numpy.array(matrices.right(), numpy.float32))
    model = openvino.Model([operations.matmul(left, right, False, False)], [left], "proof")
    compiled = core.compile_model(model, device, {"INFERENCE_PRECISION_HINT": hint})
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != hint:
        raise RuntimeError(f"asked for {hint}, the device uses {used}")
    result = compiled([numpy.array(matrices.left(), numpy.float32)])[0]
    values: list[float] = result.flatten().tolist()
    return values


def _memory_total_mb(core: Any, device: str) -> float | None:
    for name in _MEMORY_PROPERTIES:
        try:
            return float(core.get_property(device, name)) / _MIB
        except Exception:  # noqa: S112 - each kind of device knows only its own property
            continue
    return None
