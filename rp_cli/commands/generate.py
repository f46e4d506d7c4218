"""``rp generate``: write test files for models."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.codegen.plan import TestPlan, make_plan
from rp_cli.errors import BadInputError, OutputError
from rp_cli.output import log_to_stderr, print_json, say

logger = logging.getLogger("rp")


def command(
    model: Annotated[
        list[str],
        typer.Option("--model", help="A hub name or a model folder; may be given several times."),
    ],
    output_dir: Annotated[
        str,
        typer.Option(
            "--output-dir", metavar="PATH", help="Where the files go; made where missing."
        ),
    ] = "skills",
    device: Annotated[
        str | None,
        typer.Option("--device", help="Test on this hardware only, e.g. cuda or cuda:1."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="MINUTES",
            help="Age at which a test lets the pool drop what nobody uses.",
        ),
    ] = 0.1,
    use_model_family: Annotated[
        bool,
        typer.Option(
            "--use-model-family/--no-use-model-family",
            help="Pick the template by the model's family, or take the generic one.",
        ),
    ] = True,
    hw_cache: Annotated[
        str | None,
        typer.Option(
            "--hw-cache", metavar="FILE", help="Hardware cache; written where it does not exist."
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
    """Write a hardware-aware test file, test_hf_NAME.py, for each model."""
    if debug:
        log_to_stderr()
    folder = _path("--output-dir", output_dir)
    cache = None if hw_cache is None else _path("--hw-cache", hw_cache)
    database = None if model_db is None else _path("--model-db", model_db)
    classified = _classify(model, database)
    plans = _plans(classified, device, timeout, use_model_family)
    if clear_cache:
        _clear_caches()
    from hardware_detection import detect_available_hardware
    from rp_cli.codegen.write import write_tests

    report = detect_available_hardware(cache_file=cache, refresh=clear_cache)
    paths = write_tests(plans, folder)
    for plan, one in zip(plans, classified, strict=True):
        _warn(plan, one, use_model_family)
    results = [
        _result(plan, one, path, report)
        for plan, one, path in zip(plans, classified, paths, strict=True)
    ]
    if json_output:
        print_json(results)
        return
    for result in results:
        _print(result)


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
    classified = [classify_model(name, model_db_path=model_db) for name in names]
    for one in classified:
        for evidence in one["evidence"]:
            logger.debug("evidence for %s: %s", one["model_name"], evidence)
    return classified


def _plans(
    classified: list[dict[str, Any]], device: str | None, timeout: float, use_model_family: bool
) -> list[TestPlan]:
    """Check every option before anything is written."""
    from resource_pool import parse_device

    if not 0 <= timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of minutes from 0 up, not {timeout}.")
    forced = None if device in (None, "auto") else str(parse_device(device))
    plans = [
        make_plan(one, device=forced, timeout_minutes=timeout, use_model_family=use_model_family)
        for one in classified
    ]
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
    elif use_model_family and plan.template != classified["template"]:
        say(
            f"rp: the template of {plan.family} does not know {plan.auto_class}, with which "
            f"{plan.model_name} is loaded; the generic one is taken."
        )


def _clear_caches() -> None:
    """Delete what rp can make again: the default hardware cache and the twins."""
    from hardware_detection import default_cache_path
    from hardware_detection.files import rp_home

    cleared = [str(path) for path in (default_cache_path(), rp_home() / "twins") if _removed(path)]
    say(f"Cleared {' and '.join(cleared)}." if cleared else "The caches were empty.")


def _removed(path: Path) -> bool:
    """Delete a file or folder; return whether there was one.

    Raises:
        OutputError: it cannot be deleted, or is a link to what may be somebody else's.
    """
    if path.is_symlink():
        raise OutputError(f"{path} is a link and is not cleared; delete it yourself.")
    try:
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            return False
    except OSError as error:
        raise OutputError(f"Cannot clear {path}: {error.strerror or error}.") from error
    return True


def _result(
    plan: TestPlan, classified: Mapping[str, Any], path: Path, report: Mapping[str, Any]
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
        "path": str(path),
        "model_name": plan.model_name,
        "family": plan.family,
        "subfamily": plan.subfamily,
        "confidence": plan.confidence,
        "template": plan.template,
        "auto_class": plan.auto_class,
        "forced_device": plan.device,
        "device": device,
        "device_reason": reason,
        "hardware_priority": hardware_fit(classified, report["hardware"])["hardware_priority"],
        "precision": "as stored",
        "weights": "decided when the test runs: pretrained, else a tiny random twin",
    }


def _print(result: Mapping[str, Any]) -> None:
    family = "/".join(part for part in (result["family"], result["subfamily"]) if part)
    typer.echo(f"Wrote {result['path']}")
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
