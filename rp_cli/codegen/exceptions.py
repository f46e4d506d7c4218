"""Takes tests that an architecture fails by design out of its file, and says so in its header."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping

_WIDTH = 99
# The last line of a file's header; what was left out stands above it.
_DIGEST = "\nDigest: "


def leave_out(source: str, checks: Mapping[str, str]) -> str:
    """Return a test's source without the tests named in ``checks`` (name -> why)."""
    methods = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name in checks
    ]
    lines = source.split("\n")
    for node in sorted(methods, key=lambda node: node.lineno, reverse=True):
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        del lines[first - 1 : node.end_lineno]
    return _told("\n".join(lines), {node.name: checks[node.name] for node in methods})


def _told(source: str, checks: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for name, why in checks.items():
        by_reason.setdefault(why, []).append(name)
    told = [
        textwrap.fill(f"Left out, because {why}: {', '.join(names)}.", _WIDTH)
        for why, names in by_reason.items()
    ]
    return source.replace(_DIGEST, "".join(f"\n{text}" for text in told) + _DIGEST, 1)
