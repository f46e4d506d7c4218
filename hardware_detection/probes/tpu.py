"""Google's TPU through PyTorch/XLA."""

from __future__ import annotations

from hardware_detection.machine import Machine
from hardware_detection.names import TPU
from hardware_detection.probes._verdict import prove
from hardware_detection.record import ProbeResult


def probe(machine: Machine) -> ProbeResult:
    """Compute through torch_xla, where it is installed and its device is a TPU."""
    if not machine.has_package("torch_xla"):
        reason = "torch_xla is not installed; on a TPU machine run `pip install torch_xla[tpu]`"
        return ProbeResult(TPU, "absent", reason)
    return prove(
        machine,
        TPU,
        ("torch", "xla"),
        none_found="torch_xla is installed but its device is no TPU;"
        " on a TPU machine set PJRT_DEVICE=TPU",
        remedy="check that torch and torch_xla have the same version and that no process"
        " holds the TPU",
    )
