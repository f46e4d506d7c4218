"""README.md beside this file names the test of each promise; here: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", (FOLDER / "README.md").read_text())))


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_each_test_that_the_table_names_exists(file):
    body = ast.parse((FOLDER / file).read_text(encoding="utf-8")).body
    there = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert {name for named_file, name in NAMED if named_file == file} <= there


def test_each_row_of_the_table_names_a_test_or_says_why_not():
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line[:2] == "| "]
    promises = [row for row in rows[1:] if not row.startswith("| **")]
    assert all(
        "::test_" in row or "::PoolMachine" in row or "benchmarks" in row for row in promises
    )
