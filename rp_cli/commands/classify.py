"""``rp classify``: what models are, and which of this machine's hardware suits them."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError, ExitCode, sentence
from rp_cli.output import detected, print_json, progress, say
from rp_cli.paths import given_path

SCHEMA_VERSION = 1
# More models than this are a list: a line for each, and one line of JSON for each.
_BLOCKS = 20
# rich measures every cell before it draws: beyond this it would take seconds.
_DRAWN = 500


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            show_default=False,
            help="Names of the hub, local model folders, or - for names on standard input.",
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="A file with a name per line; # is a comment.",
            parser=given_path,
        ),
    ] = None,
    model_db: Annotated[
        Path | None,
        typer.Option(
            "--model-db",
            metavar="FILE",
            help="Your model database (YAML or JSON).",
            parser=given_path,
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--matrix", metavar="FILE", help="Your cells of the hardware matrix.", parser=given_path
        ),
    ] = None,
    hw_cache: Annotated[
        Path | None,
        typer.Option(
            "--hw-cache",
            "--cache",
            metavar="FILE",
            help="The hardware cache to use.",
            parser=given_path,
        ),
    ] = None,
    hub: Annotated[
        bool,
        typer.Option("--hub", help="Ask the model hub, too: the name is sent, and no token."),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option("--memory", help="Predict the memory of each model; takes seconds for each."),
    ] = False,
    table: Annotated[bool, typer.Option("--table", help="Print a line for each model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Tell a model's family, how sure that is and why, and the hardware it suits.

    No model is loaded, and the hub is asked only with --hub. A model database says what you know
    better: {name: {family: vision, subfamily: image_classifier}}; see `rp models`. A wrong name
    costs its own line, and the exit status is 2.
    """
    from rp_cli.modeldb.name_lists import gather_names

    if table and as_json:
        raise BadInputError("--table and --json are two ways to print; use one of them.")
    if not models and not files:
        raise BadInputError(
            "no model was named; give a hub name, a model folder, or - for names on standard input."
        )
    names = gather_names(models or [], files or [], sys.stdin)
    classified = _classified(names, model_db or _own_database(), matrix, hub)
    if classified:
        results = _fitted(classified, detected(hw_cache), memory)
        _print(results, table=table, as_json=as_json)
    if len(classified) < len(names):
        raise typer.Exit(ExitCode.BAD_INPUT)


def _classified(
    names: Sequence[str], model_db: Path | None, matrix: Path | None, hub: bool
) -> list[dict[str, Any]]:
    """Return what each model is; without those whose names are wrong, which is said."""
    from model_family_classifier import ClassificationInputError, classify_model, hub_metadata
    from model_family_classifier.database import read_database
    from model_family_classifier.matrix import load_matrix

    # What is wrong in these is wrong for every name.
    load_matrix(matrix)
    if model_db is not None:
        read_database(model_db)
    ask = hub_metadata if hub else None
    found = []
    for name in names:
        try:
            found.append(classify_model(name, model_db_path=model_db, matrix_path=matrix, hub=ask))
        except ClassificationInputError as error:
            say(f"rp: {sentence(error)}")
    return found


def _fitted(
    classified: Sequence[Mapping[str, Any]], report: Mapping[str, Any], memory: bool
) -> list[dict[str, Any]]:
    """Return each classification with the hardware of this machine that it suits."""
    from hardware_detection import automatic_hardware
    from model_family_classifier import hardware_fit, reported_web_limits

    machine: dict[str, Any] = {
        "web_limits": reported_web_limits(report),
        "memory_mb": _largest_mb(report),
        "automatic": automatic_hardware(report),
    }
    recorded = len(classified) <= _BLOCKS
    return [
        {
            **one,
            **hardware_fit(
                one,
                report["hardware"],
                requirements=_needs(one, predicted=memory, recorded=recorded),
                **machine,
            ),
        }
        for one in (progress(classified, "Predicting") if memory else classified)
    ]


def _largest_mb(report: Mapping[str, Any]) -> dict[str, float]:
    """Return backend -> memory of its largest device in MiB, where all of them tell theirs."""
    found = {}
    for name, details in report["details"].items():
        sizes = [row["memory_total_mb"] for row in details["devices"] if row["dtypes"]]
        if sizes and None not in sizes:
            found[name] = max(sizes)
    return found


def _print(results: Sequence[Mapping[str, Any]], *, table: bool, as_json: bool) -> None:
    if as_json:
        _print_json(results)
    elif table or len(results) > _BLOCKS:
        _print_table(results)
    else:
        typer.echo("\n\n".join(render(one) for one in results))


