"""From plans to the texts of test files. Every value enters the code as a Python literal."""

from __future__ import annotations

import ast
import functools
import hashlib
import re
import subprocess
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hardware_detection.errors import hint_at, nearest
from model_family_classifier.data import data_dir
from rp_cli.codegen.blocks import refuse_unknown_blocks
from rp_cli.codegen.exceptions import leave_out
from rp_cli.codegen.own_templates import refuse_misspelt
from rp_cli.codegen.plan import NO_DIGEST, STYLES
from rp_cli.codegen.styles import to_pytest
from rp_cli.errors import BadInputError

if TYPE_CHECKING:
    from jinja2 import Environment

    from rp_cli.codegen.plan import TestPlan

_FORMAT = ("--isolated", "--no-cache", "--quiet", "--line-length=100")
FORMAT_DEADLINE_SECONDS = 120
# Under this name a user's template reaches rp's own: {% extends "rp/hf_base_template.py.j2" %}.
OURS = "rp"
_DIGEST = re.compile(rf"^Digest: [0-9a-f]{{{len(NO_DIGEST)}}};", re.MULTILINE)


def render(plan: TestPlan, template_dir: Path | None = None) -> str:
    """Return the finished source of one plan's test file; see `render_all`."""
    return render_all([plan], template_dir)[0]


def render_all(plans: Sequence[TestPlan], template_dir: Path | None = None) -> list[str]:
    """Return the finished Python source of each plan's test file.

    Args:
        template_dir: a folder whose templates go before rp's own of the same name.

    Raises:
        BadInputError: a template of ``template_dir`` is wrong, fills a block that is none, or is
            nearly called as one that would be taken; says which and where.
        RuntimeError: a template of rp's own is; a bug, never the user's mistake.
    """
    if template_dir is not None:
        ours = {path.name for path in data_dir("templates").glob("*.j2")}
        asked = {f"{plan.template}.j2" for plan in plans}
        refuse_misspelt(template_dir, ours | asked)
        for name in sorted(asked):
            refuse_unknown_blocks(environment(template_dir), name, template_dir)
    sources = [_source(plan, template_dir) for plan in plans]
    try:
        formatted = format_sources(sources)
    except RuntimeError as error:
        if template_dir is None:
            raise
        problem = _syntax_error(sources) or str(error)
        raise BadInputError(
            f"The templates of {template_dir} make no Python: {problem}."
        ) from error
    return [signed(source) for source in formatted]


def signed(source: str) -> str:
    """Return the source with the digest of the rest of it in its header."""
    blank = _DIGEST.sub(f"Digest: {NO_DIGEST};", source, count=1)
    digest = hashlib.sha256(blank.encode()).hexdigest()[: len(NO_DIGEST)]
    return _DIGEST.sub(f"Digest: {digest};", blank, count=1)


def is_unedited(source: str) -> bool:
    """Whether a generated file is, to the byte, as rp wrote it."""
    return _DIGEST.search(source) is not None and signed(source) == source


def format_sources(sources: Iterable[str]) -> list[str]:
    """Format Python sources as ``ruff format`` does, all in one go, without a folder's settings.

    Raises:
        RuntimeError: one of them is no Python.
    """
    from ruff.__main__ import find_ruff_bin  # type: ignore[import-untyped]

    with tempfile.TemporaryDirectory(prefix="rp_") as folder:
        files = [Path(folder, f"{number}.py") for number, _ in enumerate(sources)]
        for file, source in zip(files, sources, strict=True):
            file.write_text(source, encoding="utf-8", newline="\n")
        # The program itself: `python -m ruff` would run a ruff.py that lies in the current folder.
        done = subprocess.run(
            [find_ruff_bin(), "format", *_FORMAT, folder],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=FORMAT_DEADLINE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            problem = _syntax_error(sources) or done.stderr.strip().replace(f"{folder}/", "")
            raise RuntimeError(f"ruff cannot format a generated test: {problem}")
        return [file.read_text(encoding="utf-8") for file in files]


def _syntax_error(sources: Iterable[str]) -> str:
    """Return what is wrong with the first text that is no Python; ruff is asked to be silent."""
    for source in sources:
        try:
            ast.parse(source)
        except SyntaxError as error:
            return _slip(error)
    return ""


def _slip(error: SyntaxError) -> str:
    """Say what is no Python by the line itself: a file with its number is never written."""
    what = error.msg.partition(" (detected at line")[0]
    return f"{what}, in the line {(error.text or '').strip()!r}"


def _source(plan: TestPlan, template_dir: Path | None) -> str:
    from jinja2 import TemplateError

    mistakes = (TemplateError, ArithmeticError, AttributeError, LookupError, OSError,
                RecursionError, TypeError, ValueError)  # fmt: skip
    try:
        return _written(plan, template_dir)
    except SyntaxError as error:
        if template_dir is None:
            raise
        raise BadInputError(
            f"The templates of {template_dir} make no Python: {_slip(error)}."
        ) from error
    except mistakes as error:
        if template_dir is None:
            raise
        place = _place(error) or f"{plan.template}.j2"
        raise BadInputError(
            f"The template {template_dir}/{place} is wrong: {_what(error, template_dir)}."
        ) from error


def _written(plan: TestPlan, template_dir: Path | None) -> str:
    found = environment(template_dir)
    shared = found.get_template("shared_macros.j2").module
    source = found.get_template(f"{plan.template}.j2").render(plan=plan, shared=shared)
    if plan.left_out:
        source = leave_out(source, plan.left_out)
    return source if plan.style == STYLES[0] else to_pytest(source)


def _place(error: Exception) -> str:
    """Return the template and the line of a mistake; "" where nothing tells."""
    from jinja2 import TemplateSyntaxError

    if isinstance(error, TemplateSyntaxError) and error.name:
        return f"{error.name}, line {error.lineno}"
    # Jinja2 puts its templates' lines into the traceback.
    for frame, line in reversed([*traceback.walk_tb(error.__traceback__)]):
        if frame.f_code.co_filename.endswith(".j2"):
            return f"{Path(frame.f_code.co_filename).name}, line {line}"
    return ""


def _what(error: Exception, template_dir: Path) -> str:
    from jinja2 import TemplateNotFound

    if isinstance(error, TemplateNotFound):
        name = str(error.name)
        known = environment(template_dir).list_templates()
        return f"there is no template {name!r}{hint_at(nearest(name, known))}"
    if isinstance(error, RecursionError):
        return (
            "it extends, includes or calls itself without end; rp's own templates are reached "
            f'under {OURS}/, as in {{% extends "{OURS}/hf_base_template.py.j2" %}}'
        )
    if isinstance(error, UnicodeDecodeError):
        return f"it, or what it includes, is not UTF-8 ({error.reason} at byte {error.start})"
    return str(error).rstrip(".")


@functools.cache
def environment(template_dir: Path | None) -> Environment:
    """Return the templates, a user's before rp's own."""
    from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader

    from rp_cli.codegen.sandbox import CodeEnvironment

    ours = FileSystemLoader(data_dir("templates"))
    own = [] if template_dir is None else [FileSystemLoader(template_dir)]
    return CodeEnvironment(ChoiceLoader([*own, ours, PrefixLoader({OURS: ours})]))
