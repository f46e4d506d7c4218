"""The published schema of the report, against real and made-up reports."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hardware_detection as hd
from hardware_detection import described
from hardware_detection.names import GPUS
from hardware_detection.testing import fake_report

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "schemas" / "detection.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def problems(report: Any) -> list[str]:
    return [
        f"{error.message} (after a change of names: `make reference`)"
        for error in VALIDATOR.iter_errors(report)
    ]


def test_the_schema_is_one_and_names_every_backend() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for key in ("hardware", "details"):
        named = tuple(SCHEMA["properties"][key]["required"])
        assert named == hd.HARDWARE_NAMES, "run `make reference`"


def test_a_detection_fits(empty_machine: Callable[[], int]) -> None:
    assert problems(hd.detect_available_hardware()) == []
    assert problems(hd.detect_available_hardware()) == []


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"cuda": [{"uuid": "GPU-1", "compute_capability": "9.0", "tensor_cores": True}]},
        {"rocm": [{}, {"dtypes": ()}]},
        {"xpu": [{}], "mps": True, "webgpu": True, "webnn": True},
        {"errors": {"cuda": "broken"}},
        *({name: [{}]} for name in GPUS),
        dict.fromkeys(set(hd.HARDWARE_NAMES) - {hd.CPU}, True),
    ],
)
def test_other_machines_fit(machine: dict[str, Any]) -> None:
    assert problems(fake_report(**machine)) == []


def test_a_described_machine_fits() -> None:
    data = {"rp_machine": 1, "devices": {"cuda": [{"memory_total_mb": 24576, "count": 8}]}}
    assert problems(described.report_of(data, "m.json")) == []


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("schema_version",), 2),
        (("hardware", "cuda"), 1),
        (("hardware", "quantum"), True),
        (("details", "cuda", "status"), "simulated"),
        (("details", "cuda", "status"), "available"),
        (("details", "cpu", "device_count"), 0),
        (("details", "cpu", "devices", 0, "memory_total_mb"), -1),
        (("details", "cpu", "devices", 0, "dtypes"), None),
        (("torch_device",), "tpu"),
        (("best_available",), "abacus"),
        (("system", "memory_available_mb"), "8 GB"),
        (("surplus",), 1),
    ],
)
def test_a_lie_does_not_fit(keys: tuple[Any, ...], value: Any) -> None:
    report: Any = copy.deepcopy(fake_report())
    target = report
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    assert problems(report)
