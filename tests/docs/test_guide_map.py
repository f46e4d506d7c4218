"""docs/guide-map.md names tests and modules that exist, and leaves no feature of the guides out."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from guide_blocks import blocks, guide_lines

from resource_pool import ResourcePool

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs" / "guide-map.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not re.match(r"\| (guides|option|key|variable) \|", line)
]
# The guides' own scripts are named, too.
_THEIRS = {"test_generator_with_resource_pool.py"}
NAMED = sorted(
    (file, name)
    for file, name in set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", TEXT))
    if file not in _THEIRS
)
PLACES = sorted(set(re.findall(r"`([\w.]+/[\w./]*)`", TEXT)))
_ITEM = re.compile(r"\s*(?:\d+\.|-) +(.*)")


@functools.cache
def names(file: str) -> set[str]:
    """Return the functions and classes of the one test file of that name."""
    (path,) = (TOP / "tests").rglob(file)
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in nodes if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file, name):
    assert list((TOP / "tests").rglob(file)), file
    assert not name or name in names(file)


@pytest.mark.parametrize("place", PLACES)
def test_a_named_place_exists(place):
    assert (TOP / place).exists()


def test_every_row_names_a_test_or_says_why_not():
    assert len(ROWS) > 120
    for row in ROWS:
        assert re.search(r"test_\w+\.py", row[-1]) or re.match("none: .+", row[-1]), row


def test_the_methods_are_the_pools():
    methods = re.findall(r"^\| A\d+ \| `(\w+)` \|", TEXT, re.MULTILINE)
    assert len(methods) == 13
    assert all(callable(getattr(ResourcePool, name)) for name in methods)


def lines_of_rows() -> set[str]:
    return {word for row in ROWS for word in re.findall(r"\b[AB]\d+\b", row[0])}


def features(guide: str) -> dict[str, str]:
    """Return the entries of a guide's lists and tables by their place, such as "A34"."""
    found, fenced = {}, False
    for number, line in enumerate(guide_lines(guide), 1):
        if line.strip().startswith("```"):
            fenced = not fenced
        item = _ITEM.match(line)
        if not fenced and (item or re.match(r"\| \w", line)):
            found[f"{guide}{number}"] = item[1] if item else line
    return found


def test_no_feature_of_the_newer_guide_is_left_out():
    assert sorted(set(features("A")) - lines_of_rows()) == []


def test_no_feature_of_the_older_guide_is_left_out():
    same = set(features("A").values())
    others = {name for name, text in features("B").items() if text not in same}
    assert sorted(others - lines_of_rows()) == []


@pytest.mark.parametrize("guide", ["A", "B"])
def test_no_block_of_a_guide_is_left_out(guide):
    assert sorted({found.name for found in blocks(guide)} - lines_of_rows()) == []
