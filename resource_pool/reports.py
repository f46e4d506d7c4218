"""Hardware error reports: what failed where, why, what to do, and what else is here."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resource_pool._advice import error_type as error_type
from resource_pool._advice import recommendations
from resource_pool._families import family_facts, subfamily_of
from resource_pool._hardware import CPU, HARDWARE_NAMES
from resource_pool.errors import DeviceUnavailableError, PoolError, PreferenceError

if TYPE_CHECKING:
    from resource_pool._pool import ResourcePool

logger = logging.getLogger("resource_pool")

SCHEMA_VERSION = 1

_OPERATION = re.compile(r"aten::\w+(?:\.\w+)*|(?<=operator ')[^']+|(?<=Could not run ')[^']+")
_NEEDED = re.compile(r"(?:tried to allocate|needs) ([\d.]+) ?([KMGT]i?B)", re.IGNORECASE)
_FREE = re.compile(r"([\d.]+) ?([KMGT]i?B) (?:is )?free", re.IGNORECASE)
_MB_PER = {"k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}


def error_report(
    model_name: str,
    hardware_type: str,
    error_message: str | BaseException,
    stack_trace: str | None = None,
    *,
    hardware: Mapping[str, Any],
    held_by: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the report of a failure as a plain dictionary.

    Args:
        hardware_type: the backend or device where it failed, e.g. "cuda" or "cuda:0".
        error_message: the message, or the exception itself, whose trace is taken as well.
        hardware: a detection report, for the alternatives that really are here.
        held_by: what takes the device's memory, the largest first: key and MB.
    """
    error_message, stack_trace = _told(error_message, stack_trace)
    backend = hardware_type.partition(":")[0]
    kind = error_type(error_message, stack_trace)
    family = family_facts("", model_name).family or "unknown"
    subfamily = subfamily_of(model_name)
    return {
        "schema_version": SCHEMA_VERSION,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "model_name": model_name,
        "model_family": family,
        "subfamily": subfamily,
        "hardware_type": hardware_type,
        "error_type": kind,
        "error_message": error_message,
        "stack_trace": stack_trace,
        "operation": _operation(error_message),
        "memory": {
            "needed_mb": _megabytes(_NEEDED, error_message),
            "free_mb": _megabytes(_FREE, error_message),
            "held_by": list(held_by),
        },
        "environment": {"driver": _driver(backend, hardware), "versions": _versions()},
        "recommendations": recommendations(kind, family, backend, subfamily, error_message),
        "alternatives": _alternatives(backend, hardware),
    }


def _told(error: str | BaseException, trace: str | None) -> tuple[str, str | None]:
    """Return message and trace of what may be an exception."""
    if not isinstance(error, BaseException):
        return str(error), trace
    return f"{type(error).__name__}: {error}", trace or "".join(traceback.format_exception(error))


def save(report: Mapping[str, Any], output_dir: str | os.PathLike[str]) -> Path:
    """Write ``report`` into ``output_dir`` under a name that no other report has."""
    import secrets

    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    # The model's name is untrusted: only letters and digits of it reach the path.
    name = re.sub(r"[^A-Za-z0-9]+", "_", str(report.get("model_name", "")))[:80].strip("_")
    path = folder / f"{name or 'model'}_{stamp}_{secrets.token_hex(4)}.json"
    _write(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    return path


def _write(path: Path, text: str) -> None:
    try:
        from hardware_detection.files import write_atomically
    except ImportError:  # the pool goes without the detector; nobody else writes this file
        try:
            path.write_text(text, encoding="utf-8")
        except OSError:
            path.unlink(missing_ok=True)
            raise
    else:
        write_atomically(path, text)


@contextlib.contextmanager
def saved_error_report(
    pool: ResourcePool,
    model_name: str,
    hardware_preferences: Mapping[str, Any] | None = None,
    output_dir: str | os.PathLike[str] = "./hardware_reports",
) -> Iterator[None]:
    """Save an error report of whatever goes wrong inside, and let the error go on.

    A forced device that is not there and a wrong preference are answers about the request and
    no failures of hardware: they are not reported.
    """
    try:
        yield
    except (DeviceUnavailableError, PreferenceError):
        raise
    except Exception as error:
        try:
            device = _where(pool, model_name, hardware_preferences)
            report = pool.generate_error_report(model_name, device, error)
            logger.error("Error report: %s", pool.save_error_report(report, output_dir))
        except Exception:
            # The report is for the error that goes on below; it must not take its place.
            logger.exception("The error report could not be made")
        raise


def _where(pool: ResourcePool, name: str, preferences: Mapping[str, Any] | None) -> str:
    """Return where the pool would put the model, in the caller's words where it cannot."""
    try:
        return pool.explain("", name, preferences).device
    except PoolError:
        return str((preferences or {}).get("device") or CPU)


def _operation(message: str) -> str | None:
    found = _OPERATION.search(message)
    return found.group(0) if found else None


def _megabytes(pattern: re.Pattern[str], message: str) -> float | None:
    found = pattern.search(message)
    return float(found.group(1)) * _MB_PER[found.group(2)[0].lower()] if found else None


def _driver(backend: str, hardware: Mapping[str, Any]) -> str | None:
    driver = hardware.get("details", {}).get(backend, {}).get("driver")
    return None if driver is None else str(driver)


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in ("torch", "transformers")}


def _version(package: str) -> str | None:
    from importlib import metadata  # 25 ms, which importing the pool must not cost

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _alternatives(backend: str, hardware: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the other hardware, what is here first and the CPU behind faster things."""
    found = hardware["hardware"]
    names = [name for name in (*HARDWARE_NAMES, CPU) if name != backend]
    order = sorted(dict.fromkeys(names), key=lambda n: (not found.get(n), n == CPU))
    details = hardware.get("details", {})
    return [
        {
            "hardware": name,
            "available": bool(found.get(name)),
            "reason": details.get(name, {}).get("reason", ""),
        }
        for name in order
    ]
