"""Writing generated files: never over somebody's edits, never half a file."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hardware_detection.files import write_atomically
from rp_cli.codegen.plan import TestPlan
from rp_cli.codegen.render import is_unedited, render_all
from rp_cli.errors import BadInputError, OutputError

_MARK = ", written by rp "  # in the docstring of every generated file
# Its beginning, for a file that somebody left with a mistake of syntax further down.
_STRING = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_UNPARSABLE = re.compile(
    rf'''"""[^\n]*{_MARK}.*?^MODEL_NAME = \(?\s*(?P<name>{_STRING})''', re.MULTILINE | re.DOTALL
)

# So many files are written side by side.
_WRITERS = 4

Progress = Callable[[Iterable[None], int], Iterable[None]]
Status = Literal["new", "unchanged", "replaced", "edited"]


@dataclass(frozen=True)
class Draft:
    """A file as it would be written, and as it is."""

    path: Path
    source: str
    before: str | None

    @property
    def status(self) -> Status:
        """What writing it means; "edited": somebody's changes would be lost."""
        if self.before is None:
            return "new"
        if self.before == self.source:
            return "unchanged"
        return "replaced" if is_unedited(self.before) else "edited"

    def diff(self) -> str:
        """Return what writing it would change, as a unified diff."""
        before = (self.before or "").splitlines(keepends=True)
        after = self.source.splitlines(keepends=True)
        old = "/dev/null" if self.before is None else str(self.path)
        return "".join(difflib.unified_diff(before, after, old, str(self.path)))


def draft_tests(
    plans: Sequence[TestPlan], output_dir: Path, template_dir: Path | None = None
) -> list[Draft]:
    """Render all plans for ``output_dir``; nothing is written.

    Raises:
        BadInputError: two models would share a file, or the file is another model's test, or
            rp did not write it, or a template of ``template_dir`` is wrong.
    """
    paths = [output_dir / plan.file_name for plan in plans]
    before = [read_text(path) for path in paths]
    refuse_clashes(plans, paths, before)
    sources = render_all(plans, template_dir)
    return [Draft(*one) for one in zip(paths, sources, before, strict=True)]


def write_drafts(
    drafts: Sequence[Draft], *, force: bool = False, progress: Progress = lambda done, _: done
) -> None:
    """Write all drafts, into a folder that is made where it is missing.

    Args:
        progress: is given what yields once per file that was written, and how many there will be.

    Raises:
        BadInputError: somebody edited a file since rp wrote it, and ``force`` is not set.
        OutputError: the folder or a file cannot be written.
    """
    edited = [draft.path for draft in drafts if draft.status == "edited" and not force]
    if edited:
        raise BadInputError(
            f"{edited[0]} was edited since rp wrote it, and is left as it is; --diff shows what "
            "would change, --force overwrites it, --output-dir takes another folder."
        )
    changed = [draft for draft in drafts if draft.status != "unchanged"]
    if len(changed) < 2:
        for draft in changed:
            _write(draft)
        return
    from concurrent.futures import ThreadPoolExecutor

    # Each waits for the disk; side by side they wait a third of the time.
    with ThreadPoolExecutor(_WRITERS) as writers:
        for _ in progress(writers.map(_write, changed), len(changed)):
            pass


def write_tests(plans: Sequence[TestPlan], output_dir: Path, *, force: bool = False) -> list[Path]:
    """Render and write all plans; see `draft_tests` and `write_drafts` for what they raise."""
    drafts = draft_tests(plans, output_dir)
    write_drafts(drafts, force=force)
    return [draft.path for draft in drafts]


def _write(draft: Draft) -> None:
    try:
        draft.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(draft.path, draft.source)
    except OSError as error:
        raise OutputError(
            f"Cannot write into {draft.path.parent}: {error.strerror or error}; "
            "choose another folder with --output-dir."
        ) from error


def read_text(path: Path) -> str | None:
    """Return what stands at ``path``; None where nothing does, "" where it is no text."""
    try:
        return path.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError):
        return ""


def refuse_clashes(
    plans: Sequence[TestPlan], paths: Sequence[Path], before: Sequence[str | None]
) -> None:
    """Refuse to write over the test of another model, and over what rp did not write.

    Raises:
        BadInputError: a file is such a one.
    """
    owners: dict[Path, str] = {}
    for plan, path, text in zip(plans, paths, before, strict=True):
        owner = owners.setdefault(path, plan.model_name)
        if owner == plan.model_name and text is not None:
            owner = _model_of(path, text)
        if owner != plan.model_name:
            raise BadInputError(
                f"{path} is the test of {owner!r} and would be overwritten by that of "
                f"{plan.model_name!r}; write one of them into another folder with --output-dir."
            )


def _model_of(path: Path, text: str) -> str:
    """Return the model whose generated test stands at ``path``.

    Raises:
        BadInputError: it is no generated test.
    """
    tree = _parsed(text)
    if tree is None:
        header = _UNPARSABLE.match(text)
        tree = _parsed(f'"""{_MARK}"""\nMODEL_NAME = {header["name"]}') if header else None
    tree = tree or ast.Module([], [])
    for node in tree.body if _MARK in (ast.get_docstring(tree) or "") else ():
        match node:
            case ast.Assign(targets=[ast.Name("MODEL_NAME")], value=ast.Constant(str(name))):
                return name
    raise BadInputError(
        f"{path} was not written by rp and is left as it is; move it away, or choose another "
        "folder with --output-dir."
    )


def _parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
