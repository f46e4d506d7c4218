"""A report on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rp_cli.reporting import told
from rp_cli.reporting.errors import report_line
from rp_cli.reporting.plots import size_label
from rp_cli.reporting.runs import Tidy
from rp_cli.reporting.summary import is_empty

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {
    "passed": "green", "mended": "green", "ok": "green", "faster": "green", "same": "",
    "skipped": "yellow", "deselected": "yellow", "missing": "yellow", "changed": "yellow",
    "new": "yellow", "gone": "yellow", "slower": "yellow",
}  # fmt: skip
# The largest come first and matter most; `--json` has all.
_MOST_HOLDERS = 5


def print_summary(summary: Mapping[str, Any], out: Console) -> None:
    """Print runs, checks and error reports."""
    for run in summary["runs"]:
        out.print(_table(told.title("Run", run), told.RUN_HEADINGS, told.run_rows(run)))
        for note in told.run_notes(run):
            out.print(note, markup=False)
    for check in summary["checks"]:
        out.print(told.title("Check", check), style="italic", markup=False)
        for line in told.check_lines(check):
            out.print(line, style=_STYLES.get(line.partition(":")[0], ""), markup=False)
    for report in summary["error_reports"]:
        out.print(f"Error report: {report_line(report)}", style="red", markup=False)
    if is_empty(summary):
        out.print("Nothing is recorded yet; run tests with `rp run skills`.")


def print_comparison(comparison: Tidy, out: Console) -> None:
    """Print two runs side by side."""
    rows = told.compared_rows(comparison)
    out.print(_table(told.compared_title(comparison), told.COMPARED_HEADINGS, rows))
    out.print(told.totals(comparison["totals"]) or "no file was run", markup=False)


def print_error_reports(reports: Sequence[Tidy], out: Console) -> None:
    """Print each error report with what to do, the newest first."""
    for report in reports:
        if report["unreadable"]:
            out.print(report_line(report), style="yellow", markup=False)
            continue
        what = f"{report['model_name']} on {report['hardware_type']}: {report['error_type']}"
        out.print(f"{what} ({report['timestamp']})", style="bold red", markup=False)
        for line in _report_lines(report):
            out.print(f"  {line}", markup=False)


def _report_lines(report: Tidy) -> Iterable[str]:
    yield report["error_message"]
    if report["needed_mb"] is not None:
        free = f", {size_label(report['free_mb'])} free" if report["free_mb"] is not None else ""
        yield f"memory: {size_label(report['needed_mb'])} needed{free}"
    if held := _held(report):
        yield f"held by: {held}"
    yield from (f"-> {advice}" for advice in report["recommendations"])
    here = [one["hardware"] for one in report["alternatives"] if one["available"]]
    if here:
        yield f"also here: {', '.join(here)}"
    yield report["path"]


def _held(report: Tidy) -> str:
    """Return who held the device's memory and how much each; "" where nobody is known to."""
    held = [f"{one['key']} ({size_label(one['mb'])})" for one in report["held_by"] if one["mb"]]
    more = [f"{len(held) - _MOST_HOLDERS} more"] if len(held) > _MOST_HOLDERS else []
    return ", ".join([*held[:_MOST_HOLDERS], *more])


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row), style=_STYLES.get(row[1], "red"))
    return table
