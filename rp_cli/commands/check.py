"""``rp check``: do all parts work together on this machine?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rp_cli import completing
from rp_cli.errors import BadInputError, ExitCode
from rp_cli.output import detected, log_to_stderr, print_json

if TYPE_CHECKING:
    from rp_cli.checking.checks import Line

_CHOICES = ("all", "files", "hardware", "classification", "pool", "generation", "web", "openvino")


def command(
    check_only: Annotated[
        bool,
        typer.Option("--check-only", help="Only look whether all files are there: --test files."),
    ] = False,
    test: Annotated[
        str | None,
        typer.Option(
            "--test",
            metavar="|".join(_CHOICES),
            autocompletion=completing.among(_CHOICES),
            help="Which part to check; all: every part, and how a few models are classified.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log every step, and the trace of a failure.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Check that all parts of rp work together here: files, detection, pool, a generated test."""
    if test not in (None, *_CHOICES):
        raise BadInputError(f"--test must be one of {', '.join(_CHOICES)}, not {test!r}.")
    if check_only and test not in (None, "files"):
        raise BadInputError(f"--check-only runs nothing, --test {test} does; give one of them.")
    if debug:
        log_to_stderr()
    from rp_cli.checking.checks import new_record, run_checks, verdict
    from rp_cli.reporting.store import Store

    store, record = Store(), new_record(_names(test, check_only))
    number = store.save(record)
    run_checks(record, (lambda _: None) if json_output else _print)
    try:
        if json_output:
            print_json(record)
        else:
            if test == "all":
                _print_models()
            typer.echo(verdict(record["lines"], only_files=record["checks"] == ["files"]))
    finally:
        store.save(record, number)
    if not record["passed"]:
        raise typer.Exit(ExitCode.FAILED)


def _names(test: str | None, check_only: bool) -> list[str]:
    from rp_cli.checking.checks import CHECKS

    if check_only:
        return ["files"]
    return list(CHECKS) if test in (None, "all") else [str(test)]


def _print(line: Line) -> None:
    advice = f" -> {line.remedy}" if line.remedy else ""
    typer.echo(f"{line.status:<8}{line.name}: {line.detail}{advice}")


def _print_models() -> None:
    """Print the classification block of a few well-known models."""
    from model_family_classifier import classify_model, hardware_fit
    from rp_cli.checking.checks import MODELS_SHOWN
    from rp_cli.commands.classify import render

    hardware = detected()["hardware"]
    for model in MODELS_SHOWN:
        classified = classify_model(model)
        typer.echo("\n" + render({**classified, **hardware_fit(classified, hardware)}))
    typer.echo()
