"""``rp report``: what the last runs, checks and error reports say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError, OutputError
from rp_cli.output import console, print_json, say
from rp_cli.paths import given_path
from rp_cli.reporting.errors import REPORTS_DIR

command = typer.Typer(
    name="report",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# On a terminal, one run is what a person asks for; a page has room for the state of all models.
_LAST, _LAST_ON_A_PAGE = 1, 20

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command.callback(invoke_without_command=True)
def report(
    context: typer.Context,
    last: Annotated[
        int | None,
        typer.Option(
            "--last", min=1, metavar="N", help="How many of each to show: 1; of --html 20."
        ),
    ] = None,
    reports_dir: Annotated[
        Path,
        typer.Option(
            "--reports-dir",
            metavar="PATH",
            help="Where error reports are saved.",
            parser=given_path,
        ),
    ] = REPORTS_DIR,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page of HTML.", parser=given_path),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for the summary of a CI job.")
    ] = False,
    as_json: Json = False,
    runs: Annotated[
        tuple[int, int] | None,
        typer.Option("--compare", metavar="RUN_A RUN_B", help="Compare two runs, by number."),
    ] = None,
) -> None:
    """Tell what the last runs, checks and error reports say."""
    given = _given(context)
    if context.invoked_subcommand is not None:
        _refuse_before(context.invoked_subcommand, given)
        return
    forms = {"--json": as_json, "--markdown": markdown, "--html": html is not None}
    if sum(forms.values()) > 1:
        both = " and ".join(name for name, is_given in forms.items() if is_given)
        raise BadInputError(f"{both} exclude each other; give one of them.")
    form = next((name for name, is_given in forms.items() if is_given), "")
    if runs is not None:
        _refuse_beside_compare(given)
        _compare(runs, form)
    elif html is not None:
        _write_page(html, _summary(reports_dir, last or _LAST_ON_A_PAGE))
    else:
        _tell(_summary(reports_dir, last or _LAST), form)


@command.command()
def errors(
    folder: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Where error reports are saved.", parser=given_path),
    ] = REPORTS_DIR,
    last: Annotated[int, typer.Option("--last", min=1, metavar="N", help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """List hardware error reports, the newest first, with what to do about each."""
    from rp_cli.reporting.errors import error_reports, versioned
    from rp_cli.reporting.terminal import print_error_reports

    reports = error_reports(_readable(folder), last)
    if as_json:
        print_json(versioned(reports))
        return
    print_error_reports(reports, console())
    if not reports:
        say(f"No error report is in {folder}.")


def _given(context: typer.Context) -> list[str]:
    """Return the options that stand on the command line, by their names."""
    return [one.opts[0] for one in context.command.params if _is_given(context, one.name or "")]


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_before(part: str, given: list[str]) -> None:
    """Refuse options before a part of ``rp report``: they are not the part's."""
    if given:
        raise BadInputError(
            f"{' and '.join(given)} would do nothing before {part}; write the options that it "
            f"takes behind it (`rp report {part} --help` lists them)."
        )


def _refuse_beside_compare(given: list[str]) -> None:
    others = [option for option in given if option in ("--last", "--reports-dir", "--html")]
    if others:
        raise BadInputError(
            "--compare prints two runs as a table, as --markdown or as --json; leave out "
            f"{' and '.join(others)}."
        )


def _readable(folder: Path) -> Path:
    """Return a folder of error reports; the usual one is there only once something failed."""
    if not folder.is_dir() and folder != REPORTS_DIR:
        raise BadInputError(f"{folder} is no folder; name the one that holds the error reports.")
    return folder


def _summary(reports_dir: Path, count: int) -> dict[str, Any]:
    from rp_cli.reporting.store import Store
    from rp_cli.reporting.summary import summarise

    return summarise(Store(), _readable(reports_dir), count)


def _tell(summary: dict[str, Any], form: str) -> None:
    from rp_cli.reporting.markdown import markdown
    from rp_cli.reporting.terminal import print_summary

    if form == "--json":
        print_json(summary)
    elif form == "--markdown":
        typer.echo(markdown(summary), nl=False)
    else:
        print_summary(summary, console())


def _write_page(target: Path, summary: dict[str, Any]) -> None:
    from hardware_detection.files import write_atomically
    from rp_cli.reporting.page import page

    if target.is_dir():
        raise OutputError(f"{target} is a folder; name a file in it.")
    text = page(summary)
    try:
        write_atomically(target, text)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written ({error.strerror or error}); name a file in a folder "
            "that is there."
        ) from error
    say(f"Wrote {target}")


def _compare(numbers: tuple[int, int], form: str) -> None:
    from rp_cli.reporting.compare import compare
    from rp_cli.reporting.markdown import markdown_of_comparison
    from rp_cli.reporting.terminal import print_comparison

    comparison = compare(*map(_run, numbers))
    if form == "--json":
        print_json(comparison)
    elif form == "--markdown":
        typer.echo(markdown_of_comparison(comparison), nl=False)
    else:
        print_comparison(comparison, console())


def _run(number: int) -> dict[str, Any]:
    from rp_cli.reporting.runs import tidy_run
    from rp_cli.reporting.store import Store

    store = Store()
    record = store.one("run", number)
    if record is None:
        known = ", ".join(str(run["id"]) for run in store.last("run", 10))
        here = f"the last ones are {known}" if known else "none is recorded yet"
        raise BadInputError(f"There is no run {number}; {here}.")
    return tidy_run(record)
