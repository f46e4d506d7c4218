"""WebGPU: compute shaders in a browser."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import WEBGPU
from hardware_detection.probes._browser import probe_browsers
from hardware_detection.record import ProbeResult


def probe(machine: Machine) -> ProbeResult:
    """Compute in the browsers that are installed, if the machine may start them."""
    return probe_browsers(machine, WEBGPU)
