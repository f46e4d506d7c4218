"""From unittest to pytest: assertions become plain ``assert``, everything else stays as it is.

The templates are written once, for unittest. What differs beyond assertions and skips (the class,
setting up, ``main``) stands in the base template, by ``plan.style``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping

_COMPARED: Mapping[str, type[ast.cmpop]] = {
    "assertEqual": ast.Eq,
    "assertGreater": ast.Gt,
    "assertGreaterEqual": ast.GtE,
    "assertIn": ast.In,
    "assertIs": ast.Is,
    "assertIsNot": ast.IsNot,
    "assertLess": ast.Lt,
    "assertLessEqual": ast.LtE,
    "assertNotEqual": ast.NotEq,
    "assertNotIn": ast.NotIn,
}
_NONE = ast.Constant(None)
_JUDGED: Mapping[str, Callable[[ast.expr], ast.expr]] = {
    "assertTrue": lambda value: value,
    "assertFalse": lambda value: ast.UnaryOp(ast.Not(), value),
    "assertIsNone": lambda value: ast.Compare(value, [ast.Is()], [_NONE]),
    "assertIsNotNone": lambda value: ast.Compare(value, [ast.IsNot()], [_NONE]),
}
# How many values they take before the message.
_VALUES = {**dict.fromkeys(_COMPARED, 2), **dict.fromkeys(_JUDGED, 1)}
_OF_TEST_CASES = ("addCleanup", "enterContext", "fail", "skipTest", "subTest")


def to_pytest(source: str) -> str:
    """Return a test's source in which unittest's assertions and skips are pytest's.

    Raises:
        ValueError: it uses a method of unittest.TestCase that has no such form; names the line.
        SyntaxError: it is no Python.
    """
    tree = ast.parse(source)
    # Columns count bytes.
    lines = [line.encode() for line in source.split("\n")]
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in sorted(statements, key=lambda node: (node.lineno, node.col_offset), reverse=True):
        written = _rewritten(node.value)
        if written is None or node.end_lineno is None:
            continue
        first, last = lines[node.lineno - 1], lines[node.end_lineno - 1]
        text = (
            first[: node.col_offset] + ast.unparse(written).encode() + last[node.end_col_offset :]
        )
        lines[node.lineno - 1 : node.end_lineno] = text.split(b"\n")
    done = b"\n".join(lines).decode()
    _refuse_leftovers(done)
    return done


def _rewritten(value: ast.expr) -> ast.stmt | None:
    """Return what a call on ``self`` is in pytest; None where it stays."""
    match value:
        case ast.Call(func=ast.Attribute(ast.Name("self"), method), args=given, keywords=named):
            pass
        case _:
            return None
    if method == "skipTest":
        skip = ast.Attribute(ast.Name("pytest", ast.Load()), "skip", ast.Load())
        return ast.Expr(ast.Call(skip, given, named))
    taken = _VALUES.get(method)
    given = [*given, *(word.value for word in named if word.arg == "msg")]
    understood = all(word.arg == "msg" for word in named) and not any(
        isinstance(one, ast.Starred) for one in given
    )
    if taken is None or not understood or not taken <= len(given) <= taken + 1:
        return None
    values, message = given[:taken], given[taken] if len(given) > taken else None
    if method in _JUDGED:
        return ast.Assert(_JUDGED[method](values[0]), message)
    return ast.Assert(ast.Compare(values[0], [_COMPARED[method]()], [values[1]]), message)


def _refuse_leftovers(source: str) -> None:
    """Refuse what only a unittest.TestCase has, where no class says that it is one."""
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in _outside_test_cases(tree):
        match node:
            case ast.Attribute(ast.Name("self"), name) if name not in own and _is_unittests(name):
                line = source.split("\n")[node.lineno - 1].strip()
                raise ValueError(
                    f"--style pytest has no self.{name} in this form: {line!r}; write a plain "
                    "assert, or what pytest has for it, where plan.style is 'pytest'"
                )


def _is_unittests(name: str) -> bool:
    return (name.startswith("assert") and name[6:7].isupper()) or name in _OF_TEST_CASES


def _outside_test_cases(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        bases = child.bases if isinstance(child, ast.ClassDef) else ()
        if not any(ast.unparse(base).endswith("TestCase") for base in bases):
            yield child
            yield from _outside_test_cases(child)
