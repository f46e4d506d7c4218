"""NVIDIA GPUs through CUDA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from hardware_detection.answers import ProofError, ask
from hardware_detection.machine import Machine
from hardware_detection.names import CUDA
from hardware_detection.nvml import nvml_uuid
from hardware_detection.parsing import (
    NVIDIA_DRIVER_FILE,
    NVIDIA_SMI_FIELDS,
    has_tensor_cores,
    parse_nvidia_driver,
    parse_nvidia_smi,
    parse_nvidia_smi_list,
    parse_refused_field,
    parse_visible_devices,
)
from hardware_detection.probes._verdict import prove
from hardware_detection.record import Device, ProbeResult
from hardware_detection.torch_build import torch_build

_DRIVER_FILES = (
    NVIDIA_DRIVER_FILE,
    "/dev/nvidiactl",
    "/dev/nvhost-gpu",  # Jetson
    "/dev/nvgpu/igpu0",  # Jetson
    "/usr/lib/wsl/lib/libcuda.so.1",
    "C:\\Windows\\System32\\nvcuda.dll",
)
_INSTALL = "see https://pytorch.org/get-started/locally/"
_REMEDY = "check `nvidia-smi`, and that the driver is new enough for the installed torch"


class _Seen(NamedTuple):
    """What the driver's own tools show: every GPU, whether visible to CUDA or not."""

    devices: tuple[Device, ...]
    facts: Mapping[str, Any]
    source: str


def probe(machine: Machine) -> ProbeResult:
    """Look for the driver, then for a PyTorch that can use it, then compute."""
    has_driver = any(machine.exists(path) for path in _DRIVER_FILES)
    seen = _ask_driver(machine, has_driver=has_driver)
    if not has_driver and not seen.devices:
        return ProbeResult(
            CUDA, "absent", "no NVIDIA driver is here; install it if there is an NVIDIA GPU"
        )
    sources = dict.fromkeys(seen.facts, seen.source)
    problem = _problem_with_torch(machine)
    if problem:
        return ProbeResult(CUDA, "unusable", problem, seen.devices, seen.facts, sources)
    result = prove(
        machine,
        CUDA,
        ("torch", "cuda"),
        none_found=_why_none(machine, seen),
        remedy=_REMEDY,
        seen=seen.devices,
        facts=seen.facts,
        sources=sources,
    )
    return replace(
        result,
        devices=merge(result.devices, seen.devices),
        facts={**result.facts, "hidden_gpus": hidden(result.devices, seen.devices)},
        sources={
            **result.sources,
            **dict.fromkeys(("hidden_gpus", "mig", "pci_bus_id"), seen.source),
            "tensor_cores": "compute capability and name",
        },
    )


def merge(proved: Iterable[Device], seen: Iterable[Device]) -> tuple[Device, ...]:
    """Add to each device what the driver's tools know of it; the UUID tells which one it is.

    CUDA_VISIBLE_DEVICES reorders what CUDA numbers, the tools number everything. The UUID comes
    out as NVML spells it.
    """
    known = {uuid: device.facts for device in seen if (uuid := _uuid(device))}
    return tuple(
        replace(
            device, facts={**known.get(_uuid(device) or "", {}), **device.facts, **_more(device)}
        )
        for device in proved
    )


def hidden(proved: Iterable[Device], seen: Iterable[Device]) -> list[str]:
    """Return the UUIDs of GPUs that the tools see and CUDA does not.

    A GPU that is cut into instances counts as seen through any of them.
    """
    visible = {_uuid(device) for device in proved}
    return [
        uuid
        for device in seen
        if (uuid := _uuid(device)) and not visible & {uuid, *_instances(device)}
    ]


def _uuid(device: Device) -> str | None:
    uuid = device.facts.get("uuid")
    return nvml_uuid(str(uuid)) if uuid else None


def _instances(device: Device) -> list[str]:
    return [row["uuid"] for row in (device.facts.get("mig") or {}).get("instances", ())]


def _more(device: Device) -> dict[str, Any]:
    facts = {
        "uuid": _uuid(device),
        "tensor_cores": has_tensor_cores(
            device.name, str(device.facts.get("compute_capability") or "")
        ),
    }
    return {key: value for key, value in facts.items() if value is not None}


def _problem_with_torch(machine: Machine) -> str:
    build = torch_build(machine)
    if build is None:
        return f"an NVIDIA driver is here, but torch is not installed; {_INSTALL}"
    if build.hip:
        return f"an NVIDIA driver is here, but torch {build.version} is built for ROCm; {_INSTALL}"
    if build.cuda is None:
        return f"an NVIDIA driver is here, but torch {build.version} has no CUDA; {_INSTALL}"
    return ""


def _why_none(machine: Machine, seen: _Seen) -> str:
    visible = machine.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not parse_visible_devices(visible):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides every GPU; unset it to see them"
    if not seen.devices and machine.platform == "linux" and not machine.exists("/dev/nvidiactl"):
        return (
            "the NVIDIA driver is loaded, but no GPU was handed to this container;"
            " start it with the GPUs (`--gpus all`)"
        )
    return f"torch finds no CUDA device; {_REMEDY}"


def _ask_driver(machine: Machine, *, has_driver: bool) -> _Seen:
    if has_driver and machine.has_package("pynvml"):
        try:
            answer = ask(machine, "nvml")
        except ProofError:
            pass  # nvidia-smi may still know, and says more where it does not
        else:
            return _Seen(merge(answer.devices, ()), answer.facts, "nvidia-ml-py")
    program = machine.which("nvidia-smi")
    if program:
        devices, driver = _ask_nvidia_smi(machine, program)
        if devices:
            return _Seen(merge(devices, ()), {"driver": driver}, "nvidia-smi")
    driver = parse_nvidia_driver(machine.read_text(NVIDIA_DRIVER_FILE) or "")
    return _Seen((), {"driver": driver} if driver else {}, NVIDIA_DRIVER_FILE)


def _ask_nvidia_smi(machine: Machine, program: str) -> tuple[tuple[Device, ...], str | None]:
    """Ask for every field that this driver's nvidia-smi knows, and for the instances of MIG."""
    fields = list(NVIDIA_SMI_FIELDS)
    while True:
        query = (f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
        outcome = machine.run([program, *query])
        refused = parse_refused_field(outcome.stdout + outcome.stderr)
        if outcome.ok or refused not in fields:
            break
        fields.remove(refused)
    devices, driver = parse_nvidia_smi(outcome.stdout if outcome.ok else "", fields)
    if not any(device.facts.get("mig", {}).get("enabled") for device in devices):
        return devices, driver
    instances = parse_nvidia_smi_list(machine.run([program, "-L"]).stdout)
    return tuple(_with_instances(device, instances) for device in devices), driver


def _with_instances(device: Device, found: Mapping[str, list[dict[str, str]]]) -> Device:
    mig = device.facts.get("mig")
    if mig is None:
        return device
    instances = found.get(str(device.facts.get("uuid")), [])
    return replace(device, facts={**device.facts, "mig": {**mig, "instances": instances}})
