"""Torch's tracer keeps its state in globals of the process: one model is traced at a time."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Wait until nothing else is traced; inside, remarks of the tracer and of transformers are
    kept back.

    What a conversion leaves behind on the root logger is undone: one that fails leaves it at ERROR,
    with a filter, and the warning that tells of the failure would not be seen.
    """
    with _lock, warnings.catch_warnings(), _loggers_kept():
        warnings.simplefilter("ignore")  # of Python values that the trace keeps
        # Which warns while a tracer reads every attribute of a model.
        logging.getLogger("transformers").setLevel(logging.ERROR)
        yield


@contextlib.contextmanager
def _loggers_kept() -> Iterator[None]:
    root, transformers = logging.getLogger(), logging.getLogger("transformers")
    levels = [(logger, logger.level) for logger in (root, transformers)]
    filters, handlers = [*root.filters], [*root.handlers]
    try:
        yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
        root.filters, root.handlers = filters, handlers


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
