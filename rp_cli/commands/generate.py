"""``rp generate``: write test files for models."""

from __future__ import annotations

import enum
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rp_cli import completing
from rp_cli.codegen import told
from rp_cli.codegen.caches import clear_caches
from rp_cli.codegen.plan import DEFAULT_TIMEOUT, GENERIC_TEMPLATE, TestPlan, make_plan
from rp_cli.errors import BadInputError
from rp_cli.output import (
    detected,
    log_to_stderr,
    print_json,
    progress,
    refuse_for_a_description,
    say,
)
from rp_cli.paths import given_path

if TYPE_CHECKING:
    from rp_cli.codegen.write import Draft

logger = logging.getLogger("rp")

# From so many models on, each file is told in one line, and a terminal sees a progress bar.
_MANY = 20


class Style(str, enum.Enum):
    """What the tests are written for."""

    unittest = "unittest"
    pytest = "pytest"


class Target(str, enum.Enum):
    """What runs the model."""

    pytorch = "pytorch"
    transformers_js = "transformers-js"


def command(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A hub name or a model folder; may be given several times."),
    ] = None,
    all_from: Annotated[
        Path | None,
        typer.Option(
            "--all-from",
            metavar="FILE",
            help="A file with a name per line, - for standard input; # comments.",
            parser=given_path,
        ),
    ] = None,
    output_dir: Annotated[
        str,
        typer.Option(
            "--output-dir", metavar="PATH", help="Where the files go; made where missing."
        ),
    ] = "skills",
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            autocompletion=completing.device,
            help="Test on this hardware only, e.g. cuda or cuda:1.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="MINUTES",
            help="Age at which a test lets the pool drop what nobody uses; no deadline, which is "
            "rp run --timeout SECONDS.",
        ),
    ] = DEFAULT_TIMEOUT,
    style: Annotated[
        Style, typer.Option("--style", help="unittest classes, or pytest's plain asserts.")
    ] = Style.unittest,
    target: Annotated[
        Target,
        typer.Option(
            "--target", help="PyTorch, or transformers.js in a browser: a page, and its test."
        ),
    ] = Target.pytorch,
    use_model_family: Annotated[
        bool,
        typer.Option(
            "--use-model-family/--no-use-model-family",
            help="Pick the template by the model's family, or take the generic one.",
        ),
    ] = True,
    template_dir: Annotated[
        str | None,
        typer.Option(
            "--template-dir", metavar="PATH", help="Templates of yours that go before rp's own."
        ),
    ] = None,
    hw_cache: Annotated[
        str | None,
        typer.Option(
            "--hw-cache",
            "--cache",
            metavar="FILE",
            help="Hardware cache; written where it does not exist.",
        ),
    ] = None,
    model_db: Annotated[
        str | None,
        typer.Option(
            "--model-db",
            metavar="FILE",
            help="Model database (YAML or JSON) that decides families.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that were edited since rp wrote them.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Print what would change in files; write nothing.")
    ] = False,
    clear_cache: Annotated[
        bool,
        typer.Option(
            "--clear-cache",
            help="First clear rp's caches (hardware, twins), and detect the hardware anew.",
        ),
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log every decision to stderr.")] = False,
) -> None:
    """Write a hardware-aware test file, test_hf_NAME.py, for each model.

    A file that somebody edited since is left alone without --force.
    """
    if debug:
        log_to_stderr()
    refuse_for_a_description({"--clear-cache": clear_cache})
    if diff and json_output:
        raise BadInputError("--diff prints a diff and no JSON; give --json with --dry-run instead.")
    folder = _path("--output-dir", output_dir)
    cache = None if hw_cache is None else _path("--hw-cache", hw_cache)
    database = None if model_db is None else _path("--model-db", model_db)
    templates = None if template_dir is None else _template_folder(template_dir)
    classified = _classify(_names(model or [], all_from), database)
    asked = {
        "timeout_minutes": _minutes(timeout),
        "use_model_family": use_model_family,
        "style": style.value,
        "own_templates": _template_names(templates),
        "options": _kept(model_db=model_db, template_dir=template_dir),
    }
    plans = _plans(classified, device, asked)
    if target is Target.transformers_js:
        from rp_cli.codegen.transformers_js import draft_web_tests, web_plan

        plans = [web_plan(plan, templates) for plan in plans]
    only_look = dry_run or diff
    if clear_cache and not only_look:
        say(clear_caches())
    from rp_cli.codegen.write import draft_tests, write_drafts

    report = detected(cache, refresh=clear_cache and not only_look, store=not only_look)
    pages: list[Draft] = []
    if target is Target.transformers_js:
        drafts, pages = draft_web_tests(plans, folder)
    else:
        drafts = draft_tests(plans, folder, templates)
    if not only_look:

        def shown(written: Iterable[None], count: int) -> Iterable[None]:
            return progress(written, "Writing", least=_MANY, count=count)

        write_drafts([*drafts, *pages], force=force, progress=shown)
    for plan, one in zip(plans, classified, strict=True):
        expected = one["template"] if use_model_family else GENERIC_TEMPLATE
        _warn(told.warning(plan, expected, one["auto_class"]))
    if diff:
        typer.echo("".join(draft.diff() for draft in (*drafts, *pages)), nl=False)
        return
    results = told.results(plans, classified, drafts, pages, report)
    if json_output:
        print_json(results)
        return
    for one in results:
        test, *page_too = told.files(one, dry_run=dry_run, force=force)
        if len(results) < _MANY:
            typer.echo("\n".join((test, *page_too, *told.details(one, report))))
        else:
            typer.echo("\n".join((f"{test}  {one['template']}", *page_too)))


