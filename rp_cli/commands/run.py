"""``rp run``: run generated test files and record the results."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError, ExitCode, OutputError
from rp_cli.output import print_json, say
from rp_cli.text import one_line


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
    from rp_cli.runner.run import find_tests, new_record, run_tests
    from rp_cli.runner.telling import result_line

    if not 0 < timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of seconds above 0, not {timeout}.")
    environment = _environment(device, weights)
    files = find_tests(paths)
    store, record = Store(), new_record(files)
    number = store.save(record)

    def on_result(result: Mapping[str, Any]) -> None:
        say(result_line(result))
        if result["error"]:
            say(result["error"])
        # A disk that is full now is told at the end, by the last save.
        with contextlib.suppress(OutputError):
            store.save(record, number)

    run_tests(
        files,
        record,
        timeout_seconds=timeout,
        environment=environment,
        # With --json, stdout is for the record; what the tests print goes to stderr.
        output=sys.stderr.fileno() if json_output else None,
        on_result=on_result,
    )
    try:
        if json_output:
            print_json(record)
    finally:
        store.save(record, number)
    code = _conclude(record)
    if code:
        raise typer.Exit(code)


def _environment(device: str | None, weights: str | None) -> dict[str, str]:
    """Return the variables that tell the tests what was asked for, after checking all of them.

    Those that stand in our own environment reach the tests as well, and are checked here, so
    that a mistake in them is told once and not by every file.
    """
    from resource_pool import parse_device, preferences_from_environment
    from resource_pool.weights.hub import max_download

    environment = {}
    if weights is not None:
        environment["RP_WEIGHTS"] = _checked_mode("--weights", weights)
    elif os.environ.get("RP_WEIGHTS", "").strip():
        _checked_mode("RP_WEIGHTS", os.environ["RP_WEIGHTS"].strip())
    if device and device != "auto":
        preferences = {"device": str(parse_device(device))}
        environment["TEST_HARDWARE_PREFERENCES"] = str(preferences)
    else:
        preferences_from_environment({})
    max_download()
    return environment


def _checked_mode(origin: str, mode: str) -> str:
    from resource_pool.weights.locate import MODES

    if mode not in MODES:
        raise BadInputError(
            f"{origin} must be {', '.join(MODES[:-1])} or {MODES[-1]}, not {mode!r}."
        )
    return mode


def _conclude(record: Mapping[str, Any]) -> int:
    """Say what the run comes to, where a line per file does not, and return the exit code."""
    from rp_cli.runner.run import lacking_weights, passed
    from rp_cli.runner.telling import total_line

    if record["interrupted"]:
        say(f"Interrupted after {len(record['files'])} of {record['file_count']} files.")
        return 128 + signal.Signals[record["signal"] or "SIGINT"]
    if len(record["files"]) > 1:
        say(total_line(record))
    if passed(record):
        return ExitCode.OK
    lacking = lacking_weights(record)
    if not lacking:
        return ExitCode.FAILED
    say(
        f"rp: no weights of {one_line(', '.join(lacking))} are here; fetch them, or allow a tiny "
        "random twin with --weights auto."
    )
    return ExitCode.NOT_HERE
