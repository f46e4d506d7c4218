"""``rp predict``: how much memory a model needs, and where that much is free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rp_cli import completing
from rp_cli.output import detected, print_json, working

if TYPE_CHECKING:
    from resource_pool.prediction import Device, Fit, Prediction

SCHEMA_VERSION = 1
_METHODS = {
    "recorded": "measured before",
    "trace": "traced without weights",
    "headroom": "weights known, the rest estimated",
    "file_size": "guessed from the size of the files",
}


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False, help="A name of the hub, or a local model folder."
        ),
    ],
    batch: Annotated[int, typer.Option(metavar="N", help="Rows.")] = 1,
    seq: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens per row; 128, or what the model takes at most."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completing.among(("fp32", "fp16", "bf16")),
            help="fp32, fp16 or bf16; its own by default.",
        ),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:SIZE", help='A device to ask about: "h100:80GiB". Repeatable.'),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Tell how much memory a model needs, and on which devices it fits.

    Only the model's config is read: no weights, no downloads. Without --on, this machine's
    devices are asked about.
    """
    from resource_pool.prediction import Fit, described_device, predict

    known = _of_the_database(model)
    devices = [described_device(text) for text in on or ()] or _devices_here()
    asked = {"batch": batch, "seq": seq, "dtype": dtype, **known}
    with working(f"Predicting {model}"):
        fits = [Fit(device, predict(model, backend=device.backend, **asked)) for device in devices]
    if as_json:
        print_json(_document(fits))
    else:
        typer.echo(render(fits))


def _document(fits: list[Fit]) -> dict[str, Any]:
    found = fits[0].prediction.to_dict()
    devices = [fit.to_dict() for fit in fits]
    return {"schema_version": SCHEMA_VERSION, **found, "devices": devices}


def _of_the_database(model: str) -> dict[str, Any]:
    """Return what the user's own database says of a model's architecture, where there is one."""
    from rp_cli.modeldb.user_database import classified, existing_database

    if existing_database() is None:
        return {}
    known = classified(model)
    return {name: known[name] for name in ("model_type", "auto_class")}


def _devices_here() -> list[Device]:
    from resource_pool.prediction import devices_of

    return devices_of(detected())


def render(fits: list[Fit]) -> str:
    """Return the prediction for the first device, and a line about each device."""
    prediction = fits[0].prediction
    return "\n".join(
        (
            _headline(prediction),
            f"  Config: {prediction.config}",
            *_sizes(prediction),
            *(f"  {fit.device.label}: {fit}" for fit in fits),
            *(f"  Note: {note}" for note in prediction.notes),
        )
    )


def _headline(prediction: Prediction) -> str:
    shape = f"batch {prediction.batch}"
    if prediction.seq is not None:
        shape += f", seq {prediction.seq}"
    built = prediction.architecture or prediction.model_type or "unknown architecture"
    return f"{prediction.model_name}: {built}, {prediction.dtype}, {shape}"


def _sizes(prediction: Prediction) -> list[str]:
    from resource_pool.weights.hub import as_size

    cache = as_size(prediction.kv_cache_bytes)
    if prediction.kv_bytes_per_token:
        cache += f" ({as_size(prediction.kv_bytes_per_token)} more with each token)"
    return [
        f"  Weights: {as_size(prediction.weights_bytes)}",
        f"  Activations: {as_size(prediction.activations_bytes)}",
        f"  KV cache: {cache}",
        f"  Total: {as_size(prediction.total_bytes)} ({_METHODS[prediction.method]})",
    ]
