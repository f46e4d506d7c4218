"""Which dtype a model is cast to on a device: what was asked, where it was proved to work there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resource_pool._plans import BROWSERS, ENGINES, Request
from resource_pool._preferences import PRECISIONS, DeviceName, Preferences
from resource_pool.errors import DeviceUnavailableError


def dtype_for(
    wanted: DeviceName, request: Request, report: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Return the dtype to cast to, and a note where the asked one is not there."""
    asked = request.preferences.precision or _smaller_for_browsers(wanted, request, report)
    own = "float32" if wanted.backend in ENGINES else None
    if asked is None:
        return own, ""
    if wanted.backend in BROWSERS:
        # Weights in int8 are floats again before anything computes with them.
        proved: set[str] | None = {"float32", "int8"} | _halves(wanted, report)
    else:
        # int8 needs quantized layers, which a cast does not make.
        proved = proved_dtypes(wanted, report) if asked != "int8" else set()
    if proved is None or asked in proved:
        return asked, ""
    if _is_forced_backend(wanted, request.preferences):
        raise DeviceUnavailableError(
            f"{request.label}: {asked} is forced and does not work on {wanted}."
        )
    kept = "it computes in float32" if own else "the model keeps its own dtype"
    return own, f"{asked} does not work on {wanted}; {kept}"


def _smaller_for_browsers(
    wanted: DeviceName, request: Request, report: Mapping[str, Any]
) -> str | None:
    """Return the precision that makes a browser's file smaller, where that is wanted."""
    if wanted.backend not in BROWSERS or not request.preferences.shrinks_for_browsers:
        return None
    return next(iter(_halves(wanted, report)), "int8")


def _halves(wanted: DeviceName, report: Mapping[str, Any]) -> set[str]:
    """Return float16 where a real browser computed in it."""
    real = set() if wanted.simulated else proved_dtypes(wanted, report) or set()
    return real & {"float16"}


def devices_of(backend: str, report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the devices that compute; a report also lists those that were merely seen."""
    seen = report.get("details", {}).get(backend, {}).get("devices") or ()
    return [device for device in seen if device.get("dtypes")]


def proved_dtypes(wanted: DeviceName, report: Mapping[str, Any]) -> set[str] | None:
    """Return torch's names of the dtypes that were proved on a device; None where unknown."""
    for device in devices_of(wanted.backend, report):
        if wanted.index in (None, device["index"]):
            return {PRECISIONS[name] for name in device["dtypes"] if name in PRECISIONS}
    return None


def _is_forced_backend(device: DeviceName, preferences: Preferences) -> bool:
    return preferences.force_device and any(d.backend == device.backend for d in preferences.named)
