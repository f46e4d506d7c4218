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
from rp_cli.codegen.caches import clear_caches
from rp_cli.codegen.plan import DEFAULT_TIMEOUT, GENERIC_TEMPLATE, TestPlan, make_plan
from rp_cli.errors import BadInputError
from rp_cli.output import detected, log_to_stderr, print_json, progress, say

if TYPE_CHECKING:
    from rp_cli.codegen.write import Draft

logger = logging.getLogger("rp")

SCHEMA_VERSION = 1
# From so many models on, each is told in one line, and a terminal sees a progress bar.
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
    only_look = dry_run or diff
    if clear_cache and not only_look:
        say(clear_caches())
    from rp_cli.codegen.write import draft_tests, write_drafts

    report = detected(cache, refresh=clear_cache and not only_look, store=not only_look)
    if target is Target.transformers_js:
        from rp_cli.codegen.transformers_js import draft_web_tests, web_plan

        plans = [web_plan(plan) for plan in plans]
        drafts, pages = draft_web_tests(plans, folder)
    else:
        drafts, pages = draft_tests(plans, folder, templates), []
    if not only_look:

        def shown(written: Iterable[None], count: int) -> Iterable[None]:
            return progress(written, "Writing", least=_MANY, count=count)

        write_drafts([*drafts, *pages], force=force, progress=shown)
    for plan, one in zip(plans, classified, strict=True):
        _warn(plan, one, use_model_family and target is Target.pytorch)
    if diff:
        typer.echo("".join(draft.diff() for draft in (*drafts, *pages)), nl=False)
        return
    results = [
        _result(plan, one, draft, report)
        for plan, one, draft in zip(plans, classified, drafts, strict=True)
    ]
    if json_output:
        print_json(results)
    elif len(results) < _MANY:
        for result in results:
            _print(result, _done(result, dry_run, force))
    else:
        for result in results:
            typer.echo(f"{_done(result, dry_run, force)} {result['path']}  {result['template']}")


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


def _warn(plan: TestPlan, classified: Mapping[str, Any], use_model_family: bool) -> None:
    """Say where the file checks less than a person may expect of it."""
    if plan.family == "unknown" or not plan.confidence:
        say(
            f"rp: nothing is known of {plan.model_name}, so its test checks only what holds for "
            "any model; name its family in a --model-db file."
        )
    elif (
        use_model_family
        and plan.template == GENERIC_TEMPLATE
        and plan.template != classified["template"]
    ):
        say(
            f"rp: the template of {plan.family} does not know {plan.auto_class}, with which "
            f"{plan.model_name} is loaded; the generic one is taken."
        )


def _result(
    plan: TestPlan, classified: Mapping[str, Any], draft: Draft, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Say what was written, and what the test would run on here and now."""
    from model_family_classifier import hardware_fit
    from resource_pool import DeviceUnavailableError, explain

    device, reason = None, ""
    try:
        device = explain(plan.model_name, plan.preferences, report).device
    except DeviceUnavailableError as error:
        reason = str(error)
    return {
        "schema_version": SCHEMA_VERSION,
        "path": str(draft.path),
        "status": draft.status,
        "model_name": plan.model_name,
        "family": plan.family,
        "subfamily": plan.subfamily,
        "confidence": plan.confidence,
        "template": plan.template,
        "style": plan.style,
        "auto_class": plan.auto_class,
        "forced_device": plan.device,
        "device": device,
        "device_reason": reason,
        "hardware_priority": hardware_fit(classified, report["hardware"])["hardware_priority"],
        "precision": "as stored",
        "weights": "decided when the test runs: pretrained, else a tiny random twin",
    }


def _done(result: Mapping[str, Any], dry_run: bool, force: bool) -> str:
    """Return what was done to a file, or would be."""
    if result["status"] == "unchanged":
        return "Unchanged:"
    if not dry_run:
        return "Wrote"
    if result["status"] != "edited":
        return "Would write"
    return "Would overwrite what was edited:" if force else "Edited, needs --force:"


def _print(result: Mapping[str, Any], done: str) -> None:
    family = "/".join(part for part in (result["family"], result["subfamily"]) if part)
    typer.echo(f"{done} {result['path']}")
    typer.echo(f"  Family:    {family} (confidence: {result['confidence']:.2f})")
    typer.echo(f"  Template:  {result['template']}, {result['auto_class']}")
    typer.echo(f"  Device:    {_device(result)}")
    typer.echo(f"  Precision: {result['precision']}")
    typer.echo(f"  Weights:   {result['weights']}")


def _device(result: Mapping[str, Any]) -> str:
    forced, device = result["forced_device"], result["device"]
    if device is None:
        reason = result["device_reason"].rpartition("cannot be used: ")[2].rstrip(".")
        return f"{forced} (not here: {reason}; the test will be skipped on this machine)"
    if forced:
        return f"{forced} and nothing else, which is {device} here"
    return f"{device} here, of {' > '.join(result['hardware_priority'])}"
