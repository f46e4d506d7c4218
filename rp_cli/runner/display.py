"""What people see of a run while it goes on: a line per file, and on a terminal a moving bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rp_cli.runner.results import FileResult, Watcher, is_failure
from rp_cli.runner.telling import result_line

Say = Callable[[str], None]

_LAST_LINES = 60


class Lines(Watcher):
    """A line per file as it ends, with its output where it failed.

    Args:
        say: writes a line for people.
        quiet: only failures are told.
        live: the one file that runs writes to stderr as it goes on.
    """

    def __init__(self, say: Say, *, quiet: bool, live: bool) -> None:
        self._say, self._quiet, self._live = say, quiet, live
        self.after_each: Callable[[], None] = lambda: None

    def finished(self, result: FileResult) -> None:
        """Tell how a file has ended."""
        self.after_each()
        failed = is_failure(result)
        if self._quiet and not failed:
            return
        self._say(result_line(result))
        if failed:
            self._tell_why(result)

    def output(self, data: bytes) -> None:
        """Pass on what the one file writes."""
        if self._live:
            sys.stderr.buffer.write(data)
            sys.stderr.flush()

    def _tell_why(self, result: Mapping[str, Any]) -> None:
        if not self._live and result["output"].strip():
            lines = result["output"].rstrip().splitlines()
            if len(lines) > _LAST_LINES:
                self._say(f"[... {len(lines) - _LAST_LINES} lines; all of them: rp run --json]")
            self._say("\n".join(lines[-_LAST_LINES:]))
        if result["error"]:
            self._say(result["error"])

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to take away."""


class Bar(Lines):
    """The lines above a bar that says how many are done and what runs now."""

    def __init__(self, count: int, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        # The lines hold names that others chose: nothing in them is markup.
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        super().__init__(lambda text: console.print(text, soft_wrap=True), quiet=quiet, live=False)
        words = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), words)
        self._progress = Progress(*columns, console=console, transient=True)
        self._bar = self._progress.add_task("starting", total=count)
        self._now: dict[str, str] = {}

    def started(self, file: Path, where: str = "") -> None:
        """Name one file more, and where it runs."""
        self._now[str(file)] = f"{file.stem} ({where})" if where else file.stem
        self._show()

    def finished(self, result: FileResult) -> None:
        """Name one file less."""
        self._now.pop(result["path"], None)
        self._progress.advance(self._bar)
        super().finished(result)
        self._show()

    def _show(self) -> None:
        self._progress.update(self._bar, description=", ".join(self._now.values()))

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; the lines stay."""
        self._progress.stop()
