"""Fakes for tests: machines that are not here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from hardware_detection import names, service
from hardware_detection.errors import UnknownHardwareError
from hardware_detection.record import Detection, Device, ProbeResult
from hardware_detection.report import build_report

_GPU_DTYPES = ("fp32", "bf16", "fp16", "int8")


def fake_report(
    *,
    cpu: Mapping[str, Any] | None = None,
    errors: Mapping[str, str] | None = None,
    memory_total_mb: float = 16384.0,
    memory_available_mb: float = 8192.0,
    **backends: bool | Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the report that detection would give on a machine with these devices.

    Args:
        cpu: facts of the CPU that differ from a plain one (isa_extensions, logical_cores, …).
        errors: backend -> reason, for backends that are here but unusable.
        memory_total_mb: the system's memory, in MiB.
        memory_available_mb: what of it is free.
        **backends: what else is here, by its name. ``mps=True``: one device of which nothing
            more is known. ``cuda=[{...}]``: one mapping per device, with any of name,
            memory_total_mb, memory_free_mb (all of it by default), dtypes, and further facts
            such as compute_capability.

    Raises:
        UnknownHardwareError: no backend has this name.
    """
    for name in backends:
        if name not in names.HARDWARE_NAMES:
            raise UnknownHardwareError(name, names.HARDWARE_NAMES)
    facts = {"architecture": "x86_64", "isa_extensions": ["avx2"], "physical_cores": 4}
    facts |= {"logical_cores": 8, "usable_cores": 8, **(cpu or {})}
    processor = Device(0, "Fake CPU", memory_total_mb, memory_available_mb, _GPU_DTYPES)
    devices = {name: _fake_devices(name, told) for name, told in backends.items()}
    devices[names.CPU] = (processor,)
    results = tuple(
        _fake_result(name, devices.get(name, ()), facts, (errors or {}).get(name))
        for name in names.HARDWARE_NAMES
    )
    return build_report(
        Detection(results, {"fake": True}, datetime.now(timezone.utc)),
        from_cache=False,
        age_seconds=0.0,
        memory_mb=(memory_total_mb, memory_available_mb),
        gpu_free_mb={},
    )


@contextmanager
def use_report(report: Mapping[str, Any]) -> Iterator[None]:
    """Make every detection in this process, in all threads, return a copy of ``report``."""
    with service.replaced_by(report):
        yield


def _fake_devices(name: str, told: bool | Sequence[Mapping[str, Any]]) -> tuple[Device, ...]:
    if isinstance(told, bool):
        return (Device(0, f"Fake {name}", dtypes=("fp32",)),) if told else ()
    return tuple(_fake_gpu(index, row) for index, row in enumerate(told))


def _fake_gpu(index: int, row: Mapping[str, Any]) -> Device:
    facts = dict(row)
    total = facts.pop("memory_total_mb", 24576.0)
    return Device(
        index=index,
        name=facts.pop("name", "Fake GPU"),
        memory_total_mb=total,
        memory_free_mb=facts.pop("memory_free_mb", total),
        dtypes=tuple(facts.pop("dtypes", _GPU_DTYPES)),
        facts=facts,
    )


def _fake_result(
    name: str, devices: tuple[Device, ...], cpu_facts: Mapping[str, Any], error: str | None
) -> ProbeResult:
    if error is not None:
        return ProbeResult(name, "unusable", error)
    facts = cpu_facts if name == names.CPU else {}
    if devices:
        return ProbeResult(name, "available", "a fake for tests", devices, facts)
    return ProbeResult(name, "absent", "not in this fake", (), facts)
