"""Where records live: one SQLite file in rp's home, one row per run or check.

The files of a run have rows of their own, so that keeping a run after each of its files writes
that file and not all before it. Readers are not held up by a writer (WAL), and writers wait for
one another.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardware_detection.files import rp_home
from rp_cli.errors import BadInputError, OutputError

# Kept in the file as user_version. The first version had no files table, and left this at 0.
SCHEMA_VERSION = 2
BUSY_SECONDS = 10.0

_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS records (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        started_at TEXT NOT NULL,
        record TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS files (
        record_id INTEGER NOT NULL REFERENCES records (id),
        place INTEGER NOT NULL,
        result TEXT NOT NULL,
        PRIMARY KEY (record_id, place)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS records_by_kind ON records (kind, id)",
)
_KEEP = """
INSERT INTO records (id, kind, started_at, record) VALUES (?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET kind = excluded.kind, started_at = excluded.started_at, record = excluded.record
"""
_LAST = "SELECT id, record FROM records WHERE kind = ? ORDER BY id DESC LIMIT ?"
_ONE = "SELECT id, record FROM records WHERE kind = ? AND id = ?"
_FILES = "SELECT result FROM files WHERE record_id = ? ORDER BY place"


class Store:
    """Records by kind ("run", "check"), newest first. Safe for several processes at once.

    Args:
        path: the file; None: that of rp's home.
        patience: how many seconds a writer waits for another one; None: ``BUSY_SECONDS``.
    """

    def __init__(self, path: Path | None = None, patience: float | None = None) -> None:
        self.path = path or rp_home() / "records.sqlite3"
        self.patience = BUSY_SECONDS if patience is None else patience

    def save(self, record: Mapping[str, Any], number: int | None = None) -> int:
        """Keep a record, which names its ``kind`` and ``started_at``; return its number.

        With the ``number`` of an earlier call, the record takes that one's place. So whoever
        works for long saves when it begins, which shows that it can, and again as it goes on:
        what is done survives whatever ends the process. Of its ``files``, those that were kept
        before are not written again: results are added, never changed.

        Raises:
            OutputError: the file cannot be written, or another process has locked it.
            BadInputError: the file is there and is no record file.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing() as connection:
                return _keep(connection, record, number)
        except (OSError, sqlite3.Error, ValueError, RecursionError) as error:
            raise self._explained(error, "kept") from error

    def last(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Return up to ``count`` records of a kind, newest first, each with its ``id``.

        Raises:
            OutputError: the file cannot be opened.
            BadInputError: the file is there and is no record file.
        """
        return self._read(_LAST, (kind, count))

    def one(self, kind: str, number: int) -> dict[str, Any] | None:
        """Return the record of this number; None where there is none. Raises as ``last``."""
        return next(iter(self._read(_ONE, (kind, number))), None)

    def _read(self, query: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
        try:
            if not self.path.exists():
                return []
            with contextlib.closing(self._open_for_reading()) as connection:
                rows = connection.execute(query, values).fetchall()
                return [_record(connection, number, text) for number, text in rows]
        except (OSError, sqlite3.Error, ValueError, RecursionError) as error:
            raise self._explained(error, "read") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(_connect(str(self.path), self.patience)) as connection:
            with contextlib.suppress(sqlite3.OperationalError):
                # Another process may be in the file now; then the next writer does this.
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            _migrate(connection)
            with _transaction(connection):
                yield connection

    def _open_for_reading(self) -> sqlite3.Connection:
        """Return a connection; of a file where nothing can be written, to a copy in memory."""
        connection = _connect(str(self.path), self.patience)
        try:
            _migrate(connection)
        except sqlite3.Error as error:
            connection.close()
            if not _is_for_want_of_rights(error) or _has_unmerged_log(self.path):
                raise
            return _copy(self.path)
        return connection

    def _explained(self, error: Exception, done: str) -> BadInputError | OutputError:
        where = f"Records cannot be {done} in {self.path}: {error}"
        if "locked" in str(error) or "busy" in str(error):
            return OutputError(
                f"{where}; another process has kept it for {self.patience:g} seconds: wait for "
                "it, or choose another folder with RP_HOME."
            )
        # SQLite says OperationalError of a disk and of rights, but of columns and tables too.
        operational = isinstance(error, sqlite3.OperationalError)
        if (operational and not _is_about_tables(error)) or isinstance(error, OSError):
            return OutputError(f"{where}; choose a folder that can be written with RP_HOME.")
        return BadInputError(
            f"{self.path} is no record file ({error}); move it away, and rp starts a new one."
        )


def _connect(name: str, patience: float = 0.0, *, uri: bool = False) -> sqlite3.Connection:
    # No transaction but those that are begun here: the module's own begin too late.
    return sqlite3.connect(name, timeout=patience, isolation_level=None, uri=uri)


def _copy(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?immutable=1"
    copy = _connect(":memory:")
    with contextlib.closing(_connect(uri, uri=True)) as source:
        source.backup(copy)
    _migrate(copy)
    return copy


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE waits for another writer here, where the busy timeout holds.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this schema; whoever comes second finds it done."""
    if _version(connection) == SCHEMA_VERSION:
        return
    with _transaction(connection):
        if _version(connection) < SCHEMA_VERSION:
            for statement in _SCHEMA:
                connection.execute(statement)
            _split_files_off(connection)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise ValueError(f"a newer rp wrote it, in format {version}")
    return int(version)


def _split_files_off(connection: sqlite3.Connection) -> None:
    """Move the files of runs out of the records, where the first version kept them."""
    for number, text in connection.execute("SELECT id, record FROM records").fetchall():
        try:
            record = _object(text)
        except (ValueError, RecursionError):
            continue  # it is named when it is read
        files = record.pop("files", None)
        if isinstance(files, list):
            _add_files(connection, number, files)
            connection.execute(
                "UPDATE records SET record = ? WHERE id = ?", (json.dumps(record), number)
            )


def _keep(connection: sqlite3.Connection, record: Mapping[str, Any], number: int | None) -> int:
    rest = {key: value for key, value in record.items() if key != "files"}
    row = (number, record["kind"], record["started_at"], json.dumps(rest))
    cursor = connection.execute(_KEEP, row)
    number = number or int(cursor.lastrowid or 0)
    _add_files(connection, number, record.get("files", ()))
    return number


def _add_files(connection: sqlite3.Connection, number: int, files: Any) -> None:
    (kept,) = connection.execute(
        "SELECT COUNT(*) FROM files WHERE record_id = ?", (number,)
    ).fetchone()
    connection.executemany(
        "INSERT INTO files VALUES (?, ?, ?)",
        [(number, place, json.dumps(files[place])) for place in range(kept, len(files))],
    )


def _record(connection: sqlite3.Connection, number: int, text: str) -> dict[str, Any]:
    record = _object(text)
    files = [json.loads(result) for (result,) in connection.execute(_FILES, (number,))]
    if files or record.get("kind") == "run":
        record["files"] = files
    return {**record, "id": number}


def _object(text: str) -> dict[str, Any]:
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("a record is no JSON object")
    return record


def _is_about_tables(error: Exception) -> bool:
    return any(word in str(error) for word in ("column", "no such table", "already exists"))


def _is_for_want_of_rights(error: Exception) -> bool:
    return any(word in str(error) for word in ("readonly", "unable to open"))


def _has_unmerged_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0
