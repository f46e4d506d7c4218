"""Watches evicted objects go: their bytes stay charged until the last of their parts has gone."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any


class Leaving:
    """What has left the store and may still live. The store's lock guards ``_leaving``.

    The collector appends the token of a part that has gone to ``_gone``, which is atomic and
    takes no lock; the next decision counts it.
    """

    def __init__(self) -> None:
        self._tokens = itertools.count()
        # token -> how many parts of the object still live, and its charges
        self._leaving: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._gone: deque[int] = deque()

    def watch(self, parts: Sequence[Any], charges: tuple[int, ...]) -> tuple[weakref.ref[Any], ...]:
        """Keep charges until all parts are gone; return references to these.

        Empty for what cannot be watched, an int or a tuple: nothing that takes a device's memory.
        """
        try:
            references = tuple(map(weakref.ref, parts))
        except TypeError:
            return ()
        token = next(self._tokens)
        self._leaving[token] = (len(parts), charges)
        for part in parts:
            weakref.finalize(part, self._gone.append, token).atexit = False
        return references

    def gone(self) -> Iterator[tuple[int, ...]]:
        """Yield the charges of what has really gone since the last time."""
        for _ in range(len(self._gone)):
            token = self._gone.popleft()
            left, charges = self._leaving[token]
            if left > 1:
                self._leaving[token] = (left - 1, charges)
            else:
                del self._leaving[token]
                yield charges
