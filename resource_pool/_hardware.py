"""The detector as the pool sees it, and what is left to say where the detector is missing."""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger("resource_pool")

try:
    from hardware_detection import (
        CPU,
        CUDA,
        HARDWARE_NAMES,
        MPS,
        OPENVINO,
        ROCM,
        WEBGPU,
        WEBNN,
        XPU,
    )
except ImportError:
    CPU, CUDA, ROCM, XPU, MPS, OPENVINO = "cpu", "cuda", "rocm", "xpu", "mps", "openvino"
    WEBGPU, WEBNN = "webgpu", "webnn"
    HARDWARE_NAMES = (CPU, CUDA, ROCM, XPU, MPS, OPENVINO)  # type: ignore[assignment]

__all__ = [
    "CPU",
    "CUDA",
    "HARDWARE_NAMES",
    "MPS",
    "OPENVINO",
    "ROCM",
    "WEBGPU",
    "WEBNN",
    "XPU",
    "detect",
]


def detect(*, web: bool = False) -> Mapping[str, Any]:
    """Return a detection report, the detector's own or, where it is missing, torch's word.

    Args:
        web: start the browsers, unless that was done and is remembered; later calls without it
            know their answers, too.
    """
    detector = _detector()
    return _what_torch_says() if detector is None else detector(web=web)


@functools.cache
def _detector() -> Callable[..., Mapping[str, Any]] | None:
    try:
        from hardware_detection import detect_available_hardware
    except ImportError as error:
        logger.warning("hardware_detection is missing (%s): asking torch what there is.", error)
        return None
    return detect_available_hardware


def _what_torch_says() -> dict[str, Any]:
    """Return a report with a CUDA or MPS device where torch says so; nothing is proved here."""
    found = dict.fromkeys(HARDWARE_NAMES, False) | {CPU: True}
    if importlib.util.find_spec("torch") is not None:
        import torch

        found[ROCM if torch.version.hip else CUDA] = torch.cuda.is_available()
        found[MPS] = torch.backends.mps.is_available()
    return {"hardware": found, "details": {}, "errors": {}}
