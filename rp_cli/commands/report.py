"""``rp report``: what the last runs, checks and error reports say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError
from rp_cli.output import console, print_json

_STYLES = {"passed": "green", "ok": "green", "skipped": "yellow", "missing": "yellow"}


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
    from rp_cli.reporting.summary import report_line

    out = console()
    for run in summary["runs"]:
        out.print(_run_table(run))
        for problem in _problems(run):
            out.print(problem, style="red", markup=False)
    for check in summary["checks"]:
        out.print(_check_table(check))
    for report in summary["error_reports"]:
        out.print(f"Error report: {report_line(report)}", style="red", markup=False)
    if not any(summary[part] for part in ("runs", "checks", "error_reports")):
        out.print("Nothing is recorded yet; run tests with `rp run skills`.")


def _run_table(run: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from rp_cli.reporting.summary import run_rows, title

    table = Table(title=escape(title("Run", run)), title_justify="left")
    for heading in ("file", "status", "passed", "ran on", "weights", "seconds"):
        table.add_column(heading, overflow="fold")
    for row in run_rows(run):
        style = _STYLES.get(row[1], "red")
        table.add_row(*(escape(cell) for cell in row), style=style)
    return table


def _check_table(check: Mapping[str, Any]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    from rp_cli.reporting.summary import title

    table = Table(title=escape(title("Check", check)), title_justify="left")
    for heading in ("check", "status", "detail", "what to do"):
        table.add_column(heading, overflow="fold")
    for line in check["lines"]:
        cells = (line["name"], line["status"], line["detail"], line["remedy"])
        table.add_row(*map(escape, cells), style=_STYLES.get(line["status"], "red"))
    return table


def _problems(run: Mapping[str, Any]) -> list[str]:
    """Return each failure's last line: the exception and its message."""
    failures = [
        (f"{Path(result['path']).name}: {_short(test['name'])}", test["detail"])
        for result in run["files"]
        for test in result["tests"]
        if test["status"] in ("failed", "error")
    ]
    failures += [(Path(r["path"]).name, r["error"]) for r in run["files"] if r["error"]]
    return [f"{name}: {(text.strip().splitlines() or ['?'])[-1]}" for name, text in failures]


def _short(test_name: str) -> str:
    """Return the method of "module.Class.method", and "setUpClass" of "setUpClass (...)"."""
    return test_name.partition(" (")[0].rpartition(".")[2]
