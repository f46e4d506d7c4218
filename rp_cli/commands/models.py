"""``rp models``: see and edit your model database, and keep rp's own index up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli import completing
from rp_cli.errors import ExitCode
from rp_cli.output import print_json, say
from rp_cli.paths import given_path

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME", show_default=False, help="Names of the hub, or local model folders."
    ),
]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="Databases of models: YAML or JSON.",
        parser=given_path,
    ),
]
Database = Annotated[
    Path | None,
    typer.Option(
        "--model-db",
        "--db",
        metavar="FILE",
        help="Your database; else RP_MODEL_DB, else rp's own folder.",
        parser=given_path,
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SCHEMA_VERSION = 1  # of what `show` prints

command = typer.Typer(
    name="models",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@command.callback()
def _models() -> None:
    """See and edit what you know better than rp: your model database.

    An entry decides over everything that rp finds out by itself, and rp never changes it. The
    file is YAML or JSON: {name: {family, subfamily, model_type, auto_class, tasks}}.
    """


@command.command("list")
def list_entries(database: Database = None, as_json: Json = False) -> None:
    """List your entries."""
    from rp_cli.modeldb.user_database import entries_of

    path = _path(database)
    entries = entries_of(path)
    if as_json:
        print_json(entries)
        return
    for name, entry in entries.items():
        typer.echo(f"{name}  {_means(entry)}")
    if not entries:
        say(f"{path}: no entries; `rp models add NAME --family FAMILY` writes one")


@command.command()
def show(names: Names, database: Database = None, as_json: Json = False) -> None:
    """Show each model's entry beside what rp says without it."""
    from model_family_classifier import classify_model
    from model_family_classifier.database import entry_for
    from rp_cli.modeldb.user_database import entries_of

    entries = entries_of(_path(database))
    version = {"schema_version": SCHEMA_VERSION}
    found = [
        {**version, "entry": entry_for(entries, name), **_inferred(classify_model(name))}
        for name in names
    ]
    if as_json:
        print_json(found)
        return
    for one in found:
        yours = _means(one["entry"]) if one["entry"] else "no entry"
        typer.echo(f"{one['model_name']}\n  yours:     {yours}\n  by itself: {_means(one)}")


@command.command()
def add(
    names: Names,
    family: Annotated[
        str,
        typer.Option(
            autocompletion=completing.family, help="What kind of model it is.", show_default=False
        ),
    ],
    subfamily: Annotated[str | None, typer.Option(help="What it does.")] = None,
    model_type: Annotated[str | None, typer.Option(help="Its type in transformers.")] = None,
    auto_class: Annotated[str | None, typer.Option(help="The Auto class that loads it.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="A task; may be repeated.")] = None,
    database: Database = None,
    replace: Replace = False,
) -> None:
    """Write an entry for one model, or the same for several; a folder by its absolute path."""
    from model_family_classifier.database import key_for
    from rp_cli.codegen.names import resolve_model_name
    from rp_cli.modeldb.user_database import entries_of

    said = {
        "family": family,
        "subfamily": subfamily,
        "model_type": model_type,
        "auto_class": auto_class,
        "tasks": task or None,
    }
    entry = {key: value for key, value in said.items() if value is not None}
    before = entries_of(_path(database))
    resolved = [resolve_model_name(name) for name in names]
    meant = [key_for(before, name) or name for name in resolved]
    _write(database, dict.fromkeys(meant, entry), replace=replace)
    if subfamily is not None:
        from rp_cli.modeldb.subfamilies import notice_of

        notice = notice_of(family, subfamily)
        if notice:
            say(f"rp: {notice}")


@command.command("import")
def import_entries(files: Files, database: Database = None, replace: Replace = False) -> None:
    """Take the entries of other databases: YAML or JSON files."""
    from model_family_classifier.database import read_database

    new = {name: entry for file in files for name, entry in read_database(file).items()}
    _write(database, new, replace=replace)


@command.command(short_help="Rebuild rp's own index, or check it.")
def index(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if it is out of date.")
    ] = False,
) -> None:
    """Rebuild rp's own index from the installed transformers, and print what changed.

    Exit status: 0 it is up to date or has been written, 1 with --check it is out of date, 2
    transformers is not installed, 4 it cannot be written.
    """
    from rp_cli.modeldb import staleness

    difference = staleness.compare()
    for line in difference.lines:
        typer.echo(line)
    if not check:
        for path in staleness.write(difference):
            say(f"{path}: written")
    elif difference.lines:
        say("the index is out of date; run: rp models index")
        raise typer.Exit(ExitCode.FAILED)
    else:
        say("the index is up to date")


@command.command(short_help="Try the twins of model types.")
def coverage(
    types: Annotated[
        list[str] | None, typer.Option("--type", help="A model type; may be repeated.")
    ] = None,
    generated: Annotated[
        bool, typer.Option("--generated", help="Run the test that rp generate writes for each.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines: what passed there is not tried again, the rest is added.",
            parser=given_path,
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the twin of each model type, run a forward with it, and print what came of it.

    With --generated the type's whole test runs on the twin, on the CPU; one that fails is a false
    alarm, or a fault of the library. All types together take about ten minutes, with --generated
    about half an hour. Exit status: 0 each passed or is declared with its cause, 1 otherwise.
    """
    from rp_cli.coverage import coverage as cover

    code = cover(types or (), generated=generated, as_json=json_output, results=results)
    if code:
        raise typer.Exit(code)


def _path(database: Path | None) -> Path:
    from rp_cli.modeldb.user_database import default_database

    return database or default_database()


def _write(database: Path | None, new: Mapping[str, Any], *, replace: bool) -> None:
    from rp_cli.modeldb.user_database import add_entries

    path = _path(database)
    add_entries(path, new, replace=replace)
    say(f"{path}: {len(new)} {'entry' if len(new) == 1 else 'entries'} written")


def _inferred(classified: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("model_name", "family", "subfamily", "confidence", "model_type", "auto_class")
    return {key: classified[key] for key in keys}


def _means(entry: Mapping[str, Any]) -> str:
    said = [entry["family"], entry.get("subfamily")]
    extra = [entry.get("model_type"), entry.get("auto_class")]
    text = "/".join(part for part in said if part)
    more = ", ".join(part for part in extra if part)
    return f"{text} ({more})" if more else text
