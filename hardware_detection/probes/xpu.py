"""Intel GPUs through PyTorch's XPU."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import XPU
from hardware_detection.probes._verdict import prove
from hardware_detection.record import ProbeResult
from hardware_detection.torch_build import torch_build

_INSTALL = "see https://pytorch.org/get-started/locally/ for an XPU build"
_REMEDY = "check that Intel's compute runtime is installed and your user is in the group render"


def probe(machine: Machine) -> ProbeResult:
    """Compute through a PyTorch that is built for XPU; no other build can."""
    build = torch_build(machine)
    if build is None or build.xpu is None:
        have = f"torch {build.version} has no XPU" if build else "torch is not installed"
        return ProbeResult(XPU, "absent", f"{have}; if there is an Intel GPU, {_INSTALL}")
    return prove(
        machine,
        XPU,
        ("torch", "xpu"),
        none_found=f"torch finds no XPU device; {_REMEDY}",
        remedy=_REMEDY,
    )
