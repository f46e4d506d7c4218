"""Checks one model type by the test that ``rp generate`` writes for it, run on its tiny twin."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rp_cli.codegen.plan import TestPlan, make_plan
from rp_cli.codegen.render import render_all
from rp_cli.coverage.sweep import sweep

DEADLINE_SECONDS = 300.0


def plan_of(model_type: str) -> TestPlan:
    """Plan the test of a model of which nothing is known but its type."""
    from model_family_classifier import classify_model

    with tempfile.TemporaryDirectory(prefix="rp_") as folder:
        Path(folder, "config.json").write_text(json.dumps({"model_type": model_type}))
        classified = classify_model(folder)
    return make_plan({**classified, "model_name": model_type})


def sweep_generated(types: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Write the test of each type and run it; yield what came of it, in their order."""
    plans = {name: plan_of(name) for name in types}
    with tempfile.TemporaryDirectory(prefix="rp_") as folder:
        files = write_tests(plans, Path(folder))
        tasks = [(name, plan.auto_class, str(files[name])) for name, plan in plans.items()]
        for row in sweep(tasks, DEADLINE_SECONDS, check_generated):
            plan = plans[row["model_type"]]
            template = plan.template.removeprefix("hf_").removesuffix("_template.py")
            told = {"generated": True, "template": template, "left_out": dict(plan.left_out)}
            yield {**row, **told}


def write_tests(plans: Mapping[str, TestPlan], folder: Path) -> dict[str, Path]:
    """Write the test of each type into ``folder``; return the files."""
    files = {name: folder / plan.file_name for name, plan in plans.items()}
    for file, source in zip(files.values(), render_all([*plans.values()]), strict=True):
        file.write_text(source, encoding="utf-8")
    return files


def check_generated(model_type: str, auto_class: str, file: str) -> dict[str, Any]:
    """Run a type's generated test on its twin, on the CPU; return what came of it.

    The process is taken over: environment, output and the pool are the test's.
    """
    from rp_cli.runner.child import run_file

    os.environ["RP_WEIGHTS"] = "tiny"
    os.environ["TEST_HARDWARE_PREFERENCES"] = str({"device": "cpu"})
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        done = run_file(Path(file), io.StringIO(), _is_of_the_cpu)
    return {
        "model_type": model_type,
        "auto_class": auto_class,
        **_told(done),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _is_of_the_cpu(test: str) -> bool:
    """Leave out the comparisons with each accelerator: they are not about the architecture."""
    return not re.search(r"\.test_[a-z]+_agrees_with_cpu_float32$", test)


def _told(done: Mapping[str, Any]) -> dict[str, Any]:
    counts = Counter(test["status"] for test in done["tests"])
    wrong = [test for test in done["tests"] if test["status"] in ("failed", "error")]
    facts: dict[str, Any] = {
        "status": "passed" if counts["passed"] and not wrong and not done["error"] else "failed",
        "checks": dict(counts),
        "skipped": {
            _short(test): test["detail"] for test in done["tests"] if test["status"] == "skipped"
        },
    }
    if facts["status"] == "failed":
        failures = {_short(test): _last_line(test["detail"]) for test in wrong}
        facts["failures"] = failures or {"import": _last_line(done["error"]) or "it ran no test"}
        facts["cause"] = "; ".join(f"{name}: {said}" for name, said in facts["failures"].items())
    return facts


def _short(test: Mapping[str, Any]) -> str:
    return str(test["name"]).rpartition(".")[2].rstrip(")")


def _last_line(trace: str) -> str:
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith(" ")), "")[:300]
