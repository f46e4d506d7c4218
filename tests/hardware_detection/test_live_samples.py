from __future__ import annotations

from collections.abc import Callable
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
    )
    assert found[0].at.endswith("+00:00")


def test_without_a_count_it_goes_on() -> None:
    endless = samples(fake_report(), wait=lambda: None, machine=Busy())
    assert len([next(endless) for _ in range(20)]) == 20


def test_the_cpu_of_this_machine_tells_its_load() -> None:
    (sample,) = samples(fake_report(), wait=lambda: None, count=1)
    (load,) = sample.loads
    assert load.utilisation_percent is not None
    assert 0 <= load.utilisation_percent <= 100
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
    assert nvml.loads(["0", "GPU-9"]) == {"0": (percent, 81920.0, 80896.0)}
    assert nvml.free_memory_mb(["GPU-0"]) == {"GPU-0": 80896.0}


def test_without_nvml_gpus_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine: Any = Machine()
    monkeypatch.setattr(machine, "has_package", lambda name: False)
    assert machine.gpu_loads(["GPU-0"]) == {}
