"""Writing generated files: never over another model's test, never half a file."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from hardware_detection.files import write_atomically
from rp_cli.codegen.plan import TestPlan
from rp_cli.codegen.render import render
from rp_cli.errors import BadInputError, OutputError

_MARK = ", written by rp "  # in the docstring of every generated file


def write_tests(plans: Sequence[TestPlan], output_dir: Path) -> list[Path]:
    """Render all plans, then write them into ``output_dir``, which is made where it is missing.

    Raises:
        BadInputError: two models would share a file, or the file is another model's test, or
            rp did not write it.
        OutputError: the folder or a file cannot be written.
    """
    paths = [output_dir / plan.file_name for plan in plans]
    _refuse_clashes(plans, paths)
    sources = [render(plan) for plan in plans]
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for path, source in zip(paths, sources, strict=True):
            write_atomically(path, source)
    except OSError as error:
        raise OutputError(
            f"Cannot write into {output_dir}: {error.strerror or error}; "
            "choose another folder with --output-dir."
        ) from error
    return paths


def _refuse_clashes(plans: Sequence[TestPlan], paths: Sequence[Path]) -> None:
    owners: dict[Path, str] = {}
    for plan, path in zip(plans, paths, strict=True):
        owner = owners.setdefault(path, plan.model_name)
        if owner == plan.model_name and path.exists():
            owner = _model_of(path)
        if owner != plan.model_name:
            raise BadInputError(
                f"{path} is the test of {owner!r} and would be overwritten by that of "
                f"{plan.model_name!r}; write one of them into another folder with --output-dir."
            )


def _model_of(path: Path) -> str:
    """Return the model whose generated test stands at ``path``.

    Raises:
        BadInputError: it is no generated test.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.Module([], [])
    for node in tree.body if _MARK in (ast.get_docstring(tree) or "") else ():
        match node:
            case ast.Assign(targets=[ast.Name("MODEL_NAME")], value=ast.Constant(str(name))):
                return name
    raise BadInputError(
        f"{path} was not written by rp and is left as it is; move it away, or choose another "
        "folder with --output-dir."
    )
