"""The file that spares the next process the probes, and when it is believed.

It holds the last detections, one per fingerprint: workers that see a GPU each, and environments
that share a home, do not throw out each other's. One is believed only if it is what rp writes
(schema version, every record checked) and its fingerprint is this machine's, now. "Available" is
never read from it: it follows from the proofs in the records, and a record that contradicts its
own proofs is refused. Whoever can write the file with the right fingerprint could also replace rp
itself; against that there is no defence here, and a checksum would only look like one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from hardware_detection.errors import HardwareCacheError
from hardware_detection.files import read_regular, rp_home, write_atomically
from hardware_detection.log import log
from hardware_detection.names import HARDWARE_NAMES
from hardware_detection.record import Detection, RecordError, from_json, to_json

SCHEMA_VERSION = 1
MAX_BYTES = 1 << 20
# One per GPU of a large machine.
_MOST_DETECTIONS = 8
# Longer than a whole detection may take.
_LOCK_TIMEOUT_S = 180.0


def default_cache_path() -> Path:
    """Return where the cache lies unless somebody names another place.

    ``$RP_HOME/hardware.json``; in a checkout without RP_HOME, ``hardware_cache/hardware.json``
    at its top; otherwise in the user's cache folder.
    """
    top = Path(__file__).resolve().parent.parent
    in_checkout = (top / "pyproject.toml").is_file() and (top / "hardware_cache").is_dir()
    if in_checkout and not os.environ.get("RP_HOME"):
        return top / "hardware_cache" / "hardware.json"
    return rp_home() / "hardware.json"


def read(path: Path, what: str = "hardware cache") -> dict[str, Any] | None:
    """Return the JSON object in the file, unchecked; None if there is no file.

    ``what`` is what error messages call the file.

    Raises:
        HardwareCacheError: it cannot be read, is no regular file, is too large, or holds
            something else.
    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
        data = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise HardwareCacheError(
            f"the {what} {path} cannot be read ({error.strerror or error});"
            " make it readable or choose another path"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HardwareCacheError(
            f"the {what} {path} is not valid JSON; delete it or choose another path"
        ) from error
    if not isinstance(data, dict):
        raise HardwareCacheError(
            f"the {what} {path} holds no JSON object; delete it or choose another path"
        )
    return data


def require_cache(path: Path, data: Mapping[str, Any]) -> None:
    """Refuse a file that is neither ours nor has the form of the guides, ``{"hardware": {…}}``.

    It would be overwritten, and a slip such as ``--cache package.json`` must not cost a file.

    Raises:
        HardwareCacheError: it is something else.
    """
    ours = {"schema_version", "fingerprint", "results"} <= data.keys()
    guides = isinstance(data.get("hardware"), dict) and "schema_version" not in data
    if not (ours or guides):
        raise HardwareCacheError(
            f"{path} is not a hardware cache and is left as it is; choose another path"
        )


def believe(data: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Detection | None:
    """Return the detection that a cache holds, or None where it is not to be believed."""
    try:
        return _believe(data, fingerprint)
    except RecordError as error:
        log().info("the hardware cache is not used: %s", error)
        return None


def _believe(data: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Detection:
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RecordError("it has another schema version")
    row = next((one for one in _detections(data) if one.get("fingerprint") == fingerprint), None)
    if row is None:
        raise RecordError(f"changed: {_difference(data.get('fingerprint'), fingerprint)}")
    try:
        results = tuple(from_json(row["results"][name]) for name in HARDWARE_NAMES)
        detected_at = datetime.fromisoformat(row["detected_at"]).astimezone(timezone.utc)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"it is not as rp writes it ({error})") from error
    if [result.name for result in results] != list(HARDWARE_NAMES):
        raise RecordError("its records stand under wrong names")
    return Detection(results, fingerprint, detected_at)


def write(path: Path, detection: Detection, before: Mapping[str, Any] | None = None) -> None:
    """Replace the file with this detection and, behind it, the last others of ``before``.

    Raises:
        OSError: it cannot be written.
    """
    newest = {
        "detected_at": detection.detected_at.isoformat(timespec="seconds"),
        "fingerprint": detection.fingerprint,
        "results": {result.name: to_json(result) for result in detection.results},
    }
    others = [
        one for one in _detections(before or {}) if one["fingerprint"] != newest["fingerprint"]
    ]
    for kept in range(min(len(others), _MOST_DETECTIONS - 1), -1, -1):
        data = {"schema_version": SCHEMA_VERSION, **newest, "others": others[:kept]}
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
        if len(text) <= MAX_BYTES:
            break
    write_atomically(path, text)


def _detections(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the detections in a file, the newest first, with none of their records checked."""
    others = data.get("others")
    rows = [data, *(others if isinstance(others, list) else ())]
    return [
        {key: row.get(key) for key in ("detected_at", "fingerprint", "results")}
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("fingerprint"), dict)
    ]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time detect for this file; go on unlocked where locks do not work.

    Only effort is saved: the writes are atomic without it. The lock lies in rp's home, so that
    nothing is left beside a file that the user named.
    """
    from filelock import FileLock

    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    lock = None
    try:
        folder = rp_home() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"hardware-{digest}.lock", timeout=_LOCK_TIMEOUT_S)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        log().info("detecting without a lock: %s", error)  # a folder that is none is told later
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _difference(old: object, new: Mapping[str, Any]) -> str:
    if not isinstance(old, dict):
        return "the fingerprint"
    return ", ".join(key for key in new if old.get(key) != new[key]) or "the fingerprint"
