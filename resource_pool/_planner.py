"""Decides where a model goes and what must go for it. Pure: it sees a snapshot and touches none.

The order of the candidates is the caller's device, then the caller's ``priority_list``, or else
the family's, and the CPU last. The first that is there, suits the model and has room wins; room
includes what idle models would free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from resource_pool._eviction import MIB, choose
from resource_pool._hardware import CPU, CUDA, MPS, OPENVINO, ROCM, WEBGPU, WEBNN
from resource_pool._plans import (
    BROWSERS,
    DEVICE_TYPES,
    Decision,
    Request,
    Snapshot,
    memory_place,
    readable,
    torch_devices,
    torch_name,
)
from resource_pool._precisions import devices_of, dtype_for
from resource_pool._preferences import DeviceName, Preferences, parse_preferences
from resource_pool.errors import DeviceUnavailableError, InsufficientMemoryError

# OpenVINO keeps the compiled weights beside torch's; a browser has them in its engine's memory
# and in buffers.
_COPIES = {OPENVINO: 2, WEBGPU: 3, WEBNN: 3}
# What a browser's processes take, whatever the model: measured.
_BESIDE = {WEBGPU: 500 * MIB, WEBNN: 500 * MIB}

_NEEDS = "it needs "

# The share of a GPU's free memory that a spread model's weights may take.
SPREAD_SHARE = 0.9


def decide(request: Request, snapshot: Snapshot) -> Decision:
    """Choose device and dtype, and the models that must go.

    Raises:
        DeviceUnavailableError: ``force_device`` is set and the first choice cannot be had.
        InsufficientMemoryError: it fits nowhere, whatever idle model goes.
        DeviceUnavailableError: nothing suits it, for other reasons than memory.
    """
    notes: list[str] = []
    last_word, short = "", False
    for wanted in _candidates(request):
        obstacle = _obstacle(wanted, request, snapshot)
        chosen = obstacle or _fit(wanted, request, snapshot)
        if isinstance(chosen, Decision):
            told = (*notes, *chosen.notes)
            surprising = bool(told) and request.preferences.device is not None
            return replace(chosen, notes=told, surprising=surprising)
        if _is_forced(wanted, request.preferences) and not _has_stand_in(wanted, request):
            kind = InsufficientMemoryError if _is_shortage(chosen) else DeviceUnavailableError
            raise kind(f"{request.label}: {wanted} is forced and cannot be used: {chosen}.")
        last_word, short = chosen, short or _is_shortage(chosen)
        asked_for = _is_explicit(wanted, request.preferences) or wanted.backend in BROWSERS
        if asked_for or not obstacle:
            notes.append(f"{wanted} is not used: {chosen}")
    why = "; ".join(notes) or last_word
    if short:
        raise InsufficientMemoryError(f"{request.label} fits nowhere: {why}.")
    raise DeviceUnavailableError(f"{request.label} can be placed nowhere: {why}.")


def on_cpu(request: Request, snapshot: Snapshot) -> Decision:
    """Return the decision for the CPU whatever room there is: the last resort of a load."""
    dtype, note = dtype_for(DeviceName(CPU), request, snapshot.report)
    needed = _needed(DeviceName(CPU), dtype, request)
    return Decision(CPU, CPU, dtype, (note,) if note else (), needed=needed)


def _is_shortage(told: str) -> bool:
    return told.startswith(_NEEDS)


def explain(
    label: str, hardware_preferences: Mapping[str, Any] | None, report: Mapping[str, Any]
) -> Decision:
    """Return what an empty pool would decide for these preferences on the hardware of ``report``.

    Raises:
        PreferenceError: the preferences are not legal.
        DeviceUnavailableError: a forced device is not there.
    """
    free = {name: memory.free for name, memory in torch_devices(report).items() if memory}
    return decide(Request(label, parse_preferences(hardware_preferences)), Snapshot(report, free))


def _candidates(request: Request) -> Iterator[DeviceName]:
    preferences, barred = request.preferences, request.barred or {}
    named: list[DeviceName] = []
    for device in (*preferences.named, *_browsers(request)):
        named.append(device)
        if _has_stand_in(device, request):
            named.append(replace(device, index=None, simulated=True))
    if not preferences.named:
        named += [DeviceName(name) for name in request.family_priority if name not in barred]
    yield from dict.fromkeys((*named, DeviceName(CPU)))


def _browsers(request: Request) -> list[DeviceName]:
    """Return where a model that is meant for browsers goes when no device is named."""
    preferences, barred = request.preferences, request.barred or {}
    if preferences.named or not preferences.for_browsers:
        return []
    return [DeviceName(name) for name in request.browsers if name not in barred]


def _has_stand_in(wanted: DeviceName, request: Request) -> bool:
    """Whether a simulation may come after this device."""
    allowed = request.preferences.fallback_to_simulation and wanted.backend in BROWSERS
    return allowed and not wanted.simulated


def _is_explicit(wanted: DeviceName, preferences: Preferences) -> bool:
    if wanted.simulated:
        return any(named.backend == wanted.backend for named in preferences.named)
    return wanted in preferences.named


def _is_forced(wanted: DeviceName, preferences: Preferences) -> bool:
    """Whether nothing else will do; an automatic choice cannot be forced."""
    return preferences.force_device and _is_explicit(wanted, preferences)


def _obstacle(wanted: DeviceName, request: Request, snapshot: Snapshot) -> str:
    """Return why ``wanted`` cannot be used whatever memory there is, or ""."""
    preferences, backend = request.preferences, wanted.backend
    if wanted.simulated:
        return "" if snapshot.can_simulate else "its simulation needs onnx and onnxruntime"
    # The CPU is there whatever its probe says: this code runs on it.
    if backend != CPU and not snapshot.report["hardware"].get(backend, False):
        reason = snapshot.report.get("details", {}).get(backend, {}).get("reason")
        return (reason or f"{backend} is not available here").rstrip(".")
    if backend not in DEVICE_TYPES:
        return f"the pool does not place models on {backend} in this version"
    if _is_forced(wanted, preferences):
        return _missing_index(wanted, snapshot)
    if preferences.compatible_devices is not None and backend not in {
        device.backend for device in (*preferences.compatible_devices, DeviceName(CPU))
    }:
        return "it is not among compatible_devices"
    known = (preferences.hw_compatibility or {}).get(backend)
    if known and not known.compatible:
        return known.reason or "hw_compatibility says that it is not compatible"
    return ""


def _missing_index(wanted: DeviceName, snapshot: Snapshot) -> str:
    count = len(devices_of(wanted.backend, snapshot.report)) or 1
    if wanted.index is not None and wanted.index >= count:
        return f"there are {count} {wanted.backend} devices, numbered from 0"
    return ""


def _fit(wanted: DeviceName, request: Request, snapshot: Snapshot) -> Decision | str:
    """Return the decision for this backend, or why the model has no room on it."""
    tried = [
        _fit_one(replace(wanted, index=index), request, snapshot)
        for index in _indices(wanted, request, snapshot)
    ]
    fits = [decision for decision in tried if isinstance(decision, Decision)]
    if not fits:
        return _spread(wanted, request, snapshot) or next(w for w in tried if isinstance(w, str))
    asked = _asked_index(wanted, request.preferences)
    first = tried[0]
    # A device that was asked for by number may evict; else the first where nobody must go.
    best = first if asked is not None and isinstance(first, Decision) else fits[0]
    best = best if asked is not None else min(fits, key=lambda d: len(d.evict))
    obstacle = first if isinstance(first, str) else ""
    note = _note_on_index(wanted, best.device, request.preferences, snapshot, obstacle)
    warning = (request.barred or {}).get(wanted.backend) if wanted.backend != CPU else None
    warned = f"{wanted} does not suit this model: {warning}" if warning else ""
    return replace(best, notes=tuple(text for text in (warned, note, *best.notes) if text))


def _fit_one(device: DeviceName, request: Request, snapshot: Snapshot) -> Decision | str:
    """Return the decision for one device, or why the model has no room on it."""
    name = torch_name(device)
    dtype, note = dtype_for(device, request, snapshot.report)
    needed = _needed(device, dtype, request)
    place = memory_place(name)
    free = snapshot.free.get(place)
    decision = Decision(device.backend, name, dtype, (note,) if note else (), (), needed)
    if (name, dtype) in snapshot.cached:
        return replace(decision, cached=True)
    if name in snapshot.failed:
        return snapshot.failed[name]
    if name in snapshot.crowded and not request.preferences.force_device:
        return snapshot.crowded[name]
    if needed is None or free is None or needed <= free:
        return decision
    leaving = choose(snapshot.idle.get(place, ()), needed - free)
    if leaving is None:
        held = snapshot.held.get(place)
        rest = f", {held}" if held else ""
        return f"{_NEEDS}{readable(needed)}, {readable(free)} free{rest}"
    return replace(decision, evict=tuple(key for candidate in leaving for key in candidate.keys))


def _needed(device: DeviceName, dtype: str | None, request: Request) -> int | None:
    """Return the bytes that the model takes: the caller's word, or else the estimate."""
    known = (request.preferences.hw_compatibility or {}).get(device.backend)
    if known and known.peak_mb is not None:
        return int(known.peak_mb * MIB)
    # The module stays in float32 beside a browser's smaller file.
    held = "float32" if device.backend in BROWSERS else dtype
    estimated = request.needed(held) if request.needed else None
    if estimated is None:
        return None
    beside = 0 if device.simulated else _BESIDE.get(device.backend, 0)
    return estimated * _COPIES.get(device.backend, 1) + beside


