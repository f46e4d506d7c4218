"""What is remembered of a detection, for how long, and for whom."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import hardware_detection as hd
from hardware_detection import cache, detection, service
from hardware_detection.machine import Machine
from hardware_detection.probes import cpu
from hardware_detection.process import Outcome
from hardware_detection.record import Detection, ProbeResult
from hardware_detection.requirements import parse, unmet

SLOW = Outcome("timeout", None, "", "", 60.0)


@pytest.fixture
def gpu_machine(fake: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes detection look at a machine with one GPU, which answers so."""

    def use(cuda: Any = None, cpu: Any = None, **more: Any) -> None:
        good = fake.answer(fake.gpu_row())
        machine = fake.machine(
            files={"/dev/nvidiactl": "", **fake.torch_files(cuda="12.8")},
            packages=["torch"],
            proofs={("torch", "cuda"): cuda or good, ("torch", "cpu"): cpu or good},
            **more,
        )
        monkeypatch.setattr(service, "Machine", lambda **_: machine)

    return use


def grown_older(hours: float, *, path: Path | None = None) -> None:
    """Let the cache be of hours ago, and this process forget it."""
    service._MEMORY.clear()
    file = path or hd.default_cache_path()
    data = json.loads(file.read_text())
    data["detected_at"] = (datetime.now(timezone.utc) - timedelta(hours=hours)).isoformat()
    file.write_text(json.dumps(data))


@pytest.mark.parametrize("named", [True, False])
def test_without_storing_a_cache_is_read_and_none_is_made(
    empty_machine: Callable[[], int], tmp_path: Path, named: bool
) -> None:
    file = tmp_path / "hw.json" if named else None
    path = file or hd.default_cache_path()
    assert hd.detect_available_hardware(file, store=False)["from_cache"] is False
    assert [*path.parent.iterdir()] == []
    assert hd.detect_available_hardware(file)["from_cache"] is False
    before = path.read_bytes()
    service._MEMORY.clear()
    assert hd.detect_available_hardware(file, store=False)["from_cache"] is True
    assert hd.detect_available_hardware(file, store=False, refresh=True)["from_cache"] is False
    assert path.read_bytes() == before
    assert empty_machine() == 3


