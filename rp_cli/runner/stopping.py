"""Ctrl-C and the signals that end a program, noted instead of obeyed on the spot.

An exception out of a signal handler may fall between a fork and the line that remembers the
child, or into the middle of writing a record. A note cannot.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class StopSignals:
    """While entered, remembers in ``noted`` the name of the signal that came first, or None.

    Signals that are ignored stay so: that is how ``nohup`` and background jobs ask for it.
    """

    def __init__(self) -> None:
        self.noted: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        numbers = (signal.Signals[name] for name in _NAMES if hasattr(signal, name))
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.noted is not None

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.noted = self.noted or signal.Signals(number).name


@contextlib.contextmanager
def ended_cleanly(code: int) -> Iterator[None]:
    """Inside, SIGTERM ends the program with this exit code, and with all its clean-up."""

    def end(*_: object) -> None:
        sys.exit(code)

    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