def _spread(wanted: DeviceName, request: Request, snapshot: Snapshot) -> Decision | None:
    """Return a decision over several GPUs for a model that fits no single one, or None."""
    if (there := _spread_already(wanted, request, snapshot)) is not None:
        return there
    names = _names(wanted.backend, snapshot.report)
    # Some room for what a forward needs on each device.
    room = {name: int(SPREAD_SHARE * snapshot.free.get(name, 0)) for name in names}
    budgets = {n: size for n, size in room.items() if size and n not in snapshot.failed}
    asked = _asked_index(wanted, request.preferences)
    spreadable = snapshot.can_spread and wanted.backend in (CUDA, ROCM)
    if not spreadable or len(budgets) < 2 or asked is not None:
        return None
    dtype, _ = dtype_for(DeviceName(wanted.backend), request, snapshot.report)
    needed = _needed(wanted, dtype, request)
    if needed is None or needed > sum(budgets.values()):
        return None
    note = f"it needs {readable(needed)} and is spread over {', '.join(budgets)}"
    device = "+".join(budgets)
    return Decision(wanted.backend, device, dtype, (note,), (), needed, budgets)


def _spread_already(wanted: DeviceName, request: Request, snapshot: Snapshot) -> Decision | None:
    """Return the decision for an instance of the model that is spread over such devices."""
    if _asked_index(wanted, request.preferences) is not None:
        return None
    names = set(_names(wanted.backend, snapshot.report))
    wished, _ = dtype_for(DeviceName(wanted.backend), request, snapshot.report)
    for device, dtype in sorted(snapshot.cached, key=str):
        parts = device.split("+")
        if len(parts) > 1 and names.issuperset(parts) and dtype == wished:
            return Decision(wanted.backend, device, dtype, cached=True)
    return None


