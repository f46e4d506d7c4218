"""Detection as callers see it: remembered in the process and in a file, believed with care."""

from __future__ import annotations

import copy
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware_detection import cache
from hardware_detection.environment import relevant
from hardware_detection.errors import HardwareCacheError
from hardware_detection.fingerprint import fingerprint
from hardware_detection.log import log
from hardware_detection.machine import Machine
from hardware_detection.record import Detection
from hardware_detection.report import report_now

_Signature = tuple[int, int, int] | None


@dataclass(frozen=True)
class _Remembered:
    detection: Detection
    environment: dict[str, str]
    signature: _Signature


# `_MEMORY` is guarded by the lock, which is held through a whole detection: of several threads
# that ask at once, one detects and the others get its result.
_LOCK = threading.RLock()
_MEMORY: dict[Path, _Remembered] = {}
# Reports that stand in for every detection while a test uses them, the last one first.
replacements: list[dict[str, Any]] = []


def available_hardware(cache_file: str | Path | None, *, refresh: bool) -> dict[str, Any]:
    """Return the report; see ``hardware_detection.detect_available_hardware``."""
    if replacements:
        return copy.deepcopy(replacements[-1])
    machine = Machine()
    named = cache_file is not None
    path = Path(os.path.abspath(cache_file if named else cache.default_cache_path()))  # type: ignore[arg-type]  # noqa: PTH100 - no links resolved
    with _LOCK:
        detection = None if refresh else _recall(path, machine)
        from_cache = detection is not None
        if detection is None:
            detection, from_cache = _obtain(path, machine, named=named, refresh=refresh)
            _MEMORY[path] = _Remembered(detection, relevant(machine.environ), _signature(path))
    return report_now(detection, machine, from_cache=from_cache)


def hardware_now() -> dict[str, Any]:
    """Return the report of a new detection; no cache is read or written."""
    if replacements:
        return copy.deepcopy(replacements[-1])
    machine = Machine()
    return report_now(_detect(machine), machine, from_cache=False)


def _recall(path: Path, machine: Machine) -> Detection | None:
    """Return what this process knows already, unless the file or the environment has changed."""
    known = _MEMORY.get(path)
    if known is None or known.environment != relevant(machine.environ):
        return None
    return known.detection if known.signature == _signature(path) else None


def _obtain(path: Path, machine: Machine, *, named: bool, refresh: bool) -> tuple[Detection, bool]:
    """Return a detection and whether it was read from the file; detect and write otherwise."""
    if named and not path.parent.is_dir():
        raise HardwareCacheError(
            f"the folder of the hardware cache {path} does not exist; create it first"
        )
    found = _believed(path, machine, named=named, refresh=refresh)
    if found is not None:
        return found, True
    with cache.locked(path):
        # Another process may have detected while this one waited.
        found = _believed(path, machine, named=named, refresh=refresh)
        if found is not None:
            return found, True
        detection = _detect(machine)
        _save(path, detection, named=named)
    return detection, False


def _believed(path: Path, machine: Machine, *, named: bool, refresh: bool) -> Detection | None:
    try:
        data = cache.read(path)
    except HardwareCacheError as error:
        # A file that the user named may be something else by mistake: never overwritten.
        if named:
            raise
        log().warning("detecting again: %s", error)
        return None
    if data is None:
        return None
    if named:
        cache.require_cache(path, data)
    if refresh:
        return None
    return cache.believe(data, fingerprint(machine))


def _detect(machine: Machine) -> Detection:
    # What only a detection needs is not imported where a cache spares it.
    from hardware_detection.detection import detect

    return detect(machine)


def _save(path: Path, detection: Detection, *, named: bool) -> None:
    try:
        if not named:
            path.parent.mkdir(parents=True, exist_ok=True)
        cache.write(path, detection)
    except OSError as error:
        if named:
            raise HardwareCacheError(
                f"the hardware cache {path} cannot be written ({error.strerror or error});"
                " choose another path"
            ) from error
        log().warning("the hardware cache %s cannot be written: %s", path, error)


def _signature(path: Path) -> _Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
