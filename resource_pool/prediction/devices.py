"""Where a prediction fits: on this machine's devices, or on one that is only described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resource_pool._hardware import CPU, CUDA, HARDWARE_NAMES, MPS, TORCH_PRIORITY
from resource_pool.errors import PredictionError
from resource_pool.prediction.result import Prediction
from resource_pool.weights.hub import as_size

_MIB = 2**20
_DESCRIBED = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}):"
    r"(?P<number>\d{1,9}(?:\.\d{1,9})?)\s*(?P<prefix>[kmgt])(?P<binary>i?)b?",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True)
class Device:
    """A device and its free memory in bytes; None where nobody knows it."""

    label: str
    backend: str
    free_bytes: int | None


@dataclass(frozen=True)
class Fit:
    """A prediction for a device's backend, held against what is free there."""

    device: Device
    prediction: Prediction

    @property
    def fits(self) -> bool | None:
        """Whether it fits, its margin included; None where the free memory is not known."""
        if self.device.free_bytes is None:
            return None
        return self.prediction.needed_bytes <= self.device.free_bytes

    def __str__(self) -> str:
        if self.device.free_bytes is None:
            return f"unknown: needs {self._sum()}, and its free memory is not known"
        return f"{self._word()}: needs {self._sum()}, {as_size(self.device.free_bytes)} free"

    def _word(self) -> str:
        if self.prediction.is_of_defaults:
            return f"would {'' if self.fits else 'not '}fit with these defaults"
        return "fits" if self.fits else "does not fit"

    def _sum(self) -> str:
        needed = self.prediction
        fixed = f" + {as_size(needed.fixed_bytes)} of {needed.backend}'s own"
        return (
            f"{as_size(needed.needed_bytes)} ({as_size(needed.total_bytes)} + "
            f"{needed.margin:.0%}{fixed if needed.fixed_bytes else ''})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict and its figures as JSON-able values."""
        return {
            "device": self.device.label,
            "backend": self.device.backend,
            "fits": self.fits,
            "needed_bytes": self.prediction.needed_bytes,
            "free_bytes": self.device.free_bytes,
            "margin": self.prediction.margin,
            "fixed_bytes": self.prediction.fixed_bytes,
            "verdict": str(self),
        }


def devices_of(report: Mapping[str, Any]) -> list[Device]:
    """Return the devices of a report on which torch computes, the fastest first.

    What other runtimes need is not predicted.
    """
    return [
        Device(_label(backend, row), backend, _bytes(row.get("memory_free_mb")))
        for backend in TORCH_PRIORITY
        if report["hardware"].get(backend)
        for row in report["details"].get(backend, {}).get("devices") or ()
        if row.get("dtypes")
    ]


def _label(backend: str, row: Mapping[str, Any]) -> str:
    place = backend if backend in (MPS, CPU) else f"{backend}:{row['index']}"
    return f"{place} ({row['name']})"


def _bytes(megabytes: float | None) -> int | None:
    return None if megabytes is None else round(megabytes * _MIB)


def described_device(text: str) -> Device:
    """Read "h100:80GiB": any name, and its free memory.

    A name of a backend ("cpu:16GiB", "mps:24GB") is that backend; any other counts as CUDA.

    Raises:
        PredictionError: it is not of that form, or there is no memory at all.
    """
    match = _DESCRIBED.fullmatch(text.strip())
    size = 0 if match is None else _size(match)
    if match is None or not size:
        raise PredictionError(
            f"{text[:100]!r} describes no device; write its name and memory as in h100:80GiB."
        )
    name = match["name"].strip()
    backend = name.lower() if name.lower() in HARDWARE_NAMES else CUDA
    return Device(name, backend, size)


def _size(match: re.Match[str]) -> int:
    base = 1024 if match["binary"] else 1000
    return int(float(match["number"]) * base ** " kmgt".index(match["prefix"].lower()))
