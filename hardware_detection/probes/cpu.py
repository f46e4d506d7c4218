"""The CPU: always there; what is proved is what it computes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hardware_detection.answers import ProofError, ask
from hardware_detection.machine import CpuCounts, CpuTarget, Machine
from hardware_detection.names import CPU
from hardware_detection.parsing import CPUINFO_FILE, parse_cpuinfo
from hardware_detection.proofs import optional
from hardware_detection.proofs.matrices import expected, left, right
from hardware_detection.record import Device, ProbeResult
from hardware_detection.torch_build import torch_build

_TORCH_FACTS = ("torch", "torch_accelerator")
_SOURCES = {
    "architecture": "platform",
    "microarchitecture": "archspec",
    "isa_extensions": "archspec, and /proc/cpuinfo where there is one",
    "physical_cores": "psutil",
    "logical_cores": "psutil",
    "usable_cores": "the process's CPU affinity and its cgroups' CPU limit",
    "sockets": CPUINFO_FILE,
    "cpu_limit": "cgroups",
    "memory_limit_mb": "cgroups",
    "memory": "/proc/meminfo or psutil, and cgroups",
}


def probe(machine: Machine) -> ProbeResult:
    """Describe the CPU, compute in this process, and in PyTorch's number formats if it is here."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        # PyTorch takes longest of all: its child is started before anything is read.
        proof = thread.submit(_prove_with_torch, machine)
        name, facts = _facts(machine)
        total, available = optional(machine.memory_mb) or (None, None)
    torch_dtypes, torch_facts, note = proof.result()
    by_torch = ("dtypes", *torch_facts) if torch_dtypes else ()
    device = Device(
        index=0,
        name=name or optional(machine.cpu_name) or "unknown",
        memory_total_mb=total,
        memory_free_mb=available,
        dtypes=torch_dtypes or _prove_with_python(),
    )
    return ProbeResult(
        name=CPU,
        status="available",
        reason=note,
        devices=(device,),
        facts={**facts, **torch_facts},
        sources={**_SOURCES, **dict.fromkeys(by_torch, "torch")},
        retry="torch_problem" in torch_facts,
    )


def _facts(machine: Machine) -> tuple[str | None, dict[str, Any]]:
    """Return the CPU's marketing name, and what else is known of it.

    A library that cannot describe this CPU does not take it away, nor what others know of it.
    """
    name, flags = parse_cpuinfo(machine.read_text(CPUINFO_FILE) or "")
    target = optional(machine.cpu_target) or CpuTarget(None, frozenset())
    counts = optional(machine.cpu_counts) or CpuCounts(None, None, optional(machine.usable_cpus))
    limits = machine.limits()
    return name, {
        "architecture": machine.architecture(),
        "microarchitecture": target.microarchitecture,
        "isa_extensions": sorted(flags | target.features),
        "physical_cores": counts.physical,
        "logical_cores": counts.logical,
        "usable_cores": counts.usable,
        "sockets": counts.sockets,
        "cpu_limit": limits.cpus,
        "memory_limit_mb": limits.memory_mb,
    }


def _prove_with_torch(machine: Machine) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """Return the number formats that PyTorch proved, its facts, and a sentence."""
    if torch_build(machine) is None:
        return (), {}, "computed correctly in plain Python; install torch to prove more formats"
    try:
        answer = ask(machine, "torch", "cpu")
    except ProofError as error:
        problem = f"{error}; reinstall torch"
    else:
        if answer.proved:
            dtypes = answer.devices[0].dtypes
            note = f"computed a test product correctly in {', '.join(dtypes)}"
            return dtypes, {key: answer.facts.get(key) for key in _TORCH_FACTS}, note
        problem = next((device.problem for device in answer.devices), "torch lists no CPU")
    return (), {"torch_problem": problem}, f"computed correctly in plain Python, but {problem}"


def _prove_with_python() -> tuple[str, ...]:
    columns = [tuple(map(float, column)) for column in zip(*right(), strict=True)]
    product = tuple(
        sum(a * b for a, b in zip(row, column, strict=True)) for row in left() for column in columns
    )
    if product != expected():
        raise ArithmeticError("the CPU computed a wrong matrix product")
    return ("fp64",)
