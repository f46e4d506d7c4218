"""Checks model types, and prints what came of them as a table or as JSON."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rp_cli.errors import BadInputError, ExitCode
from rp_cli.output import console, print_json, say

_STYLES = {"passed": "green", "declared": "yellow", "failed": "red"}


def coverage(
    types: Sequence[str] = (),
    *,
    generated: bool = False,
    as_json: bool = False,
    results: Path | None = None,
) -> ExitCode:
    """Build the twin of each model type, run a forward with it, and print what came of it.

    Args:
        types: model types as transformers names them; none: all that have an Auto class.
        generated: run on each twin the whole test that ``rp generate`` writes for its type.
        as_json: print JSON instead of a table.
        results: a file of JSON lines: types that passed in it with the installed versions of
            transformers and torch are not checked again, and what is checked is added.

    Returns:
        OK where every type passed or is declared with its cause, else FAILED.

    Raises:
        BadInputError: no such model type, or ``results`` holds something else.
    """
    from rp_cli.coverage.sweep import known_types

    known = known_types()
    wanted = {name: known[name] for name in _checked_names(types, known)}
    rows = list(_rows(wanted, results, generated))
    if as_json:
        print_json({"schema_version": 1, "versions": _versions(), "types": rows})
    else:
        _print(rows, _OF_TESTS if generated else _OF_TWINS)
    return ExitCode.FAILED if any(row["status"] == "failed" for row in rows) else ExitCode.OK


def _checked_names(types: Sequence[str], known: Mapping[str, str]) -> Sequence[str]:
    for name in types:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise BadInputError(f"{name!r} is no model type with an Auto class{hint}")
    return types or list(known)


def _rows(
    wanted: Mapping[str, str], results: Path | None, generated: bool
) -> Iterator[dict[str, Any]]:
    """Yield one row per type, in their order.

    What passed before, with the versions that are installed now, is taken from ``results``.
    """
    from rp_cli.coverage.results import append_result, read_results

    before, versions = read_results(results) if results else {}, _versions()
    known = {
        name: row
        for name, row in before.items()
        if row["status"] == "passed"
        and row.get("generated", False) is generated
        and row.pop("versions", None) == versions
    }
    missing = {name: auto for name, auto in wanted.items() if name not in known}
    checked = _tested(missing) if generated else _built(missing)
    for number, name in enumerate(wanted, start=1):
        if name in known:
            yield known[name]
            continue
        row = _with_declaration(next(checked))
        if results:
            append_result(results, {**row, "versions": versions})
        say(f"{number}/{len(wanted)} {name}: {row['status']}")
        yield row


def _built(types: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    from rp_cli.coverage.sweep import sweep

    return sweep(types.items())


def _tested(types: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    from rp_cli.coverage.generated import sweep_generated

    return sweep_generated(types)


def _with_declaration(row: dict[str, Any]) -> dict[str, Any]:
    """Say of a failure that it is known, where the table of exceptions declares it.

    A declared type is checked all the same: once its package is installed, it passes, and a failure
    of another kind is a failure.
    """
    from resource_pool.weights.cases import twin_case

    declared = twin_case(row["model_type"]).declared
    observed = row.get("cause", "")
    if declared is None or row["status"] == "passed" or not declared.explains(observed):
        return row
    cause = f"{declared.cause}: {declared.detail}; {declared.remedy}"
    return {**row, "status": "declared", "cause": cause, "observed": observed}


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("transformers", "torch")}


def _reasons(tests: Mapping[str, str]) -> str:
    return "\n".join(f"{name.removeprefix('test_')}: {why}" for name, why in tests.items())


# Column -> what stands there, of a row.
_Columns = Mapping[str, Callable[[Mapping[str, Any]], str]]
_OF_TWINS: _Columns = {
    "Modality": lambda row: row.get("modality", ""),
    "MB": lambda row: f"{row['megabytes']:.1f}" if "megabytes" in row else "",
}
_OF_TESTS: _Columns = {
    "Template": lambda row: row["template"],
    "Passed": lambda row: str(row.get("checks", {}).get("passed", 0)),
    "Left out": lambda row: _reasons(row["left_out"]),
    "Skipped": lambda row: _reasons(
        # On the CPU in float32 it is skipped for every type.
        {n: why for n, why in row.get("skipped", {}).items() if n != "test_agrees_with_cpu_float32"}
    ),
}


def _print(rows: Sequence[Mapping[str, Any]], columns: _Columns) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("Type", "Auto class", *columns, "Status", "Seconds", "Cause")
    for row in rows:
        status = row["status"]
        table.add_row(
            row["model_type"],
            row["auto_class"],
            *(escape(shown(row)) for shown in columns.values()),
            f"[{_STYLES[status]}]{status}[/]",
            f"{row['seconds']:.1f}",
            escape(row.get("cause", "")),
        )
    out = console()
    out.print(table)
    out.print(summary(rows))


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the counts in a sentence: "632 of 649 passed (97.4 %), 17 declared, 0 failed"."""
    counts = Counter(row["status"] for row in rows)
    share = 100 * counts["passed"] / len(rows) if rows else 0
    return (
        f"{counts['passed']} of {len(rows)} passed ({share:.1f} %), "
        f"{counts['declared']} declared, {counts['failed']} failed"
    )
