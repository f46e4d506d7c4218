"""Results of earlier checks, one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rp_cli.errors import BadInputError, OutputError


def read_results(file: Path) -> dict[str, dict[str, Any]]:
    """Return the last result of each model type; nothing where the file does not exist.

    Raises:
        BadInputError: a line is no result.
    """
    rows: dict[str, dict[str, Any]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for line in lines:
            row = json.loads(line)
            rows[row["model_type"]] = {**row, "status": row["status"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(
            f"{file} holds no results of rp models coverage ({error}); name another file"
        ) from error
    return rows


def append_result(file: Path, row: Mapping[str, Any]) -> None:
    """Add one result as a line.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}") from error
