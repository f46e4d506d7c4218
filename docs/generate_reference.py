"""Writes the reference from the code: ``python docs/generate_reference.py [--check]``.

Whole pages under docs/reference/, the tables between "generated" marks in pages that are written
by hand, and the lists of backends, families and Auto classes in schemas. ``--check`` writes
nothing, and exits with 1 where a page is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import python_reference
import typer

import resource_pool
from hardware_detection import HARDWARE_NAMES
from model_family_classifier import FAMILIES
from model_family_classifier.index import load_index
from resource_pool._meanings import PREFERENCES, STATISTICS
from rp_cli import app
from rp_cli.errors import MEANINGS, error_codes
from rp_cli.settings import OF_LIBRARIES, SETTINGS

DOCS = Path(__file__).parent
TOP = DOCS.parent
JSON_INTRODUCTION = (
    "Everything that rp prints with `--json`, or saves for programs, has a `schema_version` "
    "and a JSON Schema (draft 2020-12) in `docs/schemas/`. A change that breaks readers raises "
    "the number; a new key does not. Where a document is a list, each of its entries has the "
    "number. `rp models list --json` prints your model database, whose schema is "
    "`model_db/model_database.schema.json`."
)
NOTE = "<!-- Written by docs/generate_reference.py; `make reference` writes it again. -->"
# A flat list in a schema, told by its first word.
_LIST = re.compile(r'\["(?P<first>\w+)",[^][]*\]')
MARKS = "<!-- generated: {name} -->\n\n{text}\n\n<!-- end -->"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a cell never ends its row."""
    lines = [head, ["---"] * len(head), *([_cell(text) for text in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


# The tables --------------------------------------------------------------------------------------


def exit_codes() -> str:
    """Return the exit codes and what they mean."""
    return table(("code", "meaning"), ((str(int(code)), text) for code, text in MEANINGS.items()))


def errors() -> str:
    """Return the errors that end a command, and its exit code."""
    rows = (
        (
            f"`{kind.__module__.partition('.')[0]}`",
            f"`{kind.__name__}`",
            str(int(code)),
            _first(kind),
        )
        for kinds, code in error_codes()
        for kind in kinds
    )
    return table(("package", "error", "exit code", "meaning"), rows)


def python_errors() -> str:
    """Return the errors that the pool raises in Python."""
    kinds = [
        getattr(resource_pool, name) for name in resource_pool.__all__ if name.endswith("Error")
    ]
    rows = (
        (f"`{kind.__name__}`", f"`{kind.__bases__[-1].__name__}`", _first(kind)) for kind in kinds
    )
    return table(("error", "is a", "meaning"), rows)


def _first(documented: Any) -> str:
    return (documented.__doc__ or "").partition("\n")[0].rstrip(".")


def environment() -> str:
    """Return the environment variables."""
    rows = ((f"`{one.name}`", one.meaning, one.default) for one in (*SETTINGS, *OF_LIBRARIES))
    return table(("variable", "meaning", "default"), rows)


def preferences() -> str:
    """Return the keys of hardware preferences."""
    rows = ((f"`{key}`", one.values, one.effect) for key, one in PREFERENCES.items())
    return table(("key", "value", "effect"), rows)


def statistics() -> str:
    """Return the keys of ``get_stats()``."""
    return table(("key", "meaning"), ((f"`{key}`", text) for key, text in STATISTICS.items()))


# The command line --------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command of ``rp`` by its name, groups before their parts."""
    for name, (_, text) in app.COMMANDS.items():
        built = app._build(name)
        built.short_help = text
        yield f"rp {name}", built
        for part, one in getattr(built, "commands", {}).items():
            yield f"rp {name} {part}", one


def command_line() -> str:
    """Return the page of all commands and their options."""
    root = typer.main.get_command(app.app)
    parts = [
        NOTE,
        "# Commands",
        "`rp COMMAND --help` prints the same. Options of `rp` itself stand before the command.",
        _parameters(root),
    ]
    for name, one in commands():
        parts += [f"{'#' * len(name.split())} `{name}`", *_described(name, one)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(name: str, one: Any) -> Iterator[str]:
    if name == "rp check-integration":
        yield "The same as `rp check`."
        return
    yield re.sub(r"\s*\n\s*(?=\S)", " ", (one.help or one.short_help or "").strip())
    arguments = [_argument(param) for param in one.params if param.param_type_name == "argument"]
    if hasattr(one, "commands"):
        arguments = ["[COMMAND]" if one.invoke_without_command else "COMMAND"]
    yield f"```text\n{' '.join([name, '[OPTIONS]', *arguments])}\n```"
    yield _parameters(one)


def _argument(param: Any) -> str:
    name = (param.metavar or param.name.upper()).strip("[].")
    name = f"{name}..." if param.nargs == -1 else name
    return name if param.required else f"[{name}]"


def _parameters(one: Any) -> str:
    rows = [_row(param) for param in one.params if param.name != "help" and not param.hidden]
    return table(("option", "meaning", "default"), rows) if rows else ""


def _row(param: Any) -> tuple[str, str, str]:
    if param.param_type_name == "argument":
        return f"`{_argument(param)}`", _sentence(param.help or ""), ""
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    if not param.is_flag:
        names += f" `{_value(param)}`"
    return names, _sentence(param.help or ""), _default(param)


def _value(param: Any) -> str:
    choices = getattr(param.type_descriptor, "choices", None) or ()
    listed = "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    return param.metavar or listed or param.name.upper()


def _default(param: Any) -> str:
    value = getattr(param.default, "value", param.default)
    if value is None or value is False or value in ((), "") or callable(value):
        return ""
    return "on" if value is True else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _sentence(text: str) -> str:
    return text.removesuffix(".") if text.count(". ") == 0 else text


# The JSON documents ------------------------------------------------------------------------------


def json_documents() -> str:
    """Return the page of all JSON documents, from their schemas."""
    parts = [
        NOTE,
        "# JSON documents",
        JSON_INTRODUCTION,
    ]
    for file in sorted((DOCS / "schemas").glob("*.json")):
        parts += list(_document(file))
    return "\n\n".join(parts) + "\n"


def _document(file: Path) -> Iterator[str]:
    schema = json.loads(file.read_text(encoding="utf-8"))
    one = schema.get("items", schema)
    yield f"## {_titled(schema['title'])}"
    text = schema["description"].replace(" A change that breaks readers gets another number.", "")
    text = text.replace("; a change that breaks readers gets another number", "")
    yield f"{text} [Schema](../schemas/{file.name})."
    yield table(("key", "type", "meaning"), _keys(one["properties"], schema))


def _titled(title: str) -> str:
    before, rp, command = title.partition("rp ")
    return f"{before}`{rp}{command}`" if rp else title


def _keys(properties: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for key, told in properties.items():
        if "$ref" in told:
            told = {**schema["$defs"][told["$ref"].rpartition("/")[2]], **told}
        yield f"`{key}`", _type(told), told.get("description", "")


def _type(told: Mapping[str, Any]) -> str:
    if "const" in told:
        return f"`{json.dumps(told['const'])}`"
    if "enum" in told:
        return ", ".join(f"`{value}`" for value in told["enum"])
    kinds = told.get("type", "object")
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def schemas() -> dict[Path, str]:
    """Return the schemas that list what the code knows, with those lists as they are now."""
    files = DOCS / "schemas" / "detection.json", TOP / "model_db" / "model_database.schema.json"
    return {file: _LIST.sub(_listed, file.read_text(encoding="utf-8")) for file in files}


def _listed(found: re.Match[str]) -> str:
    lists = HARDWARE_NAMES, FAMILIES, ("AutoModel", *load_index()["auto_classes"], None)
    return next((json.dumps(words) for words in lists if found["first"] in words), found[0])


# Writing -----------------------------------------------------------------------------------------


def pages() -> dict[Path, str]:
    """Return what each page is to hold."""
    within = {
        "reference.md": {
            "exit codes": exit_codes(),
            "errors": errors(),
            "errors in Python": python_errors(),
            "environment": environment(),
        },
        "preferences.md": {"preferences": preferences()},
        "statistics.md": {"statistics": statistics()},
    }
    return {
        DOCS / "reference" / "cli.md": command_line(),
        **schemas(),
        DOCS / "reference" / "json.md": json_documents(),
        DOCS / "reference" / "python.md": python_reference.page(NOTE),
        **{DOCS / name: _filled(DOCS / name, parts) for name, parts in within.items()},
    }


def _filled(page: Path, parts: Mapping[str, str]) -> str:
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        pattern = re.escape(MARKS).replace(r"\{name\}", re.escape(name)).replace(r"\{text\}", ".*?")
        found = MARKS.format(name=name, text=part)
        text, count = re.subn(pattern, lambda _, found=found: found, text, flags=re.DOTALL)
        if count != 1:
            raise SystemExit(f"{page} has {count} places for {name!r}; one is needed.")
    return text


def stale_pages() -> dict[Path, str]:
    """Return what is out of date, with what should stand there."""
    return {
        page: text
        for page, text in pages().items()
        if not page.is_file() or page.read_text(encoding="utf-8") != text
    }


def main() -> int:
    """Write the pages, or say which are out of date."""
    if "--check" in sys.argv[1:]:
        stale = stale_pages()
        for page in stale:
            typer.echo(f"{page} is out of date; run `make reference`.", err=True)
        return int(bool(stale))
    # A page may be written from another one: the JSON documents' from their schemas.
    while stale := stale_pages():
        for page, text in stale.items():
            page.parent.mkdir(exist_ok=True)
            page.write_text(text, encoding="utf-8")
            typer.echo(f"Wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
