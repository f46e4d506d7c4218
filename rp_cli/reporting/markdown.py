"""A report as Markdown that a CI job's summary takes: bounded, and nothing in it is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rp_cli.reporting import told
from rp_cli.reporting.errors import report_line
from rp_cli.reporting.matrix import NOWHERE
from rp_cli.reporting.runs import FINE, Tidy
from rp_cli.reporting.summary import is_empty
from rp_cli.text import one_line

# GitHub refuses a step's summary above 1 MiB; several steps may each add a report.
MAX_BYTES = 900_000
_LONGEST = 400
_MARKUP = re.compile(r"([\\`*\[\]<|~])")
_SIGNS = {"passed": "✅", "ok": "✅", "skipped": "➖", "deselected": "➖", "missing": "➖"}


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as Markdown."""
    return _bounded(["# rp report", "", *_parts(summary)])


def markdown_of_comparison(comparison: Tidy) -> str:
    """Return a comparison of two runs as Markdown."""
    counts = told.totals(comparison["totals"]) or "no file was run"
    rows = told.compared_rows(comparison)
    return _bounded(
        [
            f"# rp report: {_cell(told.compared_title(comparison))}",
            "",
            f"{counts}.",
            "",
            *_table(told.COMPARED_HEADINGS, rows),
            "",
        ]
    )


def _parts(summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _matrix(summary["matrix"])
    for run in summary["runs"]:
        yield from (f"## {_cell(told.title('Run', run))}", "")
        yield from (_verdict(run), "")
        # What went wrong comes first, so that it survives where the rest is cut off.
        yield from _bullets(told.run_notes(run))
        yield from (*_table(told.RUN_HEADINGS, told.run_rows(run)), "")
    for check in summary["checks"]:
        yield from (f"## {_cell(told.title('Check', check))}", "")
        yield from _bullets(told.check_lines(check))
    if summary["error_reports"]:
        yield from ("## Error reports", "")
        yield from _bullets(map(report_line, summary["error_reports"]))
    if is_empty(summary):
        yield from ("Nothing is recorded yet.", "")


def _verdict(run: Tidy) -> str:
    files, tests = told.totals(run["totals"]), told.totals(run["test_totals"])
    return f"{_sign(run['status'])} Files: {files or 'none'}. Tests: {tests or 'none'}."


def _matrix(matrix: Mapping[str, Any]) -> Iterator[str]:
    cells = {(cell["model_name"], cell["hardware"]): cell for cell in matrix["cells"]}
    if not cells:
        return
    yield from ("## Models x hardware", "")
    rows = (
        [model, *(_result(cells.get((model, name))) for name in matrix["hardware"])]
        for model in matrix["models"]
    )
    yield from (*_table(["model", *matrix["hardware"]], rows), "")


def _result(cell: Tidy | None) -> str:
    if cell is None:
        return ""
    how = f" {cell['weights']} {cell['dtype']}" if cell["weights"] else ""
    where = f", {NOWHERE}" if cell["hardware"] == NOWHERE else ""
    return f"{_sign(cell['status'])} {cell['status']}{where}{how}"


def _sign(status: str) -> str:
    return _SIGNS.get(status, "➖" if status in FINE else "❌")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    every = (headings, ["---"] * len(headings), *rows)
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in every]


def _bullets(lines: Iterable[str]) -> list[str]:
    bullets = [f"- {_cell(line)}" for line in lines]
    return [*bullets, ""] if bullets else []


def _cell(text: object) -> str:
    """Return text that is only text in Markdown, cut where it is very long."""
    line = one_line(text)
    return _MARKUP.sub(r"\\\1", line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")


def _bounded(lines: Iterable[str]) -> str:
    kept, size = [], 0
    for line in lines:
        size += len(line.encode(errors="replace")) + 1
        if size > MAX_BYTES:
            kept += ["", "The report is longer; `rp report --html FILE` writes all of it.", ""]
            break
        kept.append(line)
    return "\n".join(kept)
