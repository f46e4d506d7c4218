"""Which hardware suits a model: the matrix, the caller's corrections, and what this machine has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_family_classifier.data import compiled_data
from model_family_classifier.documents import printable
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.matrix import (
    BACKENDS,
    OTHER_HARDWARE,
    cell_problem,
    complete,
    load_matrix,
)
from model_family_classifier.web import WEB_BACKENDS, too_large

__all__ = [
    "BACKENDS",
    "check_hw_compatibility",
    "compatibility_of",
    "hardware_fit",
    "priority_of",
]

_NOT_IN_MATRIX = {"level": "none", "compatible": False, "reason": "nothing is known about it"}
# What the guides show of every model. An installed torch is built for one vendor's GPUs; others
# are worth a word only where they are.
_ALWAYS_SHOWN = ("cuda", "mps", "openvino", "webnn", "webgpu", "cpu")


def compatibility_of(
    family: str,
    model_type: str | None,
    hw_compatibility: Mapping[str, Any] | None = None,
    matrix_path: str | Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Return {backend: {level, compatible, condition, size_limit, reason}} for all backends.

    ``hw_compatibility`` ({"cuda": {"compatible": True, "memory_usage": {"peak": 1200}}}, memory
    in MB) goes over the matrix, key by key; hardware that only it names is listed, too.
    """
    cells = load_matrix(matrix_path).cells(family, model_type)
    given = check_hw_compatibility(hw_compatibility)
    for name in OTHER_HARDWARE:
        if name in given:
            cells[name] = {**complete(_NOT_IN_MATRIX), **cells.get(name, {})}
    return {name: _corrected(cell, given.get(name, {})) for name, cell in cells.items()}


def priority_of(
    family: str,
    compatibility: Mapping[str, Mapping[str, Any]],
    matrix_path: str | Path | None = None,
) -> list[str]:
    """Return the backends that may be chosen automatically, best first; ends with cpu.

    A model's cells decide over its family's: CLIP runs on MPS although multimodal models
    usually do not.
    """
    automatic = load_matrix(matrix_path).automatic(family)
    return [name for name in automatic if compatibility[name]["compatible"]] + ["cpu"]


def hardware_fit(
    classification: Mapping[str, Any],
    hardware: Mapping[str, bool],
    *,
    requirements: Mapping[str, Any] | None = None,
    web_limits: Mapping[str, Any] | None = None,
    memory_mb: Mapping[str, float] | None = None,
    automatic: Mapping[str, bool] | None = None,
) -> dict[str, Any]:
    """Return which of this machine's hardware a classified model should use.

    Args:
        classification: what ``classify_model`` returned.
        hardware: backend name -> available here, as in a hardware report's "hardware". A name
            that is missing counts as not available.
        requirements: what a prediction says the model needs: memory_bytes, weights_bytes,
            largest_tensor_bytes, method, as far as they are known.
        web_limits: the limits that the browser here reports ({"maxBufferSize": bytes, …}), as
            ``reported_web_limits`` takes them from a hardware report.
        memory_mb: backend name -> memory of its largest device in MiB, as far as it is known. A
            model that is known to need more is not effective there; the CPU is the last resort.
        automatic: backend name -> may be chosen without being asked for, as the detector's
            ``automatic_hardware`` says; a name that is missing may.

    Returns:
        optimal_hardware (a backend), torch_device ("cuda:0", "mps", "cpu"), hardware_priority
        (backends, best first, what this machine could have), compatibility {backend: {level,
        compatible, condition, size_limit, reason, system, effective}}, resource_requirements
        (``requirements``, or None where nothing was predicted).
    """
    compatibility = {
        name: _on_this_machine(
            _sized(name, cell, requirements or {}, web_limits or {}),
            system=name == "cpu" or hardware.get(name) is True,
            hindrance=_hindrance(name, requirements or {}, memory_mb or {}, automatic or {}),
        )
        for name, cell in classification["compatibility"].items()
    }
    priority = [
        name for name in classification["hardware_priority"] if is_shown(name, compatibility[name])
    ]
    best = next((name for name in priority if compatibility[name]["effective"]), "cpu")
    return {
        "optimal_hardware": best,
        "torch_device": compiled_data()["backends"][best],
        "hardware_priority": priority,
        "compatibility": compatibility,
        "resource_requirements": dict(requirements) if requirements else None,
    }


def is_shown(name: str, cell: Mapping[str, Any]) -> bool:
    """Whether a backend is worth a word, given its cell of ``hardware_fit``."""
    return name in _ALWAYS_SHOWN or bool(cell["system"])


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
        problem = cell_problem(name, cell)
        if problem:
            raise ClassificationInputError(f"hw_compatibility {problem}.")
    return given


def _sized(
    name: str,
    cell: Mapping[str, Any],
    requirements: Mapping[str, Any],
    web_limits: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Bar a browser that the model is known to be too large for."""
    if not requirements or name not in WEB_BACKENDS or not cell["compatible"]:
        return cell
    why = too_large(name, cell["size_limit"], requirements, web_limits)
    return {**cell, "compatible": False, "reason": why} if why else cell


def _corrected(cell: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: printable(one) if isinstance(one, str) else one for key, one in given.items()}
    return {**cell, **said}


def _hindrance(
    name: str,
    requirements: Mapping[str, Any],
    memory_mb: Mapping[str, float],
    automatic: Mapping[str, bool],
) -> str | None:
    """Return why a backend that is here and suits the model is of no use to it."""
    if not automatic.get(name, True):
        return "what computes there is no GPU, or the browser does not tell"
    needed, largest = requirements.get("memory_bytes"), memory_mb.get(name)
    if name == "cpu" or needed is None or largest is None or needed <= largest * 2**20:
        return None
    return f"it needs {needed / 2**20:.0f} MiB, and the largest device has {largest:.0f} MiB"


def _on_this_machine(
    cell: Mapping[str, Any], *, system: bool, hindrance: str | None
) -> dict[str, Any]:
    effective = system and cell["compatible"]
    if effective and hindrance:
        return {**cell, "reason": hindrance, "system": True, "effective": False}
    return {**cell, "system": system, "effective": effective}
