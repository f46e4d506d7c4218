from __future__ import annotations

from typing import Any

import pytest

from hardware_detection.environment import RELEVANT, conflicts, is_on, relevant
from hardware_detection.fingerprint import fingerprint


def found(environ: dict[str, str], platform: str = "linux") -> list[str]:
    return conflicts(environ, platform=platform, cpu_count=8)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "8"},
        {"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"},
        {"OMP_NUM_THREADS": "4,2", "WEBNN_SIMULATION_ENABLED": "0"},
        {"NVIDIA_VISIBLE_DEVICES": "all", "PYTORCH_ENABLE_MPS_FALLBACK": "0"},
    ],
)
def test_settings_that_agree(environ: dict[str, str]) -> None:
    assert found(environ) == []


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, ["hides every GPU"]),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["hides every GPU"]),
        ({"CUDA_VISIBLE_DEVICES": "0,x,1"}, ["'x' and what follows it are ignored"]),
        ({"CUDA_VISIBLE_DEVICES": "0,0"}, ["names a GPU twice"]),
        ({"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "1"}, ["differ"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["renumbers"]),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, ["out of this container"]),
        ({"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "2"}, ["differ"]),
        ({"OMP_NUM_THREADS": "64"}, ["more threads than the 8 cores"]),
        ({"OMP_NUM_THREADS": "9" * 20}, ["more threads than the 8 cores"]),
        ({"OMP_NUM_THREADS": "9" * 5000}, []),
        ({"PYTORCH_ENABLE_MPS_FALLBACK": "1"}, ["no effect here"]),
        ({"WEBGPU_SIMULATION_ENABLED": "1"}, ["never shown as available"]),
        ({"QNN_SIMULATION_ENABLED": "yes", "WEBNN_SIMULATION_ENABLED": "1"}, ["WEBNN", "QNN"]),
    ],
)
def test_conflicts(environ: dict[str, str], words: list[str]) -> None:
    sentences = found(environ)
    assert len(sentences) == len(words)
    for sentence, word in zip(sentences, words, strict=True):
        assert word in sentence


def test_the_fallback_matters_on_macos() -> None:
    (sentence,) = found({"PYTORCH_ENABLE_MPS_FALLBACK": "1"}, platform="darwin")
    assert "unnoticed" in sentence


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("TRUE", True), ("", False), (None, False), ("off", False)]
)
def test_switches(value: str | None, on: bool) -> None:
    assert is_on(value) is on


@pytest.mark.parametrize(
    "variable",
    [
        "ZE_AFFINITY_MASK",
        "ZE_FLAT_DEVICE_HIERARCHY",
        "ONEAPI_DEVICE_SELECTOR",
        "GPU_DEVICE_ORDINAL",
        "TPU_VISIBLE_CHIPS",
        "PYTORCH_ALLOC_CONF",
    ],
)
def test_what_hides_devices_is_in_the_fingerprint(fake: Any, variable: str) -> None:
    assert fingerprint(fake.machine()) != fingerprint(fake.machine(environ={variable: "1"}))


@pytest.mark.parametrize("file", ["/dev/dri/renderD128", "/dev/kfd", "/dev/accel0"])
def test_a_gpu_handed_to_the_container_is_in_the_fingerprint(fake: Any, file: str) -> None:
    assert fingerprint(fake.machine()) != fingerprint(fake.machine(files={file: ""}))


def test_only_relevant_variables_are_kept() -> None:
    environ = {"HOME": "/root", "OMP_NUM_THREADS": "2", "SECRET_TOKEN": "x"}
    assert relevant(environ) == {"OMP_NUM_THREADS": "2"}
    assert {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"} <= set(RELEVANT)
