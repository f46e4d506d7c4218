"""What a caller gives, checked before anything is done: one sentence says what is wrong."""

from __future__ import annotations

import numbers
import threading
from typing import Any


def text(name: str, value: Any, example: str) -> str:
    """Return ``value``; TypeError where it is no text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, such as {example!r}, not {value!r:.80}.")
    return value


def texts_or_none(**values: Any) -> None:
    """Raise TypeError for the first of these that is neither text nor None."""
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} must be text or None, not {value!r:.80}.")


def at_least_zero(name: str, value: Any, unit: str) -> None:
    """Raise TypeError where ``value`` is no number, ValueError where it is below 0 or NaN."""
    _number(name, value, unit)
    if not value >= 0:
        raise ValueError(f"{name} must be 0 {unit} or more, not {value!r}.")


def waiting_time(name: str, value: Any) -> None:
    """Raise as :func:`at_least_zero` for seconds that no thread can wait for; None is legal."""
    if value is None:
        return
    _number(name, value, "seconds")
    if not 0 < value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{name} must be seconds above 0, not {value!r}.")


def _number(name: str, value: Any, unit: str) -> None:
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of {unit}, not {value!r:.80}.")
