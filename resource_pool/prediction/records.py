"""Peaks that were measured, kept in one SQLite file: the best prediction is what happened before.

They also say how far the other methods were off on this machine.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hardware_detection.files import rp_home
from resource_pool.prediction.result import Method, Prediction

logger = logging.getLogger("resource_pool")

_TABLE = """
CREATE TABLE IF NOT EXISTS peaks (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    backend TEXT NOT NULL,
    method TEXT NOT NULL,
    predicted INTEGER NOT NULL,
    measured INTEGER NOT NULL,
    weights INTEGER NOT NULL,
    kv_cache INTEGER NOT NULL,
    kv_per_token INTEGER
)
"""
# What a backend did long ago (another driver, another load) is forgotten.
_LAST = 200


class RecordedPeak(NamedTuple):
    """A measured peak in bytes, and what of it were weights and attention cache."""

    measured: int
    weights: int
    kv_cache: int
    kv_per_token: int | None


def record_peak(prediction: Prediction, measured_bytes: int) -> None:
    """Remember the peak that a run of exactly this had, weights included.

    A record that cannot be written is a warning: what was measured is still right.
    """
    row = (
        prediction.key,
        prediction.backend,
        prediction.method,
        prediction.total_bytes,
        measured_bytes,
        prediction.weights_bytes,
        prediction.kv_cache_bytes,
        prediction.kv_bytes_per_token,
    )
    try:
        with _database() as database:
            database.execute(f"INSERT INTO peaks VALUES (NULL{', ?' * len(row)})", row)  # noqa: S608 - question marks
    except (OSError, sqlite3.Error) as error:
        logger.warning("The measured peak is not kept in %s: %s", _path(), error)


def recorded_peak(key: str, backend: str) -> RecordedPeak | None:
    """Return the highest peak of the last runs of the same thing; None where there was none."""
    query = (
        "SELECT MAX(measured), weights, kv_cache, kv_per_token FROM "
        "(SELECT * FROM peaks WHERE key = ? AND backend = ? ORDER BY id DESC LIMIT ?)"
    )
    rows = _read(query, (key, backend, _LAST))
    return RecordedPeak(*rows[0]) if rows and rows[0][0] is not None else None


def recorded_errors(method: Method, backend: str) -> list[float]:
    """Return (measured - predicted) / predicted of the last runs that a method predicted."""
    query = (
        "SELECT predicted, measured FROM peaks WHERE method = ? AND backend = ? "
        "AND predicted > 0 ORDER BY id DESC LIMIT ?"
    )
    return [
        (measured - predicted) / predicted
        for predicted, measured in _read(query, (method, backend, _LAST))
    ]


def _read(query: str, values: tuple[object, ...]) -> list[tuple[int, ...]]:
    if not _path().exists():
        return []
    try:
        with _database() as database:
            return database.execute(query, values).fetchall()
    except (OSError, sqlite3.Error) as error:
        logger.warning("Recorded peaks in %s cannot be read: %s", _path(), error)
        return []


def _path() -> Path:
    return rp_home() / "peaks.sqlite3"


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    _path().parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(_path(), timeout=30)) as connection, connection:
        connection.execute(_TABLE)
        yield connection
