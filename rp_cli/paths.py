"""Paths that a user gives on the command line."""

from __future__ import annotations

from pathlib import Path

import typer


def given_path(given: str | Path) -> Path:
    """Return the path; an empty text, as an unset variable gives, would be the current folder.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not str(given).strip():
        raise typer.BadParameter("it is empty; name a file or a folder")
    return Path(given)
