"""What models were measured or predicted to take, kept in one SQLite file in rp's home.

A measured peak is the best prediction of the same run, says how far the other methods were off on
this machine, and tells the pool what a model needs before it is loaded. The file is a help and no
more: one that is damaged, locked or cannot be written is no error for anybody.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hardware_detection.files import rp_home
from resource_pool.prediction.result import Method, Prediction
from resource_pool.weights import folders

logger = logging.getLogger("resource_pool")

# ``models`` says of which model a key is; ``own`` marks the dtype that its config names, and
# ``total`` is NULL where the prediction was not good enough to plan with.
_TABLES = (
    """
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
    """,
    """
    CREATE TABLE IF NOT EXISTS models (
        id INTEGER PRIMARY KEY,
        model TEXT NOT NULL,
        revision TEXT NOT NULL,
        dtype TEXT NOT NULL,
        own INTEGER NOT NULL,
        key TEXT NOT NULL,
        total INTEGER,
        UNIQUE (model, revision, dtype, key)
    )
    """,
    "CREATE INDEX IF NOT EXISTS peaks_by_key ON peaks (key)",
)
# What a backend did long ago (another driver, another load) is forgotten.
_LAST = 200
_KEPT = 5000
# Of a smaller peak, an error is mostly the rounding of the allocator's blocks.
_TELLING = 16 * 2**20
# Whoever reads is about to load a model and has other ways; a writer can wait for the others.
_READ_SECONDS, _WRITE_SECONDS = 0.2, 5.0
_UNUSABLE = (OSError, RuntimeError, ValueError, sqlite3.Error)


class RecordedPeak(NamedTuple):
    """A measured peak in bytes, and what of it were weights and attention cache."""

    measured: int
    weights: int
    kv_cache: int
    kv_per_token: int | None


class Subject(NamedTuple):
    """Whose memory it is: a model's identity, its revision, its dtype, and whether by default."""

    model: str
    revision: str
    dtype: str
    own: bool


def identity(model_name: str) -> str:
    """Return what stands for a model in the records: a folder's name changes with its config."""
    folder = folders.as_folder(model_name)
    if folder is None:
        return model_name
    with contextlib.suppress(OSError):
        return f"{folder}#{(folder / folders.CONFIG).stat().st_mtime_ns}"
    return str(folder)


# Writing -----------------------------------------------------------------------------------------


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
    _write(logging.WARNING, (_INSERT_PEAK, row))


def record_use(
    model_name: str, measured_bytes: int, *, revision: str, dtype: str | None, backend: str
) -> None:
    """Remember the peak of a model for which nobody asked a prediction; see ``recorded_bytes``.

    Args:
        model_name: a name on the hub, or a folder.
        measured_bytes: weights, activations and attention cache together.
        revision: "" is the hub's default.
        dtype: torch's name; None is what the config says.
        backend: hardware name of where it ran.
    """
    subject = Subject(identity(model_name), revision, dtype or "", own=dtype is None)
    key = "\n".join(subject[:3])
    peak = (key, backend, "use", 0, measured_bytes, 0, 0, None)
    _write(logging.WARNING, (_INSERT_MODEL, (*subject, key, None)), (_INSERT_PEAK, peak))


def record_prediction(subject: Subject, prediction: Prediction) -> None:
    """Remember whose a prediction is, and its total where a trace found it out."""
    total = prediction.total_bytes if prediction.method == "trace" else None
    row = (*subject, prediction.key, total)
    if not _read(_SAME_MODEL, row):  # nearly always it was asked before, and a write takes 10 ms
        _write(logging.DEBUG, (_INSERT_MODEL, row))


# Reading -----------------------------------------------------------------------------------------


def recorded_bytes(model_name: str, revision: str, dtype: str | None) -> int | None:
    """Return what a model takes in use, weights included; None where nobody has found out.

    The highest peak that was measured of it in this dtype, on any device and with any inputs;
    else the smallest that was traced from its config. Takes a fraction of a millisecond.

    Args:
        model_name: a name on the hub, or a folder; one whose config changed is another model.
        revision: "" is the hub's default.
        dtype: torch's name; None is what the config says.
    """
    values = (identity(model_name), revision, dtype or "", dtype is None)
    rows = _read(_BYTES, values)
    measured, traced = rows[0] if rows else (None, None)
    return measured if measured is not None else traced


