"""Torch modules on torch devices. torch is imported only once there is a module."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from resource_pool import _system
from resource_pool.devices import Memory

logger = logging.getLogger("resource_pool")

MB = 1024 * 1024

_OUT_OF_MEMORY = re.compile(r"out of memory|can(?:no|')t allocate memory", re.IGNORECASE)


class TorchDevices:
    """What the pool does to torch modules and to the devices that torch drives."""

    def memory(self, device: str) -> Memory | None:
        """Return RAM for "cpu", and a GPU's memory where this process uses CUDA already.

        Asking CUDA for the first time costs hundreds of MB and forbids the process to fork.
        """
        if device == "cpu":
            return _system.memory()
        torch = _torch_with_cuda()
        if torch is None or not device.startswith("cuda"):
            return None
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Memory(total, free + cached)

    def is_movable(self, model: Any) -> bool:
        """Whether it is a module that may be moved as a whole."""
        return not _why_left(model)

    def place(self, model: Any, device: str, dtype: str | None) -> str:
        """Move ``model`` to ``device`` and cast it to ``dtype``, in place.

        Args:
            model: any object; only torch modules are touched.
            device: torch's name, e.g. "cuda:0".
            dtype: torch's name, e.g. "float16", or None to keep the model's.

        Returns:
            Why the model was left as it is, or "" where it was placed.
        """
        left = _why_left(model)
        if not left:
            # The smaller first: half precision must not take a GPU's memory in float32.
            if _shrinks(model, dtype):
                _cast(model, dtype)
            model.to(device=device)
            _cast(model, dtype)
        return left

    def spread(self, model: Any, budgets: Mapping[str, int], dtype: str | None) -> Any:
        """Cast ``model`` and spread its layers over devices with accelerate's device map.

        Raises:
            ImportError: accelerate is not installed.
        """
        from accelerate import dispatch_model, infer_auto_device_map

        _cast(model, dtype)
        limits = {_accelerate_name(device): size for device, size in budgets.items()}
        uncut = getattr(model, "_no_split_modules", None)
        device_map = infer_auto_device_map(
            model, max_memory=limits, no_split_module_classes=list(uncut or ())
        )
        return dispatch_model(model, device_map=device_map)

    def describe(self, model: Any) -> dict[str, Any]:
        """Return device, dtype and bytes of ``model`` as they are, not as they were asked for.

        ``memory_usage`` is in bytes and counts the storages of parameters and buffers once each.
        """
        if not is_module(model):
            return {
                "device": "unknown",
                "dtype": "unknown",
                "memory_usage": 0,
                "memory_estimation_method": "unknown",
                "sizes": {},
            }
        sizes = _storage_bytes([*model.parameters(), *model.buffers()])
        dtypes = {_dtype_name(p) for p in model.parameters()}
        return {
            "device": "+".join(sorted(sizes)) or "cpu",
            "dtype": "+".join(sorted(dtypes)) or "unknown",
            "memory_usage": sum(sizes.values()),
            "memory_estimation_method": "parameters_and_buffers",
            "sizes": sizes,
        }

    def release(self, devices: Sequence[str]) -> None:
        """Give the allocators' unused blocks back to driver and system."""
        torch = _torch_with_cuda()
        if torch is not None and any(device.startswith("cuda") for device in devices):
            torch.cuda.empty_cache()
        if "mps" in devices:
            sys.modules["torch"].mps.empty_cache()
        if "cpu" in devices:
            _system.trim_heap()

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether torch, its CPU allocator or Python had no memory left."""
        if isinstance(error, MemoryError):
            return True
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(error, torch.OutOfMemoryError):
            return True
        return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))

    def parts(self, model: Any) -> list[Any]:
        """Return the parameters of a module: what a move or a cast changes."""
        return list(model.parameters()) if is_module(model) else []

    def would_change(self, model: Any, device: str, dtype: str | None) -> bool:
        """Whether ``place`` would move or cast any parameter."""
        if _why_left(model):
            return False
        return any(
            str(p.device) != device
            or not (dtype in (None, _dtype_name(p)) or _stays_float32(model, name, dtype))
            for name, p in model.named_parameters()
            if p.is_floating_point() or str(p.device) != device
        )

    def fingerprint(self, model: Any) -> Mapping[str, Hashable]:
        """Return training flags, hooks, and each parameter's version, dtype and device.

        A parameter's version counts its changes in place; nothing of its data is read, so this
        takes microseconds per layer.
        """
        if not is_module(model):
            return {}
        found: dict[str, Hashable] = {}
        for name, module in model.named_modules():
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
            found[f"{name or 'model'}: training and hooks"] = (module.training, hooks)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            found[name] = (tensor._version, tensor.dtype, tensor.device, id(tensor))
        return found


def _dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def is_module(value: Any) -> bool:
    """Whether ``value`` is a torch module. No import: a module cannot exist without torch."""
    torch = sys.modules.get("torch")
    # A thread may be in the middle of importing torch: then there is no module yet.
    module = getattr(getattr(torch, "nn", None), "Module", None)
    return module is not None and isinstance(value, module)


def cuda_statistics(report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ``cuda_memory`` group of the statistics.

    A process that has not used CUDA is not made to: then the facts are those of the last
    detection ``report``, and their age says so.
    """
    torch = _torch_with_cuda()
    count = 0 if torch is None else torch.cuda.device_count()
    devices = _cuda_devices(torch, count) or _detected(report)
    version = getattr(sys.modules.get("torch"), "version", None)
    return {
        "device_count": len(devices),
        "devices": devices,
        "cuda_version": getattr(version, "cuda", None),
        "rocm_version": getattr(version, "hip", None),
    }


