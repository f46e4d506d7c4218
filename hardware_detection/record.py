"""What a probe found out: frozen records, and their JSON form, which is checked when read back.

The check is written out by hand: a schema library costs more to import than the whole reading
of a cache may take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from hardware_detection.names import HARDWARE_NAMES

Status = Literal["available", "absent", "unusable", "error"]

#: What can have computed in a browser; see ``probes._browser``.
ADAPTERS = ("hardware", "unknown", "software")

# More than any machine has; what is above is not a size.
MOST_MEBIBYTES = 1e12


class RecordError(ValueError):
    """A mapping that was read from a file is not a record; the message names the place."""


@dataclass(frozen=True)
class Device:
    """One device of a backend.

    Attributes:
        index: the number by which the backend's runtime knows it (``cuda:1`` -> 1).
        name: as the vendor names it; "unknown" where nothing tells.
        memory_total_mb: MiB, or None where it is not known.
        memory_free_mb: MiB at the time of detection, or None.
        dtypes: the number formats in which a small matrix product ran here and came out right.
            Empty: the device was seen, nothing was proved.
        problem: why nothing was proved, for people; empty where something was.
        facts: what else is known (compute_capability, uuid, isa_extensions, …), JSON values.
    """

    index: int
    name: str
    memory_total_mb: float | None = None
    memory_free_mb: float | None = None
    dtypes: tuple[str, ...] = ()
    problem: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeResult:
    """What one probe found out.

    Attributes:
        name: the backend.
        status: "available": a computation ran there and its result was checked; "absent":
            it is not here; "unusable": something of it is here, but nothing can compute on it;
            "error": the probe itself could not find out.
        reason: one sentence, with the remedy where there is one.
        devices: in the order of their index.
        facts: what is known of the backend as a whole (versions, driver), JSON values.
        sources: fact -> where it comes from ("/proc/cpuinfo", "torch", …), for device facts too.
        retry: something that was tried here failed (a computation, a child process), and may not
            when it is tried again: memory was full, the disk slow, a device held by somebody.
    """

    name: str
    status: Status
    reason: str
    devices: tuple[Device, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False

    def __post_init__(self) -> None:
        """Refuse the one lie that matters: available without a proof."""
        if (self.status == "available") != any(device.dtypes for device in self.devices):
            raise RecordError(
                f"{self.name}: status {self.status!r} does not agree with the proofs of its devices"
            )


@dataclass(frozen=True)
class Detection:
    """What all probes found.

    Attributes:
        results: one record per backend, in the order of ``HARDWARE_NAMES``.
        fingerprint: the facts on which the results depend.
        detected_at: when, in UTC.
    """

    results: tuple[ProbeResult, ...]
    fingerprint: Mapping[str, Any]
    detected_at: datetime


def to_json(result: ProbeResult) -> dict[str, Any]:
    """Return the record as plain lists, mappings and scalars."""
    return asdict(result)


def from_json(data: object) -> ProbeResult:
    """Return the record that ``to_json`` made ``data`` from.

    Raises:
        RecordError: ``data`` is anything else.
    """
    row = _mapping(data, "record", set(ProbeResult.__dataclass_fields__))
    name, status = row["name"], row["status"]
    _require(name in HARDWARE_NAMES, "record: name")
    _require(status in get_args(Status), f"{name}: status")
    sources = _mapping(row["sources"], f"{name}: sources")
    _require(all(isinstance(value, str) for value in sources.values()), f"{name}: sources")
    _require(isinstance(row["retry"], bool), f"{name}: retry")
    return ProbeResult(
        name=name,
        status=status,
        reason=_text(row["reason"], f"{name}: reason"),
        devices=tuple(_device(item, name) for item in _list(row["devices"], f"{name}: devices")),
        facts=_mapping(row["facts"], f"{name}: facts"),
        sources=sources,
        retry=row["retry"],
    )


def _device(data: object, backend: str) -> Device:
    where = f"{backend}: device"
    row = _mapping(data, where, set(Device.__dataclass_fields__))
    index = row["index"]
    _require(type(index) is int and index >= 0, f"{where}: index")
    return Device(
        index=index,
        name=_text(row["name"], f"{where}: name"),
        memory_total_mb=_size(row["memory_total_mb"], f"{where}: memory_total_mb"),
        memory_free_mb=_size(row["memory_free_mb"], f"{where}: memory_free_mb"),
        dtypes=tuple(_text(item, f"{where}: dtypes") for item in _list(row["dtypes"], where)),
        problem=_text(row["problem"], f"{where}: problem"),
        facts=_mapping(row["facts"], f"{where}: facts"),
    )


def _require(condition: bool, where: str) -> None:
    if not condition:
        raise RecordError(f"{where} is not as rp writes it")


def _mapping(data: object, where: str, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(data, dict) or (keys is not None and set(data) != keys):
        raise RecordError(f"{where} is not as rp writes it")
    return data


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise RecordError(f"{where} is not as rp writes it")
    return data


def _text(data: object, where: str) -> str:
    if not isinstance(data, str):
        raise RecordError(f"{where} is not as rp writes it")
    return data


def _size(data: object, where: str) -> float | None:
    if data is None:
        return None
    if isinstance(data, bool) or not isinstance(data, (int, float)):
        raise RecordError(f"{where} is not as rp writes it")
    _require(0 <= data <= MOST_MEBIBYTES, where)  # false for NaN too
    return data
