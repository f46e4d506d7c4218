"""The guide's own script that runs many tests, as it is written there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from model_family_classifier import classify_model
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.write import write_tests

SCRIPT = Path(__file__).with_name("guides_runner.txt")


def test_the_guides_runner_runs_generated_files_with_their_preferences(tmp_path):
    folder = tmp_path / "skills"
    folder.mkdir()
    names = ("bert-base-uncased", "google/vit-base-patch16-224")
    write_tests([make_plan(classify_model(name)) for name in names], folder)
    (folder / "test_hf_without_main.py").write_text("x = 1\n")
    script = tmp_path / "run_tests.py"
    script.write_text(SCRIPT.read_text())
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path, env={**os.environ, "RP_WEIGHTS": "tiny"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nOK") == 2, done.stderr
    assert "Using hardware preferences for bert_base_uncased: {'priority_list'" in done.stdout
    assert "No main function found in ./skills/test_hf_without_main.py" in done.stdout
    assert "ResourcePool stats: {'hits'" in done.stdout
