"""Qualcomm's neural processor, through onnxruntime's QNN execution provider."""

from __future__ import annotations

from typing import Any

from hardware_detection.environment import is_on
from hardware_detection.machine import Machine
from hardware_detection.names import QUALCOMM
from hardware_detection.probes._verdict import prove
from hardware_detection.record import ProbeResult

_INSTALL = "on a Snapdragon machine run `pip install onnxruntime-qnn`"


def probe(machine: Machine) -> ProbeResult:
    """Compute through onnxruntime where it has QNN; a lone SDK proves nothing."""
    simulated = is_on(machine.environ.get("QNN_SIMULATION_ENABLED"))
    facts: dict[str, Any] = {"simulated": simulated}
    sources = {"simulated": "QNN_SIMULATION_ENABLED"}
    has_sdk = bool(machine.environ.get("QNN_SDK_ROOT")) or machine.has_package("qnn")
    if not _has_provider(machine):
        if has_sdk:
            reason = f"a QNN SDK is here, but no onnxruntime with QNN to prove it; {_INSTALL}"
            return ProbeResult(QUALCOMM, "unusable", reason, (), facts, sources)
        reason = f"onnxruntime with QNN is not installed; {_INSTALL}"
        if simulated:
            reason += "; QNN_SIMULATION_ENABLED declares a simulation, which is not hardware"
        return ProbeResult(QUALCOMM, "absent", reason, (), facts, sources)
    return prove(
        machine,
        QUALCOMM,
        ("qnn",),
        none_found=f"the installed onnxruntime has no QNN execution provider; {_INSTALL}",
        remedy="check that the machine has a Hexagon processor and its driver",
        facts=facts,
        sources=sources,
    )


def _has_provider(machine: Machine) -> bool:
    """Whether onnxruntime's QNN build is installed: it shares its package name with all others."""
    return machine.package_version("onnxruntime-qnn") is not None
