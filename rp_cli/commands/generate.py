"""``rp generate``: write test files for models."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.codegen.plan import TestPlan, make_plan
from rp_cli.errors import BadInputError
from rp_cli.output import log_to_stderr, print_json, say

logger = logging.getLogger("rp")


def command(
    model: Annotated[
        list[str],
        typer.Option("--model", help="A hub name or a model folder; may be given several times."),
    ],
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="Where the files go; made where missing.")
    ] = Path("skills"),
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
        Path | None,
        typer.Option("--hw-cache", help="Hardware cache; written where it does not exist."),
    ] = None,
    model_db: Annotated[
        Path | None,
        typer.Option("--model-db", help="Model database (YAML or JSON) that decides families."),
    ] = None,
    clear_cache: Annotated[
        bool, typer.Option("--clear-cache", help="First clear rp's caches: hardware and twins.")
    ] = False,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log every decision to stderr.")] = False,
) -> None:
    """Write a hardware-aware test file, test_hf_NAME.py, for each model."""
    if debug:
        log_to_stderr()
    plans = _plans(model, device, timeout, use_model_family, model_db)
    if clear_cache:
        _clear_caches()
    from hardware_detection import detect_available_hardware
    from rp_cli.codegen.write import write_tests

    report = detect_available_hardware(cache_file=hw_cache)
    paths = write_tests(plans, output_dir)
    results = [_result(plan, path, report) for plan, path in zip(plans, paths, strict=True)]
    if json_output:
        print_json(results)
        return
    for result in results:
        _print(result)


def _plans(
    models: list[str],
    device: str | None,
    timeout: float,
    use_model_family: bool,
    model_db: Path | None,
) -> list[TestPlan]:
    """Check every option before anything is written."""
    from model_family_classifier import classify_model
    from resource_pool import parse_device
    from rp_cli.codegen.names import resolve_model_name

    if not 0 <= timeout < float("inf"):
        raise BadInputError(f"--timeout must be a number of minutes from 0 up, not {timeout}.")
    forced = None if device in (None, "auto") else str(parse_device(device))
    plans = []
    for name in dict.fromkeys(resolve_model_name(name) for name in models):
        classified = classify_model(name, model_db_path=model_db)
        for evidence in classified["evidence"]:
            logger.debug("evidence for %s: %s", name, evidence)
        plan = make_plan(
            classified, device=forced, timeout_minutes=timeout, use_model_family=use_model_family
        )
        logger.debug("plan: %s", plan)
        plans.append(plan)
    return plans


def _clear_caches() -> None:
    """Delete what rp can make again: the default hardware cache and the twins."""
    from hardware_detection import default_cache_path
    from hardware_detection.files import rp_home

    default_cache_path().unlink(missing_ok=True)
    shutil.rmtree(rp_home() / "twins", ignore_errors=True)
    say("Cleared the hardware cache and the twins.")


def _result(plan: TestPlan, path: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Say what was written, and what the test would run on here and now."""
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
        "device": device,
        "device_reason": reason,
        "hardware_priority": list(plan.priority),
        "precision": "as stored",
        "weights": "decided when the test runs: pretrained, else a tiny random twin",
    }


def _print(result: Mapping[str, Any]) -> None:
    family = "/".join(part for part in (result["family"], result["subfamily"]) if part)
    here = result["device"] or f"skipped ({result['device_reason']})"
    typer.echo(f"Wrote {result['path']}")
    typer.echo(f"  Family:    {family} (confidence: {result['confidence']:.2f})")
    typer.echo(f"  Template:  {result['template']}, {result['auto_class']}")
    typer.echo(f"  Device:    {here} here, of {' > '.join(result['hardware_priority'])}")
    typer.echo(f"  Precision: {result['precision']}")
    typer.echo(f"  Weights:   {result['weights']}")
