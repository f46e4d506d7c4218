from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import hardware_detection as hd
from hardware_detection import cache, service
from hardware_detection.machine import Machine
from hardware_detection.record import from_json

KEYS = {
    "schema_version",
    "detected_at",
    "age_seconds",
    "from_cache",
    "described_by",
    "fingerprint",
    "hardware",
    "details",
    "errors",
    "best_available",
    "torch_device",
    "system",
}


def check_shape(report: dict[str, Any]) -> None:
    assert set(report) == KEYS
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert tuple(report["hardware"]) == tuple(report["details"]) == hd.HARDWARE_NAMES
    assert all(type(value) is bool for value in report["hardware"].values())
    for name, details in report["details"].items():
        assert details["status"] in {"available", "absent", "unusable", "error"}
        assert (details["status"] == "available") is report["hardware"][name]
        assert details["reason"]
        assert details["device_count"] == sum(bool(row["dtypes"]) for row in details["devices"])
        assert (name in report["errors"]) is (details["status"] in {"unusable", "error"})
    assert report["hardware"][report["best_available"]]


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_real_detection_proves_the_cpu_with_torch() -> None:
    report = hd.detect_hardware_with_comprehensive_checks()
    check_shape(report)
    assert report["from_cache"] is False
    cpu = report["details"]["cpu"]
    # Whatever this machine has, PyTorch's device is one on which something was computed.
    device = report["torch_device"]
    backends = ("cuda", "rocm") if device.startswith("cuda") else (hd.backend_of(device),)
    assert any(report["hardware"][name] for name in backends)
    assert {"fp32", "bf16", "int8"} <= set(cpu["devices"][0]["dtypes"])
    assert cpu["sources"]["dtypes"] == "torch"
    assert report["system"]["memory_total_mb"] >= report["system"]["memory_available_mb"] > 0
    assert not hd.default_cache_path().exists()


def test_nothing_heavy_is_imported_by_the_parent(tmp_path: Path) -> None:
    code = (
        "import sys, hardware_detection as hd\n"
        "light = set(sys.modules)\n"
        "hd.detect_available_hardware(sys.argv[1])\n"
        "hd.detect_available_hardware(sys.argv[1])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'openvino', 'onnxruntime', 'pynvml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "ours = {'typing', 'psutil', 'yaml', 'rich', 'platformdirs', 'subprocess', 'dataclasses'}\n"
        "assert not ours & light, ours & light\n"
    )
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "hw.json")],
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def test_detection_is_remembered(empty_machine: Callable[[], int]) -> None:
    first = hd.detect_available_hardware()
    second = hd.detect_available_hardware()
    check_shape(first)
    assert (first["from_cache"], second["from_cache"]) == (False, True)
    assert first["hardware"] == second["hardware"]
    assert empty_machine() == 1
    assert hd.default_cache_path().is_file()


def test_a_report_belongs_to_its_caller(empty_machine: Callable[[], int]) -> None:
    hd.detect_available_hardware()["hardware"]["cuda"] = True
    hd.detect_available_hardware()["details"]["cpu"]["devices"].clear()
    report = hd.detect_available_hardware()
    assert report["hardware"]["cuda"] is False
    assert report["details"]["cpu"]["devices"]


def test_refresh_detects_and_rewrites(empty_machine: Callable[[], int]) -> None:
    hd.detect_available_hardware()
    before = hd.default_cache_path().stat().st_ino
    assert hd.detect_available_hardware(refresh=True)["from_cache"] is False
    assert empty_machine() == 2
    assert hd.default_cache_path().stat().st_ino != before


def test_comprehensive_checks_never_come_from_a_cache(empty_machine: Callable[[], int]) -> None:
    hd.detect_available_hardware()
    assert hd.detect_hardware_with_comprehensive_checks()["from_cache"] is False
    assert empty_machine() == 2


def test_another_process_believes_the_file(
    empty_machine: Callable[[], int], tmp_path: Path
) -> None:
    path = tmp_path / "hw.json"
    hd.detect_available_hardware(path)
    service._MEMORY.clear()
    report = hd.detect_available_hardware(str(path))
    assert report["from_cache"] is True
    assert empty_machine() == 1
    assert list(tmp_path.iterdir()) == [path]


