"""The table of promises names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROWS = re.findall(
    r"^\|(.+)\|(.+)\|$", (HERE / "README.md").read_text(encoding="utf-8"), re.MULTILINE
)
NAMED = [name for _, tests in ROWS for name in re.findall(r"`([\w/]+\.py[\w:]*)`", tests)]


def test_every_promise_names_a_test() -> None:
    promises = [(promise, tests) for promise, tests in ROWS if ".py" in tests]
    headings = [tests.strip(" -") for promise, tests in ROWS if ".py" not in tests]
    assert len(promises) > 30
    assert set(headings) <= {"test", ""}


@pytest.mark.parametrize("name", NAMED)
def test_the_named_test_exists(name: str) -> None:
    file, *path = name.split("::")
    scope: ast.AST = ast.parse((HERE.parent / file).read_text(encoding="utf-8"))
    for part in path:
        inside = {child.name: child for child in ast.iter_child_nodes(scope) if is_named(child)}
        assert part in inside, f"{file} has no {part}"
        scope = inside[part]
    found = [node for node in ast.walk(scope) if isinstance(node, ast.FunctionDef)]
    assert any(node.name.startswith("test_") for node in found)


def is_named(node: ast.AST) -> bool:
    return isinstance(node, (ast.ClassDef, ast.FunctionDef))
