"""The blocks of the two guides that rp follows. Their text is not part of this repository.

The folder is ``$RP_TEST_GUIDES``, or ``../shared/seeds`` beside the checkout. Where it is not
there, the tests that execute the guides are skipped; what they show is tested in our own words
elsewhere.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("RP_TEST_GUIDES") or Path(__file__).parents[2] / "shared" / "seeds"
).absolute()
GUIDES = {"A": "000_*.txt", "B": "001_*.txt"}
# Two fences of B are never closed; these are the last lines of what they open.
REPAIRED = {("B", 1083): 1135, ("B", 1141): 1239}

_FENCE = re.compile(r"\s*```(\w*)\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: the guide's letter, the line of its fence, its language, its text."""

    guide: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.guide}{self.line}"


def guide_lines(guide: str) -> list[str]:
    """Return the lines of a guide; skip the test where the guides are not here."""
    found = sorted(FOLDER.glob(GUIDES[guide]))
    if not found:
        pytest.skip(f"the guides are not in {FOLDER}; RP_TEST_GUIDES names their folder")
    return found[0].read_text(encoding="utf-8").splitlines()


def blocks(guide: str) -> Iterator[Block]:
    """Return the blocks of a guide in their order."""
    lines = guide_lines(guide)
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        start, end = at + 1, REPAIRED.get((guide, at + 1)) or _closed_at(lines, at + 1)
        text = textwrap.dedent("\n".join(lines[start:end])) + "\n"
        yield Block(guide, start, fence[1], text)
        at = end + ((guide, start) not in REPAIRED)


def block(name: str) -> Block:
    """Return the block that is called after its guide and line, such as "A57"."""
    return next(found for found in blocks(name[0]) if found.name == name)


def _closed_at(lines: list[str], start: int) -> int:
    return next(at for at in range(start, len(lines)) if lines[at].strip() == "```")
