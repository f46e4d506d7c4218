"""The guides' object-oriented view of a report."""

from __future__ import annotations

import sys

from hardware_detection import names
from hardware_detection.errors import RequirementError, UnknownHardwareError
from hardware_detection.log import log
from hardware_detection.names import CPU

TYPE_CHECKING = False  # importing `typing` would cost more than all that is imported with it
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import Any


class HardwareDetector:
    """What this machine can compute on, asked once when the object is made.

    Args:
        cache_file: where to remember the detection; None for the default place.
        refresh: detect anew, whatever the cache says.
        web: start the installed browsers too, for WebGPU and WebNN; takes seconds.

    Raises:
        HardwareCacheError: ``cache_file`` was given and cannot be used.
    """

    def __init__(
        self, cache_file: str | Path | None = None, refresh: bool = False, web: bool = False
    ) -> None:
        from hardware_detection import detect_available_hardware

        self.report = detect_available_hardware(cache_file, refresh=refresh, web=web)

    def is_available(self, hardware_type: str) -> bool:
        """Whether a computation ran on this backend, or this device ("cuda:1"), and was right.

        Raises:
            UnknownHardwareError: no backend has this name.
        """
        name, index = names.split_device(hardware_type)
        if index is None:
            return bool(self.report["hardware"][name])
        return any(row["index"] == index for row in self._usable(name))

    def get_available_hardware(self) -> dict[str, bool]:
        """Return every backend's name -> whether it is available."""
        return dict(self.report["hardware"])

    def get_hardware_details(self) -> dict[str, dict[str, Any]]:
        """Return every backend's name -> status, reason, device_count, devices and facts."""
        return dict(self.report["details"])

    def get_errors(self) -> dict[str, str]:
        """Return the reason for each backend that is here but unusable, or could not be probed."""
        return dict(self.report["errors"])

    def get_best_available_hardware(self) -> str:
        """Return the best backend that is available; the CPU always is."""
        return str(self.report["best_available"])

    def get_torch_device(self) -> str:
        """Return the best PyTorch device: "cuda:0", "mps" or "cpu"."""
        return str(self.report["torch_device"])

    def get_device_with_index(self, preferred_index: int = 0) -> str:
        """Return the best PyTorch device, with this index where there are several.

        An index that is not there is replaced by the device with the most free memory, with one
        line in the log.
        """
        return self.get_torch_device_with_priority(None, preferred_index)

    def get_hardware_by_priority(self, priority_list: Sequence[str] | None = None) -> str:
        """Return the first available backend of the list; the CPU, logged, if there is none.

        Raises:
            UnknownHardwareError: the list has a name that no backend has.
        """
        wanted = names.DEFAULT_PRIORITY if priority_list is None else priority_list
        backends = [names.backend_of(name) for name in wanted]
        for name in backends:
            if self.report["hardware"][name]:
                return name
        log().warning("nothing of %s is available here; using the CPU", ", ".join(backends))
        return CPU

    def get_torch_device_with_priority(
        self, priority_list: Sequence[str] | None = None, preferred_index: int = 0
    ) -> str:
        """Return the PyTorch device of the first available backend of the list.

        ``preferred_index`` counts for CUDA, ROCm and XPU, as in ``get_device_with_index``.

        Raises:
            UnknownHardwareError: the list has a name that no backend has.
        """
        wanted = names.TORCH_PRIORITY if priority_list is None else priority_list
        name = self.get_hardware_by_priority(wanted)
        if name not in names.GPUS:
            return names.torch_device_name(name)
        return names.torch_device_name(f"{name}:{self._index(name, preferred_index)}")

    def get_compatible_hardware_types(
        self, model_requirements: Mapping[str, Mapping[str, Any]] | None = None
    ) -> list[str]:
        """Return the available backends that meet a model's requirements, best first.

        Args:
            model_requirements: the guides' ``hw_compatibility``: backend -> ``{"compatible":
                bool, "memory_usage": {"peak": MiB}}``. What is not named counts as compatible.

        Raises:
            UnknownHardwareError: no backend has this name.
            RequirementError: what is required of one is nothing that can be judged.
        """
        requirements = model_requirements or {}
        for name, requirement in requirements.items():
            _check_requirement(name, requirement)
        order = [*names.DEFAULT_PRIORITY, *names.HARDWARE_NAMES]
        return [
            name
            for name in dict.fromkeys(order)
            if self.report["hardware"][name] and self._meets(name, requirements.get(name, {}))
        ]

    def print_summary(self) -> None:
        """Print one line per backend to stdout."""
        from hardware_detection.summary import summary_lines

        sys.stdout.write("\n".join(summary_lines(self.report)) + "\n")

    def _index(self, name: str, preferred: int) -> int:
        usable = self._usable(name)
        if any(row["index"] == preferred for row in usable):
            return preferred
        best: int = max(usable, key=lambda row: row["memory_free_mb"] or 0.0)["index"]
        log().warning("%s:%s is not there; using %s:%s", name, preferred, name, best)
        return best

    def _usable(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.report["details"][name]["devices"] if row["dtypes"]]

    def _meets(self, name: str, requirement: Mapping[str, Any]) -> bool:
        if not requirement.get("compatible", True):
            return False
        peak = (requirement.get("memory_usage") or {}).get("peak")
        free = [row["memory_free_mb"] for row in self._usable(name)]
        known = [value for value in free if value is not None]
        return peak is None or not known or max(known) >= peak


def _check_requirement(name: object, requirement: object) -> None:
    from collections.abc import Mapping

    if name not in names.HARDWARE_NAMES:
        raise UnknownHardwareError(str(name), names.HARDWARE_NAMES)
    if not isinstance(requirement, Mapping):
        raise RequirementError(f"what is required of {name} must be a mapping")
    if not isinstance(requirement.get("compatible", True), bool):
        raise RequirementError(f"'compatible' of {name} must be True or False")
    usage = requirement.get("memory_usage") or {}
    peak: Any = usage.get("peak") if isinstance(usage, Mapping) else "no mapping"
    # Infinity is more than there is, and NaN fails every comparison.
    if peak is not None and (type(peak) not in (int, float) or not peak >= 0):
        raise RequirementError(f"'memory_usage' of {name} must be {{'peak': MiB}}")
