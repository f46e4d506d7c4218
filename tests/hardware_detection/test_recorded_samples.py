"""What a real GPU answered: recorded by us on an NVIDIA H200, driver 580.159.04, torch 2.11.

The digits of the UUID are changed; nothing else is.
"""

from __future__ import annotations

import importlib
from typing import Any

from hardware_detection.parsing import (
    parse_nvidia_driver,
    parse_nvidia_smi,
    parse_nvidia_smi_list,
    parse_refused_field,
)
from hardware_detection.probes import PROBES
from hardware_detection.proofs import matrices, torch_devices

UUID = "e643dba0-0000-4000-8000-a184766e164e"
SMI = f"0, GPU-{UUID}, NVIDIA H200, 143771, 143156, 580.159.04, 9.0, Disabled\n"
SMI_LIST = f"GPU 0: NVIDIA H200 (UUID: GPU-{UUID})\n"
REFUSED = 'Field "nonsense" is not a valid field to query.\n\n'
DRIVER_FILE = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build"
    "  (nixbld@)  \nGCC version:  gcc version 15.3.0 (GCC) \n"
)
NVML = {
    "devices": [
        {
            "index": 0,
            "name": "NVIDIA H200",
            "memory_total_mb": 143771.0,
            "memory_free_mb": 143155.9375,
            "results": {},
            "facts": {
                "uuid": f"GPU-{UUID}",
                "pci_bus_id": "00000000:00:06.0",
                "compute_capability": "9.0",
                "mig": {"enabled": False, "instances": []},
            },
        }
    ],
    "facts": {"driver": "580.159.04", "cuda_of_driver": "13.0"},
}
# print(torch.cuda.get_device_properties(0)); CUDA's torch fills the field of ROCm with the name.
PROPERTIES = {
    "name": "NVIDIA H200",
    "major": 9,
    "minor": 0,
    "total_memory": 150109880320,
    "multi_processor_count": 132,
    "uuid": UUID,
    "pci_bus_id": 0,
    "pci_device_id": 6,
    "pci_domain_id": 0,
    "gcnArchName": "NVIDIA H200",
}
FREE_AND_TOTAL = (149557477376, 150109880320)


def described() -> dict[str, Any]:
    cuda = type(
        "cuda",
        (),
        {
            "get_device_properties": staticmethod(lambda index: type("P", (), PROPERTIES)()),
            "mem_get_info": staticmethod(lambda index: FREE_AND_TOTAL),
        },
    )
    torch = type("torch", (), {"cuda": cuda, "version": type("version", (), {"hip": None})})
    return torch_devices._describe_cuda(torch, 0)


def test_nvidia_smi() -> None:
    ((device,), driver) = parse_nvidia_smi(SMI)
    assert driver == parse_nvidia_driver(DRIVER_FILE) == "580.159.04"
    assert (device.name, device.memory_total_mb, device.memory_free_mb) == (
        "NVIDIA H200",
        143771.0,
        143156.0,
    )
    assert device.facts == {
        "uuid": f"GPU-{UUID}",
        "compute_capability": "9.0",
        "mig": {"enabled": False, "instances": []},
    }
    assert not device.dtypes


def test_the_list_has_no_instances_and_a_refusal_names_the_field() -> None:
    assert parse_nvidia_smi_list(SMI_LIST) == {f"GPU-{UUID}": []}
    assert parse_refused_field(REFUSED) == "nonsense"


def test_properties_of_torch() -> None:
    row = described()
    assert row["facts"] == {
        "compute_capability": "9.0",
        "multiprocessors": 132,
        "uuid": UUID,
    }
    assert round(row["memory_total_mb"], 1) == 143155.9


def test_the_whole_probe_from_the_recorded_answers(fake: Any) -> None:
    """NVML and PyTorch speak of one GPU, which is proved once and has the facts of both."""
    product = list(matrices.expected())
    formats = ("fp32", "bf16", "fp16", "int8", "fp8")
    proved = {
        "devices": [{"index": 0, **described(), "results": dict.fromkeys(formats, product)}],
        "facts": {
            "torch": "2.11.0+cu130",
            "cuda_runtime": "13.0",
            "hip_runtime": None,
            "torch_accelerator": "cuda",
        },
    }
    machine = fake.machine(
        files={"/dev/nvidiactl": "", **fake.torch_files(cuda="13.0")},
        packages=("torch", "pynvml"),
        proofs={("nvml",): NVML, ("torch", "cuda"): proved},
    )
    result = importlib.import_module(PROBES["cuda"]).probe(machine)
    (device,) = result.devices
    assert (result.status, set(device.dtypes)) == ("available", set(formats))
    assert device.facts["uuid"] == f"GPU-{UUID}"
    assert device.facts["pci_bus_id"] == "00000000:00:06.0"
    assert device.facts["tensor_cores"] is True
    assert result.facts["hidden_gpus"] == []
    assert (result.facts["driver"], result.facts["cuda_runtime"]) == ("580.159.04", "13.0")
