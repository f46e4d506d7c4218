"""What a file's tests have done so far, a line each: it is there when no result can be written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_MOST_BYTES = 1 << 25

Test = dict[str, Any]


class Journal:
    """Notes each test when it begins and when it has ended; without a path, nothing.

    The file is opened for each line: a test may close whatever is open in its process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._started = path, time.monotonic()
        if path is not None:
            path.unlink(missing_ok=True)  # an earlier attempt's

    def begun(self, name: str) -> None:
        """Note that a test begins."""
        self._write({"name": name, "after": time.monotonic() - self._started})

    def ended(self, test: Mapping[str, Any]) -> None:
        """Note what a test has done: its record, with its name."""
        self._write(test)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._path is not None:
            with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")


NO_JOURNAL = Journal()


def journal_of(result_file: Path) -> Path:
    """Return where the journal of a file lies: beside its result."""
    return result_file.with_suffix(".journal")


def read_journal(path: Path) -> tuple[list[Test], Test | None]:
    """Return the tests that have ended, and the one that ran: its name, and ``after`` how long."""
    ended: dict[str, Test] = {}
    running: Test | None = None
    for line in _lines(path):
        if "status" in line:
            ended[line["name"]] = line
            running = None
        else:
            running = line
    return list(ended.values()), running


def _lines(path: Path) -> Iterator[Test]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return
    for line in text.splitlines():
        with suppress(ValueError):  # the last one may be half written
            yield json.loads(line)
