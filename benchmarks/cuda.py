"""The pool, detection and prediction on a CUDA GPU, with measured memory.

    python benchmarks/cuda.py [--only bert …] [--json FILE]

- what a load through the pool costs beside a bare `from_pretrained(...).to("cuda")`, by turns,
  and a hit;
- the GPU's free memory before a load, after it, and after `clear()`, as the driver says;
- predicted memory beside the allocator's peak of a real forward on the GPU, in float16, and what
  the driver takes beside the allocator (CUDA's context and kernels).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prediction import CASES, Case

from hardware_detection import detect_available_hardware
from resource_pool import ResourcePool
from resource_pool.prediction import Prediction, predict

MIB = 2**20
PAIRS = 15
DTYPE = "float16"


def free_bytes() -> int:
    """Return what the driver says is free on the first GPU."""
    import torch

    return int(torch.cuda.mem_get_info(0)[0])


def build(case: Case, dtype: str) -> Any:
    """Build a case's model with random weights, on the CPU."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(case.model_type, **case.config)
    build = getattr(transformers, case.auto_class).from_config
    return build(config, dtype=getattr(torch, dtype)).eval()


def loads(report: dict[str, Any], folder: str) -> dict[str, float]:
    """Time loads of a BERT-base from a local folder, bare and through the pool, by turns."""
    import torch
    import transformers

    bert = transformers.AutoModel.from_config(transformers.BertConfig())
    bert.save_pretrained(folder)
    pool = ResourcePool(hardware=lambda: report)

    def bare() -> Any:
        return transformers.AutoModel.from_pretrained(folder).to("cuda:0")

    def through() -> Any:
        load = transformers.AutoModel.from_pretrained
        return pool.get_model("embedding", folder, lambda: load(folder), {"device": "cuda:0"})

    def seconds(act: Callable[[], Any], after: Callable[[], Any]) -> float:
        gc.collect()
        torch.cuda.synchronize()
        started = time.perf_counter()
        model = act()
        torch.cuda.synchronize()
        taken = time.perf_counter() - started
        del model
        after()
        return taken

    pairs = [
        (seconds(bare, torch.cuda.empty_cache), seconds(through, pool.clear))
        for _ in range(PAIRS + 2)
    ][2:]
    through()
    started = time.perf_counter()
    for _ in range(10_000):
        through()
    hit = (time.perf_counter() - started) / 10_000
    pool.clear()
    return {
        "bare_ms": 1e3 * statistics.median(one for one, _ in pairs),
        "pool_ms": 1e3 * statistics.median(other for _, other in pairs),
        "added_ms": 1e3 * statistics.median(other - one for one, other in pairs),
        "hit_us": 1e6 * hit,
    }


def freed(report: dict[str, Any]) -> dict[str, float]:
    """Measure the GPU's free memory around a load of 4 GiB and its clear."""
    import torch

    pool = ResourcePool(hardware=lambda: report)
    before = free_bytes()
    pool.get_model(
        "embedding", "four", lambda: torch.nn.Linear(2**15, 2**15, bias=False), {"device": "cuda:0"}
    )
    loaded = free_bytes()
    ledger = pool.get_stats()["devices"]["cuda:0"]["used_mb"]
    started = time.perf_counter()
    pool.clear()
    seconds = time.perf_counter() - started
    return {
        "ledger_mib": ledger,
        "taken_mib": (before - loaded) / MIB,
        "given_back_mib": (free_bytes() - loaded) / MIB,
        "clear_ms": 1e3 * seconds,
    }


def predicted(case: Case) -> Prediction:
    """Predict a case's memory on the GPU."""
    config = {"model_type": case.model_type, **case.config}
    return predict(
        config, auto_class=case.auto_class, dtype=DTYPE, batch=case.batch, seq=case.seq,
        backend="cuda",
    )  # fmt: skip


