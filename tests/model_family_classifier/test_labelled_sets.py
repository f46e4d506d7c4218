"""The labelled sets are well-formed, and the classifier keeps its promises on them."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest

from model_family_classifier import FAMILIES
from model_family_classifier.confidence import BASES, confidence_of
from model_family_classifier.index import entry_of, load_index

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_classify", TOP / "benchmarks" / "classify.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_classify"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("file", "least"), [("hub_names.txt", 500), ("model_types.txt", 200)])
def test_labels_are_legal_and_unique(benchmark: ModuleType, file: str, least: int) -> None:
    labels = benchmark.read_labels(file)
    assert len(labels) >= least
    assert {one.family for one in labels} <= set(FAMILIES)
    assert len({one.name.lower() for one in labels}) == len(labels)


def test_labelled_types_are_loadable_types(benchmark: ModuleType) -> None:
    for one in benchmark.read_labels("model_types.txt"):
        assert entry_of(one.name)["architectures"], one.name
        assert one.architecture.isidentifier()


def test_the_parts_do_not_overlap_and_are_all(benchmark: ModuleType) -> None:
    labels = benchmark.read_labels("hub_names.txt")
    parts = [benchmark.in_part(labels, part) for part in ("tuning", "calibration", "held-out")]
    assert sorted(itertools.chain(*parts)) == sorted(labels)
    assert all(len(part) > 100 for part in parts)


def test_committed_confidences_are_what_the_labels_give(benchmark: ModuleType) -> None:
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ != load_index()["transformers"]:
        pytest.skip("the names in its documentation are part of the measure")
    measured = benchmark.measured_bases()
    assert set(measured) <= set(BASES)
    for basis, counts in measured.items():
        for what, (right, total) in counts.items():
            wanted = min((right + 1) / (total + 2), 0.99)
            assert confidence_of(basis, what) == wanted, "run: benchmarks/classify.py --calibrate"


def test_goals_are_met_on_what_nothing_was_tuned_on(benchmark: ModuleType) -> None:
    types = benchmark.read_labels("model_types.txt")
    names = benchmark.in_part(benchmark.read_labels("hub_names.txt"), "held-out")
    for label, judge, rows in (
        ("by model type", benchmark.by_type, types),
        ("by config", benchmark.by_config, types),
        ("by hub name", benchmark.by_name, names),
    ):
        answers = [judge(one) for one in rows]
        share = sum(one.right for one in answers) / len(answers)
        assert share >= benchmark.GOALS[label], label


def test_of_those_said_at_nine_tenths_nine_in_ten_are_right(benchmark: ModuleType) -> None:
    names = benchmark.in_part(benchmark.read_labels("hub_names.txt"), "held-out")
    sure = [one for one in map(benchmark.by_name, names) if one.confidence >= 0.9]
    assert len(sure) > 50
    assert sum(one.right for one in sure) / len(sure) >= 0.9
