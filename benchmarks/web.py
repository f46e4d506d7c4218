"""Models in browsers and on OpenVINO beside PyTorch on the CPU, in one run.

    python benchmarks/web.py [--runs 10] [--seconds 220] [--webnn-browser PATH]
                             [--provider openvino --provider webgpu --provider webnn] [--json FILE]

Prints a table with a row for each provider and family:

- difference: the greatest one from PyTorch, as a share of the greatest value of the output
- place: seconds of a placement (conversion, launch, comparison at two batch sizes)
- launch: seconds until the browser and its page were there
- first, median: milliseconds of a forward at batch 1; of a browser, in its page, without the way
  there and back
- torch: milliseconds of the same forward on PyTorch's CPU, measured in turns with the other
- ratio: how often as long as PyTorch the whole forward takes, the way there and back included;
  above 1, PyTorch is faster

OpenVINO runs models of the usual width with four layers and random weights, for the sake of the
ratio. Browsers run tiny twins: without a GPU, a browser's adapter is the CPU, and nearly all of its
time is overhead. What does not begin within --seconds is left out, and said to be.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resource_pool.devices import forwards
from resource_pool.devices.flat import difference
from resource_pool.devices.torch import TorchDevices
from resource_pool.errors import PoolError
from resource_pool.weights import example_inputs, locate_weights

MODELS = {
    "embedding": ("bert", "AutoModel"),
    "vision": ("vit", "AutoModel"),
    "text_generation": ("gpt2", "AutoModelForCausalLM"),
    "audio": ("whisper", "AutoModelForSpeechSeq2Seq"),
    "multimodal": ("clip", "AutoModel"),
}
_LAYERS = ("num_hidden_layers", "n_layer", "encoder_layers", "decoder_layers")
PROVIDERS = ("openvino", "webgpu", "webnn")
_COLUMNS = (
    ("difference", "difference", "{:.1e}"),
    ("place s", "place_s", "{:.1f}"),
    ("launch s", "launch_seconds", "{:.1f}"),
    ("first ms", "first_ms", "{:.0f}"),
    ("median ms", "median_ms", "{:.1f}"),
    ("torch ms", "torch_ms", "{:.1f}"),
    ("ratio", "ratio_to_torch", "{:.2f}"),
)


def measure(model_type: str, auto_class: str, provider: str, runs: int) -> dict[str, Any]:
    """Return the figures of one model on one provider; seconds and milliseconds."""
    import torch

    tiny = provider != "openvino"
    model = _tiny(model_type, auto_class) if tiny else _wide(model_type, auto_class)
    inputs = example_inputs(model, batch=1, seed=1)
    if "use_cache" in inspect.signature(type(model).forward).parameters:
        inputs["use_cache"] = False
    with torch.inference_mode():
        expected = model(**inputs)
    started = time.perf_counter()
    TorchDevices().place(model, provider, "float32")
    figures: dict[str, Any] = {"place_s": time.perf_counter() - started}
    with torch.inference_mode():
        figures["first_ms"] = _milliseconds(model, inputs)
        figures["difference"] = difference(expected, model(**inputs))
        there, here = _in_turns(model, inputs, runs)
    figures |= {"median_ms": there, "torch_ms": here, "ratio_to_torch": there / here}
    figures["parameters"] = sum(one.numel() for one in model.parameters())
    forward: Any = forwards.placement(model)
    if tiny:
        figures |= forward.facts()
        forward.engine._session.close()
    return figures


def _tiny(model_type: str, auto_class: str) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    weights = locate_weights(model_type, auto_class=auto_class, model_type=model_type, mode="tiny")
    return getattr(transformers, auto_class).from_pretrained(weights.path).float().eval()


def _wide(model_type: str, auto_class: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type)
    parts = [getattr(config, name) for name in config.sub_configs]
    for part, name in itertools.product((config, *parts), _LAYERS):
        if name in part.to_dict():
            setattr(part, name, 4)
    return getattr(transformers, auto_class).from_config(config).float().eval()


def _in_turns(model: Any, inputs: dict[str, Any], runs: int) -> tuple[float, float]:
    """Return the medians of the placed forward and of torch's own; what else runs meets both."""

    def alone(**given: Any) -> Any:
        return type(model).forward(model, **given)

    pairs = [
        (_milliseconds(model, inputs), _milliseconds(alone, inputs)) for _ in range(runs + 2)
    ]  # the first two warm them up
    there, here = zip(*pairs[2:], strict=True)
    return statistics.median(there), statistics.median(here)


def _milliseconds(function: Any, inputs: dict[str, Any]) -> float:
    started = time.perf_counter()
    function(**inputs)
    return (time.perf_counter() - started) * 1000


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'provider':<9}{'family':<16}" + "".join(f"{name:>11}" for name, _, _ in _COLUMNS)
    for row in rows:
        begin = f"{row['provider']:<9}{row['family']:<16}"
        if "error" in row:
            yield begin + f"  {row['error']}"
            continue
        cells = [
            form.format(row[key]) if row.get(key) is not None else "-" for _, key, form in _COLUMNS
        ]
        size = f"{row['parameters'] / 1e6:.1f} M parameters"
        by = f", {row['adapter_kind']} adapter" if "adapter_kind" in row else ""
        yield begin + "".join(f"{cell:>11}" for cell in cells) + f"  {size}{by}"


@contextlib.contextmanager
def _browser(provider: str, webnn_browser: str | None) -> Iterator[None]:
    """Let WebNN have a browser of its own: most that are installed on Linux have none."""
    before = os.environ.get("RP_BROWSER")
    if provider == "webnn" and webnn_browser:
        os.environ["RP_BROWSER"] = webnn_browser
    try:
        yield
    finally:
        os.environ.pop("RP_BROWSER", None)
        if before is not None:
            os.environ["RP_BROWSER"] = before


def main() -> None:
    """Measure every family on every provider and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=220.0)
    parser.add_argument("--provider", action="append", choices=PROVIDERS)
    parser.add_argument("--webnn-browser", help="an executable that has WebNN")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    began = time.monotonic()
    rows = []
    providers = options.provider or PROVIDERS
    # Family by family, so that what is left out is not a whole provider.
    for family, (model_type, auto_class) in MODELS.items():
        for provider in providers:
            row: dict[str, Any] = {"provider": provider, "family": family, "model": model_type}
            if time.monotonic() - began > options.seconds:
                row["error"] = f"left out: {options.seconds:.0f} s were over"
            else:
                try:
                    with _browser(provider, options.webnn_browser):
                        row |= measure(model_type, auto_class, provider, options.runs)
                except PoolError as error:
                    row["error"] = str(error)
            rows.append(row)
    rows.sort(key=lambda row: providers.index(row["provider"]))
    print("\n".join(_table(rows)))
    print(f"in {time.monotonic() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