def measured(case: Case, seq: int | None, dtype: str) -> tuple[int, int]:
    """Return the allocator's peak of weights and a forward, and what the driver took beside it."""
    import torch

    from resource_pool.prediction.inputs import Shape, example_inputs

    gc.collect()
    torch.cuda.empty_cache()
    reserved, before = torch.cuda.memory_reserved(), free_bytes()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    model = build(case, dtype).to("cuda:0")
    inputs = {
        name: tensor.to("cuda:0", model.dtype)
        if tensor.is_floating_point()
        else tensor.to("cuda:0")
        for name, tensor in example_inputs(model, Shape(case.batch, seq or 1)).items()
    }
    with torch.no_grad():
        model(**inputs)
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - held
    beside = (before - free_bytes()) - (torch.cuda.memory_reserved() - reserved)
    return peak, beside


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="only these model types")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RP_HOME"] = folder  # what was measured here before is no prediction
        report = detect_available_hardware(cache_file=Path(folder) / "hardware.json")
        if not report["hardware"]["cuda"]:
            sys.exit(f"No CUDA GPU: {report['details']['cuda']['reason']}")
        found = measure(report, folder, options.only)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(report: dict[str, Any], folder: str, only: list[str] | None) -> dict[str, Any]:
    """Measure everything, printing each figure as it comes."""
    import torch
    import transformers

    row = report["details"]["cuda"]["devices"][0]
    facts = {
        "gpu": row["name"],
        "driver": report["details"]["cuda"].get("driver"),
        "dtypes": row["dtypes"],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    torch.cuda.init()
    # The runtime's context, and the kernels of the first product, are in what the driver takes.
    before = free_bytes()
    print(f"context: the driver takes {row['memory_free_mb'] - before / MIB:.0f} MiB")
    torch.ones(64, 64, device="cuda:0") @ torch.ones(64, 64, device="cuda:0")
    print(f"first product: the driver takes {(before - free_bytes()) / MIB:.0f} MiB")
    speed = loads(report, folder)
    print(
        f"BERT-base on the GPU: from_pretrained {speed['bare_ms']:.1f} ms, through the pool "
        f"{speed['pool_ms']:.1f} ms; it adds {speed['added_ms']:+.2f} ms = "
        f"{100 * speed['added_ms'] / speed['bare_ms']:+.1f} %; a hit {speed['hit_us']:.1f} us"
    )
    back = freed(report)
    print(
        f"4 GiB: ledger {back['ledger_mib']:.0f} MiB, driver {back['taken_mib']:.0f} MiB taken, "
        f"{back['given_back_mib']:.0f} MiB given back by clear() in {back['clear_ms']:.0f} ms"
    )
    rows = predictions(only)
    return {**facts, "loads": speed, "freed": back, "predictions": rows}


def predictions(only: list[str] | None) -> list[dict[str, Any]]:
    """Print and return predicted beside measured memory, per model."""
    print(
        f"{'model':14}{'measured':>10}{'predicted':>10}{'error':>8}{'needed':>10}{'driver +':>10}"
    )
    rows = []
    cases = [
        case for case in CASES if case.dtype == "float32" and (not only or case.model_type in only)
    ]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as threads:
        told_of = list(threads.map(predicted, cases))  # each in a process of its own
    for case, told in zip(cases, told_of, strict=True):
        peak, beside = measured(case, told.seq, DTYPE)
        error = told.total_bytes / peak - 1
        rows.append(
            {
                "model": case.model_type, "measured": peak, "predicted": told.total_bytes,
                "needed": told.needed_bytes, "beside": beside, "error": error,
            }
        )  # fmt: skip
        print(
            f"{case.model_type:14}{peak / MIB:10.1f}{told.total_bytes / MIB:10.1f}{error:8.1%}"
            f"{told.needed_bytes / MIB:10.1f}{beside / MIB:10.1f}",
            flush=True,
        )
    errors = [abs(row["error"]) for row in rows]
    short = [row["model"] for row in rows if row["needed"] < row["measured"] + row["beside"]]
    print(f"median error {statistics.median(errors):.1%}, worst {max(errors):.1%}")
    print(f"more was taken than `needed_bytes` says: {', '.join(short) or 'nowhere'}")
    return rows


if __name__ == "__main__":
    main()
