"""Which parameters were placed for whom, so that none is moved behind somebody's back."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any


class Placed:
    """The parameters that the pool has placed, while they live, cached or not.

    ``_lock`` guards ``_owners``; a parameter that dies takes its own row out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[int, tuple[weakref.ref[Any], object, str]] = {}

    def claim(self, parts: Sequence[Any], owner: object, label: str) -> str:
        """Note parameters as ``owner``'s; return whose some of them are already, or "".

        All are looked at before any is noted, in one step: of two loads of one object, one is
        told of the other.
        """
        with self._lock:
            for part in parts:
                known = self._owners.get(id(part))
                if known and known[0]() is part and known[1] is not owner:
                    return known[2]
            for part in parts:
                self._owners[id(part)] = (self._watch(part), owner, label)
        return ""

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.Lock()

    def _watch(self, part: Any) -> weakref.ref[Any]:
        # No lock in the callback: the collector may run it while this thread holds the lock.
        number = id(part)
        return weakref.ref(part, lambda gone: self._forget(number, gone))

    def _forget(self, number: int, gone: weakref.ref[Any]) -> None:
        known = self._owners.get(number)
        if known and known[0] is gone:
            self._owners.pop(number, None)
