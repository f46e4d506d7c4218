"""The labelled sets are well-formed, and the classifier keeps its promises on them."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model_family_classifier import FAMILIES, classify_model
from model_family_classifier.confidence import BASES, confidence_of
from model_family_classifier.documents import read_document
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


def test_blind_labels_are_legal_and_each_name_is_in_one_half(benchmark: ModuleType) -> None:
    halves = [benchmark.read_blind_labels(half) for half in benchmark.HALVES]
    names = [one.name.lower() for half in halves for one in half]
    assert len(names) == len(set(names)) == 308
    assert all(len(half) > 130 for half in halves)
    assert {one.family for half in halves for one in half} <= set(FAMILIES)


def test_corrections_and_mended_names_are_of_the_looked_at_sets(benchmark: ModuleType) -> None:
    transformers = pytest.importorskip("transformers")
    if transformers.__version__ != load_index()["transformers"]:
        pytest.skip("the names are those of another version")
    documented = benchmark.documented_checkpoints()
    changed = set(benchmark.corrected(documented)) - set(documented)
    corrections = read_document(
        benchmark.LABELLED / "documented_corrections.yaml", what="corrections"
    )
    assert {one.name for one in changed} == set(corrections)
    assert all(row["reason"] for row in corrections.values())
    looked_at = {one.name for one in (*documented, *benchmark.read_blind_labels("A"))}
    assert benchmark.mended_names() <= looked_at


def test_goals_are_met(benchmark: ModuleType) -> None:
    types = benchmark.read_labels("model_types.txt")
    names = benchmark.in_part(benchmark.read_labels("hub_names.txt"), "held-out")
    for label, judge, rows in (
        ("by model type", benchmark.by_type, types),
        ("by config", benchmark.by_config, types),
        ("by hub name", benchmark.by_name, names),
        *(("by hub name", benchmark.by_name, rows) for rows in undisputed_sets(benchmark)),
    ):
        answers = [judge(one) for one in rows]
        share = sum(one.right for one in answers) / len(answers)
        assert share >= benchmark.GOALS[label], label


def undisputed_sets(benchmark: ModuleType) -> list[list[Any]]:
    """Return the blind half that nobody looked at, and the documented names as corrected."""
    sets = [[one for one in benchmark.read_blind_labels("B") if not one.disputed]]
    if importlib.util.find_spec("transformers"):
        sets.append(benchmark.corrected(benchmark.documented_checkpoints()))
    return sets


@pytest.mark.parametrize("what", ["family", "subfamily"])
def test_of_those_said_at_nine_tenths_nine_in_ten_are_right(
    benchmark: ModuleType, what: str
) -> None:
    answers = [benchmark.by_name(one) for one in benchmark.read_blind_labels("B")]
    if what == "family":
        sure = [one.right for one in answers if one.confidence >= 0.9]
    else:
        sure = [
            one.subfamily == one.label.subfamily
            for one in answers
            if one.subfamily_confidence >= 0.9 and one.subfamily and one.label.subfamily
        ]
    assert len(sure) > 100
    assert sum(sure) / len(sure) >= 0.9


def test_what_is_said_is_near_what_is_right(benchmark: ModuleType) -> None:
    labels = [one for one in benchmark.read_blind_labels("B") if not one.disputed]
    answers = [benchmark.by_name(one) for one in labels]
    said = [one for one in answers if one.family != "unknown"]
    mean = sum(one.confidence for one in said) / len(said)
    right = sum(one.right for one in said) / len(said)
    assert abs(mean - right) < 0.03


def test_the_benchmark_prints_what_is_promised(
    benchmark: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [benchmark.by_name(one) for one in benchmark.read_blind_labels("A")[:40]]
    assert benchmark.report("by hub name", answers, misses=True) > 0.5
    benchmark.reliability(answers)
    printed = capsys.readouterr().out
    for words in ("family right", "(goal 95%)", "subfamily right", "said unknown", "embedding  "):
        assert words in printed
    assert benchmark.seconds_per_name(["gpt2", "bert"], classify_model) > 0
