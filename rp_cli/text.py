"""Untrusted text on its way to a terminal: names, messages and reasons that others wrote."""

from __future__ import annotations


def one_line(value: object) -> str:
    """Return ``value`` on one line, without characters that a terminal would obey."""
    text = " ".join(str(value).split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def place_name(device: str, adapter: str | None) -> str:
    """Return a device's name and, of a browser's, what kind of adapter is behind it."""
    # A simulated device says so itself: "webgpu:simulation".
    return f"{device} ({adapter})" if adapter in ("hardware", "software") else device


def not_run(count: int) -> str:
    """Return how many files a run has left out, in words."""
    return f"{count} {'file was' if count == 1 else 'files were'} not run"
