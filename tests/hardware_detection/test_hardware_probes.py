from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from hardware_detection import HARDWARE_NAMES
from hardware_detection.detection import detect
from hardware_detection.machine import Machine
from hardware_detection.probes import PROBES
from hardware_detection.process import Outcome
from hardware_detection.record import ProbeResult, from_json, to_json

SMI_ROW = "0, GPU-aa, NVIDIA H100, 81559, 80000, 580.65.06, 9.0, Disabled\n"
DRIVER = {
    "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x  580.65.06  Thu",
    "/dev/nvidiactl": "",
}
KFD = {
    "/dev/kfd": "",
    "/sys/module/amdgpu/version": "6.12.12\n",
    "/sys/class/kfd/kfd/topology/nodes/0/properties": "gfx_target_version 0\n",
    "/sys/class/kfd/kfd/topology/nodes/1/properties": "gfx_target_version 90402\n",
}
CRASH = Outcome("crashed", -11, "", "", 1.0)
HANG = Outcome("timeout", -9, "", "", 60.0)


def probe(name: str, machine: Machine) -> ProbeResult:
    result: ProbeResult = importlib.import_module(PROBES[name]).probe(machine)
    assert result.name == name
    assert from_json(json.loads(json.dumps(to_json(result)))) == result
    return result


def test_there_is_one_probe_per_backend() -> None:
    assert tuple(PROBES) == HARDWARE_NAMES
    for module in PROBES.values():
        assert callable(importlib.import_module(module).probe)


def test_an_empty_machine_starts_no_child(fake: Any) -> None:
    machine = fake.machine()
    results = {name: probe(name, machine) for name in HARDWARE_NAMES}
    assert machine.started == []
    assert {name for name, result in results.items() if result.status == "available"} == {"cpu"}
    for name in set(HARDWARE_NAMES) - {"cpu"}:
        assert results[name].status == "absent"
        assert results[name].reason
        assert "\n" not in results[name].reason


class TestCpu:
    def test_facts_and_their_sources(self, fake: Any) -> None:
        files = {"/proc/cpuinfo": "model name : Fake 9000\nflags : fpu avx512_vnni\n"}
        result = probe("cpu", fake.machine(files=files))
        assert result.devices[0].name == "Fake 9000"
        assert result.devices[0].memory_total_mb == 16384.0
        assert result.facts["isa_extensions"] == ["avx2", "avx512_vnni"]
        assert result.facts["physical_cores"] == 4
        assert result.facts["logical_cores"] == 8
        assert result.facts["usable_cores"] == 6
        assert set(result.facts) <= set(result.sources)

    def test_without_torch_plain_python_proves_it(self, fake: Any) -> None:
        result = probe("cpu", fake.machine())
        assert result.devices[0].dtypes == ("fp64",)
        assert "install torch" in result.reason

    def test_torch_proves_its_formats(self, fake: Any) -> None:
        proofs = {("torch", "cpu"): fake.answer(fake.gpu_row(), torch="2.13.0")}
        machine = fake.machine(packages=["torch"], files=fake.torch_files(), proofs=proofs)
        result = probe("cpu", machine)
        assert result.devices[0].dtypes == ("fp32", "fp16")
        assert result.facts["torch"] == "2.13.0"

    @pytest.mark.parametrize("ending", [CRASH, HANG, "nonsense", {"devices": [], "facts": {}}])
    def test_a_broken_torch_costs_only_its_formats(self, fake: Any, ending: Any) -> None:
        proofs = {("torch", "cpu"): ending}
        machine = fake.machine(packages=["torch"], files=fake.torch_files(), proofs=proofs)
        result = probe("cpu", machine)
        assert result.status == "available"
        assert result.devices[0].dtypes == ("fp64",)
        assert result.facts["torch_problem"]


