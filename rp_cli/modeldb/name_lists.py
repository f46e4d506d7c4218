"""Reads lists of model names: from standard input, or from a file like requirements.txt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from model_family_classifier.documents import read_text
from rp_cli.errors import BadInputError

STDIN = "-"
# As in requirements.txt: from a "#" at the start of a line or after a blank.
_COMMENT = re.compile(r"(^|\s)#.*")


def gather_names(given: Sequence[str], files: Sequence[Path], stdin: TextIO) -> list[str]:
    """Return the names of the command line, of standard input ("-") and of the files, in order.

    Raises:
        BadInputError: there is none.
        ClassificationInputError: a file cannot be read.
    """
    names: list[str] = []
    for one in given:
        names += _names_in(stdin) if one == STDIN else [one]
    for file in files:
        names += _names_in(read_text(file, what="list of names", pipes=True).splitlines())
    if not names:
        raise BadInputError("no model was named: the list is empty.")
    return names


def _names_in(lines: Iterable[str]) -> list[str]:
    """Return the name on each line, without comments and blank lines."""
    stripped = (_COMMENT.sub("", line).strip() for line in lines)
    return [name for name in stripped if name]
