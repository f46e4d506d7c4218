"""Machines that are not here: written by ``rp detect --export`` or by hand, read to plan for.

The file is a JSON object::

    {
      "rp_machine": 1,
      "name": "eight small GPUs",
      "memory_total_mb": 262144,
      "devices": {"cuda": [{"name": "RTX 4090", "memory_total_mb": 24576, "count": 8}]}
    }

``devices`` maps a backend to its devices in their order: any of name, memory_total_mb,
memory_free_mb (all of it unless said), dtypes (the backend's usual ones unless said) and further
facts; ``count`` repeats one. A CPU is always there. Further keys of the file: memory_available_mb,
platform, architecture, python. Sizes are in MiB.

Nothing in such a file has been proved here, and the report says so wherever it can: its
``described_by`` is the file, its reasons name it, and ``best_available`` is a plan.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hardware_detection import cache, service
from hardware_detection.errors import HardwareCacheError, HardwareDescriptionError
from hardware_detection.files import write_atomically
from hardware_detection.names import CPU, GPUS, HARDWARE_NAMES
from hardware_detection.record import ADAPTERS, MOST_MEBIBYTES, Detection, Device, ProbeResult
from hardware_detection.report import build_report, printable

FORMAT = 1
_KEYS = {
    "rp_machine",
    "name",
    "exported_at",
    "platform",
    "architecture",
    "python",
    "memory_total_mb",
    "memory_available_mb",
    "devices",
}
_DEVICE_KEYS = ("name", "memory_total_mb", "memory_free_mb", "dtypes", "count")
# What a report adds to each device, and what a reader of the file must not take for a fact.
_NOT_FACTS = {"index", "memory_free_age_seconds", "problem", "dtypes_failed", "flags"}
# There is one CPU, and a report has its facts beside its devices and not among them.
_CPU_FACTS = (
    "microarchitecture",
    "isa_extensions",
    "sockets",
    "physical_cores",
    "logical_cores",
    "usable_cores",
)
_COUNT = (lambda value: type(value) is int and value > 0, "a whole number from 1 up")
_TEXT = (lambda value: isinstance(value, str), "a text")
_TEXTS = (
    lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "a list of texts",
)
_MIG = (
    lambda value: (
        isinstance(value, dict)
        and isinstance(value.get("enabled"), bool)
        and isinstance(value.get("instances"), list)
        and all(isinstance(row, dict) for row in value["instances"])
    ),
    'an object with "enabled" and "instances"',
)
_OBJECT = (lambda value: isinstance(value, dict), "an object")
# What the published schema says of facts; anything may be said under other names.
_KNOWN_FACTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("sockets", "physical_cores", "logical_cores", "usable_cores"), _COUNT),
    **dict.fromkeys(("uuid", "compute_capability", "gcn_arch"), _TEXT),
    **dict.fromkeys(("isa_extensions", "features"), _TEXTS),
    "limits": _OBJECT,
    "mig": _MIG,
    "tensor_cores": (lambda value: isinstance(value, bool), "true or false"),
    "adapter": (lambda value: value in ADAPTERS, f"one of {', '.join(ADAPTERS)}"),
}
_MOST_DEVICES = 1024
_USUAL_MEMORY_MB = 16384.0


def describe(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of the machine that a report is about."""
    system = report["system"]
    return {
        "rp_machine": FORMAT,
        "name": system["hostname"],
        "exported_at": report["detected_at"],
        "platform": system["platform"],
        "architecture": system["architecture"],
        "python": system["python"],
        "memory_total_mb": system["memory_total_mb"],
        "memory_available_mb": system["memory_available_mb"],
        "devices": {
            name: [_exported(row, details) for row in details["devices"] if row["dtypes"]]
            for name, details in report["details"].items()
            if details["status"] == "available"
        },
    }


