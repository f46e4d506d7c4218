"""Standard output that says itself when it fails, so that it is told from a bug of ours.

A full disk and a closed pipe raise what any other file raises, and click and rich answer a closed
pipe with the exit code 1, which here means that a requirement is not met.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from rp_cli.errors import OutputError


class ReaderGoneError(Exception):
    """Nobody reads standard output any more, as after ``| head``; no error that is told."""


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Inside, standard output raises `OutputError` or `ReaderGoneError` where it fails."""
    with contextlib.ExitStack() as after:
        before = sys.stdout, sys.stderr
        after.callback(_restore, *before)
        # A closed one is None. Opened for reading, null refuses what is written, as a closed one.
        stdout = before[0] or _null(os.O_RDONLY, after)
        sys.stderr = before[1] or _null(os.O_WRONLY, after)
        for stream in (stdout, sys.stderr):
            # A terminal that cannot show "✅" gets "?" and no UnicodeEncodeError.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        sys.stdout = cast("TextIO", _Guarded(stdout))
        after.callback(_empty, stdout)
        yield


def _restore(stdout: TextIO, stderr: TextIO) -> None:
    sys.stdout, sys.stderr = stdout, stderr


def _empty(stdout: TextIO) -> None:
    """Let what cannot be written go nowhere: Python tries again at its end, and would complain."""
    try:
        stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stdout.fileno())
            os.close(null)


def _null(flags: int, after: contextlib.ExitStack) -> TextIO:
    return after.enter_context(os.fdopen(os.open(os.devnull, flags), "w", encoding="utf-8"))


class _Guarded:
    """A text stream whose failures have types of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError from error
            why = error.strerror or type(error).__name__
            raise OutputError(f"standard output cannot be written: {why}.") from error
