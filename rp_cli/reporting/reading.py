"""Facts out of records and reports: files that anybody may have written.

What is not of the expected type counts as missing, and no character of it steers a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from rp_cli.text import one_line

UNKNOWN = "?"
_MB = 1 << 20

Json = Mapping[str, Any]


def text(record: Json, key: str, default: str = UNKNOWN) -> str:
    """Return a string, or a number as one, on one line."""
    value = record.get(key)
    return one_line(value) if isinstance(value, (str, int, float)) else default


def optional_text(record: Json, key: str) -> str | None:
    """Return a string that says something, on one line; None where there is none."""
    value = record.get(key)
    return one_line(value) if isinstance(value, str) and value.strip() else None


def lines(record: Json, key: str) -> str:
    """Return a string of several lines, each without what a terminal would obey."""
    value = record.get(key)
    return "\n".join(map(_spaced_line, value.splitlines())) if isinstance(value, str) else ""


def texts(record: Json, key: str) -> list[str]:
    """Return the strings of a list."""
    value = record.get(key)
    found = value if isinstance(value, list) else []
    return [one_line(item) for item in found if isinstance(item, str)]


def mapping(record: Json, key: str) -> Json:
    """Return an object; an empty one where there is none."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def mappings(record: Json, key: str) -> list[Json]:
    """Return the objects of a list."""
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def number(record: Json, key: str) -> float | None:
    """Return a finite number that is not negative; None where there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def whole(record: Json, key: str) -> int | None:
    """Return a whole number that is not negative; None where there is none."""
    found = number(record, key)
    return None if found is None else int(found)


def megabytes(record: Json, key: str) -> float | None:
    """Return a number of whole bytes in MiB; None where there is none."""
    found = whole(record, key)
    return None if found is None else found / _MB


def moment(record: Json, key: str) -> datetime | None:
    """Return a time with its zone (UTC where none is said); None where there is none."""
    value = record.get(key)
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if found is None:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def last_line(trace: str) -> str:
    """Return the last line of a trace, which names the exception and its message."""
    return one_line((trace.strip().splitlines() or [UNKNOWN])[-1])


def joined(parts: Iterable[str]) -> str:
    """Return the different parts, or "-"."""
    return ", ".join(dict.fromkeys(parts)) or "-"


def _spaced_line(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * indent + one_line(line)
