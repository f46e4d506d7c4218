"""``rp models``: see and edit your model database, and keep rp's own index up to date."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.errors import BadInputError, ExitCode
from rp_cli.output import print_json, say


class Action(str, enum.Enum):
    """What ``rp models`` does."""

    LIST = "list"
    SHOW = "show"
    ADD = "add"
    IMPORT = "import"
    INDEX = "index"


def command(
    action: Annotated[
        Action,
        typer.Argument(
            metavar="ACTION",
            show_default=False,
            help="list: your entries. show NAME…: what is known of a model. add NAME…: write an "
            "entry. import FILE…: take the entries of other databases. index: rebuild rp's own "
            "index from the installed transformers.",
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FILE]...", show_default=False, help="Models, or files."),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(
            "--db", metavar="FILE", help="Your database; else RP_MODEL_DB, else rp's own folder."
        ),
    ] = None,
    family: Annotated[str | None, typer.Option(help="add: the family.")] = None,
    subfamily: Annotated[str | None, typer.Option(help="add: the subfamily.")] = None,
    model_type: Annotated[str | None, typer.Option(help="add: the type in transformers.")] = None,
    auto_class: Annotated[str | None, typer.Option(help="add: the Auto class to load.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="add: a task; may be repeated.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what is there.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="index: write nothing; exit 1 if it is out of date.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="list, show: print JSON.")] = False,
) -> None:
    """See and edit what you know better than rp: your model database.

    An entry decides over everything that rp finds out by itself, and rp never changes it. The
    file is YAML or JSON: {name: {family, subfamily, model_type, auto_class, tasks}}.
    """
    from rp_cli.modeldb import user_database

    path = database or user_database.default_database()
    if action is Action.LIST:
        _list(path, as_json)
    elif action is Action.SHOW:
        _show(path, _wanted(names, "a model's name"), as_json)
    elif action is Action.INDEX:
        _index(check)
    else:
        new = (
            _imported(_wanted(names, "a file"))
            if action is Action.IMPORT
            else dict.fromkeys(
                _wanted(names, "a model's name"),
                _entry(family, subfamily, model_type, auto_class, task),
            )
        )
        user_database.add_entries(path, new, replace=replace)
        say(f"{path}: {len(new)} {'entry' if len(new) == 1 else 'entries'} written")


def _list(path: Path, as_json: bool) -> None:
    from rp_cli.modeldb.user_database import entries_of

    entries = entries_of(path)
    if as_json:
        print_json(entries)
        return
    for name, entry in entries.items():
        typer.echo(f"{name}  {_means(entry)}")
    if not entries:
        say(f"{path}: no entries; `rp models add NAME --family FAMILY` writes one")


def _show(path: Path, names: list[str], as_json: bool) -> None:
    """Print each model's entry beside what rp says without it."""
    from model_family_classifier import classify_model
    from rp_cli.modeldb.user_database import entries_of

    entries = entries_of(path)
    found = [{"entry": entries.get(name), **_inferred(classify_model(name))} for name in names]
    if as_json:
        print_json(found)
        return
    for one in found:
        yours = _means(one["entry"]) if one["entry"] else "no entry"
        typer.echo(f"{one['model_name']}\n  yours:     {yours}\n  by itself: {_means(one)}")


def _inferred(classified: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("model_name", "family", "subfamily", "confidence", "model_type", "auto_class")
    return {key: classified[key] for key in keys}


def _index(check: bool) -> None:
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


def _wanted(names: list[str] | None, what: str) -> list[str]:
    if not names:
        raise BadInputError(f"give {what}; `rp models --help` shows how.")
    return names


def _entry(
    family: str | None,
    subfamily: str | None,
    model_type: str | None,
    auto_class: str | None,
    tasks: list[str] | None,
) -> dict[str, Any]:
    if family is None:
        raise BadInputError("an entry needs at least --family.")
    said = {
        "family": family,
        "subfamily": subfamily,
        "model_type": model_type,
        "auto_class": auto_class,
        "tasks": tasks or None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _imported(files: list[str]) -> dict[str, Mapping[str, Any]]:
    from model_family_classifier.database import read_database

    return {name: entry for file in files for name, entry in read_database(file).items()}


def _means(entry: Mapping[str, Any]) -> str:
    said = [entry["family"], entry.get("subfamily")]
    extra = [entry.get("model_type"), entry.get("auto_class")]
    text = "/".join(part for part in said if part)
    more = ", ".join(part for part in extra if part)
    return f"{text} ({more})" if more else text
