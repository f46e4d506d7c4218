"""AMD GPUs through ROCm. PyTorch calls them "cuda"; torch.version.hip tells them apart."""

from __future__ import annotations

from hardware_detection.answers import ProofError, ask
from hardware_detection.machine import Machine
from hardware_detection.names import ROCM
from hardware_detection.parsing import AMD_DRIVER_FILE, parse_kfd_node, parse_rocminfo
from hardware_detection.probes._verdict import prove
from hardware_detection.record import Device, ProbeResult
from hardware_detection.torch_build import torch_build

_DEVICE_FILE = "/dev/kfd"
_NODES = "/sys/class/kfd/kfd/topology/nodes"
_INSTALL = "see https://pytorch.org/get-started/locally/ for a ROCm build"
_REMEDY = "check `rocminfo`, and that your user is in the groups render and video"


def probe(machine: Machine) -> ProbeResult:
    """Look for AMD's compute driver and a PyTorch built for ROCm, then compute."""
    has_driver = machine.exists(_DEVICE_FILE)
    build = torch_build(machine)
    hip = build.hip if build else None
    if not has_driver and (not hip or machine.platform == "linux"):
        reason = "no AMD compute driver (/dev/kfd) is here; install ROCm if there is an AMD GPU"
        return ProbeResult(ROCM, "absent", reason)
    facts: dict[str, object] = {"architectures": _architectures(machine)}
    sources = {"architectures": _NODES}
    driver = (machine.read_text(AMD_DRIVER_FILE) or "").strip()
    if driver:
        facts["driver"], sources["driver"] = driver, AMD_DRIVER_FILE
    seen, tool = _ask_tools(machine)
    if seen:
        sources["devices"] = tool
    if not hip:
        have = f"torch {build.version} is not built for ROCm" if build else "torch is not installed"
        reason = f"AMD's compute driver is here, but {have}; {_INSTALL}"
        return ProbeResult(ROCM, "unusable", reason, seen, facts, sources)
    sources.pop("devices", None)
    return prove(
        machine,
        ROCM,
        ("torch", "cuda"),
        none_found=f"torch finds no ROCm device; {_REMEDY}",
        remedy=_REMEDY,
        seen=seen,
        facts=facts,
        sources=sources,
    )


def _ask_tools(machine: Machine) -> tuple[tuple[Device, ...], str]:
    """Return the GPUs that AMD's own tools see, and which tool that was."""
    if machine.has_package("amdsmi"):
        try:
            return ask(machine, "amdsmi").devices, "amdsmi"
        except ProofError:
            pass  # rocminfo may still know
    program = machine.which("rocminfo")
    outcome = machine.run([program]) if program else None
    return parse_rocminfo(outcome.stdout if outcome and outcome.ok else ""), "rocminfo"


def _architectures(machine: Machine) -> list[str]:
    texts = (machine.read_text(f"{_NODES}/{node}/properties") for node in machine.listdir(_NODES))
    return [name for text in texts if (name := parse_kfd_node(text or ""))]
