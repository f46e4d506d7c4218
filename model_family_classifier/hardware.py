"""Which hardware suits a model: the matrix, the caller's corrections, and what this machine has."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from model_family_classifier.data import data_dir
from model_family_classifier.documents import load_trusted_yaml
from model_family_classifier.errors import ClassificationInputError

BACKENDS = ("cuda", "rocm", "mps", "openvino", "webnn", "webgpu", "cpu")
# Hardware that the matrix says nothing about: never chosen automatically.
_OTHER_HARDWARE = ("tpu", "qualcomm")
_LEVELS = ("high", "medium", "low", "none")
_NOT_IN_MATRIX = {"level": "none", "compatible": False, "reason": "nothing is known about it"}
# torch drives AMD GPUs under CUDA's name; OpenVINO and browsers take their models from the CPU.
_TORCH_DEVICES = {"cuda": "cuda:0", "rocm": "cuda:0", "mps": "mps"}


def compatibility_of(
    family: str, model_type: str | None, hw_compatibility: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return {backend: {level, compatible, reason, …}} for all backends, and others if given.

    ``hw_compatibility`` ({"cuda": {"compatible": True, "memory_usage": {"peak": 1200}}}, memory
    in MB) goes over the matrix, key by key.
    """
    matrix = _matrix()
    cells = {**matrix["families"][family]["cells"], **matrix["models"].get(model_type, {})}
    cells["cpu"] = {"level": "medium", "reason": "every model runs on the CPU"}
    given = check_hw_compatibility(hw_compatibility)
    cells |= {name: _NOT_IN_MATRIX for name in _OTHER_HARDWARE if name in given}
    return {name: {**_cell(cell), **given.get(name, {})} for name, cell in cells.items()}


def priority_of(family: str, compatibility: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the backends that may be chosen automatically, best first; ends with cpu.

    A model's cells decide over its family's: CLIP runs on MPS although multimodal models
    usually do not.
    """
    automatic = _matrix()["families"][family]["automatic"]
    return [name for name in automatic if compatibility[name]["compatible"]] + ["cpu"]


def hardware_fit(classification: Mapping[str, Any], hardware: Mapping[str, bool]) -> dict[str, Any]:
    """Return which of this machine's hardware a classified model should use.

    Args:
        classification: what ``classify_model`` returned.
        hardware: backend name -> available here, as in a hardware report's "hardware". A name
            that is missing counts as not available.

    Returns:
        optimal_hardware (a backend), torch_device ("cuda:0", "mps", "cpu"), hardware_priority
        (backends, best first, what this machine could have), compatibility {backend: {level,
        compatible, reason, system, effective}}.
    """
    compatibility = {
        name: _on_this_machine(cell, name == "cpu" or hardware.get(name) is True)
        for name, cell in classification["compatibility"].items()
    }
    priority = [
        name
        for name in classification["hardware_priority"]
        # An installed torch is built for CUDA or for ROCm; ROCm is worth a word only where it is.
        if name != "rocm" or compatibility["rocm"]["system"]
    ]
    best = next((name for name in priority if compatibility[name]["effective"]), "cpu")
    return {
        "optimal_hardware": best,
        "torch_device": _TORCH_DEVICES.get(best, "cpu"),
        "hardware_priority": priority,
        "compatibility": compatibility,
    }


def check_hw_compatibility(given: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the caller's corrections as they are, or an empty mapping for None.

    Raises:
        ClassificationInputError: not a mapping of known backends to mappings with a bool
            "compatible" and a known "level", where they have them, and JSON values only.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ClassificationInputError("hw_compatibility must map backends to mappings.")
    for name, cell in given.items():
        problem = _cell_problem(name, cell)
        if problem:
            raise ClassificationInputError(f"hw_compatibility {problem}.")
    return given


def _cell_problem(name: Any, cell: Any) -> str | None:
    if name not in BACKENDS + _OTHER_HARDWARE:
        return f"names {name!r}, which is none of {', '.join(BACKENDS + _OTHER_HARDWARE)}"
    if not isinstance(cell, Mapping):
        return f"for {name!r} must be a mapping"
    if not isinstance(cell.get("compatible", True), bool):
        return f"for {name!r}: 'compatible' must be true or false"
    if cell.get("level", "high") not in _LEVELS:
        return f"for {name!r}: 'level' must be one of {', '.join(_LEVELS)}"
    if not _is_json(cell):
        return f"for {name!r} has a value that JSON cannot hold"
    if name == "cpu" and cell.get("compatible") is False:
        return "cannot bar the CPU: it is the last resort of every model"
    return None


def _cell(row: Mapping[str, Any]) -> dict[str, Any]:
    said = (row.get("condition"), row.get("reason"))
    return {
        "level": row["level"],
        "compatible": row.get("compatible", True),
        "reason": "; ".join(part for part in said if part),
    }


def _is_json(cell: Mapping[str, Any]) -> bool:
    try:
        json.dumps(dict(cell), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _on_this_machine(cell: Mapping[str, Any], system: bool) -> dict[str, Any]:
    return {**cell, "system": system, "effective": system and cell["compatible"]}


@functools.cache
def _matrix() -> dict[str, Any]:
    content: dict[str, Any] = load_trusted_yaml(data_dir("model_db") / "hardware_matrix.yaml")
    return content