class TestCuda:
    def machine(self, fake: Any, ending: Any = None, **changes: Any) -> Any:
        return fake.machine(
            **{
                "files": DRIVER | fake.torch_files(cuda="13.0"),
                "packages": ["torch"],
                "proofs": {("torch", "cuda"): ending},
                "programs": {"nvidia-smi": fake.finished(SMI_ROW)},
                **changes,
            }
        )

    def test_a_proved_gpu(self, fake: Any) -> None:
        ending = fake.answer(fake.gpu_row(), torch="2.13.0", cuda_runtime="13.0", hip_runtime=None)
        result = probe("cuda", self.machine(fake, ending))
        assert result.status == "available"
        assert result.devices[0].facts["compute_capability"] == "9.0"
        assert result.facts["driver"] == "580.65.06"
        assert result.facts["cuda_runtime"] == "13.0"
        assert "hip_runtime" not in result.facts
        assert result.sources["driver"] == "nvidia-smi"
        assert result.sources["devices"] == "torch"

    @pytest.mark.parametrize(
        ("ending", "status", "word"),
        [
            (CRASH, "error", "SIGSEGV"),
            (HANG, "error", "60 s"),
            ("}{", "error", "nonsense"),
            ({"error": "ImportError: libcudart"}, "error", "libcudart"),
            ({"devices": [], "facts": {}}, "unusable", "no CUDA device"),
        ],
    )
    def test_a_failed_proof_keeps_what_was_seen(
        self, fake: Any, ending: Any, status: str, word: str
    ) -> None:
        result = probe("cuda", self.machine(fake, ending))
        assert result.status == status
        assert word in result.reason
        assert [device.name for device in result.devices] == ["NVIDIA H100"]
        assert result.devices[0].dtypes == ()

    def test_wrong_numbers_make_it_unusable(self, fake: Any) -> None:
        row = fake.gpu_row(results={"fp32": [0] * 1024})
        result = probe("cuda", self.machine(fake, fake.answer(row)))
        assert result.status == "unusable"
        assert "wrong result" in result.reason

    def test_one_broken_gpu_of_two_is_named(self, fake: Any) -> None:
        broken = fake.gpu_row(1, results={}, problem="CUDA error: ECC")
        result = probe("cuda", self.machine(fake, fake.answer(fake.gpu_row(0), broken)))
        assert result.status == "available"
        assert "device 1 did not: CUDA error: ECC" in result.reason

    @pytest.mark.parametrize(
        ("files", "packages", "word"),
        [
            ({}, [], "torch is not installed"),
            ({"/site/torch/version.py": "__version__ = '2'\ncuda = None"}, ["torch"], "no CUDA"),
            ({"/site/torch/version.py": "hip = '6.4'"}, ["torch"], "built for ROCm"),
        ],
    )
    def test_a_torch_that_cannot_use_it_is_not_started(
        self, fake: Any, files: dict[str, str], packages: list[str], word: str
    ) -> None:
        machine = self.machine(fake, files=DRIVER | files, packages=packages)
        result = probe("cuda", machine)
        assert result.status == "unusable"
        assert word in result.reason
        assert ("torch", "cuda") not in machine.started
        assert len(result.devices) == 1

    @pytest.mark.parametrize("hidden", ["", "-1", "none"])
    def test_hidden_gpus(self, fake: Any, hidden: str) -> None:
        ending = fake.answer()
        machine = self.machine(fake, ending, environ={"CUDA_VISIBLE_DEVICES": hidden})
        result = probe("cuda", machine)
        assert result.status == "unusable"
        assert "CUDA_VISIBLE_DEVICES" in result.reason

    def test_a_container_without_the_gpus(self, fake: Any) -> None:
        files = {"/proc/driver/nvidia/version": DRIVER["/proc/driver/nvidia/version"]}
        machine = self.machine(
            fake, fake.answer(), files=files | fake.torch_files(cuda="13.0"), programs={}
        )
        result = probe("cuda", machine)
        assert "--gpus all" in result.reason
        assert result.facts["driver"] == "580.65.06"

    def test_a_tool_without_a_driver_is_no_gpu(self, fake: Any) -> None:
        failed = fake.finished("NVIDIA-SMI has failed", 9)
        machine = self.machine(fake, files={}, packages=[], programs={"nvidia-smi": failed})
        assert probe("cuda", machine).status == "absent"

    def test_nvml_is_asked_before_the_tool(self, fake: Any) -> None:
        seen = fake.answer(fake.gpu_row(results={}), driver="580.1", cuda_of_driver="13.0")
        machine = self.machine(
            fake,
            packages=["torch", "pynvml"],
            proofs={("nvml",): seen, ("torch", "cuda"): fake.answer(fake.gpu_row())},
        )
        result = probe("cuda", machine)
        assert machine.started == [("nvml",), ("torch", "cuda")]
        assert result.sources["driver"] == "nvidia-ml-py"

    def test_a_broken_nvml_falls_back_to_the_tool(self, fake: Any) -> None:
        machine = self.machine(
            fake,
            packages=["torch", "pynvml"],
            proofs={("nvml",): CRASH, ("torch", "cuda"): fake.answer(fake.gpu_row())},
        )
        assert probe("cuda", machine).sources["driver"] == "nvidia-smi"