def render(result: Mapping[str, Any]) -> str:
    """Return the guides' block for one model, with its subfamily and the evidence."""
    from model_family_classifier.hardware import BACKENDS, is_shown

    lines = [
        f"Model: {result['model_name']}",
        f"  Family: {result['family']} (confidence: {result['confidence']:.2f})",
        *_subfamily(result),
        *([f"  Deployment: {result['deployment']}"] if result["deployment"] else []),
        f"  Optimal Hardware: {result['optimal_hardware']}",
        f"  PyTorch Device: {result['torch_device']}",
        f"  Hardware Priority: {' > '.join(result['hardware_priority'])}",
        f"  Recommended Template: {result['template']}",
        f"  Memory: {_memory(result)}",
        "  Hardware Compatibility:",
        *(
            f"    {name}: {_compatible(result['compatibility'][name])}"
            for name in BACKENDS
            if name != "cpu" and is_shown(name, result["compatibility"][name])
        ),
        "  Evidence:",
        *(f"    {_evidence(one)}" for one in result["evidence"]),
    ]
    return "\n".join(lines)


def _memory(result: Mapping[str, Any]) -> str:
    needs = result["resource_requirements"]
    if needs is None and result["model_type"] is None:
        return "unknown, as its architecture is (`rp models add` names its model type)"
    if needs is None:
        return f"unknown (rp predict {shlex.quote(result['model_name'])} predicts it)"
    said = needs["method"] + (f"; config: {needs['config']}" if "config" in needs else "")
    return f"{needs['memory_bytes'] / 2**20:.0f} MiB ({said})"


def _needs(
    classification: Mapping[str, Any], *, predicted: bool, recorded: bool
) -> dict[str, Any] | None:
    """Return what a model needs, in bytes; None where nothing was asked or nobody knows."""
    if predicted:
        return _predicted(classification)
    return _recorded(classification["model_name"]) if recorded else None


def _recorded(name: str) -> dict[str, Any] | None:
    """Return what was measured, or predicted before, of a model in the dtype of its config."""
    from hardware_detection.files import rp_home

    # Where nothing was ever recorded, this spares the 30 ms of importing what reads records.
    with contextlib.suppress(OSError):
        if not any(rp_home().glob("*.sqlite3")):
            return None
    from resource_pool.prediction import recorded_bytes

    found = recorded_bytes(name, revision="", dtype=None)
    return None if found is None else {"memory_bytes": found, "method": "recorded"}


def _predicted(classification: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a model is predicted to need; None, said on stderr, if it cannot be told."""
    from resource_pool import predict
    from resource_pool.errors import PredictionError

    try:
        found = predict(
            classification["model_name"],
            model_type=classification["model_type"],
            auto_class=classification["auto_class"],
        )
    except PredictionError as error:
        say(str(error))
        return None
    return {
        "memory_bytes": found.total_bytes,
        "weights_bytes": found.weights_bytes,
        "method": found.method,
        "config": found.config,
    }


def _own_database() -> Path | None:
    from rp_cli.modeldb.user_database import existing_database

    return existing_database()


def _print_json(results: Sequence[Mapping[str, Any]]) -> None:
    versioned = [{"schema_version": SCHEMA_VERSION, **one} for one in results]
    if len(results) <= _BLOCKS:
        print_json(versioned)
    else:
        rows = ",\n".join(json.dumps(one, ensure_ascii=False) for one in versioned)
        typer.echo(f"[\n{rows}\n]")


def _print_table(results: Sequence[Mapping[str, Any]]) -> None:
    rows = [_row(one) for one in results]
    if sys.stdout.isatty() and len(rows) <= _DRAWN:
        _draw(rows)
    else:
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = zip(row, widths, strict=True)
            typer.echo("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def _draw(rows: Sequence[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from rp_cli.output import console

    table = Table("model", "family", "subfamily", "sure", "hardware", box=None)
    for row in rows:
        table.add_row(*map(escape, row))
    console().print(table)


def _row(one: Mapping[str, Any]) -> list[str]:
    sure = f"{one['confidence']:.2f}"
    family, subfamily = one["family"], one["subfamily"] or "-"
    return [one["model_name"], family, subfamily, sure, one["optimal_hardware"]]


def _subfamily(result: Mapping[str, Any]) -> list[str]:
    if result["subfamily"] is None:
        return []
    sure = result["subfamily_confidence"]
    return [f"  Subfamily: {result['subfamily']} (confidence: {sure:.2f})"]


def _compatible(cell: Mapping[str, Any]) -> str:
    system, effective = _mark(cell["system"]), _mark(cell["effective"])
    mark = f"{_mark(cell['compatible'])} (System: {system}, Effective: {effective})"
    # Why something is not here, `rp detect` tells.
    barred = not cell["compatible"] or (cell["system"] and not cell["effective"])
    return f"{mark}: {cell['reason']}" if barred and cell["reason"] else mark


def _mark(value: bool) -> str:
    return "✅" if value else "❌"


def _evidence(one: Mapping[str, Any]) -> str:
    means = "/".join(part for part in (one["family"], one["subfamily"]) if part)
    return f"{one['source']}: {one['detail']} -> {means} ({one['confidence']:.2f})"
