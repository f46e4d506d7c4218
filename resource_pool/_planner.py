"""Decides where a model goes. Pure: it sees a report of the hardware and touches none of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resource_pool._hardware import CPU, CUDA, MPS, ROCM
from resource_pool._preferences import (
    PRECISIONS,
    DeviceName,
    Preferences,
    parse_preferences,
)
from resource_pool.errors import DeviceUnavailableError

# The backends that the pool can put a torch module on, with torch's name of the device type.
TORCH_DEVICE_TYPES = {CPU: "cpu", CUDA: "cuda", ROCM: "cuda", MPS: "mps"}


@dataclass(frozen=True)
class Request:
    """What is asked for, and what the classifier knows about the model's family.

    Attributes:
        family_priority: backends, best first, for a request without a device or a list.
        barred: backend -> reason, for the backends that do not suit the family; they are
            not chosen automatically, and tried with a warning when the caller names one.
    """

    label: str
    preferences: Preferences
    family_priority: tuple[str, ...] = (CPU,)
    barred: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Decision:
    """Where the model goes.

    Attributes:
        backend: rp's name of the hardware, e.g. "rocm".
        device: torch's name, e.g. "cuda:0".
        dtype: torch's name of the dtype to cast to, or None to keep the constructor's.
        notes: why it is not what was asked for, one sentence each; empty when it is.
    """

    backend: str
    device: str
    dtype: str | None
    notes: tuple[str, ...] = ()


def decide(request: Request, report: Mapping[str, Any]) -> Decision:
    """Choose device and dtype for a request on the hardware of a detection report.

    The order is the caller's device, then the caller's ``priority_list``, or else the
    family's, and the CPU last.

    Raises:
        DeviceUnavailableError: ``force_device`` is set and the first choice cannot be had.
    """
    preferences = request.preferences
    notes: list[str] = []
    for wanted in _candidates(request):
        obstacle = _obstacle(wanted, request, report)
        if obstacle is None:
            break
        if preferences.force_device:
            raise DeviceUnavailableError(
                f"{request.label}: {wanted} is forced and cannot be used: {obstacle}."
            )
        if _is_explicit(wanted, preferences):
            notes.append(f"{wanted} is not used: {obstacle}")
    else:
        wanted = DeviceName(CPU)
    index, index_note = _index(wanted, preferences, report)
    warning = (request.barred or {}).get(wanted.backend)
    if warning and wanted.backend != CPU:
        notes.append(f"{wanted} does not suit this model: {warning}")
    dtype, dtype_note = _dtype(DeviceName(wanted.backend, index), request, report)
    notes += [note for note in (index_note, dtype_note) if note]
    return Decision(wanted.backend, _torch_name(wanted.backend, index), dtype, tuple(notes))


def explain(
    label: str, hardware_preferences: Mapping[str, Any] | None, report: Mapping[str, Any]
) -> Decision:
    """Return what the pool would decide for these preferences on the hardware of ``report``.

    Raises:
        PreferenceError: the preferences are not legal.
        DeviceUnavailableError: a forced device is not there.
    """
    return decide(Request(label, parse_preferences(hardware_preferences)), report)


def _candidates(request: Request) -> Iterator[DeviceName]:
    preferences = request.preferences
    if preferences.device:
        yield preferences.device
    if preferences.priority_list:
        yield from preferences.priority_list
    elif not preferences.device:
        barred = request.barred or {}
        yield from (DeviceName(name) for name in request.family_priority if name not in barred)
    yield DeviceName(CPU)


def _is_explicit(wanted: DeviceName, preferences: Preferences) -> bool:
    return wanted == preferences.device or wanted in preferences.priority_list


def _obstacle(wanted: DeviceName, request: Request, report: Mapping[str, Any]) -> str | None:
    """Return why ``wanted`` cannot be used, or None."""
    preferences, backend = request.preferences, wanted.backend
    if not report["hardware"].get(backend, False):
        reason = report.get("details", {}).get(backend, {}).get("reason")
        return (reason or f"{backend} is not available here").rstrip(".")
    if backend not in TORCH_DEVICE_TYPES:
        return f"the pool does not place models on {backend} in this version"
    if preferences.force_device:
        return _missing_index(wanted, report)
    if preferences.compatible_devices is not None and backend not in {
        device.backend for device in (*preferences.compatible_devices, DeviceName(CPU))
    }:
        return "it is not among compatible_devices"
    known = (preferences.hw_compatibility or {}).get(backend)
    if known is None:
        return None
    if not known.compatible:
        return known.reason or "hw_compatibility says that it is not compatible"
    return _too_small(wanted, known.peak_mb, preferences, report)


def _missing_index(wanted: DeviceName, report: Mapping[str, Any]) -> str | None:
    count = len(_devices(wanted.backend, report)) or 1
    if wanted.index is not None and wanted.index >= count:
        return f"there are {count} {wanted.backend} devices, numbered from 0"
    return None


def _too_small(
    wanted: DeviceName, peak_mb: float | None, preferences: Preferences, report: Mapping[str, Any]
) -> str | None:
    index, _ = _index(wanted, preferences, report)
    devices = {device.get("index"): device for device in _devices(wanted.backend, report)}
    free_mb = devices.get(index, {}).get("memory_free_mb")
    if peak_mb is None or free_mb is None or peak_mb <= free_mb:
        return None
    return f"it needs {peak_mb:.0f} MB and {free_mb:.0f} MB are free"


def _index(
    wanted: DeviceName, preferences: Preferences, report: Mapping[str, Any]
) -> tuple[int | None, str]:
    """Return the device index, and a note where it is not the one that was asked for."""
    devices = _devices(wanted.backend, report)
    if wanted.backend in (CPU, MPS) or not devices:
        return None, ""
    asked = wanted.index if wanted.index is not None else preferences.preferred_index
    known = [device["index"] for device in devices]
    if asked in known:
        return asked, ""
    # The most free memory first; on a tie the lowest number, as the vendors count.
    best = max(devices, key=lambda d: (d.get("memory_free_mb") or 0, -d["index"]))["index"]
    if asked is None:
        return best, ""
    return best, f"there is no {wanted.backend}:{asked}; {wanted.backend}:{best} has the most room"


def _dtype(
    wanted: DeviceName, request: Request, report: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Return the dtype to cast to, and a note where the asked one is not there."""
    asked = request.preferences.precision
    if asked is None:
        return None, ""
    proved = _proved_dtypes(wanted, report)
    # int8 needs quantized layers, which a cast does not make.
    if asked != "int8" and (proved is None or asked in proved):
        return asked, ""
    if request.preferences.force_device:
        raise DeviceUnavailableError(
            f"{request.label}: {asked} is forced and does not work on {wanted}."
        )
    return None, f"{asked} does not work on {wanted}; the model keeps its own dtype"


def _devices(backend: str, report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the devices that compute; a report also lists those that were merely seen."""
    seen = report.get("details", {}).get(backend, {}).get("devices") or ()
    return [device for device in seen if device.get("dtypes")]


def _proved_dtypes(wanted: DeviceName, report: Mapping[str, Any]) -> set[str] | None:
    """Return torch's names of the dtypes that were proved on a device; None where unknown."""
    for device in _devices(wanted.backend, report):
        if wanted.index in (None, device["index"]):
            return {PRECISIONS[name] for name in device["dtypes"] if name in PRECISIONS}
    return None


def _torch_name(backend: str, index: int | None) -> str:
    kind = TORCH_DEVICE_TYPES[backend]
    return kind if index is None else f"{kind}:{index}"