def test_memory_is_asked_for_each_time(
    empty_machine: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hd.detect_available_hardware()
    monkeypatch.setattr(service.Machine, "memory_mb", lambda self: (16384.0, 77.0))
    report = hd.detect_available_hardware()
    assert report["system"]["memory_available_mb"] == 77.0
    device = report["details"]["cpu"]["devices"][0]
    assert (device["memory_free_mb"], device["memory_free_age_seconds"]) == (77.0, 0.0)


def test_a_changed_environment_is_seen_in_the_same_process(
    monkeypatch: pytest.MonkeyPatch, fake: Any
) -> None:
    environ: dict[str, str] = {}
    monkeypatch.setattr(service, "Machine", lambda web: fake.machine(environ=environ, web=web))
    hd.detect_available_hardware()
    environ["CUDA_VISIBLE_DEVICES"] = "1"
    assert hd.detect_available_hardware()["from_cache"] is False


def test_a_deleted_cache_is_written_again(empty_machine: Callable[[], int]) -> None:
    hd.detect_available_hardware()
    hd.default_cache_path().unlink()
    assert hd.detect_available_hardware()["from_cache"] is False
    assert hd.default_cache_path().is_file()


def test_many_threads_detect_once(empty_machine: Callable[[], int]) -> None:
    start = threading.Barrier(8)
    reports: list[dict[str, Any]] = []

    def ask() -> None:
        start.wait()
        reports.append(hd.detect_available_hardware())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert empty_machine() == 1
    assert sorted(report["from_cache"] for report in reports) == [False] + [True] * 7


class TestGpuMemory:
    @pytest.fixture
    def gpu_machine(self, monkeypatch: pytest.MonkeyPatch, fake: Any) -> None:
        def build(web: bool) -> Machine:
            machine: Machine = fake.machine(
                files={"/dev/nvidiactl": ""} | fake.torch_files(cuda="13.0"),
                packages=["torch", "pynvml"],
                proofs={
                    ("nvml",): fake.answer(driver="580"),
                    ("torch", "cpu"): fake.answer(fake.gpu_row()),
                    ("torch", "cuda"): fake.answer(fake.gpu_row()),
                },
            )
            return machine

        monkeypatch.setattr(service, "Machine", build)

    def test_asked_anew_through_nvml(
        self, gpu_machine: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "hardware_detection.nvml.loads", lambda uuids: dict.fromkeys(uuids, (None, 1.0, 123.0))
        )
        hd.detect_available_hardware()
        device = hd.detect_available_hardware()["details"]["cuda"]["devices"][0]
        assert (device["memory_free_mb"], device["memory_free_age_seconds"]) == (123.0, 0.0)

    def test_otherwise_its_age_is_said(
        self, gpu_machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("hardware_detection.nvml.loads", lambda uuids: {})
        path = tmp_path / "hw.json"
        hd.detect_available_hardware(path)
        data = json.loads(path.read_text())
        data["detected_at"] = "2020-01-01T00:00:00+00:00"
        path.write_text(json.dumps(data))
        device = hd.detect_available_hardware(path)["details"]["cuda"]["devices"][0]
        assert device["memory_free_mb"] == 80000.0
        assert device["memory_free_age_seconds"] > 365 * 24 * 3600


def test_the_file_holds_checked_records_and_no_verdict(
    empty_machine: Callable[[], int], tmp_path: Path
) -> None:
    path = tmp_path / "hw.json"
    hd.detect_available_hardware(path)
    data = json.loads(path.read_text())
    assert set(data) == {"schema_version", "detected_at", "fingerprint", "results", "others"}
    assert data["others"] == []
    assert [from_json(row).name for row in data["results"].values()] == list(hd.HARDWARE_NAMES)


class TestDefaultPath:
    def test_rp_home(self, isolated_home: Path) -> None:
        assert hd.default_cache_path() == isolated_home / "hardware.json"

    def test_checkout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RP_HOME")
        top = Path(__file__).resolve().parents[2]
        assert hd.default_cache_path() == top / "hardware_cache" / "hardware.json"

    def test_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("RP_HOME")
        monkeypatch.setattr(
            cache, "__file__", str(tmp_path / "site" / "hardware_detection" / "c.py")
        )
        monkeypatch.setattr(cache, "rp_home", lambda: tmp_path / "home")
        assert hd.default_cache_path() == tmp_path / "home" / "hardware.json"
