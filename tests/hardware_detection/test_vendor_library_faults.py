"""Each probe against a vendor's library that is missing, old, broken, lying, crashing, hanging.

The libraries are packages on PYTHONPATH, imported by the real child processes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from hardware_detection import fingerprint
from hardware_detection.machine import Machine
from hardware_detection.probes import PROBES
from hardware_detection.process import Outcome
from hardware_detection.record import ProbeResult

ENDINGS = {
    "raises": "raise RuntimeError('driver mismatch\\nmore lines')",
    "segfault": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hang": "import threading; threading.Event().wait()",
    "exit": "import os; os._exit(7)",
    "flood": "print('x' * 3_000_000); raise RuntimeError('flooded')",
    "exotic": "raise BaseException('neither Exception nor exit')",
    # An empty module: every name that newer releases have is missing.
    "old": "",
    "nonsense": "def __getattr__(name): return lambda *a, **k: 'nonsense'",
}
WORDS = {
    "segfault": "SIGSEGV",
    "hang": "no answer",
    "exit": "status 7",
    "raises": "driver mismatch",
}


class Here(Machine):
    """This machine, but with these files and these packages, and no vendor's tools."""

    def __init__(
        self,
        files: Mapping[str, str],
        packages: set[str],
        *,
        web: bool,
        deadline_s: float,
        platform: str = "linux",
    ) -> None:
        super().__init__(web=web, proof_deadline_s=deadline_s)
        self.files = files
        self.packages = packages
        self.platform = platform
        self.environ = {"RP_BROWSER": "/nowhere/chromium"}

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.environ.values()

    def read_text(self, path: str) -> str | None:
        return self.files.get(path)

    def package_file(self, package: str, name: str) -> str | None:
        return f"/site/{package}/{name}" if package in self.packages else None

    def has_package(self, package: str) -> bool:
        return package in self.packages

    def package_version(self, distribution: str) -> str | None:
        return "1.0" if distribution in self.packages else None

    def which(self, program: str) -> str | None:
        return None


# backend -> (the package that breaks, what makes the probe try it, files)
VENDORS: dict[str, tuple[str, set[str], dict[str, str]]] = {
    "openvino": ("openvino", {"openvino"}, {}),
    "tpu": ("torch_xla", {"torch_xla"}, {}),
    "qualcomm": ("onnxruntime", {"onnxruntime-qnn"}, {}),
    "xpu": ("torch", {"torch"}, {"/site/torch/version.py": "xpu = '2025'"}),
    "cuda": (
        "torch",
        {"torch"},
        {"/site/torch/version.py": "cuda = '13.0'", "/dev/nvidiactl": ""},
    ),
    "rocm": (
        "torch",
        {"torch"},
        {"/site/torch/version.py": "hip = '7.0'", "/dev/kfd": ""},
    ),
    "mps": ("torch", {"torch"}, {"/site/torch/version.py": ""}),
    "webgpu": ("playwright", {"playwright"}, {}),
    "webnn": ("playwright", {"playwright"}, {}),
}


def test_every_backend_of_a_vendors_library_is_tried_with_broken_ones() -> None:
    for name in set(PROBES) - {"cpu"}:
        assert name in VENDORS, f"add a row for {name!r} to VENDORS: which library may break it"


def test_a_detection_is_done_again_when_a_vendors_library_comes_or_goes() -> None:
    """Torch is known by its build; any other distribution must be in ``_PACKAGES``."""
    for name, (_, distributions, _) in VENDORS.items():
        for distribution in distributions - {"torch"}:
            assert distribution in fingerprint._PACKAGES, (
                f"{distribution}, on which {name!r} depends, is not in _PACKAGES of "
                "fingerprint.py: a cached detection would be believed after it was installed"
            )


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that puts a package with this text where children find it first."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def install(package: str, text: str) -> None:
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").write_text(text)

    return install


def probe(name: str, fault: str = "", **changes: Any) -> ProbeResult:
    _, packages, files = VENDORS[name]
    machine = Here(
        **{
            "files": files,
            "packages": packages,
            "web": True,
            "deadline_s": 0.3 if fault == "hang" else 60.0,
            "platform": "darwin" if name == "mps" else "linux",
            **changes,
        }
    )
    result: ProbeResult = importlib.import_module(PROBES[name]).probe(machine)
    return result


@pytest.mark.parametrize("fault", ENDINGS)
@pytest.mark.parametrize("name", VENDORS)
def test_a_broken_library_is_an_error_in_one_sentence(
    vendor: Callable[[str, str], None], name: str, fault: str
) -> None:
    package, _, _ = VENDORS[name]
    # torch_xla is imported after torch; the real one would take a second each time.
    vendor("torch", "__version__ = '2'\nclass version: cuda = None\n")
    vendor(package, ENDINGS[fault])
    result = probe(name, fault)
    assert result.status in ("error", "unusable")
    assert WORDS.get(fault, "") in result.reason
    assert result.reason.count("\n") == 0
    assert len(result.reason) < 700


