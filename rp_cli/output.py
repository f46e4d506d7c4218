"""How a command speaks: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from rp_cli.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.status import Status

T = TypeVar("T")
# What is over within it is not worth a sign on the terminal.
_MOMENT_S = 0.3
LOGGERS = ("rp", "hardware_detection", "model_family_classifier", "resource_pool")

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def print_json(data: Any) -> None:
    """Write ``data`` to stdout as indented JSON with a stable key order of its own."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    # What a terminal would obey or UTF-8 cannot hold is escaped, as JSON does below U+0020.
    typer.echo(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(message: str) -> None:
    """Write a message for people to stderr."""
    typer.echo(message, err=True)


def progress(
    items: Iterable[T], what: str, *, least: int = 2, count: int | None = None
) -> Iterable[T]:
    """Show a bar on a terminal while at least so many items are gone through.

    ``count`` says how many there are where they come one by one, as they are done.
    """
    if count is None:
        items = list(items)
        count = len(items)
    if count < least or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    shown = Console(stderr=True)
    return track(items, description=what, total=count, console=shown, transient=True)


@contextmanager
def working(what: str, *, after: float = 0.0) -> Iterator[None]:
    """Show on a terminal what takes its time; elsewhere show nothing.

    Args:
        what: What is being done.
        after: The seconds within which there is nothing to show; what is over by then never
            imports what draws.
    """
    if not sys.stderr.isatty():
        yield
        return
    with ExitStack() as shown:
        if after:
            shown.enter_context(_later(after, lambda: shown.enter_context(_sign(what))))
        else:
            shown.enter_context(_sign(what))
        yield


def _sign(what: str) -> Status:
    from rich.console import Console

    return Console(stderr=True).status(what)


@contextmanager
def _later(seconds: float, call: Callable[[], object]) -> Iterator[None]:
    """Call something if the block takes so long."""
    timer = Timer(seconds, call)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def detected(cache: Path | None = None, **options: Any) -> dict[str, Any]:
    """Return the hardware report; a detection that takes longer is shown on a terminal.

    The options are those of :func:`hardware_detection.detect_available_hardware`.

    Raises:
        BadInputError: a cache was named, and another machine than this one is planned for.
    """
    from hardware_detection import detect_available_hardware

    refuse_for_a_description({f"the hardware cache {cache}": cache is not None})
    with _warned(), working("Detecting hardware", after=_MOMENT_S):
        return detect_available_hardware(cache, **options)


def refuse_for_a_description(given: Mapping[str, bool]) -> None:
    """Refuse what only this machine can answer, where another one is planned for.

    Args:
        given: by the name of each such option, whether it was given.

    Raises:
        BadInputError: one was.
    """
    from hardware_detection.service import described_by

    names = [name for name, is_given in given.items() if is_given]
    if names and described_by() is not None:
        raise BadInputError(
            f"{names[0]} is about this machine, and --hardware describes another one; use one of "
            "them."
        )


@contextmanager
def _warned() -> Iterator[None]:
    """Tell the warnings of a detection as rp's own sentences, unless all is logged anyway."""
    logger = logging.getLogger("hardware_detection")
    if logger.hasHandlers():
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("rp: %(message)s."))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def log_to_stderr() -> None:
    """Show what the libraries decide, step by step; for ``--debug``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)


def console() -> Console:
    """Return a rich console on stdout; rich is imported only by the commands that draw."""
    from rich.console import Console

    # Piped output must not be cut at 80 columns: programs and CI logs read it.
    width = None if sys.stdout.isatty() else 160
    return Console(width=width, highlight=False)
