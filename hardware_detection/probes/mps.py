"""Apple GPUs through Metal Performance Shaders."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import MPS
from hardware_detection.probes._verdict import prove
from hardware_detection.record import ProbeResult
from hardware_detection.torch_build import torch_build


def probe(machine: Machine) -> ProbeResult:
    """Compute through PyTorch, on macOS only."""
    if machine.platform != "darwin":
        return ProbeResult(MPS, "absent", "MPS is part of macOS, and this is another system")
    if torch_build(machine) is None:
        return ProbeResult(MPS, "absent", "torch is not installed; run `pip install torch`")
    return prove(
        machine,
        MPS,
        ("torch", "mps"),
        none_found="torch finds no MPS device; it needs an Apple GPU, macOS 14 or newer,"
        " and a native (not an Intel) Python",
        remedy="update macOS and torch",
    )
