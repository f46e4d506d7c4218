"""``rp classify``: what models are, and which of this machine's hardware suits them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rp_cli.output import print_json

# The rows of the table, in the guides' order; ROCm only where it is, since torch drives it as CUDA.
_SHOWN = ("cuda", "rocm", "mps", "openvino", "webnn", "webgpu")


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", show_default=False, help="Names of the hub, or local model folders."
        ),
    ],
    model_db: Annotated[
        Path | None,
        typer.Option("--model-db", metavar="FILE", help="Your model database (YAML or JSON)."),
    ] = None,
    hw_cache: Annotated[
        Path | None,
        typer.Option("--hw-cache", metavar="FILE", help="The hardware cache to use."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Tell a model's family, how sure that is and why, and the hardware it suits.

    No model is loaded and the hub is not asked. A model database says what you know better:
    {name: {family: vision, subfamily: image_classifier}}.
    """
    from model_family_classifier import classify_model, hardware_fit

    # All models are judged before the hardware is looked at: a wrong name should fail at once.
    classified = [classify_model(model, model_db_path=model_db) for model in models]
    hardware = _hardware(hw_cache)
    results = [{**one, **hardware_fit(one, hardware)} for one in classified]
    if as_json:
        print_json(results)
    else:
        typer.echo("\n\n".join(render(one) for one in results))


def render(result: Mapping[str, Any]) -> str:
    """Return the guides' block for one model, with its subfamily and the evidence."""
    lines = [
        f"Model: {result['model_name']}",
        f"  Family: {result['family']} (confidence: {result['confidence']:.2f})",
        *_subfamily(result),
        f"  Optimal Hardware: {result['optimal_hardware']}",
        f"  PyTorch Device: {result['torch_device']}",
        f"  Hardware Priority: {' > '.join(result['hardware_priority'])}",
        f"  Recommended Template: {result['template']}",
        "  Hardware Compatibility:",
        *(
            f"    {name}: {_compatible(result['compatibility'][name])}"
            for name in _SHOWN
            if name != "rocm" or result["compatibility"][name]["system"]
        ),
        "  Evidence:",
        *(f"    {_evidence(one)}" for one in result["evidence"]),
    ]
    return "\n".join(lines)


def _hardware(cache: Path | None) -> Mapping[str, bool]:
    from hardware_detection import detect_available_hardware

    hardware: Mapping[str, bool] = detect_available_hardware(cache)["hardware"]
    return hardware


def _subfamily(result: Mapping[str, Any]) -> list[str]:
    if result["subfamily"] is None:
        return []
    sure = result["subfamily_confidence"]
    return [f"  Subfamily: {result['subfamily']} (confidence: {sure:.2f})"]


def _compatible(cell: Mapping[str, Any]) -> str:
    system, effective = _mark(cell["system"]), _mark(cell["effective"])
    return f"{_mark(cell['compatible'])} (System: {system}, Effective: {effective})"


def _mark(value: bool) -> str:
    return "✅" if value else "❌"


def _evidence(one: Mapping[str, Any]) -> str:
    means = "/".join(part for part in (one["family"], one["subfamily"]) if part)
    return f"{one['source']}: {one['detail']} -> {means} ({one['confidence']:.2f})"
