from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hardware_detection import (
    CPU,
    CUDA,
    HARDWARE_NAMES,
    MPS,
    OPENVINO,
    ROCM,
    HardwareDetector,
    UnknownHardwareError,
    detect_available_hardware,
    detect_hardware_with_comprehensive_checks,
)
from hardware_detection.testing import fake_report, use_report

TWO_GPUS: list[dict[str, Any]] = [
    {"name": "A100", "memory_total_mb": 40960.0, "memory_free_mb": 1000.0},
    {"name": "H100", "memory_total_mb": 81920.0, "memory_free_mb": 80000.0},
]


@contextmanager
def detector(**machine: Any) -> Iterator[HardwareDetector]:
    with use_report(fake_report(**machine)):
        yield HardwareDetector()


def test_the_guides_first_example() -> None:
    with detector(cuda=TWO_GPUS) as found:
        assert found.is_available(CUDA)
        assert found.get_hardware_details()[CUDA]["device_count"] == 2
        assert not found.is_available(MPS)


def test_a_fake_replaces_every_way_to_ask() -> None:
    report = fake_report(mps=True)
    with use_report(report):
        assert detect_available_hardware() == report
        assert detect_available_hardware("/nowhere/hw.json", refresh=True) == report
        assert detect_hardware_with_comprehensive_checks() == report
        with use_report(fake_report()):
            assert detect_available_hardware()["hardware"]["mps"] is False
        detect_available_hardware()["hardware"]["mps"] = False
        assert detect_available_hardware()["hardware"]["mps"] is True


def test_names_and_errors() -> None:
    with detector(errors={ROCM: "torch is not built for ROCm"}) as found:
        assert found.get_errors() == {ROCM: "torch is not built for ROCm"}
        assert tuple(found.get_available_hardware()) == HARDWARE_NAMES
        with pytest.raises(UnknownHardwareError):
            found.is_available("opencl")
        with pytest.raises(UnknownHardwareError):
            found.get_hardware_by_priority(["cpu", "gpu"])


@pytest.mark.parametrize(
    ("machine", "best", "torch_device"),
    [
        ({}, CPU, "cpu"),
        ({"cuda": TWO_GPUS, "openvino": True}, CUDA, "cuda:0"),
        ({"rocm": TWO_GPUS}, ROCM, "cuda:0"),
        ({"mps": True}, MPS, "mps"),
        ({"openvino": True}, OPENVINO, "cpu"),
        ({"tpu": True}, "tpu", "cpu"),
        ({"webgpu": True, "webnn": True}, CPU, "cpu"),
        ({"cuda": [{"dtypes": []}, {}]}, CUDA, "cuda:1"),
    ],
)
def test_best(machine: dict[str, Any], best: str, torch_device: str) -> None:
    with detector(**machine) as found:
        assert found.get_best_available_hardware() == best
        assert found.get_torch_device() == torch_device
        assert found.get_torch_device_with_priority() in {torch_device, "cuda:1"}
        assert found.get_hardware_by_priority() == best


@pytest.mark.parametrize(
    ("index", "device"), [(0, "cuda:0"), (1, "cuda:1"), (7, "cuda:1"), (-1, "cuda:1")]
)
def test_an_index_out_of_range_takes_the_freest(index: int, device: str) -> None:
    with detector(cuda=TWO_GPUS) as found:
        assert found.get_device_with_index(index) == device


def test_an_index_whose_device_is_broken_is_not_there() -> None:
    with detector(cuda=[{}, {"dtypes": []}]) as found:
        assert found.is_available("cuda:0")
        assert not found.is_available("cuda:1")
        assert not found.is_available("cuda:2")
        assert found.get_device_with_index(1) == "cuda:0"
        assert found.get_hardware_details()[CUDA]["device_count"] == 1


def test_an_index_does_not_matter_without_a_gpu() -> None:
    with detector() as found:
        assert found.get_device_with_index(3) == "cpu"


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ([MPS, CUDA, CPU], "cuda:0"),
        ([OPENVINO, CPU], "cpu"),
        ([CPU, CUDA], "cpu"),
        ([ROCM], "cpu"),
        ([], "cpu"),
    ],
)
def test_priority(wanted: list[str], device: str) -> None:
    with detector(cuda=TWO_GPUS) as found:
        assert found.get_torch_device_with_priority(wanted) == device


def test_an_exhausted_list_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with detector() as found, caplog.at_level(logging.WARNING, "hardware_detection"):
        assert found.get_hardware_by_priority([CUDA, MPS]) == CPU
    assert "nothing of cuda, mps is available" in caplog.text


@pytest.mark.parametrize(
    ("requirements", "compatible"),
    [
        (None, [CUDA, MPS, CPU]),
        ({}, [CUDA, MPS, CPU]),
        ({CUDA: {"compatible": False}}, [MPS, CPU]),
        ({CUDA: {"compatible": True, "memory_usage": {"peak": 80000}}}, [CUDA, MPS, CPU]),
        ({CUDA: {"memory_usage": {"peak": 80001}}}, [MPS, CPU]),
        ({CPU: {"memory_usage": {"peak": 8193}}}, [CUDA, MPS]),
        ({MPS: {"memory_usage": {"peak": 10}}}, [CUDA, MPS, CPU]),
    ],
)
def test_requirements(requirements: Any, compatible: list[str]) -> None:
    with detector(cuda=TWO_GPUS, mps=True) as found:
        assert found.get_compatible_hardware_types(requirements) == compatible


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ({CPU: None}, "must be a mapping"),
        ({CPU: {"compatible": "no"}}, "must be True or False"),
        ({CPU: {"memory_usage": 12}}, "must be {'peak': MiB}"),
        ({CPU: {"memory_usage": {"peak": "12 GB"}}}, "must be {'peak': MiB}"),
        ({CPU: {"memory_usage": {"peak": float("nan")}}}, "must be {'peak': MiB}"),
        ({CPU: {"memory_usage": {"peak": -1}}}, "must be {'peak': MiB}"),
        ({"cdua": {"compatible": False}}, "did you mean 'cuda'"),
        ({"cuda:1": {"compatible": False}}, "unknown device 'cuda:1'"),
    ],
)
def test_a_wrong_requirement_is_said(requirements: Any, message: str) -> None:
    with detector() as found, pytest.raises(ValueError, match=re.escape(message)):
        found.get_compatible_hardware_types(requirements)


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    with detector(cuda=TWO_GPUS) as found:
        found.print_summary()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(HARDWARE_NAMES)
    assert "best: cuda (torch: cuda:0)" in lines[0]
    assert "1: H100, 78.1 GiB of 80.0 GiB free" in lines[2]