class TestRocm:
    def test_told_apart_by_the_build(self, fake: Any) -> None:
        proofs = {("torch", "cuda"): fake.answer(fake.gpu_row(), hip_runtime="6.4")}
        machine = fake.machine(
            files=KFD | fake.torch_files(hip="6.4"), packages=["torch"], proofs=proofs
        )
        assert probe("rocm", machine).status == "available"
        assert probe("cuda", machine).status == "absent"

    def test_driver_facts(self, fake: Any) -> None:
        result = probe("rocm", fake.machine(files=KFD | fake.torch_files(), packages=["torch"]))
        assert result.status == "unusable"
        assert "not built for ROCm" in result.reason
        assert result.facts == {"architectures": ["gfx942"], "driver": "6.12.12"}

    def test_a_rocm_build_without_the_driver(self, fake: Any) -> None:
        machine = fake.machine(files=fake.torch_files(hip="6.4"), packages=["torch"])
        assert probe("rocm", machine).status == "absent"
        assert machine.started == []

    def test_no_permission_looks_like_no_device(self, fake: Any) -> None:
        machine = fake.machine(
            files=KFD | fake.torch_files(hip="6.4"),
            packages=["torch"],
            proofs={("torch", "cuda"): fake.answer()},
        )
        result = probe("rocm", machine)
        assert result.status == "unusable"
        assert "groups render and video" in result.reason


#: What the reason tells a user to get, where a backend is not here.
NEEDED = {
    "mps": "part of macOS",
    "openvino": "run `pip install openvino`",
    "tpu": "run `pip install torch_xla[tpu]`",
    "qualcomm": "run `pip install onnxruntime-qnn`",
}


@pytest.mark.parametrize(
    ("name", "present", "proof"),
    [
        ("mps", {"platform": "darwin", "packages": ["torch"]}, ("torch", "mps")),
        ("openvino", {"packages": ["openvino"]}, ("openvino",)),
        ("tpu", {"packages": ["torch_xla"]}, ("torch", "xla")),
        ("qualcomm", {"versions": {"onnxruntime-qnn": "1.23"}}, ("qnn",)),
    ],
)
class TestSimpleBackends:
    @pytest.mark.parametrize(
        ("ending", "status"),
        [
            (CRASH, "error"),
            (HANG, "error"),
            ("nonsense", "error"),
            ({"error": "RuntimeError: boom"}, "error"),
            ({"devices": [], "facts": {}}, "unusable"),
            ({"devices": [{"index": 0, "results": {"fp32": [1, 2]}}], "facts": {}}, "unusable"),
        ],
    )
    def test_failures(
        self, fake: Any, name: str, present: Any, proof: Any, ending: Any, status: str
    ) -> None:
        result = probe(name, fake.machine(**present, proofs={proof: ending}))
        assert result.status == status
        assert result.reason

    def test_proved(self, fake: Any, name: str, present: Any, proof: Any) -> None:
        machine = fake.machine(**present, proofs={proof: fake.answer(fake.gpu_row())})
        assert probe(name, machine).status == "available"
        assert machine.started == [proof]

    def test_elsewhere(self, fake: Any, name: str, present: Any, proof: Any) -> None:
        machine = fake.machine(platform="linux")
        result = probe(name, machine)
        assert result.status == "absent"
        assert NEEDED[name] in result.reason
        assert machine.started == []


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("webgpu", "WEBGPU_SIMULATION_ENABLED"),
        ("webnn", "WEBNN_SIMULATION_ENABLED"),
        ("qualcomm", "QNN_SIMULATION_ENABLED"),
    ],
)
@pytest.mark.parametrize(("value", "simulated"), [("1", True), ("true", True), ("0", False)])
def test_simulation_is_a_fact_and_never_available(
    fake: Any, name: str, variable: str, value: str, simulated: bool
) -> None:
    result = probe(name, fake.machine(environ={variable: value}))
    assert result.status == "absent"
    assert result.facts["simulated"] is simulated
    assert ("simulation" in result.reason) is simulated


