"""Outputs of real tools on GPUs that are not here, as their users have published them.

None of them was recorded by us. Each is a part of an output in a public issue or note, whose place
is named beside it; what is between the parts is left out. What is composed says so.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from hardware_detection.parsing import (
    NVIDIA_SMI_FIELDS,
    has_tensor_cores,
    parse_nvidia_smi,
    parse_nvidia_smi_list,
    parse_refused_field,
    parse_rocminfo,
)
from hardware_detection.probes import PROBES
from hardware_detection.process import Outcome
from hardware_detection.proofs import torch_devices

OLD = "memory.total,memory.free,memory.used,temperature.gpu,fan.speed,utilization.gpu"

# place -> (the fields that were asked for, the answer, name and total and free memory of each GPU)
NVIDIA_SMI: dict[str, tuple[str, str, list[tuple[str, float | None, float | None]]]] = {
    "wookayin/gpustat issue 5: several GPUs": (
        "index,uuid,name,temperature.gpu,utilization.gpu,memory.used,memory.total",
        (
            "0, GPU-004f693d-767b-b215-b4a9-a18af0ffd643, GeForce GTX TITAN X, 25, 0, 802, 12206\n"
            "4, GPU-637ac0be-f0e1-b056-bf28-b2c046e5e17e, GeForce GTX TITAN X, 55, 84, 6459, 12206"
        ),
        [("GeForce GTX TITAN X", 12206.0, None)] * 2,
    ),
    "enkore/i3pystatus pull request 776: no index, so no GPU that could be told": (
        f"{OLD},utilization.memory",
        "2004, 2004, 0, 44, [N/A], 0, 0\n",
        [],
    ),
    "xxd3vin/workspace issue 19: a GPU fell off the bus": (
        ",".join(NVIDIA_SMI_FIELDS),
        "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error\n",
        [],
    ),
    "jalombar/starsmasher pull request 24: the driver was updated and not loaded": (
        ",".join(NVIDIA_SMI_FIELDS),
        "Failed to initialize NVML: Driver/library version mismatch\n",
        [],
    ),
    "vscodenpa/testissues issue 32300: a shell's localized answer": (
        ",".join(NVIDIA_SMI_FIELDS),
        (
            "'nvidia-smi' n\ufffdo \ufffd reconhecido como um comando interno\n"
            "ou externo, um programa oper\ufffdvel ou um arquivo em lotes.\n"
        ),
        [],
    ),
}

# place -> (nvidia-smi -L, GPU -> names of its instances)
LISTS = {
    "influxdata/telegraf issue 5812: one GPU of four is cut": (
        (
            "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-513536b6-7d19-9063-b049-1e69664bb298)\n"
            "  MIG 1g.20gb     Device  0: (UUID: MIG-ce861fb0-a248-58ce-a9a8-f9adbc22a66a)\n"
            "  MIG 1g.20gb     Device  1: (UUID: MIG-a45882f0-9215-5733-a0c1-49286ab31cb5)\n"
            "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-d8594bd4-0fc3-8595-e355-7c98138f3b95)\n"
            "GPU 2: NVIDIA A100-SXM4-80GB (UUID: GPU-5e375e7e-b41f-155b-dcdc-534524c356fc)\n"
        ),
        {
            "GPU-513536b6-7d19-9063-b049-1e69664bb298": ["MIG 1g.20gb", "MIG 1g.20gb"],
            "GPU-d8594bd4-0fc3-8595-e355-7c98138f3b95": [],
            "GPU-5e375e7e-b41f-155b-dcdc-534524c356fc": [],
        },
    ),
    "NVIDIA/nvidia-container-toolkit issue 203": (
        (
            "GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-932bfb2c-849a-2a22-1e84-9eff6bc02b39)\n"
            "  MIG 3g.40gb     Device  0: (UUID: MIG-0929581a-2be6-5dec-bf34-0954c6c529a6)\n"
            "  MIG 3g.40gb     Device  1: (UUID: MIG-3adbed3a-d03d-549f-a016-ba1fd7359f23)\n"
        ),
        {"GPU-932bfb2c-849a-2a22-1e84-9eff6bc02b39": ["MIG 3g.40gb", "MIG 3g.40gb"]},
    ),
    "composed of the same, with the older form of the UUID that the issue names": (
        (
            "GPU 0: A100-PCIE-40GB (UUID: GPU-932bfb2c-849a-2a22-1e84-9eff6bc02b39)\n"
            "  MIG 1g.5gb Device 0: (UUID: MIG-GPU-932bfb2c-849a-2a22-1e84-9eff6bc02b39/1/0)\n"
        ),
        {"GPU-932bfb2c-849a-2a22-1e84-9eff6bc02b39": ["MIG 1g.5gb"]},
    ),
}

# place -> (rocminfo, what is read from it)
ROCMINFO: dict[str, tuple[str, list[tuple[str, dict[str, str]]]]] = {
    "ROCm/TransferBench issue 351": (
        (
            "*******                  \nAgent 2                  \n*******                  \n"
            "  Name:                    gfx942                             \n"
            "  Uuid:                    GPU-cb6683e4fa0a7e52               \n"
            "  Marketing Name:          AMD Instinct MI300X VF             \n"
            "  Vendor Name:             AMD                                \n"
            "  Device Type:             GPU                                \n"
        ),
        [("AMD Instinct MI300X VF", {"gcn_arch": "gfx942", "uuid": "GPU-cb6683e4fa0a7e52"})],
    ),
    "ROCm/legacy-rocm-build issue 4382: a consumer card has no UUID": (
        (
            "*******                  \nAgent 2                  \n*******                  \n"
            "  Name:                    gfx1102                            \n"
            "  Uuid:                    GPU-XX                             \n"
            "  Marketing Name:          AMD Radeon RX 7600                 \n"
            "  Device Type:             GPU                                \n"
        ),
        [("AMD Radeon RX 7600", {"gcn_arch": "gfx1102"})],
    ),
    "ollama/ollama issue 3158": (
        (
            "*******\nAgent 3\n*******\n  Name:                    gfx1100\n"
            "  Uuid:                    GPU-398a3f843a146602\n"
            "  Marketing Name:          Radeon RX 7900 XTX\n  Vendor Name:             AMD\n"
            "  Device Type:             GPU\n"
        ),
        [("Radeon RX 7900 XTX", {"gcn_arch": "gfx1100", "uuid": "GPU-398a3f843a146602"})],
    ),
    "ROCm/ROCgdb issue 28: the CPU of an accelerator is called like it": (
        (
            "*******                  \nAgent 3                  \n*******                  \n"
            "  Name:                    AMD Instinct MI300A Accelerator    \n"
            "  Uuid:                    CPU-XX                             \n"
            "  Marketing Name:          AMD Instinct MI300A Accelerator    \n"
            "  Device Type:             CPU                                \n"
        ),
        [],
    ),
}


@pytest.mark.parametrize("place", NVIDIA_SMI)
def test_nvidia_smi(place: str) -> None:
    fields, text, found = NVIDIA_SMI[place]
    devices, _ = parse_nvidia_smi(text, fields.split(","))
    rows = [(one.name, one.memory_total_mb, one.memory_free_mb) for one in devices]
    assert rows == found
    assert not any(one.dtypes for one in devices)


@pytest.mark.parametrize("unknown", ["[N/A]", "[Not Supported]", "[Unknown Error]", "ERR!", "N/A"])
def test_every_word_for_unknown_is_unknown(unknown: str) -> None:
    """The words are those of i3pystatus' pull requests 776 and 850; ERR! is the table's."""
    cells = ", ".join(["0", *[unknown] * 7])
    ((device,), driver) = parse_nvidia_smi(cells)
    assert (device.name, device.memory_total_mb, device.memory_free_mb) == ("unknown", None, None)
    assert device.facts == {}
    assert driver is None


@pytest.mark.parametrize("place", LISTS)
def test_nvidia_smi_list(place: str) -> None:
    text, names = LISTS[place]
    found = parse_nvidia_smi_list(text)
    assert {gpu: [row["name"] for row in rows] for gpu, rows in found.items()} == names
    assert all(row["uuid"].startswith("MIG-") for rows in found.values() for row in rows)


@pytest.mark.parametrize("text", ["", "No devices were found\n", "  MIG 1g.5gb Device 0: (UUID: x"])
def test_a_list_without_gpus(text: str) -> None:
    assert parse_nvidia_smi_list(text) == {}


@pytest.mark.parametrize("place", ROCMINFO)
def test_rocminfo(place: str) -> None:
    text, found = ROCMINFO[place]
    assert [(one.name, dict(one.facts)) for one in parse_rocminfo(text)] == found


class TestOldDrivers:
    """The refusal is that of huggingface/candle issue 733 (driver 470); the rows are composed."""

    REFUSED = 'Field "compute_cap" is not a valid field to query.\n\n'

    def test_the_refused_field_is_named(self) -> None:
        assert parse_refused_field(self.REFUSED) == "compute_cap"
        assert parse_refused_field("Field is fine") is None

    def test_it_is_asked_again_without_what_it_does_not_know(self, fake: Any) -> None:
        row = "0, GPU-22b2c6ac-2d49-4863-197c-9c469071178a, GeForce RTX 2080, 7979, 7000, 440.64\n"
        result, machine = self.probe(fake, known=NVIDIA_SMI_FIELDS[:6], row=row)
        (device,) = result.devices
        assert (device.name, device.memory_total_mb) == ("GeForce RTX 2080", 7979.0)
        assert result.facts["driver"] == "440.64"
        assert len(machine.started) == 3

    def test_mig_is_listed_where_it_is_on(self, fake: Any) -> None:
        uuid = "GPU-513536b6-7d19-9063-b049-1e69664bb298"
        text, _ = LISTS["influxdata/telegraf issue 5812: one GPU of four is cut"]
        row = f"0, {uuid}, NVIDIA A100-SXM4-80GB, 81920, 81000, 525.85.12, 8.0, Enabled\n"
        result, _ = self.probe(fake, known=NVIDIA_SMI_FIELDS, row=row, listing=text)
        (device,) = result.devices
        assert device.facts["mig"]["enabled"] is True
        assert len(device.facts["mig"]["instances"]) == 2

    @staticmethod
    def probe(fake: Any, *, known: tuple[str, ...], row: str, listing: str = "") -> tuple[Any, Any]:
        class Smi(fake.machine):  # type: ignore[misc, name-defined]
            def run(self, argv: Any, **_: Any) -> Outcome:
                self.started.append(tuple(argv))
                if argv[1] == "-L":
                    return fake.finished(listing)  # type: ignore[no-any-return]
                asked = argv[1].removeprefix("--query-gpu=").split(",")
                for field in asked:
                    if field not in known:
                        text = f'Field "{field}" is not a valid field to query.\n\n'
                        return fake.finished(text, returncode=2)  # type: ignore[no-any-return]
                return fake.finished(row)  # type: ignore[no-any-return]

        machine = Smi(files={"/dev/nvidiactl": ""}, programs={"nvidia-smi": fake.finished()})
        return importlib.import_module(PROBES["cuda"]).probe(machine), machine


# What ``print(torch.cuda.get_device_properties(0))`` showed. place -> (properties, hip, facts)
PROPERTIES: dict[str, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    "ROCm/legacy-rocm-build issue 4203, torch 2.6": (
        {
            "name": "AMD Instinct MI300X",
            "major": 9,
            "minor": 4,
            "gcnArchName": "gfx942:sramecc+:xnack-",
            "total_memory": 196592 << 20,
            "multi_processor_count": 304,
            "uuid": "66333330-6463-3464-3030-646565323262",
        },
        "6.2.41133",
        # 9.4 is the architecture's number there, and no compute capability.
        {
            "gcn_arch": "gfx942:sramecc+:xnack-",
            "multiprocessors": 304,
            "uuid": "66333330-6463-3464-3030-646565323262",
        },
    ),
    "public notes on CUTLASS: an A5000": (
        {
            "name": "NVIDIA RTX A5000",
            "major": 8,
            "minor": 6,
            "total_memory": 24138 << 20,
            "multi_processor_count": 64,
            "uuid": "dc1345df-ac63-34db-00eb-1bddd0042c46",
        },
        None,
        {
            "compute_capability": "8.6",
            "multiprocessors": 64,
            "uuid": "dc1345df-ac63-34db-00eb-1bddd0042c46",
        },
    ),
    "public notes on CUDA: an RTX 3060, of a torch that tells no UUID": (
        {
            "name": "NVIDIA GeForce RTX 3060",
            "major": 8,
            "minor": 6,
            "total_memory": 12011 << 20,
            "multi_processor_count": 28,
        },
        None,
        {"compute_capability": "8.6", "multiprocessors": 28},
    ),
}


@pytest.mark.parametrize("place", PROPERTIES)
def test_torch_properties(place: str) -> None:
    values, hip, facts = PROPERTIES[place]
    row = described(values, hip)
    assert (row["name"], row["memory_total_mb"]) == (values["name"], values["total_memory"] >> 20)
    assert row["facts"] == facts


def test_a_newer_torch_tells_where_an_amd_gpu_is() -> None:
    """The fields are those that newer releases print; the values are of an NVIDIA GPU's output."""
    place = {"pci_bus_id": 222, "pci_device_id": 0, "pci_domain_id": 0}
    values, hip, _ = PROPERTIES["ROCm/legacy-rocm-build issue 4203, torch 2.6"]
    assert described({**values, **place}, hip)["facts"]["pci_bus_id"] == "0000:de:00.0"


def described(values: dict[str, Any], hip: str | None) -> dict[str, Any]:
    properties = type("Properties", (), values)()
    cuda = type(
        "cuda",
        (),
        {
            "get_device_properties": staticmethod(lambda index: properties),
            "mem_get_info": staticmethod(lambda index: (1 << 30, 2 << 30)),
        },
    )
    torch = type("torch", (), {"cuda": cuda, "version": type("version", (), {"hip": hip})})
    return torch_devices._describe_cuda(torch, 0)


def test_names_in_the_samples_and_tensor_cores() -> None:
    assert has_tensor_cores("NVIDIA A100-SXM4-80GB", "8.0") is True
    assert has_tensor_cores("GeForce GTX TITAN X", "5.2") is False
