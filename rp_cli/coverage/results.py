"""Results of earlier checks, one JSON object per line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rp_cli.errors import BadInputError, OutputError

_START = '{"model_type": '  # of each line


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each model type; nothing where the file does not exist.

    A line that breaks off, since a sweep was interrupted while it wrote, is left out.

    Raises:
        BadInputError: a line is no result.
    """
    rows: dict[str, dict[str, Any]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for row in filter(None, map(_result, lines)):
            rows[row["model_type"]] = {**row, "status": row["status"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{file} holds no results of rp models coverage ({error}); name another file"
        ) from error
    return rows


def _result(line: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads(line))
    except ValueError:
        if line.startswith(_START) or _START.startswith(line):
            return None
        raise


def append_result(file: Path, row: Mapping[str, Any]) -> None:
    """Add one result as a line.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with file.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                before = b"" if stream.read(1) == b"\n" else b"\n"
            else:
                before = b""
            stream.write(before + json.dumps(row).encode() + b"\n")
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from error
