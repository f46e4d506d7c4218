"""Generated tests catch planted faults and raise no false alarm: a sample, on two architectures.

All of the catalogue, on all architectures, is `benchmarks/strength.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fault_catalogue import FAULTS
from fault_strength import ARCHITECTURES, applicable, measure

# Each is caught by another kind of check.
SAMPLES = {
    "bert-base-uncased": (
        "mask ignored",
        "random numbers in the output",
        "silent half precision",
        "ten times the memory",
        "weights changed by a forward",
        "encoder made causal",
        "last layer skipped on reload",
    ),
    "gpt2": (
        "causal mask missing",
        "position off by one in the cache",
        "mask ignored by generation",
        "end token ignored",
        "untied on reload",
    ),
}


def test_the_catalogue_is_large_and_each_fault_can_be_planted_somewhere():
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names) >= 20
    for fault in FAULTS:
        assert any(fault in applicable(one) for one in ARCHITECTURES), fault.name


@pytest.mark.slow
@pytest.mark.parametrize("model", SAMPLES)
def test_faults_are_caught_and_the_model_as_it_is_passes(model, tmp_path, monkeypatch):
    monkeypatch.setenv("RP_WEIGHTS", "tiny")
    monkeypatch.setenv("TEST_HARDWARE_PREFERENCES", str({"device": "cpu"}))
    (architecture,) = [one for one in ARCHITECTURES if one.model == model]
    planted = [fault for fault in applicable(architecture) if fault.name in SAMPLES[model]]
    assert len(planted) == len(SAMPLES[model])
    clean, *faulty = measure(architecture, tmp_path, [None, *planted])
    assert clean.caught_by is None, f"false alarm: {clean.caught_by}: {clean.detail}"
    assert [outcome.fault for outcome in faulty if not outcome.caught] == []