class TestFaultsThatPass:
    def test_a_slow_start_is_not_remembered_as_a_fact(
        self, gpu_machine: Callable[..., None]
    ) -> None:
        gpu_machine(SLOW)
        assert hd.detect_available_hardware()["details"]["cuda"]["status"] == "error"
        gpu_machine()
        # Not for each command of the next minutes.
        service._MEMORY.clear()
        assert hd.detect_available_hardware()["details"]["cuda"]["status"] == "error"
        grown_older(hours=1)
        assert hd.detect_available_hardware()["hardware"]["cuda"] is True

    def test_a_full_gpu_is_not_remembered_as_a_fact(
        self, gpu_machine: Callable[..., None], fake: Any
    ) -> None:
        full = fake.gpu_row(results={"fp32": "OutOfMemoryError: CUDA out of memory."})
        gpu_machine(fake.answer(full))
        assert hd.detect_available_hardware()["details"]["cuda"]["status"] == "unusable"
        grown_older(hours=1)
        gpu_machine()
        assert hd.detect_available_hardware()["hardware"]["cuda"] is True

    def test_nor_one_gpu_of_several(self, gpu_machine: Callable[..., None], fake: Any) -> None:
        broken = fake.gpu_row(1, results={"fp32": "OutOfMemoryError: CUDA out of memory."})
        gpu_machine(fake.answer(fake.gpu_row(), broken))
        assert hd.detect_available_hardware()["details"]["cuda"]["device_count"] == 1
        grown_older(hours=1)
        gpu_machine(fake.answer(fake.gpu_row(), fake.gpu_row(1)))
        assert hd.detect_available_hardware()["details"]["cuda"]["device_count"] == 2

    def test_nor_the_formats_of_the_cpu(self, gpu_machine: Callable[..., None]) -> None:
        gpu_machine(cpu=SLOW)
        first = hd.detect_available_hardware()["details"]["cpu"]
        assert first["devices"][0]["dtypes"] == ["fp64"]
        grown_older(hours=1)
        gpu_machine()
        again = hd.detect_available_hardware()["details"]["cpu"]
        assert again["devices"][0]["dtypes"] == ["fp32", "fp16"]

    def test_nor_by_a_process_that_lives_on(
        self, gpu_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpu_machine(SLOW)
        hd.detect_available_hardware()
        gpu_machine()
        monkeypatch.setattr(service, "_RETRY_AFTER_S", 0.0)
        assert hd.detect_available_hardware()["hardware"]["cuda"] is True

    def test_what_no_retry_can_change_is_remembered(
        self, fake: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A driver without a PyTorch for it stays unusable until one is installed."""
        machine = fake.machine(
            files={"/dev/nvidiactl": "", **fake.torch_files()},
            packages=["torch"],
            proofs={("torch", "cpu"): fake.answer(fake.gpu_row())},
        )
        monkeypatch.setattr(service, "Machine", lambda **_: machine)
        assert hd.detect_available_hardware()["details"]["cuda"]["status"] == "unusable"
        grown_older(hours=1)
        assert hd.detect_available_hardware()["from_cache"] is True

    @pytest.mark.parametrize(("web", "answers"), [(False, True), (True, False)])
    def test_a_browsers_failure_counts_for_those_who_ask_it(self, web: bool, answers: bool) -> None:
        results = tuple(
            ProbeResult(name, "error", "it hung", facts={"asked": True}, retry=True)
            for name in ("webgpu", "webnn")
        )
        long_ago = datetime.now(timezone.utc) - timedelta(hours=1)
        assert service._answers(Detection(results, {}, long_ago), Machine(web=web)) is answers


class TestFreeMemory:
    def test_a_requirement_is_not_judged_by_what_was_free_long_ago(
        self, gpu_machine: Callable[..., None]
    ) -> None:
        gpu_machine()
        assert unmet(parse("vram_free>=70GiB"), hd.detect_available_hardware()) == []
        grown_older(hours=2)
        report = hd.detect_available_hardware()
        assert report["from_cache"] is True
        for clause in ("vram_free>=70GiB", "vram_free<=70GiB"):
            (problem,) = unmet(parse(clause), report)
            assert problem == (
                f"{clause} is not met: free memory cannot be asked here"
                " (last known 78.1 GiB, 120 min ago); --refresh detects anew"
            )
        assert unmet(parse("vram>=70GiB"), report) == []

    def test_an_amd_gpu_is_asked_anew_where_the_kernel_tells(
        self, fake: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = "/sys/bus/pci/devices/0000:03:00.0"
        files = {
            "/dev/kfd": "",
            **fake.torch_files(hip="6.2"),
            f"{folder}/mem_info_vram_total": str(64 << 30),
            f"{folder}/mem_info_vram_used": str(63 << 30),
        }
        row = fake.gpu_row(facts={"gcn_arch": "gfx942", "pci_bus_id": "0000:03:00.0"})
        proofs = {
            ("torch", "cuda"): fake.answer(row),
            ("torch", "cpu"): fake.answer(fake.gpu_row()),
        }
        machine = fake.machine(files=files, packages=["torch"], proofs=proofs)
        monkeypatch.setattr(service, "Machine", lambda **_: machine)
        hd.detect_available_hardware()
        grown_older(hours=1)
        device = hd.detect_available_hardware()["details"]["rocm"]["devices"][0]
        assert (device["memory_free_mb"], device["memory_free_age_seconds"]) == (1024.0, 0.0)


class TestSeveralEnvironments:
    @pytest.fixture
    def detected(
        self, fake: Any, empty_machine: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str], int]:
        """Return a function: OMP_NUM_THREADS of a new process -> detections so far."""

        def ask(value: str) -> int:
            machine = fake.machine(environ={"OMP_NUM_THREADS": value})
            monkeypatch.setattr(service, "Machine", lambda **_: machine)
            service._MEMORY.clear()
            hd.detect_available_hardware()
            return empty_machine()

        return ask

    def test_they_do_not_throw_out_each_other(self, detected: Callable[[str], int]) -> None:
        assert [detected(value) for value in ("1", "2", "1", "2", "3", "1")] == [1, 2, 2, 2, 3, 3]

    def test_the_last_eight_are_kept(self, detected: Callable[[str], int]) -> None:
        for value in range(9):
            detected(str(value))
        data = json.loads(hd.default_cache_path().read_text())
        assert data["fingerprint"]["environment"] == {"OMP_NUM_THREADS": "8"}
        assert len(data["others"]) == 7
        assert detected("1") == 9
        assert detected("0") == 10

    def test_what_would_be_too_large_to_read_is_left_out(
        self, detected: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        detected("1")
        size = hd.default_cache_path().stat().st_size
        monkeypatch.setattr(cache, "MAX_BYTES", int(2.5 * size))
        for value in ("2", "3"):
            detected(value)
        assert len(json.loads(hd.default_cache_path().read_text())["others"]) == 1

    @pytest.mark.parametrize("others", [None, {}, [None], [{"fingerprint": None}], [[]], "x"])
    def test_odd_others_are_left_out(self, detected: Callable[[str], int], others: Any) -> None:
        detected("1")
        path = hd.default_cache_path()
        path.write_text(json.dumps({**json.loads(path.read_text()), "others": others}))
        assert detected("1") == 1
        assert detected("2") == 2
        assert len(json.loads(path.read_text())["others"]) == 1


# Newer Pythons warn of just this danger.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_no_thread_of_the_parent_is_waited_for(
    empty_machine: Callable[[], int],
) -> None:
    hd.detect_available_hardware()
    with held_by_a_thread(service._LOCK):
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            try:
                hd.detect_available_hardware()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


@contextmanager
def held_by_a_thread(lock: Any) -> Iterator[None]:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_probe_of_ours_that_fails_is_tried_again(fake: Any) -> None:
    probes = {"cuda": "no_such_module"}
    (result,) = detection.detect(fake.machine(), probes).results
    assert (result.status, result.retry) == ("error", True)


@pytest.mark.parametrize(
    "told", ["cpu_target", "cpu_counts", "cpu_name", "usable_cpus after cpu_counts"]
)
def test_the_cpu_is_there_whatever_describes_it_fails(fake: Any, told: str) -> None:
    def refuse(*_: object) -> Any:
        raise OSError("cannot read this CPU")

    broken = dict.fromkeys(told.split(" after "), refuse)
    machine = type("Odd", (fake.machine,), broken)()
    result = cpu.probe(machine)
    assert result.status == "available"
    assert result.devices[0].dtypes
    # The others' facts are not lost.
    assert result.facts["architecture"] == "x86_64"
    assert (result.facts["isa_extensions"] == []) is (told == "cpu_target")
