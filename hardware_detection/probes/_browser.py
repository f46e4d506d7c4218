"""What WebGPU and WebNN have in common: they live in a browser."""

from __future__ import annotations

from hardware_detection.environment import is_on
from hardware_detection.machine import Machine
from hardware_detection.record import ProbeResult


def not_probed(machine: Machine, name: str, title: str, simulation_variable: str) -> ProbeResult:
    """Return "absent" with the reason, and whether a simulation was declared.

    A simulation runs on the CPU. It is a fact about the set-up and never makes the backend
    available.
    """
    simulated = is_on(machine.environ.get(simulation_variable))
    reason = (
        f"{title} needs a browser, which `rp detect` does not start: unknown, counted as absent"
    )
    if simulated:
        reason += f"; {simulation_variable} declares a simulation, which is not hardware"
    return ProbeResult(
        name, "absent", reason, (), {"simulated": simulated}, {"simulated": simulation_variable}
    )
