"""Hardware preferences: the dictionary of the public API, checked and made exact."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from resource_pool._hardware import HARDWARE_NAMES
from resource_pool.errors import PreferenceError

_MAX_INDEX_DIGITS = 4
_MOST_MB = 1e12  # an exabyte
#: The subfamily of models that are meant for browsers.
WEB_DEPLOYMENT = "web_deployment"
ENVIRONMENT_VARIABLE = "TEST_HARDWARE_PREFERENCES"

# What people write -> torch's name of the dtype.
PRECISIONS = {
    "fp32": "float32",
    "float32": "float32",
    "fp16": "float16",
    "float16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "int8": "int8",
}


@dataclass(frozen=True)
class DeviceName:
    """A device as a user writes it: "cuda", "cuda:1", "cpu". ``index`` is None for "any".

    ``simulated`` is set for what stands in for a browser; users write it by
    ``fallback_to_simulation``.
    """

    backend: str
    index: int | None = None
    simulated: bool = False

    def __str__(self) -> str:
        if self.simulated:
            return f"{self.backend}:simulation"
        return self.backend if self.index is None else f"{self.backend}:{self.index}"


class Compatibility(NamedTuple):
    """What the caller knows about a model on one backend. ``peak_mb``: needed memory in MB."""

    compatible: bool = True
    peak_mb: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Preferences:
    """The checked form of ``hardware_preferences``; see docs/preferences.md for each key."""

    device: DeviceName | None = None
    priority_list: tuple[DeviceName, ...] = ()
    preferred_index: int | None = None
    compatible_devices: tuple[DeviceName, ...] | None = None
    hw_compatibility: Mapping[str, Compatibility] | None = None
    force_device: bool = False
    force_low_memory: bool = False
    precision: str | None = None
    model_family: str | None = None
    subfamily: str | None = None
    fallback_to_simulation: bool = False
    browser_optimized: bool | None = None
    description: str | None = None

    @property
    def for_browsers(self) -> bool:
        """Whether the model is meant for browsers, and may go to one unnamed."""
        return self.subfamily == WEB_DEPLOYMENT

    @property
    def shrinks_for_browsers(self) -> bool:
        """Whether a browser gets a smaller file than float32 makes."""
        asked = self.browser_optimized
        return self.for_browsers if asked is None else asked

    @property
    def named(self) -> tuple[DeviceName, ...]:
        """The devices that the caller names, in order."""
        return (*((self.device,) if self.device else ()), *self.priority_list)


def parse_device(value: Any) -> DeviceName:
    """Return the device that ``value`` ("cuda:1", a torch.device) names.

    Raises:
        PreferenceError: no backend has that name, or the index is not a number.
    """
    backend, _, index = str(value).strip().lower().partition(":")
    if backend not in HARDWARE_NAMES:
        raise PreferenceError(
            f"Unknown device {str(value)[:40]!r}{_nearest(backend[:40], HARDWARE_NAMES)}; "
            f"known: {', '.join(HARDWARE_NAMES)}; as the one device also auto."
        )
    if index and not (index.isascii() and index.isdigit() and len(index) <= _MAX_INDEX_DIGITS):
        raise PreferenceError(
            f"Device {str(value)[:40]!r} has no valid index; write e.g. {backend}:1."
        )
    return DeviceName(backend, int(index) if index else None)


def parse_preferences(given: Mapping[str, Any] | None) -> Preferences:
    """Check a ``hardware_preferences`` dictionary.

    Raises:
        PreferenceError: an unknown key (the message names the nearest), or a wrong value.
    """
    if given is None:
        return Preferences()
    if not isinstance(given, Mapping):
        raise PreferenceError(f"hardware_preferences must be a dict, not {type(given).__name__}.")
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _PARSERS:
            raise PreferenceError(
                f"Unknown hardware preference {key!r}{_nearest(str(key), _PARSERS)}; "
                f"known: {', '.join(_PARSERS)}."
            )
        checked[key] = _PARSERS[key](key, value)
    return Preferences(**checked)


def preferences_from_environment(default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preferences of ``TEST_HARDWARE_PREFERENCES`` where it is set, else ``default``.

    The variable holds a dictionary as JSON or as a Python literal (``str(dict)``); it is read
    as data and never evaluated.

    Raises:
        PreferenceError: the variable holds anything else.
    """
    text = os.environ.get(ENVIRONMENT_VARIABLE, "").strip()
    if not text:
        return dict(default)
    value = _read_literal(text)
    if not isinstance(value, dict):
        raise PreferenceError(
            f"{ENVIRONMENT_VARIABLE} must hold a dictionary, as JSON or a Python literal; "
            f"it holds {text[:60]!r}."
        )
    parse_preferences(value)
    return value


