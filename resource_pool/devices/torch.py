"""Torch modules on torch's devices, OpenVINO's and browsers'. torch comes with the first module."""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from resource_pool import _system
from resource_pool.devices import Memory, browser, forwards, modules, openvino
from resource_pool.devices.cuda import torch_with_cuda
from resource_pool.devices.survey import Survey

_OUT_OF_MEMORY = re.compile(r"out of memory|can(?:no|')t allocate memory", re.IGNORECASE)


class TorchDevices:
    """What the pool does to torch modules and to the devices that torch drives."""

    def memory(self, device: str) -> Memory | None:
        """Return RAM for "cpu", and a GPU's memory where this process uses CUDA already.

        Asking CUDA for the first time costs hundreds of MB and forbids the process to fork.
        """
        if device == "cpu":
            return _system.memory()
        torch = torch_with_cuda()
        if torch is None or not device.startswith("cuda"):
            return None
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Memory(total, free + cached)

    def survey(self, model: Any) -> Survey | None:
        """Walk over a module once; None for anything else."""
        return Survey(model) if modules.is_module(model) else None

    def is_movable(self, model: Any) -> bool:
        """Whether it is a module that may be moved as a whole."""
        return not _why_left(model, self.survey(model))

    def place(self, model: Any, device: str, dtype: str | None, seen: Survey | None = None) -> str:
        """Move ``model`` to ``device`` and cast it to ``dtype``, in place.

        Args:
            model: any object; only torch modules are touched.
            device: torch's name, e.g. "cuda:0".
            dtype: torch's name, e.g. "float16", or None to keep the model's.
            seen: a survey of the model, which is brought up to date.

        Returns:
            Why the model was left as it is, or "" where it was placed.
        """
        seen = seen or self.survey(model)
        left = _why_left(model, seen)
        if left or seen is None:
            return left
        if self._changed_by_placing(model, seen, device, dtype):
            seen.walk(model)
        return ""

    def _changed_by_placing(self, model: Any, seen: Survey, device: str, dtype: str | None) -> bool:
        if openvino.is_openvino(device):
            openvino.place(model, device, dtype)
            return True
        if browser.is_browser(device):
            browser.place(model, device, dtype)
            return True
        forwards.remove(model)
        # The smaller first: half precision must not take a GPU's memory in float32.
        if dtype is not None and modules.would_shrink(model, dtype):
            modules.cast(model, dtype)
        moved = not seen.is_all_on(device)
        if moved:
            model.to(device=device)
        if dtype is not None:
            modules.cast(model, dtype)
        return moved or dtype is not None

    def spread(self, model: Any, budgets: Mapping[str, int], dtype: str | None) -> Any:
        """Cast ``model`` and spread its layers over devices with accelerate's device map.

        Raises:
            ImportError: accelerate is not installed.
        """
        from accelerate import dispatch_model, infer_auto_device_map

        if dtype is not None:
            modules.cast(model, dtype)
        limits = {_accelerate_name(device): size for device, size in budgets.items()}
        uncut = getattr(model, "_no_split_modules", None)
        device_map = infer_auto_device_map(
            model, max_memory=limits, no_split_module_classes=list(uncut or ())
        )
        return dispatch_model(model, device_map=device_map)

    def describe(self, model: Any, seen: Survey | None = None) -> dict[str, Any]:
        """Return device, dtype and bytes of ``model``: see ``modules.describe``."""
        facts, elsewhere = modules.describe(model, seen), forwards.placement(model)
        if elsewhere is None:
            return facts
        module = {"module_bytes": facts["memory_usage"], "module_dtype": facts["dtype"]}
        return elsewhere.describe(facts) | module

    def release(self, devices: Sequence[str]) -> None:
        """Give the allocators' unused blocks back to driver and system."""
        torch = torch_with_cuda()
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

    def parts(self, model: Any, seen: Survey | None = None) -> list[Any]:
        """Return the parameters of a module: what a move or a cast changes."""
        return modules.parameters(model) if seen is None else seen.parameters

    def storages(self, model: Any) -> dict[tuple[str, int], Any]:
        """Return the storages of a module, which a ``state_dict`` or a NumPy view keeps."""
        return Survey(model).storages if modules.is_module(model) else {}

    def places(self, model: Any, seen: Survey | None = None) -> dict[tuple[str, int], int]:
        """Return (device, address) -> bytes of the storages of a module, each once."""
        seen = seen or self.survey(model)
        # What is empty is nowhere: all of it has one address.
        return {place: size for place, size in seen.places.items() if size} if seen else {}

    def would_change(self, model: Any, device: str, dtype: str | None) -> bool:
        """Whether ``place`` would move or cast any of it."""
        if _why_left(model, self.survey(model)):
            return False
        outside = openvino.is_openvino(device) or browser.is_browser(device)
        if outside or forwards.placement(model):
            return True
        cast = dtype is not None and modules.would_cast(model, dtype)
        return cast or modules.elsewhere(model, device)

    def fingerprint(self, model: Any) -> Mapping[str, Hashable]:
        """Return what of ``model`` must not change: see ``modules.fingerprint``."""
        return modules.fingerprint(model)


def _why_left(model: Any, seen: Survey | None) -> str:
    if seen is None:
        return "it is not a torch module"
    if getattr(model, "hf_device_map", None):
        return "it has a device map of its own"
    if getattr(model, "is_quantized", False) or getattr(model, "hf_quantizer", None):
        return "it is quantized"
    if seen.lacks_data():
        return "it has parameters without data"
    return ""


def _accelerate_name(device: str) -> int | str:
    kind, _, index = device.partition(":")
    return int(index) if kind == "cuda" and index else kind
