"""Untrusted text on its way to a terminal: names, messages and reasons that others wrote."""

from __future__ import annotations


def one_line(value: object) -> str:
    """Return ``value`` on one line, without characters that a terminal would obey."""
    text = " ".join(str(value).split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
