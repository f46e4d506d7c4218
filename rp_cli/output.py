"""How a command speaks: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

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
