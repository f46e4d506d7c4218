"""How far predicted memory is from what the CPU allocator really gave, and accelerate's estimate.

    python benchmarks/prediction.py [--only llama …] [--json FILE]

Each model is predicted from its config, then built with random weights and run; torch's
profiler reports every block that the allocator hands out and takes back. accelerate's figure is
the "total size" of `accelerate estimate-memory` for the same config: weights only, and with the
fifth that its documentation adds for inference. A 70B-shaped config goes through the command
`rp predict`, start of Python included; its memory is that of the command and its trace together.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from resource_pool.prediction import predict

CAUSAL, SEQ2SEQ = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"
MIB = 2**20
os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler announces every start
_VERSIONS = ("torch", "transformers", "accelerate")
SMALL_LLAMA = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 8,
    "num_attention_heads": 32, "num_key_value_heads": 4,
}  # fmt: skip
LLAMA_70B = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
}  # fmt: skip


class Case(NamedTuple):
    """A config (fields beyond the type's defaults), its class and the shape of a forward."""

    model_type: str
    auto_class: str
    config: dict[str, Any]
    batch: int = 4
    seq: int | None = 128
    dtype: str = "float32"


CASES = [
    Case("bert", "AutoModel", {}, batch=8),
    Case("roberta", "AutoModelForMaskedLM", {}),
    Case("distilbert", "AutoModelForSequenceClassification", {}, batch=8),
    Case("deberta-v2", "AutoModel", {"num_hidden_layers": 6}),
    Case("gpt2", CAUSAL, {}),
    Case("llama", CAUSAL, SMALL_LLAMA, batch=2, seq=256),
    Case("llama", CAUSAL, SMALL_LLAMA, batch=2, seq=256, dtype="bfloat16"),
    Case("mistral", CAUSAL, {**SMALL_LLAMA, "num_hidden_layers": 4}, batch=2),
    Case("qwen2", CAUSAL, {**SMALL_LLAMA, "num_hidden_layers": 4}, batch=2),
    Case("gemma2", CAUSAL, {"num_hidden_layers": 4}, batch=1),
    Case("mixtral", CAUSAL, {
        "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 4,
        "num_attention_heads": 16, "num_key_value_heads": 4,
    }),
    Case("t5", SEQ2SEQ, {}),
    Case("bart", SEQ2SEQ, {}, batch=2),
    Case("vit", "AutoModelForImageClassification", {}),
    Case("swin", "AutoModelForImageClassification", {}),
    Case("convnext", "AutoModelForImageClassification", {}),
    Case("resnet", "AutoModelForImageClassification", {}, batch=8),
    Case("detr", "AutoModelForObjectDetection", {"backbone_config": {
        "model_type": "resnet", "out_features": ["stage4"]}}, batch=1),
    Case("whisper", "AutoModelForSpeechSeq2Seq", {}, batch=2),
    Case("wav2vec2", "AutoModelForCTC", {}, batch=2),
    Case("clip", "AutoModel", {}, seq=None),
    Case("blip", "AutoModelForImageTextToText", {}, batch=1),
    Case("llava", "AutoModelForImageTextToText", {
        "text_config": {"model_type": "llama", **SMALL_LLAMA, "num_hidden_layers": 4},
        "image_token_index": 31999,
    }, batch=1),
]  # fmt: skip


class Figures(NamedTuple):
    """Bytes of one case."""

    name: str
    weights: int
    predicted: int
    measured: int
    accelerate: int
    seconds: float
    predicted_cache: int
    measured_cache: int

    @property
    def error(self) -> float:
        """Return the relative error of the peak."""
        return self.predicted / self.measured - 1

    @property
    def error_beside_weights(self) -> float:
        """Return the relative error of what the peak has beside the weights."""
        return (self.predicted - self.weights) / (self.measured - self.weights) - 1


def measure(case: Case) -> Figures:
    """Predict, then build and run for real."""
    config = {"model_type": case.model_type, **case.config}
    started = time.perf_counter()
    predicted = predict(
        config, auto_class=case.auto_class, dtype=case.dtype, batch=case.batch, seq=case.seq
    )
    seconds = time.perf_counter() - started
    assert predicted.method == "trace", predicted.notes
    weights, peak, cache = truth(case, predicted.seq)
    return Figures(
        name=f"{case.model_type}{'' if case.dtype == 'float32' else f' {case.dtype}'}",
        weights=weights,
        predicted=predicted.total_bytes,
        measured=weights + peak,
        accelerate=accelerates_estimate(case),
        seconds=seconds,
        predicted_cache=predicted.kv_cache_bytes,
        measured_cache=cache,
    )


def truth(case: Case, seq: int | None) -> tuple[int, int, int]:
    """Return the bytes of the weights, of the forward's peak beside them, and of its cache."""
    import torch

    from resource_pool.prediction.inputs import Shape, example_inputs
    from resource_pool.prediction.trace import cache_bytes, weights_bytes

    model = _model(case).eval()
    inputs = example_inputs(model, Shape(case.batch, seq or 1))
    given = sum(tensor.untyped_storage().nbytes() for tensor in inputs.values())
    with torch.no_grad():
        cache = cache_bytes(model(**inputs))  # and warms up what is made once
        gc.collect()
        peak = allocator_peak(lambda: model(**inputs))
    return weights_bytes(model), given + peak, cache


def _model(case: Case) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    build = getattr(transformers, case.auto_class).from_config
    return build(config, dtype=getattr(torch, case.dtype))


def allocator_peak(run: Any) -> int:
    """Return the peak of what the CPU allocator gave out during ``run``, in bytes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    blocks = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    current = peak = 0
    for _, size in blocks:
        current += size
        peak = max(peak, current)
    return peak


def accelerates_estimate(case: Case) -> int:
    """Return the "total size" that `accelerate estimate-memory` prints for this config."""
    from accelerate import init_empty_weights
    from accelerate.utils import calculate_maximum_sizes

    with init_empty_weights():
        total, _ = calculate_maximum_sizes(_model(case._replace(dtype="float32")))
    return int(total / (1 if case.dtype == "float32" else 2))


class Cost(NamedTuple):
    """What one `rp predict` took."""

    seconds: float
    cpu_seconds: float
    resident_mib: float


_COMMAND = """
import resource, sys
from rp_cli.app import main
try:
    main()
finally:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    print(cpu, sum(one.ru_maxrss for one in used) / 1024, file=sys.stderr)
"""


def predict_70b() -> Cost:
    """Run `rp predict` of a 70B-shaped config in a home where nothing is known yet."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(LLAMA_70B))
        words = ["predict", folder, "--dtype", "bf16", "--seq", "4096", "--on", "h100:80GiB"]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *words, "--json"],
            env={**os.environ, "RP_HOME": folder},
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - started
    assert json.loads(done.stdout)["method"] == "trace", done.stdout
    cpu_seconds, resident_mib = map(float, done.stderr.split()[-2:])
    return Cost(seconds, cpu_seconds, resident_mib)


