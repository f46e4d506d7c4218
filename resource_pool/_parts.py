"""Which parameters were placed for whom, so that none is moved behind somebody's back."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resource_pool._entries import Mark

# Rows of parameters that have died are swept out when there may be this many of them.
_SWEEP_AFTER = 10_000


@dataclass(frozen=True, eq=False)
class Owner:
    """Whose parameters they are: what stands for the load, its key, and its model."""

    mark: Mark
    label: str
    model: weakref.ref[Any] | None = None

    @property
    def lives(self) -> bool:
        """Whether somebody still has the model, cached or not."""
        return self.model is not None and self.model() is not None


class Placed:
    """The parameters that the pool has placed, while they live, cached or not.

    ``_lock`` guards the rows. A row is a weak reference without a callback, which costs a
    twentieth of one with; the rows of the dead are swept out now and then.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may place a model at any moment
        self._rows: dict[int, tuple[weakref.ref[Any], tuple[Owner, ...]]] = {}
        self._sweep_at = _SWEEP_AFTER

    def claim(self, parts: Sequence[Any], owner: Owner) -> list[Owner]:
        """Note parameters as ``owner``'s, too; return those whose they are already.

        All are looked at and noted in one step: of two loads of one object, one is told of the
        other.
        """
        with self._lock:
            known = self._rows.keys() & map(id, parts)
            rows = [(reference, (owner,)) for reference in map(weakref.ref, parts)]
            others = self._others(parts, owner) if known else {}
            self._rows.update(zip(map(id, parts), rows, strict=True))
            for part, owners in others.values():
                # Of several loads under one key the last stands for those that have gone: there
                # may be many.
                earlier = (one for one in owners if one.label != owner.label or one.lives)
                self._rows[id(part)] = (weakref.ref(part), (*earlier, owner))
            if len(self._rows) > self._sweep_at:
                self._sweep()
        return [*dict.fromkeys(one for _, owners in others.values() for one in owners)]

    def owners(self, parts: Sequence[Any]) -> list[Owner]:
        """Return whose they are."""
        with self._lock:
            rows = [row for part in parts if (row := self._rows.get(id(part)))]
        return [*dict.fromkeys(one for _, owners in rows for one in owners)]

    def _others(self, parts: Sequence[Any], owner: Owner) -> dict[int, tuple[Any, list[Owner]]]:
        """Return those of the parts that others have placed, with these."""
        found = {}
        for part in parts:
            row = self._rows.get(id(part))
            if row and row[0]() is part:
                found[id(part)] = part, [one for one in row[1] if one.mark is not owner.mark]
        return found

    def disclaim(self, mark: Mark) -> None:
        """Take back what a load was noted for: nothing was placed after all."""
        with self._lock:
            left = {
                number: (reference, tuple(one for one in owners if one.mark is not mark))
                for number, (reference, owners) in self._rows.copy().items()
            }
            self._rows = {number: row for number, row in left.items() if row[1]}

    def after_fork(self) -> None:
        """In a forked child: another thread may have held the lock."""
        self._lock = threading.RLock()

    def _sweep(self) -> None:
        self._rows = {n: row for n, row in self._rows.copy().items() if row[0]() is not None}
        self._sweep_at = max(_SWEEP_AFTER, 2 * len(self._rows))
