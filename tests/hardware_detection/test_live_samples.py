from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hardware_detection import nvml
from hardware_detection.live import Load, samples
from hardware_detection.machine import Machine
from hardware_detection.testing import fake_report


class Busy(Machine):
    """A machine whose loads are known; the second GPU has fallen off the bus."""

    def cpu_percent(self) -> float:
        return 25.0

    def host_memory_mb(self) -> tuple[float, float]:
        return 16384.0, 4096.0

    def read_text(self, path: str) -> str | None:
        return None

    def gpu_loads(self, uuids: list[str]) -> dict[str, tuple[float | None, float, float]]:
        return {uuids[0]: (90.0, 81920.0, 1024.0)} if uuids else {}


def test_a_sample_per_wait() -> None:
    waits: list[None] = []
    gpus = [{"name": "H100", "uuid": "GPU-0"}, {"name": "H100", "uuid": "GPU-1"}]
    report = fake_report(cuda=gpus)
    found = list(samples(report, wait=lambda: waits.append(None), count=3, machine=Busy()))
    assert len(found) == len(waits) == 3
    assert found[0].loads == (
        Load("cpu", "Fake CPU", 25.0, 16384.0, 4096.0),
        Load("cuda:0", "H100", 90.0, 81920.0, 1024.0),
        Load("cuda:1", "H100", None, 24576.0, None),
    )
    assert found[0].at.endswith("+00:00")


AMDGPU = {
    "/sys/bus/pci/devices/0000:c9:00.0/gpu_busy_percent": "42\n",
    "/sys/bus/pci/devices/0000:c9:00.0/mem_info_vram_total": "68702699520\n",
    "/sys/bus/pci/devices/0000:c9:00.0/mem_info_vram_used": "1073741824\n",
}


class WithFiles(Busy):
    files: Mapping[str, str] = AMDGPU

    def read_text(self, path: str) -> str | None:
        return self.files.get(path)


@pytest.mark.parametrize(
    ("address", "gone", "told"),
    [
        ("0000:c9:00.0", "", (42.0, 65520.0, 64496.0)),
        # Integrated GPUs and old kernels do not tell how busy they are.
        ("0000:c9:00.0", "gpu_busy_percent", (None, 65520.0, 64496.0)),
        ("0000:c9:00.0", "mem_info_vram_used", (None, 65536.0, None)),
        ("0000:03:00.0", "", (None, 65536.0, None)),
        ("../../../0000:c9:00.0", "", (None, 65536.0, None)),
        (None, "", (None, 65536.0, None)),
    ],
)
def test_an_amd_gpu_tells_through_the_kernels_files(
    address: str | None, gone: str, told: tuple[float | None, ...]
) -> None:
    row = {"name": "MI210", "memory_total_mb": 65536.0}
    report = fake_report(rocm=[row if address is None else {**row, "pci_bus_id": address}])
    machine = WithFiles()
    machine.files = {path: text for path, text in AMDGPU.items() if not gone or gone not in path}
    (sample,) = samples(report, wait=lambda: None, count=1, machine=machine)
    assert sample.loads[1] == Load("rocm:0", "MI210", *told)


def test_what_tells_nothing_is_shown_as_not_told() -> None:
    report = fake_report(xpu=[{"name": "Arc", "memory_total_mb": 16384.0}], mps=True)
    (sample,) = samples(report, wait=lambda: None, count=1, machine=Busy())
    assert sample.loads[1:] == (
        Load("xpu:0", "Arc", None, 16384.0, None),
        Load("mps:0", "Fake mps", None, None, None),
    )


def test_what_computed_nothing_has_no_load() -> None:
    report = fake_report(cuda=[{"name": "broken", "dtypes": ()}, {"name": "H100"}])
    (sample,) = samples(report, wait=lambda: None, count=1, machine=Busy())
    assert [load.device for load in sample.loads] == ["cpu", "cuda:1"]


def test_without_a_count_it_goes_on() -> None:
    endless = samples(fake_report(), wait=lambda: None, machine=Busy())
    assert len([next(endless) for _ in range(20)]) == 20


def test_the_cpu_of_this_machine_tells_its_load() -> None:
    (sample,) = samples(fake_report(), wait=lambda: None, count=1)
    (load,) = sample.loads
    assert load.utilisation_percent is not None
    assert 0 <= load.utilisation_percent <= 100
    assert load.memory_free_mb is not None
    assert load.memory_total_mb is not None
    assert 0 < load.memory_free_mb <= load.memory_total_mb


@pytest.fixture
def fake_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def install(utilisation: str) -> None:
        (tmp_path / "pynvml.py").write_text(
            "def nvmlInit(): pass\n"
            "def nvmlShutdown(): pass\n"
            "def nvmlDeviceGetHandleByUUID(uuid): return {'GPU-0': 0}[uuid]\n"
            "class Values:\n"
            "    total, free, gpu = 80 << 30, 79 << 30, 37\n"
            "def nvmlDeviceGetMemoryInfo(gpu): return Values\n"
            f"def nvmlDeviceGetUtilizationRates(gpu): {utilisation}\n"
        )

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "pynvml", raising=False)
    return install


@pytest.mark.parametrize(
    ("utilisation", "percent"), [("return Values", 37.0), ("raise RuntimeError('MIG')", None)]
)
def test_nvml_tells_what_it_can(
    fake_nvml: Callable[[str], None], utilisation: str, percent: float | None
) -> None:
    fake_nvml(utilisation)
    # PyTorch's spelling of a UUID leaves out the prefix; a GPU that is gone is left out.
    assert nvml.loads(["GPU-9", "0", "GPU-8"]) == {"0": (percent, 81920.0, 80896.0)}


def test_without_nvml_gpus_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Machine()
    monkeypatch.setattr(machine, "has_package", lambda name: False)
    assert machine.gpu_loads(["GPU-0"]) == {}