def main() -> None:
    """Measure and print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="only these model types")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["RP_HOME"] = home  # what was measured here before is no prediction
        report(options)


def report(options: argparse.Namespace) -> None:
    """Measure, print and write."""
    started = time.perf_counter()
    large = sorted(predict_70b() for _ in range(3))
    print(
        f"rp predict of a 70B-shaped llama, three times: "
        f"{', '.join(f'{one.seconds:.1f}' for one in large)} s "
        f"({', '.join(f'{one.cpu_seconds:.1f}' for one in large)} s of CPU), "
        f"{max(one.resident_mib for one in large):.0f} MiB resident (goals: 5 s, 500 MiB)"
    )
    print(
        f"{'model':17}{'weights':>9}{'measured':>10}{'predicted':>10}{'error':>8}"
        f"{'beside':>8}{'cache':>7}{'accel.':>8}{'x 1.2':>8}{'s':>6}"
    )
    found = []
    for case in CASES:
        if options.only and case.model_type not in options.only:
            continue
        figures = measure(case)
        found.append(figures)
        accelerate = figures.accelerate / figures.measured
        print(
            f"{figures.name:17}{figures.weights / MIB:9.1f}{figures.measured / MIB:10.1f}"
            f"{figures.predicted / MIB:10.1f}{figures.error:8.2%}"
            f"{figures.error_beside_weights:8.1%}"
            f"{'same' if figures.predicted_cache == figures.measured_cache else 'DIFFER':>7}"
            f"{accelerate - 1:8.1%}{accelerate * 1.2 - 1:8.1%}{figures.seconds:6.1f}",
            flush=True,
        )
        gc.collect()
    for name, errors in {
        "predicted": [abs(one.error) for one in found],
        "predicted, beside the weights": [abs(one.error_beside_weights) for one in found],
        "accelerate": [abs(one.accelerate / one.measured - 1) for one in found],
        "accelerate x 1.2": [abs(1.2 * one.accelerate / one.measured - 1) for one in found],
    }.items():
        print(f"{name:30} median {statistics.median(errors):7.2%}  worst {max(errors):7.2%}")
    print(f"goals: median 2 %, worst 10 %. All of it took {time.perf_counter() - started:.0f} s.")
    if options.json:
        facts = {
            "machine": platform.platform(),
            "cores": os.cpu_count(),
            "versions": {name: metadata.version(name) for name in _VERSIONS},
            "rp_predict_70b": [one._asdict() for one in large],
        }
        rows = [one._asdict() for one in found]
        options.json.write_text(json.dumps({**facts, "models": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
