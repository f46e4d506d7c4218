"""Where records live: one SQLite file in rp's home, one row per run or check."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardware_detection.files import rp_home
from rp_cli.errors import BadInputError, OutputError

_TABLE = """
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    started_at TEXT NOT NULL,
    record TEXT NOT NULL
)
"""


class Store:
    """Records by kind ("run", "check"), newest first. Safe for several processes at once."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or rp_home() / "records.sqlite3"

    def save(self, record: Mapping[str, Any], number: int | None = None) -> int:
        """Keep a record, which names its ``kind`` and ``started_at``; return its number.

        With the ``number`` of an earlier call, the record takes that one's place. So whoever
        works for long saves when it begins, which shows that it can, and again as it goes on:
        what is done survives whatever ends the process.

        Raises:
            OutputError: the file cannot be written.
            BadInputError: the file is there and is no record file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connect() as connection:
                cursor = connection.execute(
                    "INSERT OR REPLACE INTO records (id, kind, started_at, record)"
                    " VALUES (?, ?, ?, ?)",
                    (number, record["kind"], record["started_at"], json.dumps(record)),
                )
        except (OSError, sqlite3.Error) as error:
            raise self._explained(error) from error
        return int(cursor.lastrowid or 0)

    def last(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Return up to ``count`` records of a kind, newest first, each with its ``id``.

        Raises:
            OutputError: the file cannot be opened.
            BadInputError: the file is there and is no record file.
        """
        if not self.path.exists():
            return []
        try:
            with self._connect() as connection:
                rows = connection.execute(
                    "SELECT id, record FROM records WHERE kind = ? ORDER BY id DESC LIMIT ?",
                    (kind, count),
                ).fetchall()
            return [{**_object(text), "id": number} for number, text in rows]
        except (OSError, sqlite3.Error, ValueError, RecursionError) as error:
            raise self._explained(error) from error

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            connection.execute(_TABLE)
            yield connection

    def _explained(self, error: Exception) -> BadInputError | OutputError:
        # SQLite says OperationalError of a disk, of rights and of locks, but of columns too.
        operational = isinstance(error, sqlite3.OperationalError) and "column" not in str(error)
        if operational or isinstance(error, OSError):
            return OutputError(
                f"Cannot keep records in {self.path}: {error}; choose a folder that can be "
                "written with RP_HOME."
            )
        return BadInputError(
            f"{self.path} is no record file ({error}); move it away, and rp starts a new one."
        )


def _object(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("a record is no JSON object")
    return record
