"""``rp run``: run generated test files and record the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError, ExitCode
from rp_cli.output import print_json, say


def command(
    paths: Annotated[list[Path], typer.Argument(help="Test files, or folders of them.")],
    device: Annotated[
        str | None, typer.Option("--device", help="Prefer this hardware, e.g. cpu or cuda:1.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="auto|pretrained|tiny", help="Sets RP_WEIGHTS."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="Deadline of each file.")
    ] = 1800.0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the run's record as JSON.")
    ] = False,
) -> None:
    """Run test files, each in a process of its own, and record what ran on what."""
    from rp_cli.reporting.store import Store
    from rp_cli.runner.run import find_tests, passed, run_tests

    if not 0 < timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of seconds above 0, not {timeout}.")
    files = find_tests(paths)
    record = run_tests(
        files,
        timeout_seconds=timeout,
        environment=_environment(device, weights),
        # With --json, stdout is for the record; what the tests print goes to stderr.
        output=sys.stderr.fileno() if json_output else None,
        on_result=_say_result,
    )
    Store().add(record)
    if json_output:
        print_json(record)
    if record["interrupted"]:
        say(f"Interrupted after {len(record['files'])} of {len(files)} files.")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if not passed(record):
        raise typer.Exit(ExitCode.FAILED)


def _environment(device: str | None, weights: str | None) -> dict[str, str]:
    """Return the variables that tell the tests what was asked for."""
    from resource_pool import parse_device

    if weights not in (None, "auto", "pretrained", "tiny"):
        raise BadInputError(f"--weights must be auto, pretrained or tiny, not {weights!r}.")
    environment = {"RP_WEIGHTS": weights} if weights else {}
    if device and device != "auto":
        preferences = {"device": str(parse_device(device))}
        environment["TEST_HARDWARE_PREFERENCES"] = str(preferences)
    return environment


def _say_result(result: Mapping[str, Any]) -> None:
    counts: dict[str, int] = {}
    for test in result["tests"]:
        counts[test["status"]] = counts.get(test["status"], 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no test ran"
    say(f"{result['status'].upper()} {result['path']}: {told} in {result['seconds']:.1f} s")
    if result["error"]:
        say(result["error"])
