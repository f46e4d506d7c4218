"""From a plan to the text of a test file. Every value enters the code as a Python literal."""

from __future__ import annotations

import ast
import functools
import subprocess
from typing import TYPE_CHECKING, Any

from model_family_classifier.data import data_dir

if TYPE_CHECKING:
    from jinja2 import Environment

    from rp_cli.codegen.plan import TestPlan

FORMAT_DEADLINE_SECONDS = 30


def render(plan: TestPlan) -> str:
    """Return the formatted Python source of the plan's test file.

    Raises:
        SyntaxError: a template of ours gave no valid Python; a bug, never the user's mistake.
    """
    source = _environment().get_template(f"{plan.template}.j2").render(plan=plan)
    ast.parse(source)
    return format_source(source)


def format_source(source: str) -> str:
    """Format Python source as ``ruff format`` does, without the settings of the folder."""
    from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]

    # The program itself: `python -m ruff` would run a ruff.py that lies in the current folder.
    done = subprocess.run(
        [find_ruff_bin(), "format", "--isolated", "-"],
        input=source,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=FORMAT_DEADLINE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"ruff could not format the generated test: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # Autoescaping is for HTML; here every value passes `py` (a literal) or `doc` (a docstring).
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(data_dir("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["py"] = repr
    environment.filters["doc"] = _for_docstring
    return environment


def _for_docstring(value: Any) -> str:
    """Return text that stays inside a docstring: no quote, no backslash of its own."""
    return str(value).encode("unicode_escape").decode("ascii").replace('"', '\\"')
