"""PyTorch's devices: CPU, CUDA and ROCm (both "cuda" in PyTorch), MPS, and TPU through XLA."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from hardware_detection.proofs import matrices, short

_MIB = 1 << 20
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


def prove(kind: str) -> dict[str, Any]:
    """Compute on every device of ``kind`` ("cpu", "cuda", "mps" or "xla")."""
    # An operation that MPS lacks would silently run on the CPU and prove the wrong device.
    os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
    import torch

    facts = {
        "torch": torch.__version__,
        "cuda_runtime": torch.version.cuda,
        "hip_runtime": getattr(torch.version, "hip", None),
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
    for name, torch_name in _DTYPES.items():
        try:
            row["results"][name] = _product(torch, device, getattr(torch, torch_name))
        except Exception as error:
            row["results"][name] = short(error)
    return row


def _product(torch: Any, device: Any, dtype: Any) -> list[float]:
    left = torch.tensor(matrices.left(), dtype=dtype).to(device)
    right = torch.tensor(matrices.right(), dtype=dtype).to(device)
    # CUDA has no general int8 product; this private one is what quantised layers call.
    integer_on_gpu = dtype is torch.int8 and left.device.type == "cuda"
    product = torch._int_mm(left, right) if integer_on_gpu else left @ right
    result: list[float] = product.cpu().to(torch.float32).flatten().tolist()
    return result


def _cpu(torch: Any) -> Iterator[_Found]:
    yield 0, torch.device("cpu"), dict


def _cuda(torch: Any) -> Iterator[_Found]:
    for index in range(torch.cuda.device_count()):
        yield index, torch.device("cuda", index), partial(_describe_cuda, torch, index)


def _describe_cuda(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, _ = torch.cuda.mem_get_info(index)
    facts = {
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "uuid": str(properties.uuid) if hasattr(properties, "uuid") else None,
        "gcn_arch": getattr(properties, "gcnArchName", None),
    }
    return {
        "name": properties.name,
        "memory_total_mb": properties.total_memory / _MIB,
        "memory_free_mb": free / _MIB,
        "facts": {key: value for key, value in facts.items() if value is not None},
    }


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


_FINDERS = {"cpu": _cpu, "cuda": _cuda, "mps": _mps, "xla": _xla}