def export(report: Mapping[str, Any], path: Path) -> None:
    """Write the description of a report's machine.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, json.dumps(describe(report), indent=2, ensure_ascii=False) + "\n")


def load(path: str | Path) -> dict[str, Any]:
    """Return the report of the machine that a file describes.

    Raises:
        HardwareDescriptionError: the file cannot be read, or describes no machine.
    """
    try:
        data = cache.read(Path(path), "machine description")
    except HardwareCacheError as error:
        raise HardwareDescriptionError(str(error)) from error
    if data is None:
        raise HardwareDescriptionError(
            f"the machine description {path} does not exist;"
            " `rp detect --export FILE` writes one of this machine"
        )
    try:
        return report_of(data, str(path))
    except ValueError as error:
        raise HardwareDescriptionError(
            f"the machine description {path} is not usable: {error}"
        ) from None


@contextmanager
def use_described_hardware(path: str | Path) -> Iterator[dict[str, Any]]:
    """Make every detection in this process return the machine that a file describes.

    Yields the report. Nothing is detected inside; caches are neither read nor written.

    Raises:
        HardwareDescriptionError: the file cannot be read, or describes no machine.
    """
    report = load(path)
    with service.replaced_by(report):
        yield report


def report_of(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the report of a description.

    Raises:
        ValueError: it is none; the message says where and why.
    """
    if data.get("rp_machine") != FORMAT:
        raise ValueError(f'it needs "rp_machine": {FORMAT}')
    if set(data) - _KEYS:
        raise ValueError(f"unknown key {sorted(set(data) - _KEYS)[0]!r}")
    rows = data.get("devices")
    if not isinstance(rows, dict):
        raise ValueError('"devices" must map backends to lists of devices')
    for name in rows:
        if name not in HARDWARE_NAMES:
            raise ValueError(f"unknown backend {name!r}; use one of {', '.join(HARDWARE_NAMES)}")
    total = _size(data, "memory_total_mb", _USUAL_MEMORY_MB)
    available = _size(data, "memory_available_mb", total)
    if available > total:
        raise ValueError("memory_available_mb is more than memory_total_mb")
    results = tuple(
        _result(name, _devices(rows.get(name, []), name, total), source) for name in HARDWARE_NAMES
    )
    detection = Detection(results, {"described_by": source}, datetime.now(timezone.utc))
    report = build_report(
        detection,
        from_cache=False,
        age_seconds=0.0,
        memory_mb=(total, available),
        gpu_free_mb={},
    )
    names = {"platform": "platform", "architecture": "architecture", "python": "python"}
    said = {key: _text(data, key, "unknown") for key in names} | {
        "hostname": _text(data, "name", "unknown")
    }
    return {**report, "described_by": source, "system": {**report["system"], **said}}


def _exported(row: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    of_cpu = {key: details[key] for key in _CPU_FACTS if details.get(key) is not None}
    return {key: value for key, value in row.items() if key not in _NOT_FACTS} | of_cpu


def _result(name: str, devices: tuple[Device, ...], source: str) -> ProbeResult:
    if not devices:
        return ProbeResult(name, "absent", f"not in the machine description {source}")
    reason = f"described by {source}, not detected here"
    of_backend = _CPU_FACTS if name == CPU else ("adapter",)
    facts = {key: value for key, value in devices[0].facts.items() if key in of_backend}
    return ProbeResult(name, "available", reason, devices, facts)


def _devices(rows: Any, name: str, memory_mb: float) -> tuple[Device, ...]:
    if not isinstance(rows, list):
        raise ValueError(f"the devices of {name} must be a list")
    if name == CPU and not rows:
        rows = [{}]
    repeated: list[Device] = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"a device of {name} must be an object")
        for _ in range(_count(row, name)):
            repeated.append(_device(row, len(repeated), name, memory_mb))
            if len(repeated) > _MOST_DEVICES:
                raise ValueError(f"more than {_MOST_DEVICES} devices of {name}")
    return tuple(repeated)


def _device(row: Mapping[str, Any], index: int, name: str, memory_mb: float) -> Device:
    if name in GPUS and "memory_total_mb" not in row:
        raise ValueError(f"a device of {name} needs memory_total_mb")
    total = _size(row, "memory_total_mb", memory_mb if name == CPU else None)
    free = _size(row, "memory_free_mb", total)
    if total is not None and free is not None and free > total:
        raise ValueError(f"a device of {name} has more memory_free_mb than memory_total_mb")
    facts = {key: value for key, value in row.items() if key not in (*_DEVICE_KEYS, *_NOT_FACTS)}
    _check_facts(facts, name)
    return Device(
        index=index,
        name=_text(row, "name", f"described {name}"),
        memory_total_mb=total,
        memory_free_mb=free,
        dtypes=_dtypes(row, name),
        facts=facts,
    )


def _check_facts(facts: Mapping[str, Any], name: str) -> None:
    """Refuse a fact that others rely on and that is not of its kind."""
    for key, (is_right, what) in _KNOWN_FACTS.items():
        if key in facts and not is_right(facts[key]):
            raise ValueError(f"{key} of {name} must be {what}")


def _dtypes(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    usual = ["fp32", "bf16", "fp16"] if name in (CPU, *GPUS) else ["fp32"]
    found = row.get("dtypes", usual)
    if not found or not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError(f'"dtypes" of {name} must be a list of names such as "fp16"')
    return tuple(found)


def _count(row: Mapping[str, Any], name: str) -> int:
    count = row.get("count", 1)
    if type(count) is not int or not 1 <= count <= _MOST_DEVICES:
        raise ValueError(f'"count" of {name} must be a whole number from 1 to {_MOST_DEVICES}')
    return count


def _size(row: Mapping[str, Any], key: str, default: Any) -> Any:
    value = row.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number of MiB")
    if not 0 <= value <= MOST_MEBIBYTES:  # false for NaN too
        raise ValueError(f"{key} is no size in MiB")
    return float(value)


def _text(row: Mapping[str, Any], key: str, default: str) -> str:
    value = row.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text")
    return printable(value)