def _read_literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _device(key: str, value: Any) -> DeviceName | None:  # noqa: ARG001
    return None if value is None or str(value).lower() == "auto" else parse_device(value)


def _devices(key: str, value: Any) -> tuple[DeviceName, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise PreferenceError(f"{key} must be a list of devices, not {value!r}.")
    return tuple(parse_device(item) for item in value)


def _index(key: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise PreferenceError(f"{key} must be a whole number from 0 up, not {value!r}.")


def _flag(key: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise PreferenceError(f"{key} must be True or False, not {value!r}.")


def _text(key: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise PreferenceError(f"{key} must be a text, not {value!r}.")


def _precision(key: str, value: Any) -> str | None:
    if value is None or str(value).lower() == "auto":
        return None
    name = PRECISIONS.get(str(value).lower().removeprefix("torch."))
    if name is None:
        raise PreferenceError(
            f"Unknown {key} {str(value)!r}{_nearest(str(value), PRECISIONS)}; "
            "known: fp32, fp16, bf16, int8, None."
        )
    return name


def _compatibility(key: str, value: Any) -> dict[str, Compatibility]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PreferenceError(f"{key} must be a dict by hardware name, not {value!r}.")
    return {_backend(key, name): _cell(key, name, cell) for name, cell in value.items()}


def _backends(key: str, value: Any) -> tuple[DeviceName, ...] | None:
    if value is None:
        return None
    return tuple(DeviceName(_backend(key, item)) for item in _devices(key, value))


def _backend(key: str, value: Any) -> str:
    device = parse_device(value)
    if device.index is not None:
        raise PreferenceError(
            f"{key} is about all devices of a kind: write {device.backend!r}, not {str(device)!r}; "
            "preferred_index picks one of several."
        )
    return device.backend


def _cell(key: str, name: Any, cell: Any) -> Compatibility:
    usage = cell.get("memory_usage") or {} if isinstance(cell, Mapping) else None
    if not isinstance(usage, Mapping):
        raise PreferenceError(
            f"{key}[{name!r}] must be a dict such as "
            '{"compatible": True, "memory_usage": {"peak": 1200}} with the peak in MB.'
        )
    peak = usage.get("peak")
    number = isinstance(peak, (int, float)) and not isinstance(peak, bool)
    if peak is not None and not (number and 0 <= peak <= _MOST_MB):
        raise PreferenceError(f"{key}[{name!r}]: memory_usage.peak must be a number of MB.")
    flag = _flag(f"{key}[{name!r}].compatible", cell.get("compatible", True))
    return Compatibility(flag, peak, str(cell.get("reason") or ""))


_PARSERS: dict[str, Any] = {
    "device": _device,
    "priority_list": _devices,
    "preferred_index": _index,
    "compatible_devices": _backends,
    "hw_compatibility": _compatibility,
    "force_device": _flag,
    "force_low_memory": _flag,
    "precision": _precision,
    "model_family": _text,
    "subfamily": _text,
    "fallback_to_simulation": _flag,
    "browser_optimized": _flag,
    "description": _text,
}


def _nearest(name: str, known: Any) -> str:
    if name == "gpu":  # like "xpu" by its letters only
        return " (a device is named by its kind, such as cuda)"
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
