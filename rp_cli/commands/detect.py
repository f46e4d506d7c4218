"""``rp detect``: what this machine can compute on."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rp_cli.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STYLES = {"available": "green", "unusable": "yellow", "error": "red", "absent": "dim"}


def command(
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Remember the detection here; created if missing."),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Detect anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show each step, and the variables that matter.")
    ] = False,
) -> None:
    """Show what this machine can compute on, each claim proved by a small computation.

    A detection is remembered until the machine, its drivers or its packages change.
    """
    from hardware_detection import detect_available_hardware

    if debug:
        _say_environment()
    with _steps_on_stderr() if debug else nullcontext():
        report = detect_available_hardware(cache, refresh=refresh)
    if debug and report["from_cache"]:
        say("no probe ran: the cache still holds; --refresh runs them")
    if as_json:
        print_json(report)
    else:
        _print_table(report)


def _print_table(report: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from hardware_detection.summary import rows, system_line
    from rp_cli.output import console

    table = Table()
    # Text, not str: a device's name must not be read as markup, and looking for emoji in a
    # heading takes longer than drawing the table.
    for heading in ("Backend", "Status", "Devices", "Why"):
        table.add_column(Text(heading))
    for row in rows(report):
        status = Text(row.status, style=_STYLES[row.status])
        table.add_row(Text(row.backend), status, Text(row.devices), Text(row.reason))
    out = console()
    out.print(table)
    out.print(Text(system_line(report)), soft_wrap=True)


@contextmanager
def _steps_on_stderr() -> Iterator[None]:
    import logging
    import sys

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(relativeCreated)6.0f ms  %(message)s"))
    logger = logging.getLogger("hardware_detection")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _say_environment() -> None:
    import os
    import sys

    from hardware_detection.environment import RELEVANT, conflicts, relevant

    for sentence in conflicts(os.environ, platform=sys.platform):
        say(f"conflict: {sentence}")
    present = relevant(os.environ)
    for name, meaning in RELEVANT.items():
        say(f"{name}={present[name]!r}" if name in present else f"{name} is not set ({meaning})")
