"""Predictions of memory against what was measured."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hardware_detection.files import rp_home
from rp_cli.reporting import reading
from rp_cli.reporting.runs import Tidy

_READ_SECONDS = 1.0
# The pool's own record of peaks; a key that several names share has a row for each of them.
_PEAKS = """
SELECT MIN(model) AS model, MIN(dtype) AS dtype, backend, method, predicted, measured
FROM peaks LEFT JOIN models USING (key) WHERE predicted > 0
GROUP BY peaks.id ORDER BY peaks.id DESC LIMIT ?
"""


def memory_points(runs: Sequence[Tidy], count: int) -> list[Tidy]:
    """Return predictions with what was measured, newest first.

    Each has model, hardware, dtype, what ("weights": what the pool reserved against what the
    loaded model takes; "peak": a whole forward), method, predicted_mb, measured_mb, and error,
    (measured - predicted) / predicted.
    """
    return [_with_error(point) for point in (*_loads(runs), *_peaks(count))]


def _loads(runs: Sequence[Tidy]) -> Iterator[Tidy]:
    seen = set()
    for run in runs:
        for placed in (one for file in run["files"] for one in file["placements"]):
            predicted, measured = placed["predicted_mb"], placed["memory_mb"]
            # Files that share a model tell the same of it.
            same = (run["id"], placed["key"], predicted, measured)
            if predicted and measured is not None and same not in seen:
                seen.add(same)
                yield {
                    "model_name": placed["model_name"],
                    "hardware": placed["backend"],
                    "dtype": placed["dtype"],
                    "what": "weights",
                    "method": None,
                    "predicted_mb": predicted,
                    "measured_mb": measured,
                }


def _peaks(count: int) -> Iterator[Tidy]:
    for row in _rows(rp_home() / "peaks.sqlite3", count):
        predicted, measured = (reading.megabytes(row, key) for key in ("predicted", "measured"))
        if predicted and measured is not None:
            yield {
                "model_name": reading.text(row, "model").partition("#")[0],
                "hardware": reading.text(row, "backend"),
                "dtype": reading.text(row, "dtype"),
                "what": "peak",
                "method": reading.optional_text(row, "method"),
                "predicted_mb": predicted,
                "measured_mb": measured,
            }


def _rows(path: Path, count: int) -> list[dict[str, Any]]:
    """Return the last rows; none where the file, which is a help and no more, cannot be read."""
    try:
        if not path.exists():
            return []
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=_READ_SECONDS)
        ) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(_PEAKS, (count,))]
    except (OSError, ValueError, sqlite3.Error):
        return []


def _with_error(point: Tidy) -> Tidy:
    predicted, measured = point["predicted_mb"], point["measured_mb"]
    return {**point, "error": (measured - predicted) / predicted}
