"""Blocking calls for coroutines, each in a thread of its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def aside(call: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    """Start ``call`` in a new thread; return its future, which nothing cancels.

    Not in the loop's executor: those who wait for one slow load would take all its threads.
    """
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(call, *args, **options))
        except StopIteration as error:  # which no coroutine can raise
            failure = RuntimeError("the constructor raised StopIteration")
            failure.__cause__ = error
            future.set_exception(failure)
        except BaseException as error:
            future.set_exception(error)

    future.set_running_or_notify_cancel()
    threading.Thread(target=run, name="rp-pool-aside", daemon=True).start()
    return future


def awaited(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Start ``call`` as :func:`aside` does; return what a coroutine awaits its result by."""
    import asyncio

    return asyncio.wrap_future(aside(call, *args, **options))
