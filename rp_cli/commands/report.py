"""``rp report``: what the last runs, checks and error reports say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError
from rp_cli.output import console, print_json

_STYLES = {"passed": "green", "skipped": "yellow", "missing": "yellow", "failed": "red"}


def command(
    last: Annotated[int, typer.Option("--last", min=1, help="How many of each to show.")] = 1,
    reports_dir: Annotated[
        Path, typer.Option("--reports-dir", help="Where error reports are saved.")
    ] = Path("hardware_reports"),
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Print what the last runs, checks and error reports say."""
    from rp_cli.reporting.store import Store
    from rp_cli.reporting.summary import markdown as as_markdown
    from rp_cli.reporting.summary import summarise

    if json_output and markdown:
        raise BadInputError("--json and --markdown exclude each other; give one of them.")
    summary = summarise(Store(), reports_dir, last)
    if json_output:
        print_json(summary)
    elif markdown:
        typer.echo(as_markdown(summary), nl=False)
    else:
        _print(summary)


def _print(summary: Mapping[str, Any]) -> None:
    from rp_cli.reporting.summary import check_lines, is_empty, report_line, run_notes, title

    out = console()
    for run in summary["runs"]:
        out.print(_run_table(run))
        for note in run_notes(run):
            out.print(note, markup=False)
    for check in summary["checks"]:
        out.print(title("Check", check), style="italic", markup=False)
        for line in check_lines(check):
            out.print(line, style=_STYLES.get(line.partition(":")[0]), markup=False)
    for report in summary["error_reports"]:
        out.print(f"Error report: {report_line(report)}", style="red", markup=False)
    if is_empty(summary):
        out.print("Nothing is recorded yet; run tests with `rp run skills`.")


def _run_table(run: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from rp_cli.reporting.summary import RUN_HEADINGS, run_rows, title

    table = Table(title=escape(title("Run", run)), title_justify="left")
    for heading in RUN_HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in run_rows(run):
        table.add_row(*(escape(cell) for cell in row), style=_STYLES.get(row[1], "red"))
    return table
