"""CUDA_VISIBLE_DEVICES: CUDA's numbering is not that of the driver's tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from hardware_detection.probes import cuda
from hardware_detection.record import Device, ProbeResult


def gpu(index: int, uuid: str | None, **facts: Any) -> Device:
    known = {} if uuid is None else {"uuid": uuid}
    return Device(index, f"GPU {uuid}", 81920.0, 80000.0, (), "", {**known, **facts})


SEEN = (
    gpu(0, "GPU-a", pci_bus_id="01", mig={"enabled": False, "instances": []}),
    gpu(1, "GPU-b", pci_bus_id="02", compute_capability="9.0"),
)


def test_reordered_gpus_keep_their_own_facts() -> None:
    first, second = cuda.merge((gpu(0, "b", compute_capability="9.0"), gpu(1, "a")), SEEN)
    assert (first.index, first.facts["uuid"], first.facts["pci_bus_id"]) == (0, "GPU-b", "02")
    assert first.facts["tensor_cores"] is True
    assert (second.index, second.facts["uuid"], second.facts["pci_bus_id"]) == (1, "GPU-a", "01")
    assert second.facts["mig"]["enabled"] is False


def test_what_torch_says_goes_over_what_the_tools_say() -> None:
    (device,) = cuda.merge((gpu(0, "GPU-b", compute_capability="8.0"),), SEEN)
    assert device.facts["compute_capability"] == "8.0"


def test_devices_without_a_uuid_are_never_mixed_up() -> None:
    (device,) = cuda.merge((gpu(0, None),), (gpu(0, None, pci_bus_id="01"), *SEEN))
    assert "pci_bus_id" not in device.facts


def test_hidden_gpus_are_named() -> None:
    assert cuda.hidden((gpu(0, "b"),), SEEN) == ["GPU-a"]
    assert cuda.hidden((), SEEN) == ["GPU-a", "GPU-b"]
    assert cuda.hidden((gpu(0, "a"), gpu(1, "b")), SEEN) == []


def test_a_gpu_is_not_hidden_behind_its_instance() -> None:
    cut = gpu(0, "GPU-a", mig={"enabled": True, "instances": [{"uuid": "MIG-1"}]})
    assert cuda.hidden((gpu(0, "MIG-1"),), (cut,)) == []


@pytest.mark.parametrize(
    ("visible", "uuids", "hidden"),
    [
        (None, ["GPU-0", "GPU-1"], []),
        ("1,0", ["GPU-1", "GPU-0"], []),
        ("1", ["GPU-1"], ["GPU-0"]),
        ("GPU-1", ["GPU-1"], ["GPU-0"]),
        ("", [], ["GPU-0", "GPU-1"]),
    ],
)
def test_the_whole_probe(
    fake: Any, visible: str | None, uuids: list[str], hidden: list[str]
) -> None:
    environ: Mapping[str, str] = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    proved = [
        fake.gpu_row(index, facts={"uuid": uuid.removeprefix("GPU-")})
        for index, uuid in enumerate(uuids)
    ]
    seen = [fake.gpu_row(index, results={}) for index in (0, 1)]
    result: ProbeResult = cuda.probe(
        fake.machine(
            environ=environ,
            files={"/dev/nvidiactl": ""} | fake.torch_files(cuda="13.0"),
            packages=["torch", "pynvml"],
            proofs={("nvml",): fake.answer(*seen), ("torch", "cuda"): fake.answer(*proved)},
        )
    )
    if uuids:
        assert [device.facts["uuid"] for device in result.devices] == uuids
        assert result.facts["hidden_gpus"] == hidden
    else:
        assert result.status == "unusable"
        assert "hides every GPU" in result.reason
        assert [device.facts["uuid"] for device in result.devices] == hidden
