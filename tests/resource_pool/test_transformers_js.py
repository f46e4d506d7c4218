"""transformers.js in a real browser, beside PyTorch; and its parts without one."""

from __future__ import annotations

import math
import unittest
from pathlib import Path
from types import SimpleNamespace

import pytest

from hardware_detection.testing import fake_report, use_report
from model_family_classifier import classify_model
from resource_pool import get_global_resource_pool, transformers_js
from resource_pool.transformers_js import tasks
from resource_pool.weights import locate_weights
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.transformers_js import draft_web_tests, web_plan

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("playwright")


def written(model_name: str, folder: Path) -> SimpleNamespace:
    """Write the generated files of a model and return the test's module."""
    tests, pages = draft_web_tests([web_plan(make_plan(classify_model(model_name)))], folder)
    for draft in (*tests, *pages):
        draft.path.write_text(draft.source)
    namespace = {"__file__": str(tests[0].path), "__name__": "generated"}
    exec(compile(tests[0].source, str(tests[0].path), "exec"), namespace)
    return SimpleNamespace(**namespace)


def cases_of(module: SimpleNamespace) -> type[unittest.TestCase]:
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, unittest.TestCase)
    )
    return found


def test_a_generated_test_passes_in_a_browser(chromium, browser_report, tmp_path, capsys):
    module = written("google/vit-base-patch16-224", tmp_path)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(cases_of(module))
    with use_report(browser_report("webgpu", chromium)):
        result = unittest.TestResult()
        suite.run(result)
    assert (result.errors, result.failures, result.skipped) == ([], [], [])
    assert result.testsRun == 3
    said = capsys.readouterr().out
    assert "Pipeline image-classification: transformers.js 4." in said
    assert "webgpu on Chromium" in said
    assert "Weights: tiny" in said
    placed = [e for e in get_global_resource_pool().events() if "transformers.js" in e.key]
    told = placed[-1].numbers
    assert (told["device"], told["dtype"], told["weights"]) == ("webgpu:0", "float32", "tiny")
    assert told["web"]["adapter_kind"] in ("software", "hardware", "unknown")
    assert told["memory_usage"] > 2**20


def test_texts_agree_and_another_model_than_in_the_browser_is_found(
    chromium, browser_report, tmp_path
):
    """What is compared is what the model computes, and not a file's existence."""
    torch = pytest.importorskip("torch")
    module = written("bert-base-uncased", tmp_path)
    weights = locate_weights("bert-base-uncased", auto_class="AutoModel")
    with use_report(browser_report("webgpu", chromium)):
        pipeline = transformers_js.start(module.PAGE, weights, "AutoModel", module.TASK)
    try:
        assert pipeline.difference() < module.TOLERANCE
        assert pipeline.dispatches > 10
        with torch.no_grad():
            pipeline._model.encoder.layer[0].output.dense.weight.mul_(1.5)
        assert pipeline.difference() > module.TOLERANCE
    finally:
        pipeline.close()


def test_what_is_not_here_is_a_skip_with_the_reason(tmp_path):
    module = written("bert-base-uncased", tmp_path)
    weights = locate_weights("bert-base-uncased", auto_class="AutoModel")
    with use_report(fake_report()), pytest.raises(unittest.SkipTest, match="rp web setup"):
        transformers_js.start(module.PAGE, weights, "AutoModel", module.TASK)


def test_labels_are_compared_by_name_and_numbers_by_the_greatest():
    found = tasks.flat([[{"label": "b", "score": 0.9}, {"label": "a", "score": 0.1}]])
    assert found == [("a", 0.1), ("b", 0.9)]
    assert tasks.difference([("a", 0.1), ("b", 0.8)], found) == pytest.approx(0.125)
    assert tasks.difference([("a", 0.1), ("c", 0.9)], found) == math.inf
    assert tasks.difference([1.0, -10.0], [1.0, -9.0]) == pytest.approx(0.1)
    assert tasks.difference([1.0], [1.0, 2.0]) == math.inf
    assert tasks.difference([1.0, 2.0], [math.nan, 2.0]) == math.inf
    assert tasks.difference([], []) == math.inf


def test_small_probabilities_are_not_compared_with_one():
    expected = [(f"LABEL_{index:04}", 1 / 1001 + index % 7 * 1e-5) for index in range(1000)]
    zeros = [(label, 0.0) for label, _ in expected]
    assert tasks.difference(expected, zeros) == pytest.approx(1)
    assert tasks.difference(expected, expected) == 0
    assert tasks.difference([0.0], [0.0]) == 0


@pytest.mark.parametrize(
    ("auto_class", "family", "task"),
    [
        ("AutoModel", "embedding", "feature-extraction"),
        ("AutoModel", "vision", "image-feature-extraction"),
        ("AutoModelForImageClassification", "vision", "image-classification"),
        ("AutoModelForSequenceClassification", "embedding", "text-classification"),
        ("AutoModelForCausalLM", "text_generation", None),
        ("AutoModelForCTC", "audio", None),
        ("AutoModelForObjectDetection", "vision", None),
    ],
)
def test_each_kind_of_model_has_its_task_or_a_reason(auto_class, family, task):
    assert tasks.task_of(auto_class, family) == task
    assert (tasks.why_not(auto_class, family) == "") == (task is not None)