@pytest.mark.parametrize("name", VENDORS)
def test_a_missing_library_is_no_error(name: str) -> None:
    result = probe(name, packages=set(), files={})
    assert result.status == "absent"


class TestManagementLibraries:
    """NVML and amdsmi prove nothing; without them the probe says less and stays right."""

    @pytest.mark.parametrize("fault", ENDINGS)
    def test_nvml(self, vendor: Callable[[str, str], None], fault: str) -> None:
        vendor("pynvml", ENDINGS[fault])
        files = {"/dev/nvidiactl": ""}
        result = probe("cuda", fault, packages={"pynvml"}, files=files)
        assert result.status == "unusable"
        assert "torch is not installed" in result.reason
        assert result.devices == ()

    @pytest.mark.parametrize("fault", ENDINGS)
    def test_amdsmi(self, vendor: Callable[[str, str], None], fault: str) -> None:
        vendor("amdsmi", ENDINGS[fault])
        machine = Here(
            {"/dev/kfd": ""}, {"amdsmi"}, web=False, deadline_s=0.3 if fault == "hang" else 60.0
        )
        result = importlib.import_module(PROBES["rocm"]).probe(machine)
        assert result.status == "unusable"
        assert "torch is not installed" in result.reason
        assert result.devices == ()


FAKE_NVML = """
NVML_DEVICE_MIG_ENABLE = 1
GIB = 1 << 30


class Named:
    def __init__(self, **values):
        self.__dict__.update(values)


class NVMLError(Exception):
    pass


def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return b"580.65.06"
def nvmlSystemGetCudaDriverVersion(): return 13000
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetHandleByUUID(uuid): return int(uuid[-1])
def nvmlDeviceGetName(handle): return "NVIDIA H100" if type(handle) is int else "MIG 1g"
def nvmlDeviceGetUUID(handle): return f"GPU-{handle}" if type(handle) is int else f"MIG-{handle}"
def nvmlDeviceGetCudaComputeCapability(handle): return (9, 0)
def nvmlDeviceGetPciInfo(handle): return Named(busId=b"0000:01:00.0")
def nvmlDeviceGetUtilizationRates(handle): return Named(gpu=37)


def nvmlDeviceGetMemoryInfo(handle):
    return Named(total=80 * GIB, free=79 * GIB)


def nvmlDeviceGetMigMode(handle):
    if handle == 0:
        raise NVMLError("not supported")
    return (1, 1)


def nvmlDeviceGetMaxMigDeviceCount(handle): return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle, place):
    if place > 1:
        raise NVMLError("not found")
    return f"mig{place}"
"""


class TestWorkingNvml:
    def test_every_gpu_is_described_before_torch_is_needed(
        self, vendor: Callable[[str, str], None]
    ) -> None:
        vendor("pynvml", FAKE_NVML)
        result = probe("cuda", packages={"pynvml"}, files={"/dev/nvidiactl": ""})
        assert result.status == "unusable"
        assert result.facts == {"driver": "580.65.06", "cuda_of_driver": "13.0"}
        whole, cut = result.devices
        assert (whole.name, whole.memory_total_mb, whole.dtypes) == ("NVIDIA H100", 81920.0, ())
        assert whole.facts == {
            "uuid": "GPU-0",
            "pci_bus_id": "0000:01:00.0",
            "compute_capability": "9.0",
            "tensor_cores": True,
        }
        assert cut.facts["mig"]["enabled"] is True
        assert [row["uuid"] for row in cut.facts["mig"]["instances"]] == ["MIG-mig0", "MIG-mig1"]

    @pytest.mark.parametrize(
        ("taken", "kept"),
        [
            ("nvmlDeviceGetMigMode", "uuid"),
            ("nvmlDeviceGetMemoryInfo", "uuid"),
            ("nvmlDeviceGetCudaComputeCapability", "uuid"),
            ("nvmlSystemGetCudaDriverVersion", "uuid"),
        ],
    )
    def test_an_old_release_says_less(
        self, vendor: Callable[[str, str], None], taken: str, kept: str
    ) -> None:
        vendor("pynvml", f"{FAKE_NVML}\ndel {taken}\n")
        result = probe("cuda", packages={"pynvml"}, files={"/dev/nvidiactl": ""})
        assert [device.facts[kept] for device in result.devices] == ["GPU-0", "GPU-1"]


