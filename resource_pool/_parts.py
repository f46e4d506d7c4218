"""Which parameters were placed for whom, so that none is moved behind somebody's back."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from resource_pool._entries import Mark

# Rows of parameters that have died are swept out when there may be this many of them.
_SWEEP_AFTER = 10_000


class Owner(NamedTuple):
    """Whose parameters they are: what stands for the load, and its key."""

    mark: Mark
    label: str


class Placed:
    """The parameters that the pool has placed, while they live, cached or not.

    ``_lock`` guards the rows. A row is a weak reference without a callback, which costs a
    twentieth of one with; the rows of the dead are swept out now and then.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may place a model at any moment
        self._rows: dict[int, tuple[weakref.ref[Any], Owner]] = {}
        self._sweep_at = _SWEEP_AFTER

    def claim(self, parts: Sequence[Any], owner: Owner) -> dict[Owner, list[Any]]:
        """Note parameters as ``owner``'s; return those that are others' already, by their owner.

        All are looked at and noted in one step: of two loads of one object, one is told of the
        other. What nobody answers for in the ledger becomes ``owner``'s, though it is others'.
        """
        others: dict[Owner, list[Any]] = {}
        with self._lock:
            known = self._rows.keys() & map(id, parts)
            if known:
                for part in parts:
                    row = self._rows.get(id(part))
                    if row and row[0]() is part and row[1].mark is not owner.mark:
                        others.setdefault(row[1], []).append(part)
            charged = (shared for other, shared in others.items() if other.mark.charged)
            theirs = {id(part) for shared in charged for part in shared}
            mine = [part for part in parts if id(part) not in theirs] if theirs else parts
            rows = [(reference, owner) for reference in map(weakref.ref, mine)]
            self._rows.update(zip(map(id, mine), rows, strict=True))
            if len(self._rows) > self._sweep_at:
                self._sweep()
        return others

    def disclaim(self, mark: Mark) -> None:
        """Take back what a load was noted for: nothing was placed after all."""
        with self._lock:
            self._rows = {n: row for n, row in self._rows.items() if row[1].mark is not mark}

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.RLock()

    def _sweep(self) -> None:
        self._rows = {number: row for number, row in self._rows.items() if row[0]() is not None}
        self._sweep_at = max(_SWEEP_AFTER, 2 * len(self._rows))
