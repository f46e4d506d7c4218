"""Watches evicted objects go: their bytes stay charged until the last of their parts has gone."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from resource_pool._ledger import Place, per_device


class _Row(NamedTuple):
    """An object that has left: where parts of its memory still live, and its charges.

    None, among the places, stands for the object itself.
    """

    alive: set[Place | None]
    charges: tuple[int, ...]


class Leaving:
    """What has left the store and may still live. The store's lock guards ``_rows``.

    The collector appends what has gone to ``_gone``, which is atomic and takes no lock; the next
    decision counts it.
    """

    def __init__(self) -> None:
        self._tokens = itertools.count()
        self._rows: dict[int, _Row] = {}
        self._gone: deque[tuple[int, Place | None]] = deque()

    def watch(
        self, value: Any, storages: Mapping[Place, Any], charges: tuple[int, ...]
    ) -> tuple[weakref.ref[Any], ...]:
        """Keep charges until an object and its storages are gone; return references to these.

        Empty for what cannot be watched, an int or a tuple: nothing that takes a device's memory.
        """
        parts: dict[Place | None, Any] = dict([(None, value), *storages.items()])
        try:
            references = tuple(map(weakref.ref, parts.values()))
        except TypeError:
            return ()
        token = next(self._tokens)
        for place, part in parts.items():
            weakref.finalize(part, self._gone.append, (token, place)).atexit = False
        self._rows[token] = _Row({*parts}, charges)
        return references

    def forget(self, charges: tuple[int, ...]) -> None:
        """Stop watching for what has these charges: it has not left after all."""
        self._rows = {token: row for token, row in self._rows.items() if row.charges != charges}

    def gone(self) -> Iterator[tuple[int, ...]]:
        """Yield the charges of what has really gone since the last time."""
        while self._gone:
            token, place = found = self._gone[0]
            row = self._rows.get(token)
            if row is not None:
                row.alive.discard(place)
                if not row.alive:
                    # Forgotten afterwards: what interrupts the caller lets it be yielded again.
                    yield row.charges
                    self._rows.pop(token, None)
            if self._gone and self._gone[0] is found:  # a finalizer may have asked as well
                self._gone.popleft()

    def taken_over(
        self, places: Mapping[Place, int]
    ) -> Iterator[tuple[tuple[int, ...], dict[str, int] | None]]:
        """Yield the charges of which an entry answers for a part again, and for how many bytes.

        None instead where no memory is left to charge: the entry answers for all of it.
        """
        for token, row in [*self._rows.items()]:
            taken = row.alive & places.keys()
            if taken and row.alive - taken <= {None}:
                yield row.charges, None
                self._rows.pop(token, None)
            elif taken:
                row.alive.difference_update(taken)
                yield row.charges, per_device(places, among=taken)
