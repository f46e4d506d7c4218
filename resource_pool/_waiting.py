"""Who waits for whose load: what waiters get, and the circles in which nobody would get it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

from resource_pool._entries import Entry
from resource_pool.errors import LoadTimeoutError, NoneResourceError, RecursiveLoadError


class Joined(NamedTuple):
    """An entry with what it held at the moment of joining: its object, or its load's future.

    The entry itself may be evicted a moment later; what was joined stays good.
    """

    entry: Entry
    value: Any
    future: Future[Any] | None

    def result(self, timeout: float | None = None) -> Any:
        """Return the object, waiting for its load where that is under way.

        Raises:
            TimeoutError: the load took longer than ``timeout`` seconds.
        """
        if self.future is None:
            return self.value
        try:
            return self.future.result(timeout)
        except FutureTimeoutError:
            if self.future.done():
                return self.future.result()  # just in time, or a TimeoutError of the constructor
            raise LoadTimeoutError(
                f"The load of {self.entry.key} did not end within {timeout:g} s; it is given up, "
                "and the next request starts another."
            ) from None


class Waits:
    """The threads that wait for a load. No lock of its own: the store's lock guards it."""

    def __init__(self) -> None:
        # thread -> the entry whose load it waits for, and the loads that it waits on behalf of
        self._rows: dict[int, tuple[Entry, frozenset[object]]] = {}

    def begin(self, entry: Entry) -> None:
        """Note that this thread waits for the load of an entry.

        Raises:
            RecursiveLoadError: that load waits, by way of others, for one of this thread's.
        """
        me, mine = threading.get_ident(), loading()
        self._refuse_cycle(entry, me, mine)
        self._rows[me] = entry, mine

    def end(self) -> None:
        """Note that this thread waits no longer."""
        self._rows.pop(threading.get_ident(), None)

    def _refuse_cycle(self, entry: Entry, me: int, mine: frozenset[object]) -> None:
        """Follow who waits for whom; two loads that wait for each other would never end."""
        waited_for, seen = [entry], {entry}
        for one in waited_for:  # which grows
            # A row may outlive its load by the moment in which the waiter wakes up.
            if one.future is None or one.future.done():
                continue
            if one.loading_thread == me or one.created_for in mine:
                raise RecursiveLoadError(
                    f"The load of {entry.key} waits for a load of this thread, which would wait "
                    "for it in turn; load one of them outside the other's constructor."
                )
            for thread, (other, behalf) in self._rows.items():
                waits = thread == one.loading_thread or one.created_for in behalf
                if waits and other not in seen:
                    seen.add(other)
                    waited_for.append(other)


def checked(entry: Entry, constructor: Callable[[], Any]) -> Any:
    """Call a constructor on behalf of an entry, and refuse None."""
    if not callable(constructor):
        raise TypeError(
            f"The constructor of {entry.key} must be callable, such as "
            f"lambda: AutoModel.from_pretrained(name), not {constructor!r:.40}."
        )
    call = _Call(entry.created_for)
    token = _LOADING.set((*_LOADING.get(), call))
    try:
        value = constructor()
    finally:
        call.over = True
        _LOADING.reset(token)
    if value is None:
        raise NoneResourceError(
            f"The constructor of {entry.key} returned None; it must return the object."
        )
    return value


def loading() -> frozenset[object]:
    """Return what stands for the loads in whose constructors this code runs.

    A coroutine that a constructor runs, and the thread in which that waits, belong to it.
    """
    return frozenset(call.load for call in _LOADING.get() if not call.over)


@dataclass(eq=False)
class _Call:
    """A constructor's call, which a copy of its context (a task, a thread) may outlive."""

    load: object
    over: bool = False


_LOADING: ContextVar[tuple[_Call, ...]] = ContextVar("rp_pool_loading", default=())
