"""Computations that prove a backend, each run in a Python process of its own.

A driver that crashes, hangs or answers nonsense takes down one such child and nothing else.
The child prints one JSON object: ``{"devices": [...], "facts": {...}}`` or ``{"error": "..."}``.
It computes; whether the result is right is decided by the parent (``hardware_detection.answers``).
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

#: What a child can be asked for -> the module whose ``prove(*arguments)`` answers, where the two
#: have other names.
PROOFS = {
    "torch": "torch_devices",
    "openvino": "openvino_devices",
    "qnn": "qnn_device",
    "nvml": "nvml_devices",
    "amdsmi": "amdsmi_devices",
    "browser": "browser_devices",
}


def short(error: BaseException) -> str:
    """Return the error's type and the first line of its message."""
    first_line = (str(error).strip().splitlines() or [""])[0].strip()
    return f"{type(error).__name__}: {first_line}"[:300]


def optional(ask: Callable[[], Any]) -> Any:
    """Return the answer; None where this GPU, driver or release of the library has none."""
    try:
        return ask()
    except Exception:
        return None


def main(arguments: Sequence[str]) -> None:
    """Answer on stdout; whatever libraries print goes to stderr."""
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, *rest = arguments
    module = importlib.import_module(f"{__name__}.{PROOFS.get(name, name)}")
    try:
        answer = module.prove(*rest)
    except Exception as error:
        answer = {"error": short(error)}
    with answer_to:
        json.dump(answer, answer_to)
