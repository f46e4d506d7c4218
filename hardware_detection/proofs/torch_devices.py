"""PyTorch's devices: CPU, CUDA and ROCm (both "cuda"), XPU, MPS, and TPU through XLA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hardware_detection.proofs import matrices, short

_MIB = 1 << 20
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
# Only GPUs have arithmetic in 8-bit floating point; elsewhere it would be emulated.
_GPU_DTYPES = {**_DTYPES, "fp8": "float8_e4m3fn"}


def prove(kind: str) -> dict[str, Any]:
    """Compute on every device of ``kind`` ("cpu", "cuda", "xpu", "mps" or "xla")."""
    # An operation that MPS lacks would silently run on the CPU and prove the wrong device.
    os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
    import torch

    facts = {
        "torch": torch.__version__,
        "cuda_runtime": torch.version.cuda,
        "hip_runtime": getattr(torch.version, "hip", None),
        "torch_accelerator": _accelerator(torch),
    }
    devices = [_prove_device(torch, *found) for found in _FINDERS[kind](torch)]
    return {"devices": devices, "facts": facts}


# A device as a finder yields it: index, PyTorch's device, a function that describes it.
_Found = tuple[int, Any, Callable[[], dict[str, Any]]]


def _prove_device(
    torch: Any, index: int, device: Any, describe: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index, "results": {}}
    try:
        row.update(describe())
    except Exception as error:
        return {**row, "problem": short(error)}
    formats = _GPU_DTYPES if device.type in ("cuda", "xpu") else _DTYPES
    for name, torch_name in formats.items():
        try:
            row["results"][name] = _product(torch, device, getattr(torch, torch_name))
        except Exception as error:
            row["results"][name] = short(error)
    return row


def _product(torch: Any, device: Any, dtype: Any) -> list[float]:
    left = torch.tensor(matrices.left(), dtype=dtype).to(device)
    right = torch.tensor(matrices.right(), dtype=dtype).to(device)
    product = _multiply(torch, left, right, dtype)
    result: list[float] = product.cpu().to(torch.float32).flatten().tolist()
    return result


def _multiply(torch: Any, left: Any, right: Any, dtype: Any) -> Any:
    # GPUs have no general product in 8 bits; these private ones are what quantised layers call.
    if left.device.type not in ("cuda", "xpu"):
        return left @ right
    if dtype is torch.int8:
        return torch._int_mm(left, right)
    if dtype is getattr(torch, _GPU_DTYPES["fp8"], ""):
        return _scaled_product(torch, left, right)
    return left @ right


def _scaled_product(torch: Any, left: Any, right: Any) -> Any:
    one = torch.tensor(1.0).to(left.device)
    # The right factor must lie column after column.
    column_major = right.t().contiguous().t()
    product = torch._scaled_mm(
        left, column_major, scale_a=one, scale_b=one, out_dtype=torch.bfloat16
    )
    # PyTorch 2.4 returns the largest value too.
    return product[0] if isinstance(product, tuple) else product


def _accelerator(torch: Any) -> str | None:
    """Return what torch.accelerator (2.6 and newer) takes for this build's device, if any."""
    accelerator = getattr(torch, "accelerator", None)
    found = accelerator.current_accelerator() if accelerator is not None else None
    return None if found is None else str(found.type)


def _cpu(torch: Any) -> Iterator[_Found]:
    yield 0, torch.device("cpu"), dict


def _cuda(torch: Any) -> Iterator[_Found]:
    for index in range(torch.cuda.device_count()):
        yield index, torch.device("cuda", index), partial(_describe_cuda, torch, index)


def _describe_cuda(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, _ = torch.cuda.mem_get_info(index)
    # ROCm fills the fields of CUDA with the digits of its architecture, which mean something else,
    # and CUDA those of ROCm with the name.
    nvidia = getattr(torch.version, "hip", None) is None
    facts = {
        "compute_capability": f"{properties.major}.{properties.minor}" if nvidia else None,
        "multiprocessors": properties.multi_processor_count,
        "uuid": str(properties.uuid) if hasattr(properties, "uuid") else None,
        "gcn_arch": None if nvidia else getattr(properties, "gcnArchName", None),
        "pci_bus_id": None if nvidia else _pci_bus_id(properties),
    }
    return {
        "name": properties.name,
        "memory_total_mb": properties.total_memory / _MIB,
        "memory_free_mb": free / _MIB,
        "facts": {key: value for key, value in facts.items() if value is not None},
    }


def _pci_bus_id(properties: Any) -> str | None:
    """Return "0000:03:00.0", as the system spells it; None in releases that do not tell."""
    numbers = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
    if not all(isinstance(number, int) for number in numbers):
        return None
    domain, bus, device = numbers
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def _xpu(torch: Any) -> Iterator[_Found]:
    for index in range(torch.xpu.device_count()):
        yield index, torch.device("xpu", index), partial(_describe_xpu, torch, index)


def _describe_xpu(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.xpu.get_device_properties(index)
    facts = {
        "driver": getattr(properties, "driver_version", None),
        "compute_units": getattr(properties, "max_compute_units", None),
        "uuid": str(properties.uuid) if hasattr(properties, "uuid") else None,
    }
    return {
        "name": properties.name,
        "memory_total_mb": properties.total_memory / _MIB,
        "memory_free_mb": _xpu_free_mb(torch, index),
        "facts": {key: value for key, value in facts.items() if value is not None},
    }


def _xpu_free_mb(torch: Any, index: int) -> float | None:
    try:
        free, _ = torch.xpu.mem_get_info(index)
    except Exception:  # older releases, and drivers without the extension
        return None
    return float(free / _MIB)


def _mps(torch: Any) -> Iterator[_Found]:
    if torch.backends.mps.is_available():
        yield 0, torch.device("mps"), partial(_describe_mps, torch)


def _describe_mps(torch: Any) -> dict[str, Any]:
    # Memory is shared with the CPU; what a process should use at most is all that Metal tells.
    total = torch.mps.recommended_max_memory() / _MIB
    return {"name": "Apple GPU", "memory_total_mb": total}


def _xla(torch: Any) -> Iterator[_Found]:  # noqa: ARG001 - the finders share one signature
    import torch_xla
    from torch_xla import runtime

    # XLA also runs on CPU and GPU: that would prove nothing about a TPU.
    if runtime.device_type() == "TPU":
        for index in range(runtime.addressable_runtime_device_count()):
            yield index, torch_xla.device(index), lambda: {"name": "TPU"}


_FINDERS = {"cpu": _cpu, "cuda": _cuda, "xpu": _xpu, "mps": _mps, "xla": _xla}