def _detected(report: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    details = (report or {}).get("details", {})
    seen = [
        *details.get("cuda", {}).get("devices", ()),
        *details.get("rocm", {}).get("devices", ()),
    ]
    return [_detected_device(d) for d in seen if d.get("dtypes") and d.get("memory_total_mb")]


def _detected_device(device: Mapping[str, Any]) -> dict[str, Any]:
    total, free = device["memory_total_mb"], device.get("memory_free_mb") or 0.0
    percent = 100.0 * (total - free) / total
    return {
        "id": device["index"],
        "name": device["name"],
        "total_mb": total,
        "allocated_mb": 0.0,  # by this process, which has not used CUDA
        "reserved_mb": 0.0,
        "free_mb": free,
        "percent_used": percent,
        "under_pressure": percent >= _system.PRESSURE_PERCENT,
        "utilization": device.get("utilization"),
        "tensor_cores": device.get("tensor_cores"),
        "age_seconds": device.get("memory_free_age_seconds"),
    }


def _cuda_devices(torch: Any, count: int) -> list[dict[str, Any]]:
    try:
        return [_cuda_device(torch, index) for index in range(count)]
    except RuntimeError as error:  # a GPU that has fallen off the bus
        logger.warning("CUDA's memory cannot be asked for: %s", error)
        return []


def _cuda_device(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    percent = 100.0 * (total - free) / total
    tensor_cores = torch.cuda.get_device_capability(index) >= (7, 0)
    return {
        "id": index,
        "name": torch.cuda.get_device_name(index),
        "total_mb": total / MB,
        "allocated_mb": torch.cuda.memory_allocated(index) / MB,
        "reserved_mb": torch.cuda.memory_reserved(index) / MB,
        "free_mb": free / MB,
        "percent_used": percent,
        "under_pressure": percent >= _system.PRESSURE_PERCENT,
        "utilization": None,  # needs NVML; unknown is said as unknown
        "tensor_cores": tensor_cores if torch.version.hip is None else None,
        "age_seconds": 0.0,
    }


def _torch_with_cuda() -> Any:
    """Return torch where this process uses CUDA already, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    used = cuda is not None and cuda.is_available() and cuda.is_initialized()
    return torch if used else None


def _why_left(model: Any) -> str:
    if not is_module(model):
        return "it is not a torch module"
    if getattr(model, "hf_device_map", None):
        return "it has a device map of its own"
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None):
        return "it is quantized"
    return ""


def _cast(model: Any, dtype: str | None) -> None:
    """Cast what ``from_pretrained(dtype=...)`` casts, and leave what it leaves.

    Buffers that are no part of the checkpoint (the frequencies of rotary embeddings) stay as
    they are: in half precision, the angles of later positions are wrong by a whole turn. So do
    the parameters that the model's class wants in float32.
    """
    if dtype is None:
        return
    wanted = getattr(sys.modules["torch"], dtype)
    stored = {*model.state_dict(keep_vars=True)}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in stored and tensor.is_floating_point() and not _stays_float32(model, name, dtype):
            tensor.data = tensor.data.to(wanted)


def _shrinks(model: Any, dtype: str | None) -> bool:
    """Whether the cast makes the model smaller."""
    if dtype is None:
        return False
    size = getattr(sys.modules["torch"], dtype).itemsize
    return any(p.is_floating_point() and p.element_size() > size for p in model.parameters())


def _stays_float32(model: Any, name: str, dtype: str | None) -> bool:
    """Whether the class of ``model`` wants this parameter in float32, as transformers reads it."""
    kept = list(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == "float16":
        kept += getattr(model, "_keep_in_fp32_modules", None) or ()
    parts = name.split(".")
    return any(part in parts for part in kept)


def _accelerate_name(device: str) -> int | str:
    kind, _, index = device.partition(":")
    return int(index) if kind == "cuda" and index else kind


def _storage_bytes(tensors: Iterable[Any]) -> dict[str, int]:
    """Sum the storages per device, each once: tied weights share one."""
    seen: set[tuple[str, int]] = set()
    sizes: dict[str, int] = {}
    for tensor in tensors:
        storage, device = tensor.untyped_storage(), str(tensor.device)
        identity = (device, storage.data_ptr())
        if not tensor.is_meta and identity not in seen:
            seen.add(identity)
            sizes[device] = sizes.get(device, 0) + storage.nbytes()
    return sizes
