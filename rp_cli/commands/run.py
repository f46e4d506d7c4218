"""``rp run``: run test files and record the results."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rp_cli import completing
from rp_cli.errors import (
    BadInputError,
    ExitCode,
    NotHereError,
    OutputError,
    exit_code_for,
    sentence,
)
from rp_cli.output import print_json, say
from rp_cli.paths import given_path
from rp_cli.text import not_run, one_line

if TYPE_CHECKING:
    from rp_cli.reporting.store import Store
    from rp_cli.runner.display import Lines
    from rp_cli.runner.history import Past

# While files run, nobody waits long for another run to leave the records: the next file's end, or
# the run's, keeps what this one could not.
_KEEP_SECONDS = 0.5
# A part of what a test says that lacks weights of which a twin can be made.
_TWIN_ADVICE = "RP_WEIGHTS=auto"
# How many earlier runs are asked what a file took and whether it failed.
_RUNS_REMEMBERED = 20
_ENGINES = ("local", "ray")


def command(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Test files, or folders of them.", parser=given_path),
    ],
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", metavar="N", help="Files at once; default: one per core."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            autocompletion=completing.device,
            help="Prefer this hardware, e.g. cpu or cuda:1; falls back where it must.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="auto|pretrained|tiny",
            autocompletion=completing.weights,
            help="Sets RP_WEIGHTS.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            help="Deadline of each file; rp generate --timeout MINUTES is something else.",
        ),
    ] = 1800.0,
    selection: Annotated[
        str,
        typer.Option("-k", metavar="EXPR", help='Only tests of such names: "padding and not t5".'),
    ] = "",
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="End at the first file that fails.")
    ] = False,
    last_failed: Annotated[
        bool, typer.Option("--last-failed", help="Only files that failed the last time.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="local|ray",
            autocompletion=completing.among(_ENGINES),
            help="Run here, or on a Ray cluster.",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="The cluster, or auto; default: one of its own."
        ),
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the run's record as JSON.")
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option("--junit", metavar="FILE", help="Also write JUnit XML.", parser=given_path),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only what failed.")] = False,
) -> None:
    """Run test files, each in a process of its own, and record what ran on what."""
    from rp_cli.reporting.errors import REPORTS_DIR, saved_reports
    from rp_cli.reporting.store import Store
    from rp_cli.runner.history import read_history
    from rp_cli.runner.run import find_tests, new_record, run_tests
    from rp_cli.runner.selecting import parse_selection

    if not 0 < timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of seconds above 0, not {timeout}.")
    if jobs is not None and jobs < 1:
        raise BadInputError(f"--jobs must be a whole number from 1 on, not {jobs}.")
    parse_selection(selection)
    cluster = _cluster(engine, address)
    environment = _environment(device, weights)
    _check_target(junit)
    files, store = find_tests(paths), Store()
    history = read_history(store.last("run", _RUNS_REMEMBERED))
    files = _failed_ones(files, history) if last_failed else files
    record = new_record(files)
    number = store.save(record)
    hasty = Store(store.path, _KEEP_SECONDS)
    with _display(len(files), quiet=quiet) as display:
        display.after_each = lambda: _keep(hasty, record, number)
        run_tests(
            files,
            record,
            timeout_seconds=timeout,
            environment=environment,
            jobs=jobs,
            selection=selection,
            fail_fast=fail_fast,
            history=history,
            watcher=display,
            cluster=cluster,
        )
    record["error_reports"] += saved_reports(REPORTS_DIR, record)
    try:
        _write_outputs(record, junit, json_output=json_output)
    finally:
        lost = _lost(store, record, number)
    code = _conclude(record, selection, quiet=quiet) or lost
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
    if device not in (None, "auto"):
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


def _cluster(engine: str, address: str | None) -> str:
    """Return the address of the Ray cluster, after checking what can be checked; "" for none."""
    if engine not in _ENGINES:
        raise BadInputError(f"--engine must be local or ray, not {engine!r}.")
    if engine == "local":
        if address is not None:
            raise BadInputError("--address is the place of a Ray cluster; add --engine ray.")
        return ""
    if sys.platform == "win32":
        raise BadInputError("--engine ray needs Linux or macOS.")
    if importlib.util.find_spec("ray") is None:
        raise NotHereError("Ray is not installed; `pip install 'rp-toolchain[ray]'` installs it.")
    from rp_cli.runner.on_ray.reaching import cluster_address

    return cluster_address(address)


def _keep(store: Store, record: Mapping[str, Any], number: int) -> None:
    """Keep what is done so far; what prevents it now is told at the end, by the last save."""
    with contextlib.suppress(OutputError, BadInputError):
        store.save(record, number)


def _lost(store: Store, record: Mapping[str, Any], number: int) -> int:
    """Keep the record, or say why not and return the exit code of that."""
    try:
        store.save(record, number)
    except (OutputError, BadInputError) as error:
        say(f"rp: {sentence(error)}")
        return exit_code_for(error) or ExitCode.CANNOT_WRITE
    return ExitCode.OK


def _check_target(junit: Path | None) -> None:
    """Say at once what would otherwise be said after hours."""
    if junit is not None and (junit.is_dir() or not os.access(junit.resolve().parent, os.W_OK)):
        raise OutputError(f"{junit} cannot be written; name a file in a folder that is there.")


def _failed_ones(files: list[Path], history: Mapping[str, Past]) -> list[Path]:
    from rp_cli.runner.history import past_of

    failed = [file for file in files if (past := past_of(file, history)) and past.failed]
    if not failed:
        say("No failure of these files is recorded; all of them are run.")
    return failed or files


def _display(count: int, *, quiet: bool) -> Lines:
    from rp_cli.runner.display import Bar, Lines

    if count > 1 and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Bar(count, quiet=quiet)
    return Lines(say, quiet=quiet, live=count == 1 and not quiet)


def _write_outputs(record: Mapping[str, Any], junit: Path | None, *, json_output: bool) -> None:
    if json_output:
        print_json(record)
    if junit is not None:
        from hardware_detection.files import write_atomically
        from rp_cli.runner.junit import junit_xml

        try:
            write_atomically(junit, junit_xml(record))
        except OSError as error:
            raise OutputError(f"{junit} cannot be written: {error}") from error


def _conclude(record: Mapping[str, Any], selection: str, *, quiet: bool) -> int:
    """Say what the run comes to, where a line per file does not, and return the exit code."""
    from rp_cli.runner.results import lacking_weights, passed
    from rp_cli.runner.telling import total_line

    results = record["files"]
    for note in record["notes"] if not quiet else ():
        say(f"Note: {one_line(note)}.")
    if record["interrupted"]:
        say(f"Interrupted after {len(results)} of {record['file_count']} files.")
        return 128 + signal.Signals[record["signal"] or "SIGINT"]
    if len(results) > 1 and not (quiet and passed(record)):
        say(total_line(record))
    if record["stopped_early"]:
        say(f"Ended at the first failure; {not_run(len(record['not_run']))}.")
    if all(result["status"] == "deselected" for result in results):
        raise BadInputError(f"No test has a name that -k {selection!r} means.")
    if passed(record):
        return ExitCode.OK
    lacking = lacking_weights(record)
    if not lacking:
        return ExitCode.FAILED
    # A test knows whether a twin can be made; where one can, its error says how.
    has_twin = _TWIN_ADVICE in json.dumps(results)
    twin = "or allow a tiny random twin with --weights auto" if has_twin else "where there are any"
    say(f"rp: no weights of {one_line(', '.join(lacking))} are here; fetch them, {twin}.")
    return ExitCode.NOT_HERE