def _names(backend: str, report: Mapping[str, Any]) -> list[str]:
    """Return torch's names of a backend's devices that compute."""
    return [torch_name(DeviceName(backend, d["index"])) for d in devices_of(backend, report)]


def _asked_index(wanted: DeviceName, preferences: Preferences) -> int | None:
    return wanted.index if wanted.index is not None else preferences.preferred_index


def _indices(wanted: DeviceName, request: Request, snapshot: Snapshot) -> list[int | None]:
    """Return the indices to try: the one asked for, then the others by free memory."""
    preferences = request.preferences
    devices = devices_of(wanted.backend, snapshot.report)
    if wanted.backend in (CPU, MPS) or wanted.simulated or not devices:
        return [None]
    asked = _asked_index(wanted, preferences)

    def rank(device: Mapping[str, Any]) -> tuple[bool, bool, float, int]:
        index = device["index"]
        name = torch_name(DeviceName(wanted.backend, index))
        free = snapshot.free.get(name, (device.get("memory_free_mb") or 0) * MIB)
        # On a tie the lowest number, as the vendors count.
        dtype, _ = dtype_for(DeviceName(wanted.backend, index), request, snapshot.report)
        return index != asked, (name, dtype) not in snapshot.cached, -free, index

    ranked = [device["index"] for device in sorted(devices, key=rank)]
    return ranked[:1] if preferences.force_device and wanted.index is not None else ranked


def _note_on_index(
    wanted: DeviceName, got: str, preferences: Preferences, snapshot: Snapshot, obstacle: str
) -> str:
    asked = _asked_index(wanted, preferences)
    _, _, index = got.partition(":")
    if wanted.index and not index.isdigit() and not wanted.simulated:
        return f"{wanted} is not used: there is one {wanted.backend}, without a number"
    if asked is None or not index.isdigit() or int(index) == asked:
        return ""
    missing = _missing_index(replace(wanted, index=asked), snapshot)
    return f"{wanted.backend}:{asked} is not used: {missing or obstacle}"
