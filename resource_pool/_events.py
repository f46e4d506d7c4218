"""The record of what the pool decided and why; statistics and reports read it."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resource_pool._origin import plain

MAX_EVENTS = 1000
LOW_MEMORY_MAX_EVENTS = 100


@dataclass(frozen=True)
class Event:
    """One decision: what ("place", "evict", "fail", ...), for which key, why, in numbers."""

    what: str
    key: str
    reason: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    timestamp: str = field(default_factory=lambda: _now())


def _now() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).isoformat()


class EventLog:
    """The last ``MAX_EVENTS`` events, and how many there were of each. ``_lock`` guards both."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may read what it interrupts
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._counts: Counter[str] = Counter()

    def add(self, event: Event) -> None:
        """Append an event; the oldest goes when the log is full."""
        with self._lock:
            self._events.append(event)
            self._counts[event.what] += 1

    def keep(self, count: int) -> None:
        """Keep that many events from now on: ``MAX_EVENTS``, or fewer in low-memory mode."""
        with self._lock:
            self._events = deque(self._events, maxlen=count)

    def all(self) -> list[Event]:
        """Return the events that are still kept, oldest first, with plain numbers."""
        with self._lock:
            found = list(self._events)
        return [
            replace(event, numbers=plain(event.numbers)) if "weights" in event.numbers else event
            for event in found
        ]

    def after_fork(self) -> None:
        """In a forked child: a new lock; another thread may have held the old one."""
        self._lock = threading.RLock()

    def count(self, what: str) -> int:
        """Return how many events of a kind there were, those no longer kept included."""
        with self._lock:
            return self._counts[what]
