"""Models in browsers and on OpenVINO beside PyTorch on the CPU, in one run.

    python benchmarks/web.py [--runs 20] [--provider webgpu --provider webnn --provider openvino]
                             [--model FAMILY=MODEL_TYPE,AUTO_CLASS ...] [--json FILE]

Prints, for each provider and family, the greatest difference from PyTorch (as a share of the
greatest value of the output), what placing took (export, launch, two comparisons), and the median
of a forward at batch 1 beside PyTorch's in the same process; the ratio is above 1 where PyTorch is
faster. The models are tiny twins unless RP_WEIGHTS says otherwise: for them, a browser's time is
mostly its overhead. `first_ms` and `median_ms` of a browser are measured in its page, without the
way there and back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
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
PROVIDERS = ("webgpu", "webnn", "openvino")


def measure(model_type: str, auto_class: str, provider: str, runs: int) -> dict[str, Any]:
    """Return the figures of one model on one provider; seconds and milliseconds."""
    model, alone = _load(model_type, auto_class), _load(model_type, auto_class)
    inputs = example_inputs(model, batch=1, seed=1)
    started = time.perf_counter()
    TorchDevices().place(model, provider, "float32")
    placed = time.perf_counter() - started
    forward: Any = forwards.placement(model)
    if "use_cache" in forward.__signature__.parameters:
        inputs["use_cache"] = False
    figures = {
        "place_s": placed,
        "difference": difference(_run(alone, inputs), _run(model, inputs)),
        "forward_ms": _median_ms(model, inputs, runs),
        "torch_ms": _median_ms(alone, inputs, runs),
    }
    figures["ratio_to_torch"] = figures["forward_ms"] / figures["torch_ms"]
    return figures | (forward.facts() if provider != "openvino" else {})


def _load(model_type: str, auto_class: str) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    weights = locate_weights(model_type, auto_class=auto_class, model_type=model_type)
    return getattr(transformers, auto_class).from_pretrained(weights.path).float().eval()


def _run(model: Any, inputs: dict[str, Any]) -> Any:
    import torch

    with torch.inference_mode():
        return model(**inputs)


def _median_ms(model: Any, inputs: dict[str, Any], runs: int) -> float:
    times = []
    for _ in range(runs + 2):  # the first two warm it up
        started = time.perf_counter()
        _run(model, inputs)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[2:])


def _line(family: str, provider: str, row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{provider:<9}{family:<16} {row['error']}"
    text = (
        f"{provider:<9}{family:<16} difference {row['difference']:.1e}, placed in "
        f"{row['place_s']:.1f} s, median {row['forward_ms']:.2f} ms, torch {row['torch_ms']:.2f} "
        f"ms, ratio {row['ratio_to_torch']:.2f}"
    )
    if "launch_seconds" in row:
        text += (
            f"; in the page: launch {row['launch_seconds']:.1f} s, first {row['first_ms']:.0f} ms, "
            f"median {row['median_ms']:.1f} ms, {row['dispatches']} dispatches, "
            f"{row['adapter_kind']} adapter"
        )
    return text


def main() -> None:
    """Measure every family on every provider and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--provider", action="append", choices=PROVIDERS)
    parser.add_argument("--model", action="append", metavar="FAMILY=MODEL_TYPE,AUTO_CLASS")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    models = dict(_parsed(text) for text in options.model or ()) or MODELS
    rows = []
    for provider in options.provider or PROVIDERS:
        for family, (model_type, auto_class) in models.items():
            row: dict[str, Any] = {"provider": provider, "family": family, "model": model_type}
            try:
                row |= measure(model_type, auto_class, provider, options.runs)
            except PoolError as error:
                row["error"] = str(error)
            print(_line(family, provider, row), flush=True)
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def _parsed(text: str) -> tuple[str, tuple[str, str]]:
    family, _, rest = text.partition("=")
    model_type, _, auto_class = rest.partition(",")
    return family, (model_type, auto_class or "AutoModel")


if __name__ == "__main__":
    main()
