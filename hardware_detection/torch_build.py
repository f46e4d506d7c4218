"""What the installed PyTorch was built for, without importing it."""

from __future__ import annotations

from typing import NamedTuple

from hardware_detection.machine import Machine
from hardware_detection.parsing import parse_torch_version


class TorchBuild(NamedTuple):
    """The build as its version.py tells it; None where it has no such part."""

    version: str | None
    cuda: str | None
    hip: str | None
    xpu: str | None


def torch_build(machine: Machine) -> TorchBuild | None:
    """Return the build of the installed PyTorch, or None where there is no PyTorch."""
    path = machine.package_file("torch", "version.py")
    if path is None:
        return None
    return TorchBuild(**parse_torch_version(machine.read_text(path) or ""))
