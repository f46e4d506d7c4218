"""From unittest to pytest: assertions become plain ``assert``, everything else stays as it is.

The templates are written once, for unittest. What differs beyond assertions and skips (the class,
setting up, ``main``) stands in the base template, by ``plan.style``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

_COMPARED: Mapping[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq,
    "assertGreater": ast.Gt,
    "assertIn": ast.In,
    "assertLessEqual": ast.LtE,
    "assertNotIn": ast.NotIn,
}
_JUDGED: Mapping[str, Callable[[ast.expr], ast.expr]] = {
    "assertTrue": lambda condition: condition,
    "assertFalse": lambda condition: ast.UnaryOp(ast.Not(), condition),
}


def to_pytest(source: str) -> str:
    """Return a test's source in which unittest's assertions and skips are pytest's."""
    lines = source.split("\n")
    statements = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    for node in sorted(statements, key=lambda node: node.lineno, reverse=True):
        written = _rewritten(node.value)
        if written is not None and node.end_lineno is not None:
            text = " " * node.col_offset + ast.unparse(written)
            lines[node.lineno - 1 : node.end_lineno] = [text]
    return "\n".join(lines)


def _rewritten(value: ast.expr) -> ast.stmt | None:
    """Return what a call on ``self`` is in pytest; None where it stays."""
    match value:
        case ast.Call(func=ast.Attribute(ast.Name("self"), method), args=given):
            pass
        case _:
            return None
    if method == "skipTest":
        skip = ast.Attribute(ast.Name("pytest", ast.Load()), "skip", ast.Load())
        return ast.Expr(ast.Call(skip, given, []))
    if method in _COMPARED:
        left, right, *message = given
        return ast.Assert(ast.Compare(left, [_COMPARED[method]()], [right]), *message)
    if method in _JUDGED:
        condition, *message = given
        return ast.Assert(_JUDGED[method](condition), *message)
    return None
