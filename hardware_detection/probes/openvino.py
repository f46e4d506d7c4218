"""Intel's OpenVINO: every device that its Core lists (CPU, GPU, NPU)."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import OPENVINO
from hardware_detection.probes._verdict import prove
from hardware_detection.record import ProbeResult


def probe(machine: Machine) -> ProbeResult:
    """Compile and run a small graph on each device, where the package is installed."""
    if not machine.has_package("openvino"):
        return ProbeResult(
            OPENVINO, "absent", "openvino is not installed; run `pip install openvino`"
        )
    return prove(
        machine,
        OPENVINO,
        ("openvino",),
        none_found="openvino is installed but lists no device; reinstall it or its drivers",
        remedy="reinstall openvino, or the driver of the device",
    )
