"""Detection as callers see it: remembered in the process and in a file, believed with care."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hardware_detection import cache
from hardware_detection.environment import relevant
from hardware_detection.errors import HardwareCacheError
from hardware_detection.fingerprint import fingerprint
from hardware_detection.log import log
from hardware_detection.machine import Machine
from hardware_detection.names import WEBGPU, WEBNN
from hardware_detection.record import Detection
from hardware_detection.report import report_now

_Signature = tuple[int, int, int] | None

_BROWSERS = (WEBGPU, WEBNN)
# How long a detection counts in which something failed that may have been of the moment.
_RETRY_AFTER_S = 300.0


@dataclass(frozen=True)
class _Remembered:
    detection: Detection
    environment: dict[str, str]
    signature: _Signature


# `_MEMORY` is guarded by the lock, which is held through a whole detection: of several threads
# that ask at once, one detects and the others get its result.
_LOCK = threading.RLock()
_MEMORY: dict[Path, _Remembered] = {}
# Reports that stand in for every detection while somebody uses them, the last one first.
_REPLACEMENTS: list[dict[str, Any]] = []


def _after_fork() -> None:
    """Take a new lock: the thread of the parent that holds the old one is not in this process."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def available_hardware(
    cache_file: str | Path | None, *, refresh: bool, web: bool, store: bool = True
) -> dict[str, Any]:
    """Return the report; see ``hardware_detection.detect_available_hardware``."""
    if _REPLACEMENTS:
        return copy.deepcopy(_REPLACEMENTS[-1])
    machine = Machine(web=web)
    named = cache_file is not None
    path = Path(os.path.abspath(cache_file if named else cache.default_cache_path()))  # type: ignore[arg-type]  # noqa: PTH100 - no links resolved
    with _LOCK:
        detection = None if refresh else _recall(path, machine)
        from_cache = detection is not None
        if detection is None:
            detection, from_cache = _obtain(
                path, machine, named=named, refresh=refresh, store=store
            )
            if store or from_cache:  # else a later call that may write would find no need to
                _MEMORY[path] = _Remembered(detection, relevant(machine.environ), _signature(path))
    return report_now(detection, machine, from_cache=from_cache)


def depends_on() -> tuple[object, ...]:
    """Return what the next report depends on, beside the cache file and what memory is free.

    Takes some microseconds; whoever keeps a report for a moment compares it.
    """
    replacement = id(_REPLACEMENTS[-1]) if _REPLACEMENTS else None
    return replacement, relevant(os.environ), os.environ.get("RP_HOME")


@contextmanager
def replaced_by(report: Mapping[str, Any]) -> Iterator[None]:
    """Make every detection in this process, in all threads, return a copy of ``report``."""
    replacement = copy.deepcopy(dict(report))
    _REPLACEMENTS.append(replacement)
    try:
        yield
    finally:
        # By identity: an equal report may be in use by somebody else.
        _REPLACEMENTS[:] = [one for one in _REPLACEMENTS if one is not replacement]


def described_by() -> str | None:
    """Return the file whose machine stands in for this one; None where none does."""
    return _REPLACEMENTS[-1].get("described_by") if _REPLACEMENTS else None


def hardware_now(*, web: bool) -> dict[str, Any]:
    """Return the report of a new detection; no cache is read or written."""
    if _REPLACEMENTS:
        return copy.deepcopy(_REPLACEMENTS[-1])
    machine = Machine(web=web)
    return report_now(_detect(machine), machine, from_cache=False)


def _recall(path: Path, machine: Machine) -> Detection | None:
    """Return what this process knows already, unless the file or the environment has changed."""
    known = _MEMORY.get(path)
    if known is None or known.environment != relevant(machine.environ):
        return None
    same_file = known.signature == _signature(path)
    return known.detection if same_file and _answers(known.detection, machine) else None


def _obtain(
    path: Path, machine: Machine, *, named: bool, refresh: bool, store: bool
) -> tuple[Detection, bool]:
    """Return a detection and whether it was read from the file; detect and store otherwise."""
    if named and not os.path.isdir(path.parent):  # noqa: PTH112 - Path.is_dir raises on some names
        raise HardwareCacheError(
            f"the folder of the hardware cache {path} does not exist; create it first"
        )
    found = None if refresh else _believed(_content(path, named=named), machine)
    if found is not None:
        return found, True
    if not store:
        return _detect(machine), False
    with cache.locked(path):
        # Another process may have detected while this one waited.
        content = _content(path, named=named)
        found = None if refresh else _believed(content, machine)
        if found is not None:
            return found, True
        detection = _detect(machine)
        _save(path, detection, content, named=named)
    return detection, False


def _content(path: Path, *, named: bool) -> Mapping[str, Any] | None:
    """Return what the cache holds, unchecked; None where it holds nothing that can be used."""
    try:
        data = cache.read(path)
    except HardwareCacheError as error:
        # A file that the user named may be something else by mistake: never overwritten.
        if named:
            raise
        log().warning("detecting again: %s", error)
        return None
    if named and data is not None:
        cache.require_cache(path, data)
    return data


def _believed(content: Mapping[str, Any] | None, machine: Machine) -> Detection | None:
    found = None if content is None else cache.believe(content, fingerprint(machine))
    return found if found is not None and _answers(found, machine) else None


def _answers(detection: Detection, machine: Machine) -> bool:
    """Whether a detection still answers this caller's question.

    Not if the browsers are to be asked and were not, nor if something failed a while ago. A
    browser's failure counts only for those who want it asked: without them it would not be.
    """
    browsers = [result for result in detection.results if result.name in _BROWSERS]
    if machine.web and not all(result.facts.get("asked") for result in browsers):
        return False
    retry = any(
        result.retry for result in detection.results if machine.web or result.name not in _BROWSERS
    )
    age = (datetime.now(timezone.utc) - detection.detected_at).total_seconds()
    return not retry or abs(age) < _RETRY_AFTER_S


def _detect(machine: Machine) -> Detection:
    # What only a detection needs is not imported where a cache spares it.
    from hardware_detection.detection import detect

    return detect(machine)


def _save(
    path: Path, detection: Detection, before: Mapping[str, Any] | None, *, named: bool
) -> None:
    try:
        if not named:
            path.parent.mkdir(parents=True, exist_ok=True)
        cache.write(path, detection, before)
    except OSError as error:
        if named:
            raise HardwareCacheError(
                f"the hardware cache {path} cannot be written ({error.strerror or error});"
                " choose another path"
            ) from error
        log().warning(
            "the hardware cache %s cannot be written (%s), so that every program detects anew;"
            " set RP_HOME to a folder that can be written",
            path,
            error.strerror or error,
        )


def _signature(path: Path) -> _Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
