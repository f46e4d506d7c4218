"""The file of records: kept, migrated, shared by processes, broken."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rp_cli.errors import BadInputError, ExitCode, OutputError
from rp_cli.reporting import store as store_module
from rp_cli.reporting.store import SCHEMA_VERSION, Store

FIRST_TABLE = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, started_at TEXT NOT NULL, record TEXT NOT NULL
)
"""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def test_a_record_is_kept_again_in_its_place(store, make):
    run = make.run([make.file("gpt2")])
    number = store.save({**run, "files": []})
    other = store.save(run)
    assert store.save(run, number) == number
    kept = store.last("run", 5)
    assert [record["id"] for record in kept] == [other, number]
    assert kept[1] == {**run, "id": number}
    assert store.one("run", number) == kept[1]
    assert store.one("check", number) is None


def test_files_that_are_kept_already_are_not_written_again(store, make):
    """A run of hundreds of files is kept after each: that must not cost all of them each time."""
    run = make.run([make.file("a")])
    number = store.save(run)
    with opened(store.path) as connection:
        connection.execute('UPDATE files SET result = \'{"path": "as it was"}\'')
    run["files"].append(make.file("b"))
    store.save(run, number)
    assert [file["path"] for file in store.last("run", 1)[0]["files"]] == [
        "as it was",
        "skills/test_hf_b.py",
    ]


def test_a_record_survives_the_file_that_was_moved_away(store, make):
    number = store.save(make.run([]))
    store.path.unlink()
    run = make.run([make.file("a")])
    store.save(run, number)
    assert store.last("run", 1) == [{**run, "id": number}]


def test_the_first_format_is_migrated_with_all_that_it_holds(store, make):
    run, check = make.run([make.file("a"), make.file("b")]), make.check()
    with opened(store.path) as connection:
        connection.execute(FIRST_TABLE)
        for record in (run, check):
            row = (record["kind"], record["started_at"], json.dumps(record))
            connection.execute("INSERT INTO records VALUES (NULL, ?, ?, ?)", row)
    assert store.last("run", 1) == [{**run, "id": 1}]
    assert store.last("check", 1) == [{**check, "id": 2}]
    assert store.save({**run, "seconds": 3.0}, 1) == 1
    assert store.last("run", 1) == [{**run, "seconds": 3.0, "id": 1}]
    with opened(store.path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_migration_that_is_cut_off_changes_nothing(store, make, monkeypatch):
    run = make.run([make.file("a")])
    with opened(store.path) as connection:
        connection.execute(FIRST_TABLE)
        row = (run["kind"], run["started_at"], json.dumps(run))
        connection.execute("INSERT INTO records VALUES (NULL, ?, ?, ?)", row)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(store_module, "_add_files", killed)
        with pytest.raises(KeyboardInterrupt):
            store.last("run", 1)
    assert store.last("run", 1) == [{**run, "id": 1}]


def test_a_newer_format_is_left_alone(store, make):
    store.save(make.check())
    with opened(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = store.path.read_bytes()
    for use in (lambda: store.save(make.check()), lambda: store.last("check", 1)):
        with pytest.raises(BadInputError, match="a newer rp wrote it"):
            use()
    assert store.path.read_bytes() == before


def test_writers_wait_for_one_another(make):
    problems: list[Exception] = []

    def save_some() -> None:
        try:
            for _ in range(10):
                Store().save(make.run([make.file("a")]))
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=save_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    runs = Store().last("run", 100)
    assert [run["id"] for run in runs] == list(range(40, 0, -1))
    assert all(len(run["files"]) == 1 for run in runs)


@pytest.fixture
def locked(store: Store, make: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process writes, and does not end."""
    store.save(make.run([make.file("gpt2")]))
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def test_a_locked_file_is_one_sentence(locked, store, make):
    with pytest.raises(OutputError, match="another process has kept it") as caught:
        store.save(make.run([]))
    assert "\n" not in str(caught.value)


def test_a_reader_is_not_held_up_by_a_writer(locked, rp):
    assert "test_hf_gpt2.py" in rp("report").out


def test_what_cannot_be_written_can_be_read(store, make, monkeypatch):
    store.save(make.run([make.file("a")]))
    migrate, asked = store_module._migrate, []

    def refuse_once(connection: sqlite3.Connection) -> None:
        asked.append(connection)
        if len(asked) == 1:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        migrate(connection)

    monkeypatch.setattr(store_module, "_migrate", refuse_once)
    assert store.last("run", 1)[0]["files"]
    assert len(asked) == 2


@pytest.mark.parametrize("target", ["a folder", "below a file"])
def test_a_place_that_cannot_be_is_one_sentence(tmp_path, make, target):
    (tmp_path / "file").touch()
    path = tmp_path if target == "a folder" else tmp_path / "file" / "records.sqlite3"
    with pytest.raises(OutputError, match="choose a folder that can be written with RP_HOME"):
        Store(path).save(make.check())


@pytest.mark.parametrize("damage", ["text", "torn", "zeros", "other"])
def test_a_damaged_file_is_named_and_left_alone(rp, store, make, damage):
    for _ in range(20):
        store.save(make.run([make.file("a") for _ in range(20)]))
    whole = store.path.read_bytes()
    if damage == "other":
        store.path.unlink()
        with opened(store.path) as connection:
            connection.execute("CREATE TABLE records (something INTEGER)")
    else:
        torn = {
            "text": b"this is no database, it is a long text" * 30,
            "torn": whole[: len(whole) // 2],
            "zeros": whole[:100] + bytes(len(whole) - 100),
        }
        store.path.write_bytes(torn[damage])  # fmt: skip
    before = store.path.read_bytes()
    done = rp("report", "--last", "50")
    assert done.code == ExitCode.BAD_INPUT
    assert "records.sqlite3" in done.err
    assert "move it away" in done.err
    assert len(done.err.splitlines()) == 1
    assert store.path.read_bytes() == before


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000])
@pytest.mark.parametrize("table", ["records SET record", "files SET result"])
def test_a_row_that_is_no_record_is_named(rp, store, make, text, table):
    store.save(make.run([make.file("a")]))
    with opened(store.path) as connection:
        connection.execute(f"UPDATE {table} = ?", (text,))
    done = rp("report")
    if "files" in table and text in ("[]", "3"):
        assert done.code == 0  # JSON, of no file: as good as nothing
    else:
        assert done.code == ExitCode.BAD_INPUT
        assert "move it away" in done.err