class TestNvidiaSmi:
    """The tool where nvidia-ml-py is not installed: as a program it can end in every way."""

    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome("timeout", -9, "", "", 10.0),
            Outcome("crashed", -11, "", "", 0.1),
            Outcome("unstartable", None, "", "Exec format error", 0.0),
            Outcome("finished", 9, "NVIDIA-SMI has failed because it couldn't", "", 0.1),
            Outcome("finished", 0, "nonsense, more of it", "", 0.1),
        ],
    )
    def test_a_broken_tool_says_nothing(self, fake: Any, outcome: Outcome) -> None:
        machine = fake.machine(files={"/dev/nvidiactl": ""}, programs={"nvidia-smi": outcome})
        result = importlib.import_module(PROBES["cuda"]).probe(machine)
        assert result.status == "unusable"
        assert "torch is not installed" in result.reason
        assert result.devices == ()
        assert len(machine.started) == 1


FAKE_AMDSMI = """
def amdsmi_init(): pass
def amdsmi_shut_down(): pass
def amdsmi_get_processor_handles(): return ["a"]
def amdsmi_get_gpu_asic_info(gpu):
    return {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"}
def amdsmi_get_gpu_vram_usage(gpu): return {"vram_total": 196592, "vram_used": 592}
def amdsmi_get_gpu_device_uuid(gpu): return "dcff74a1-0000-1000-80ab-bbbbbbbbbbbb"
"""


def test_a_working_amdsmi_names_the_gpus(vendor: Callable[[str, str], None]) -> None:
    vendor("amdsmi", FAKE_AMDSMI)
    machine = Here({"/dev/kfd": ""}, {"amdsmi"}, web=False, deadline_s=60.0)
    result = importlib.import_module(PROBES["rocm"]).probe(machine)
    (device,) = result.devices
    assert (device.name, device.memory_total_mb, device.memory_free_mb) == (
        "AMD Instinct MI300X",
        196592.0,
        196000.0,
    )
    assert device.facts["gcn_arch"] == "gfx942"
    assert result.sources["devices"] == "amdsmi"


def test_what_a_library_does_after_the_answer_does_not_count(
    vendor: Callable[[str, str], None],
) -> None:
    vendor("amdsmi", FAKE_AMDSMI + "\nimport atexit, os; atexit.register(os.abort)\n")
    machine = Here({"/dev/kfd": ""}, {"amdsmi"}, web=False, deadline_s=60.0)
    (device,) = importlib.import_module(PROBES["rocm"]).probe(machine).devices
    assert device.name == "AMD Instinct MI300X"


def test_what_amdsmi_does_not_know_is_unknown(vendor: Callable[[str, str], None]) -> None:
    not_known = (
        "\ndef amdsmi_get_gpu_asic_info(gpu):\n"
        "    return {'market_name': 'N/A', 'target_graphics_version': 'N/A'}\n"
        "def amdsmi_get_gpu_vram_usage(gpu): return {'vram_total': 'N/A', 'vram_used': 5}\n"
    )
    vendor("amdsmi", FAKE_AMDSMI + not_known)
    machine = Here({"/dev/kfd": ""}, {"amdsmi"}, web=False, deadline_s=60.0)
    (device,) = importlib.import_module(PROBES["rocm"]).probe(machine).devices
    assert (device.name, device.memory_total_mb, device.memory_free_mb) == ("unknown", None, None)
    assert "gcn_arch" not in device.facts


def test_rocminfo_is_asked_without_amdsmi(fake: Any) -> None:
    text = (
        "*******\nAgent 1\n*******\n  Name:      gfx90a\n  Marketing Name:  AMD Instinct MI210\n"
        "  Device Type:             GPU\n"
    )
    machine = fake.machine(files={"/dev/kfd": ""}, programs={"rocminfo": fake.finished(text)})
    result = importlib.import_module(PROBES["rocm"]).probe(machine)
    assert [device.name for device in result.devices] == ["AMD Instinct MI210"]
    assert result.sources["devices"] == "rocminfo"


def test_what_a_killed_child_left_in_its_temporary_folder_is_gone(tmp_path: Path) -> None:
    from hardware_detection import machine as module

    told: list[str] = []

    class Watching(Machine):
        def run(self, argv: Any, *, deadline_s: float = 10.0, environ: Any = None) -> Outcome:
            told.append(environ["TMPDIR"])
            code = "import tempfile; tempfile.mkdtemp(); import os; os.abort()"
            return super().run(
                [module.sys.executable, "-c", code], deadline_s=deadline_s, environ=environ
            )

    assert Watching().prove("torch", "cpu").kind == "crashed"
    assert told
    assert not Path(told[0]).exists()


def test_openvino_proves_every_device_that_it_lists() -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra: openvino)")
    result = importlib.import_module(PROBES["openvino"]).probe(Machine())
    assert result.status == "available", result.reason
    names = [device.facts["openvino_device"] for device in result.devices]
    assert names == openvino.Core().available_devices
    (cpu,) = [device for device in result.devices if device.facts["openvino_device"] == "CPU"]
    assert "fp32" in cpu.dtypes
    assert "FP32" in cpu.facts["capabilities"]
