"""Records as ``rp run`` and ``rp check`` keep them, of machines that are not here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resource_pool.prediction import record_peak
from resource_pool.prediction.result import Prediction
from rp_cli.reporting.store import Store

Record = dict[str, Any]

STARTED = "2026-03-04T10:00:00+00:00"
MB = 1 << 20
TRACE = (
    "Traceback (most recent call last):\n"
    '  File "skills/test_hf_gpt2.py", line 91, in run_model\n'
    "    return model(**inputs)\n"
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. 1.50 GiB is free."
)


def a_test(name: str, status: str = "passed", detail: str = "", seconds: float = 0.2) -> Record:
    """Return the result of one test."""
    exception = "OutOfMemoryError" if status in ("failed", "error") else ""
    return {"name": f"test_hf_m.TestM.{name}", "status": status, "seconds": seconds,
            "detail": detail, "exception": exception}  # fmt: skip


def a_placement(model: str, device: str = "cpu", dtype: str = "float32", **more: Any) -> Record:
    """Return what the pool says of a model that it placed."""
    key = f"family:{model}#AutoModel-tiny:{device}:{dtype}"
    backend = device.partition(":")[0]
    return {"key": key, "device": device, "dtype": dtype, "backend": backend, "weights": "tiny",
            "memory_usage": 2 * MB, "predicted": None, "note": "", **more}  # fmt: skip


def a_file(model: str, *placements: Record, status: str = "passed", **more: Any) -> Record:
    """Return the result of one file."""
    placed = list(placements) or [a_placement(model)]
    name = model.replace("/", "_").replace("-", "_").lower()
    return {
        "path": f"skills/test_hf_{name}.py",
        "status": status,
        "seconds": 3.25,
        "error": "",
        "exception": "",
        "model_name": model,
        "asked": None,
        "weights": [{"kind": "tiny", "reason": "the model hub cannot be reached"}],
        "tests": [a_test("test_output_is_finite")],
        "pool": {"models": placed, "events": [], "hits": 9, "misses": 2},
        "resources": {"cpu_seconds": 2.5, "peak_mb": 344.0, "shared_mb": 300.0},
        "output": "",
        "ran_in": "fork",
        **more,
    }


def an_event(what: str, key: str, second: float, **more: Any) -> Record:
    """Return an event of the pool, so many seconds after the run began."""
    timestamp = f"2026-03-04T10:{int(second) // 60:02}:{second % 60:09.6f}+00:00"
    return {"what": what, "key": key, "reason": "", "timestamp": timestamp, "numbers": {}, **more}


def a_run(files: Sequence[Record], **more: Any) -> Record:
    """Return the record of a run that came to its end."""
    return {
        "schema_version": 2, "kind": "run", "started_at": STARTED, "rp_version": "0.1.0",
        "folder": "/home/me/project", "python": "3.11.7", "host": "bench", "interrupted": False,
        "signal": None, "file_count": len(files), "files": list(files), "seconds": 31.5,
        "jobs": 2, "shared_models": 1, "stopped_early": False, "not_run": [], "notes": [], **more,
    }  # fmt: skip


def a_check(**more: Any) -> Record:
    """Return the record of a check."""
    lines = [
        {"name": "pool", "status": "ok", "detail": "tiny weights", "remedy": ""},
        {"name": "package openvino", "status": "missing", "detail": "optional",
         "remedy": "pip install openvino"},
    ]  # fmt: skip
    return {"kind": "check", "started_at": STARTED, "folder": "/home/me/project",
            "rp_version": "0.1.0", "checks": ["pool"], "interrupted": False, "passed": True,
            "lines": lines, **more}  # fmt: skip


def an_error_report(model: str = "gpt2", **more: Any) -> Record:
    """Return a hardware error report, as the pool saves it."""
    return {
        "schema_version": 1, "timestamp": "2026-03-04T10:00:12+00:00", "model_name": model,
        "model_family": "text_generation", "subfamily": "causal_lm", "hardware_type": "cuda:0",
        "error_type": "out_of_memory", "error_message": TRACE.splitlines()[-1],
        "stack_trace": TRACE, "operation": None,
        "memory": {"needed_mb": 2048.0, "free_mb": 1536.0, "held_by": []},
        "recommendations": ["Generate fewer tokens: the KV cache grows with each."],
        "alternatives": [{"hardware": "cpu", "available": True, "reason": ""}], **more,
    }  # fmt: skip


def measure(
    model: str, predicted_mb: float, measured_mb: float, method: str = "trace", backend: str = "cpu"
) -> None:
    """Have the pool record a peak that was predicted."""
    from resource_pool.prediction.records import Subject, record_prediction

    prediction = Prediction(
        model_name=model, model_type="bert", architecture="BertModel", config="", dtype="float32",
        batch=2, seq=16, backend=backend, inputs={}, weights_bytes=int(predicted_mb * MB),
        activations_bytes=0, kv_cache_bytes=0, kv_bytes_per_token=None, method=method, margin=0.1,
        fixed_bytes=0, notes=(), key=f"key of {model} {method}",
    )  # type: ignore[arg-type] # fmt: skip
    record_prediction(Subject(model, "", "float32", True), prediction)
    record_peak(prediction, int(measured_mb * MB))


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Return the functions above: test modules cannot import this file."""
    return SimpleNamespace(
        test=a_test,
        placement=a_placement,
        file=a_file,
        event=an_event,
        run=a_run,
        check=a_check,
        error_report=an_error_report,
        measure=measure,
    )


@pytest.fixture
def reports_dir(tmp_path: Path) -> Callable[..., Path]:
    """Write error reports into a folder, by the name of their file."""

    def write(**reports: Record | str) -> Path:
        folder = tmp_path / "hardware_reports"
        folder.mkdir(exist_ok=True)
        for name, report in reports.items():
            text = report if isinstance(report, str) else json.dumps(report)
            (folder / f"{name}.json").write_text(text)
        return folder

    return write


@pytest.fixture
def store() -> Store:
    """Return the records of this test's home."""
    return Store()
