"""The detector as the pool sees it, and what is left to say where the detector is missing."""

from __future__ import annotations

import functools
import importlib.util
import logging
import time
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
    from hardware_detection.names import TORCH_PRIORITY
except ImportError:
    CPU, CUDA, ROCM, XPU, MPS, OPENVINO = "cpu", "cuda", "rocm", "xpu", "mps", "openvino"
    WEBGPU, WEBNN = "webgpu", "webnn"
    HARDWARE_NAMES = (CPU, CUDA, ROCM, XPU, MPS, OPENVINO)
    TORCH_PRIORITY = (CUDA, ROCM, XPU, MPS, CPU)

__all__ = [
    "CPU",
    "CUDA",
    "HARDWARE_NAMES",
    "MPS",
    "OPENVINO",
    "ROCM",
    "TORCH_PRIORITY",
    "WEBGPU",
    "WEBNN",
    "XPU",
    "Hardware",
    "detect",
]


# How old a report may be that a load is planned with: what computes here hardly changes, but
# others take memory of a GPU. (A GPU that this process uses is asked itself, at each load.)
REPORT_SECONDS = 60.0
GPU_REPORT_SECONDS = 1.0


class Hardware:
    """Asks for reports on behalf of one pool, and remembers the last one.

    The detector's own report holds for a while, as long as nothing is changed that it depends
    on; those of others are asked for each time.
    """

    def __init__(self, ask: Callable[[], Mapping[str, Any]]) -> None:
        self._ask = ask
        # (report, when, what it depends on): one tuple, which threads exchange as a whole.
        self._last: tuple[Mapping[str, Any], float, object] | None = None

    def __call__(self) -> Mapping[str, Any]:
        """Return a report to plan with."""
        if self._ask is detect and self._last is not None:
            report, asked_at, depends_on = self._last
            fresh = time.monotonic() - asked_at < _seconds_good(report)
            if fresh and depends_on is not None and depends_on == _depends_on():
                return report
        return self.ask()

    def ask(self) -> Mapping[str, Any]:
        """Return a report of this moment."""
        depends_on = _depends_on() if self._ask is detect else None
        report = self._ask()
        self._last = report, time.monotonic(), depends_on
        return report

    @property
    def last(self) -> Mapping[str, Any] | None:
        """The last report; None before the first."""
        return self._last and self._last[0]

    @property
    def age_seconds(self) -> float:
        """How long ago the last report was asked for."""
        return time.monotonic() - self._last[1] if self._last else 0.0

    def ask_browsers(self) -> None:
        """Start the browsers, whose answers are remembered."""
        if self._ask is detect:
            detect(web=True)
            self._last = None


def _seconds_good(report: Mapping[str, Any]) -> float:
    has_gpus = any(report["hardware"].get(name) for name in TORCH_PRIORITY if name != CPU)
    return GPU_REPORT_SECONDS if has_gpus else REPORT_SECONDS


def _depends_on() -> object:
    """Return what the detector's next report depends on, or None where nobody can tell."""
    if _detector() is None:
        return None
    from hardware_detection.service import depends_on

    return depends_on()


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