def _names(given: Sequence[str], file: Path | None) -> list[str]:
    """Return the names of the command line and of the file."""
    from rp_cli.modeldb.name_lists import STDIN, gather_names

    if not given and file is None:
        raise BadInputError("no model was named; give --model NAME, or --all-from FILE.")
    from_stdin = [STDIN] if file == Path(STDIN) else []
    files = [] if file is None or from_stdin else [file]
    return gather_names([*given, *from_stdin], files, sys.stdin)


def _minutes(timeout: float) -> float:
    if not 0 <= timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of minutes from 0 up, not {timeout}.")
    return timeout


def _template_folder(given: str) -> Path:
    folder = _path("--template-dir", given)
    if not folder.is_dir():
        raise BadInputError(f"--template-dir {given!r} is no folder; name one with templates.")
    return folder


def _template_names(folder: Path | None) -> frozenset[str]:
    """Return the templates of a folder, as the guides name them: without ".j2"."""
    found = [] if folder is None else folder.glob("*.j2")
    return frozenset(file.name.removesuffix(".j2") for file in found)


def _kept(**options: str | None) -> tuple[str, ...]:
    """Return the options that stand in the file's header, as they were given."""
    pairs = [(f"--{n.replace('_', '-')}", value) for n, value in options.items() if value]
    return tuple(word for pair in pairs for word in pair)


def _path(option: str, given: str) -> Path:
    """Return a path that was given; an empty text would silently mean the current folder."""
    if not given.strip():
        raise BadInputError(f"{option} is empty; name a path, or leave the option out.")
    return Path(given)


def _classify(models: list[str], model_db: Path | None) -> list[dict[str, Any]]:
    """Classify each model once, however often and in whatever form it is named."""
    from model_family_classifier import classify_model
    from rp_cli.codegen.names import resolve_model_name
    from rp_cli.modeldb.user_database import existing_database

    names = dict.fromkeys(resolve_model_name(name) for name in models)
    model_db = model_db or existing_database()
    classified = [
        classify_model(name, model_db_path=model_db)
        for name in progress(names, "Classifying", least=_MANY)
    ]
    for one in classified:
        for evidence in one["evidence"]:
            logger.debug("evidence for %s: %s", one["model_name"], evidence)
    return classified


def _plans(
    classified: Sequence[Mapping[str, Any]], device: str | None, asked: Mapping[str, Any]
) -> list[TestPlan]:
    """Check every option before anything is written."""
    from resource_pool import parse_device

    forced = None if device in (None, "auto") else str(parse_device(device))
    plans = [make_plan(one, device=forced, **asked) for one in classified]
    for plan in plans:
        logger.debug("plan: %s", plan)
    return plans


def _warn(text: str | None) -> None:
    if text:
        say(f"rp: {text}")
