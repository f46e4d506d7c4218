"""WebNN: neural network graphs in a browser."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import WEBNN
from hardware_detection.probes._browser import not_probed
from hardware_detection.record import ProbeResult


def probe(machine: Machine) -> ProbeResult:
    """Say that no browser was asked, and whether WEBNN_SIMULATION_ENABLED is set."""
    return not_probed(machine, WEBNN, "WebNN", "WEBNN_SIMULATION_ENABLED")