def recorded_peak(key: str, backend: str) -> RecordedPeak | None:
    """Return the highest peak of the last runs of the same thing; None where there was none."""
    rows = _read(_HIGHEST_PEAK, (key, backend, _LAST))
    measured, weights, kv_cache, per_token = rows[0] if rows else (None, None, None, None)
    if measured is None:
        return None
    return RecordedPeak(measured, weights or 0, kv_cache or 0, per_token)


def recorded_errors(method: Method, backend: str) -> list[float]:
    """Return (measured - predicted) / predicted of the last runs that a method predicted."""
    rows = _read(_ERRORS, (method, backend, _TELLING, _LAST))
    return [
        (measured - predicted) / predicted for predicted, measured in rows if predicted and measured
    ]


_INSERT_PEAK = "INSERT INTO peaks VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_MODEL = """
INSERT INTO models VALUES (NULL, ?, ?, ?, ?, ?, ?) ON CONFLICT (model, revision, dtype, key)
DO UPDATE SET own = excluded.own, total = COALESCE(excluded.total, total)
"""
_FORGET = "DELETE FROM {0} WHERE id <= (SELECT MAX(id) FROM {0}) - ?"
_SAME_MODEL = """
SELECT 1 FROM models WHERE model = ? AND revision = ? AND dtype = ? AND own = ? AND key = ?
AND total IS COALESCE(?, total)
"""
_BYTES = """
SELECT MAX(measured), MIN(total) FROM models LEFT JOIN peaks USING (key)
WHERE model = ? AND revision = ? AND (dtype = ? OR own AND ?)
"""
_HIGHEST_PEAK = """
SELECT MAX(measured), weights, kv_cache, kv_per_token FROM
(SELECT * FROM peaks WHERE key = ? AND backend = ? ORDER BY id DESC LIMIT ?)
"""
_ERRORS = """
SELECT predicted, measured FROM peaks WHERE method = ? AND backend = ? AND predicted >= ?
ORDER BY id DESC LIMIT ?
"""


def _read(query: str, values: tuple[object, ...]) -> list[tuple[int | None, ...]]:
    """Return the rows that hold nothing but sizes; none where the file cannot be read."""
    try:
        path = path_of_records()
        if not path.exists():
            return []
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, timeout=_READ_SECONDS)
        with contextlib.closing(connection):
            rows = connection.execute(query, values).fetchall()
    except _UNUSABLE as error:
        logger.debug("Recorded peaks cannot be read: %s", error)
        return []
    return [row for row in rows if all(one is None or _is_size(one) for one in row)]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _write(level: int, *statements: tuple[str, tuple[object, ...]]) -> None:
    try:
        try:
            _execute(statements)
        except sqlite3.DatabaseError as error:
            # This very class says that the file is damaged or no database at all.
            if type(error) is not sqlite3.DatabaseError:
                raise
            logger.warning("%s is damaged and begun anew: %s", path_of_records(), error)
            _remove()
            _execute(statements)
    except _UNUSABLE as error:
        logger.log(level, "What was measured or predicted is not kept: %s", error)


def _execute(statements: Sequence[tuple[str, tuple[object, ...]]]) -> None:
    path = path_of_records()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WRITE_SECONDS)
    with contextlib.closing(connection), connection:
        for statement in _TABLES:
            connection.execute(statement)
        for statement, row in statements:
            connection.execute(statement, row)
        for table in ("peaks", "models"):
            connection.execute(_FORGET.format(table), (_KEPT,))


def _remove() -> None:
    """Remove the file, and the journal of an unfinished write that would spoil the next one."""
    path = path_of_records()
    for one in (path, path.with_name(f"{path.name}-journal")):
        one.unlink(missing_ok=True)


def path_of_records() -> Path:
    """Return where the records lie; the file may not be there."""
    return rp_home() / "peaks.sqlite3"
