"""Blocking calls for coroutines, each in a thread of its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def aside(call: Callable[..., Any], *args: Any, **options: Any) -> asyncio.Future[Any]:
    """Start ``call`` in a new thread; return what a coroutine awaits for its result.

    Not in the loop's executor: those who wait for one slow load would take all its threads.
    """
    import asyncio  # which starts slowly, and most programs do without

    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(context.run(call, *args, **options))
        except BaseException as error:
            future.set_exception(error)

    awaited = asyncio.wrap_future(future)
    threading.Thread(target=run, name="rp-pool-aside", daemon=True).start()
    return awaited
