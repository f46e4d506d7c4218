"""``rp detect``: what this machine can compute on."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rp_cli.errors import BadInputError, ExitCode, OutputError
from rp_cli.output import detected, print_json, refuse_for_a_description, say
from rp_cli.paths import given_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.table import Table

    from hardware_detection.live import Sample

SAMPLE_SCHEMA_VERSION = 1
# A day: more is a slip, and what cannot be waited for (infinity) is more.
_LONGEST_INTERVAL_S = 86_400.0
_NOT_TOLD = "n/a"
_STYLES = {"available": "green", "unusable": "yellow", "error": "red", "absent": "dim"}


def command(
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            "--hw-cache",
            metavar="FILE",
            help="Remember the detection here; created if missing.",
            parser=given_path,
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Detect anew.")] = False,
    web: Annotated[
        bool, typer.Option("--web", help="Ask the installed browsers too; takes seconds.")
    ] = False,
    require: Annotated[
        str | None,
        typer.Option(
            metavar="CLAUSES", help="Exit with 1 unless all hold, e.g. 'cuda>=1,vram>=40GiB'."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a description of the machine, for --hardware.",
            parser=given_path,
        ),
    ] = None,
    hardware: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the machine that FILE describes, not this one.",
            parser=given_path,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show memory and utilisation until Ctrl-C.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help="Stop --watch after so many samples.")
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Between two samples of --watch; 1 unless said."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show each step, and the variables that matter.")
    ] = False,
) -> None:
    """Show what this machine can compute on, each claim proved by a small computation.

    A detection is remembered until the machine, its drivers or its packages change.
    """
    _check_watching(watch, count, interval)
    clauses = _clauses(require)
    with _described(hardware) if hardware else nullcontext():
        refuse_for_a_description({"--watch": watch, "--refresh": refresh, "--web": web})
        report = _detected(cache, refresh, web, debug)
    if export:
        _export(report, export)
    if watch:
        seconds = 1.0 if interval is None else interval
        _watch(report, count=count, interval=seconds, as_json=as_json)
    elif as_json:
        print_json(report)
    else:
        _print_table(report)
    _check(clauses, report)


def _detected(cache: Path | None, refresh: bool, web: bool, debug: bool) -> dict[str, Any]:
    if debug:
        _say_environment()
    with _steps_on_stderr() if debug else nullcontext():
        report = detected(cache, refresh=refresh, web=web)
    if debug and report["from_cache"]:
        say("no probe ran: the cache still holds; --refresh runs them")
    return report


@contextmanager
def _described(path: Path) -> Iterator[None]:
    from hardware_detection import use_described_hardware
    from hardware_detection.service import described_by

    if described_by() is not None:
        raise BadInputError("--hardware stands before and behind detect; give it once.")
    with use_described_hardware(path):
        say(f"Planning for the machine that {path} describes; nothing is detected.")
        yield


def _check_watching(watch: bool, count: int | None, interval: float | None) -> None:
    if not watch and (count is not None or interval is not None):
        raise BadInputError("--count and --interval belong to --watch; add it or leave them out")
    if interval is not None and not 0 <= interval <= _LONGEST_INTERVAL_S:
        raise BadInputError(
            f"--interval must be a number of seconds from 0 to {_LONGEST_INTERVAL_S:.0f},"
            f" not {interval}"
        )


def _clauses(text: str | None) -> tuple[Any, ...]:
    # Read before anything is detected: a slip should be said at once.
    if text is None:
        return ()
    from hardware_detection.requirements import parse

    return parse(text)


def _check(clauses: tuple[Any, ...], report: Mapping[str, Any]) -> None:
    if not clauses:
        return
    from hardware_detection.requirements import unmet

    problems = unmet(clauses, report)
    if problems:
        say(f"rp: {'; '.join(problems)}")
        raise typer.Exit(ExitCode.FAILED)


def _export(report: Mapping[str, Any], path: Path) -> None:
    from hardware_detection.described import export

    try:
        export(report, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error})") from error
    say(f"Wrote {path}")


def _watch(report: Mapping[str, Any], *, count: int | None, interval: float, as_json: bool) -> None:
    import dataclasses
    import json
    import time

    from hardware_detection.live import samples

    found = samples(report, wait=lambda: time.sleep(interval), count=count)
    if as_json:
        for sample in found:
            line = {"schema_version": SAMPLE_SCHEMA_VERSION, **dataclasses.asdict(sample)}
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    from rich.live import Live

    from rp_cli.output import console

    out = console()
    if not out.is_terminal:
        for sample in found:
            out.print(_load_table(sample))
        return
    with Live(console=out, auto_refresh=False) as live:
        for sample in found:
            live.update(_load_table(sample), refresh=True)


def _load_table(sample: Sample) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(sample.at))
    for heading in ("Device", "Name", "Busy", "Memory used", "of"):
        table.add_column(Text(heading), justify="left" if heading == "Name" else "right")
    for load in sample.loads:
        busy, total, free = load.utilisation_percent, load.memory_total_mb, load.memory_free_mb
        cells = (
            load.device,
            load.name,
            _NOT_TOLD if busy is None else f"{busy:.0f} %",
            _gib(None if total is None or free is None else total - free),
            _gib(total),
        )
        table.add_row(*map(Text, cells))
    return table


def _gib(mebibytes: float | None) -> str:
    return _NOT_TOLD if mebibytes is None else f"{mebibytes / 1024:.1f} GiB"


def _print_table(report: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from hardware_detection.summary import rows, system_line
    from rp_cli.output import console

    table = Table()
    # Text, not str: a device's name must not be read as markup, and looking for emoji in a
    # heading takes longer than drawing the table.
    for heading in ("Backend", "Status", "Devices", "Why"):
        table.add_column(Text(heading))
    for row in rows(report):
        status = Text(row.status, style=_STYLES[row.status])
        table.add_row(Text(row.backend), status, Text(row.devices), Text(row.reason))
    out = console()
    out.print(table)
    out.print(Text(system_line(report)), soft_wrap=True)


@contextmanager
def _steps_on_stderr() -> Iterator[None]:
    import logging
    import sys

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(relativeCreated)6.0f ms  %(message)s"))
    logger = logging.getLogger("hardware_detection")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _say_environment() -> None:
    import os
    import sys

    from hardware_detection.environment import RELEVANT, conflicts, relevant
    from hardware_detection.machine import Machine

    cores = Machine().usable_cpus()
    for sentence in conflicts(os.environ, platform=sys.platform, cpu_count=cores):
        say(f"conflict: {sentence}")
    present = relevant(os.environ)
    for name, meaning in RELEVANT.items():
        say(f"{name}={present[name]!r}" if name in present else f"{name} is not set ({meaning})")
