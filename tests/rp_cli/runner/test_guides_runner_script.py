"""A script of one's own that runs generated files in one process, as the guides have one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from model_family_classifier import classify_model
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.write import write_tests

SCRIPT = """
import importlib
import os
import sys
from pathlib import Path

from resource_pool import get_global_resource_pool

PREFERENCES = {"vit": {"priority_list": ["cuda", "openvino", "cpu"]}, "bert": {"device": "cpu"}}

def run(path):
    model = path.stem.removeprefix("test_hf_")
    wishes = next((PREFERENCES[word] for word in PREFERENCES if word in model), {})
    os.environ["TEST_HARDWARE_PREFERENCES"] = str(wishes)
    # "import importlib" alone does not promise importlib.util; resource_pool brings it along.
    spec = importlib.util.spec_from_file_location(path.stem, path)
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    main = getattr(module, "main", None)
    print(path.stem, wishes, "has no main" if main is None else f"ended with {main()}")

if __name__ == "__main__":
    for path in sorted(Path("skills").glob("test_hf_*.py")):
        run(path)
        get_global_resource_pool().cleanup_unused_resources(max_age_minutes=0.5)
    print(get_global_resource_pool().get_stats()["cached_models"], "models are cached")
    get_global_resource_pool().clear()
"""


def test_a_script_runs_generated_files_with_preferences_of_its_own(tmp_path):
    folder = tmp_path / "skills"
    folder.mkdir()
    names = ("bert-base-uncased", "google/vit-base-patch16-224")
    write_tests([make_plan(classify_model(name)) for name in names], folder)
    (folder / "test_hf_without_main.py").write_text("x = 1\n")
    (tmp_path / "run_tests.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "run_tests.py"],
        cwd=tmp_path, env={**os.environ, "RP_WEIGHTS": "tiny"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nOK") == 2, done.stderr
    assert "test_hf_bert_base_uncased {'device': 'cpu'} ended with 0" in done.stdout
    assert "test_hf_google_vit_base_patch16_224 {'priority_list'" in done.stdout
    assert "test_hf_without_main {} has no main" in done.stdout
    # Two at least: where OpenVINO or a browser is here, a file compares on it too.
    assert re.search(r"^([2-9]|\d\d) models are cached$", done.stdout, re.MULTILINE)