def test_a_qnn_sdk_alone_proves_nothing(fake: Any) -> None:
    result = probe("qualcomm", fake.machine(environ={"QNN_SDK_ROOT": "/opt/qnn"}))
    assert result.status == "unusable"


def test_a_probe_that_raises_costs_only_itself(fake: Any) -> None:
    probes = {"cpu": PROBES["cpu"], "cuda": "hardware_detection.no_such_module"}
    cpu, cuda = detect(fake.machine(), probes).results
    assert cpu.status == "available"
    assert cuda.status == "error"
    assert "ModuleNotFoundError" in cuda.reason


class TestRealChildren:
    """The CUDA probe with a fake PyTorch that a real child process imports."""

    def test_two_gpus_compute(self, fake_torch: Callable[[str], Machine]) -> None:
        result = probe("cuda", fake_torch(""))
        assert result.status == "available", result.reason
        first, second = result.devices
        assert (first.name, first.memory_total_mb, first.memory_free_mb) == (
            "Fake H100",
            81920.0,
            80896.0,
        )
        assert first.dtypes == second.dtypes == ("fp32", "bf16", "fp16")
        assert "int8" in first.facts["dtypes_failed"]
        assert first.facts["compute_capability"] == "9.0"
        assert second.facts["uuid"] == "GPU-uuid-1"
        assert result.facts["cuda_runtime"] == "13.0"

    def test_an_intel_gpu_computes(self, fake_torch: Callable[[str], Machine]) -> None:
        result = probe("xpu", fake_torch(""))
        assert result.status == "available", result.reason
        (device,) = result.devices
        assert (device.name, device.memory_total_mb) == ("Intel Arc", 16384.0)
        # An older driver does not tell; that is no reason to doubt the rest.
        assert device.memory_free_mb is None
        assert device.facts["driver"] == "1.6"
        assert result.facts["torch_accelerator"] == "xpu"

    @pytest.mark.parametrize(
        ("fault", "status", "word"),
        [
            ("raises", "error", "libcudart"),
            ("segfault", "error", "SIGSEGV"),
            ("hang", "error", "gave no answer"),
            ("exit", "error", "status 7"),
            ("none", "unusable", "no CUDA device"),
            ("wrong", "unusable", "wrong result"),
        ],
    )
    def test_faults(
        self, fake_torch: Callable[[str], Machine], fault: str, status: str, word: str
    ) -> None:
        result = probe("cuda", fake_torch(fault))
        assert result.status == status
        assert word in result.reason
        assert "\n" not in result.reason

    def test_an_interruption_kills_the_children(
        self, fake_torch: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(machine: Machine) -> ProbeResult:
            raise KeyboardInterrupt

        module = types.SimpleNamespace(probe=interrupt)
        monkeypatch.setitem(sys.modules, "interrupting_probe", module)  # type: ignore[arg-type]
        machine = fake_torch("hang")
        # Whoever waits for this deadline meets the test's own first.
        machine.proof_deadline_s = 10_000.0
        with pytest.raises(KeyboardInterrupt):
            detect(machine, {"cpu": "interrupting_probe", "cuda": PROBES["cuda"]})

    def test_a_broken_second_gpu(self, fake_torch: Callable[[str], Machine]) -> None:
        result = probe("cuda", fake_torch("second broken"))
        assert result.status == "available"
        assert [bool(device.dtypes) for device in result.devices] == [True, False]
        assert result.devices[1].problem == "RuntimeError: CUDA error: ECC"
