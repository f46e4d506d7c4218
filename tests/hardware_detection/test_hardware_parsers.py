from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection import parsing, requirements
from hardware_detection.errors import RequirementError
from hardware_detection.machine import Machine

X86 = """processor\t: 0
model name\t: AMD EPYC 9654
flags\t\t: fpu vme sse4_2 avx2 avx512_bf16 smep amx_tile lahf_lm fma f16c

processor\t: 1
model name\t: something else
flags\t\t: never
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve sve2 i8mm bf16 crc32\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "name", "flags"),
    [
        (X86, "AMD EPYC 9654", {"sse4_2", "avx2", "avx512_bf16", "amx_tile", "fma", "f16c"}),
        (ARM, None, {"asimd", "sve", "sve2", "i8mm", "bf16"}),
        ("", None, set()),
        ("model name\t:\nflags:", None, set()),
    ],
)
def test_cpuinfo(text: str, name: str | None, flags: set[str]) -> None:
    assert parsing.parse_cpuinfo(text) == (name, flags)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        (
            "MemTotal:       24684124 kB\nMemFree: 1 kB\nMemAvailable:   12582912 kB\n",
            (24105.6, 12288.0),
        ),
        ("MemTotal:       24684124 kB\n", None),
        ("MemTotal: lots\nMemAvailable: some\n", None),
        ("", None),
    ],
)
def test_meminfo(text: str, memory: tuple[float, float] | None) -> None:
    assert parsing.parse_meminfo(text) == memory


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n", "535.129.03"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0", "540.4.0"),
        ("GCC version:  gcc version 12.2.0 (GCC)\n", None),
        ("", None),
    ],
)
def test_nvidia_driver(text: str, version: str | None) -> None:
    assert parsing.parse_nvidia_driver(text) == version


def test_nvidia_smi_rows() -> None:
    text = (
        "0, GPU-aa, NVIDIA H100 80GB HBM3, 81559, 80000, 580.65.06, 9.0, Disabled\n"
        "1, GPU-bb, NVIDIA GB10, [N/A], [Not Supported], 580.65.06, 12.1, [N/A]\n"
    )
    (first, second), driver = parsing.parse_nvidia_smi(text)
    assert driver == "580.65.06"
    assert (first.index, first.name, first.memory_total_mb) == (0, "NVIDIA H100 80GB HBM3", 81559.0)
    assert first.facts == {
        "uuid": "GPU-aa",
        "compute_capability": "9.0",
        "mig": {"enabled": False, "instances": []},
    }
    assert second.facts == {"uuid": "GPU-bb", "compute_capability": "12.1"}
    assert (second.memory_total_mb, second.memory_free_mb) == (None, None)
    assert first.dtypes == second.dtypes == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
        "0, GPU-aa, short\n",
        "index, uuid, name, memory.total, memory.free, driver_version, compute_cap, mig\n",
        "²,a,b,1,1,1,1,1\n",
    ],
)
def test_nvidia_smi_without_rows(text: str) -> None:
    assert parsing.parse_nvidia_smi(text) == ((), None)


def test_nvidia_smi_sizes_that_are_no_sizes() -> None:
    (device,), _ = parsing.parse_nvidia_smi("0, u, n, nan, -5, 1.0, 9.0, [N/A]")
    assert (device.memory_total_mb, device.memory_free_mb) == (None, None)


@pytest.mark.parametrize(
    ("text", "architecture"),
    [
        ("cpu_cores_count 0\nsimd_count 416\ngfx_target_version 90010\n", "gfx90a"),
        ("gfx_target_version 110501\n", "gfx1151"),
        ("gfx_target_version 90402\n", "gfx942"),
        ("cpu_cores_count 16\ngfx_target_version 0\n", None),
        ("", None),
    ],
)
def test_kfd_node(text: str, architecture: str | None) -> None:
    assert parsing.parse_kfd_node(text) == architecture


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (
            "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: str = None",
            {"version": "2.13.0+cpu", "cuda": None, "hip": None, "xpu": None},
        ),
        (
            "__version__='2.4'\ncuda='12.4'\nhip=None",
            {"version": "2.4", "cuda": "12.4", "hip": None, "xpu": None},
        ),
        ("cuda: str\nhip = '6.2'\n", {"version": None, "cuda": None, "hip": "6.2", "xpu": None}),
        (
            "cuda = open('/etc/passwd').read()",
            {"version": None, "cuda": None, "hip": None, "xpu": None},
        ),
        (
            "xpu: Optional[str] = '20250101'",
            {"version": None, "cuda": None, "hip": None, "xpu": "20250101"},
        ),
        ("cuda = (", {"version": None, "cuda": None, "hip": None, "xpu": None}),
        ("cuda = '12'\x00", {"version": None, "cuda": None, "hip": None, "xpu": None}),
    ],
)
def test_torch_version(text: str, build: dict[str, str | None]) -> None:
    assert parsing.parse_torch_version(text) == build


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("0", ("0",)),
        ("1,0", ("1", "0")),
        (" 2 , 3 ", ("2", "3")),
        ("0,-1,1", ("0",)),
        ("", ()),
        ("-1", ()),
        ("GPU-8932f937-d72c", ("GPU-8932f937-d72c",)),
        ("MIG-GPU-8932f937/1/2", ("MIG-GPU-8932f937/1/2",)),
        ("none", ()),
    ],
)
def test_visible_devices(text: str, entries: tuple[str, ...]) -> None:
    assert parsing.parse_visible_devices(text) == entries


@given(st.text())
def test_no_text_makes_a_parser_fail(text: str) -> None:
    parsing.parse_cpuinfo(text)
    parsing.parse_meminfo(text)
    parsing.parse_nvidia_driver(text)
    parsing.parse_nvidia_smi(text)
    parsing.parse_nvidia_smi(f"0,{text},{text},{text},{text},{text},{text},{text}")
    parsing.parse_nvidia_smi_list(f"GPU 0: {text} (UUID: GPU-1)\n  MIG {text} Device 0: (UUID: M)")
    parsing.parse_refused_field(f'Field "{text}" is not a valid field to query.')
    parsing.parse_rocminfo(f"*******\nAgent 1\n*******\n  Device Type: GPU\n  Uuid: {text}")
    list(parsing.parse_distributions([text, f"{text}-1.dist-info"]))
    parsing.whole_number(text)
    parsing.parse_kfd_node(text)
    parsing.parse_torch_version(text)
    parsing.parse_visible_devices(text)


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "9.0", True),
        ("Tesla V100-SXM2-16GB", "7.0", True),
        ("NVIDIA GeForce RTX 2060", "7.5", True),
        ("Tesla T4", "7.5", True),
        ("NVIDIA GeForce GTX 1650", "7.5", False),
        ("NVIDIA T1000 8GB", "7.5", False),
        ("NVIDIA GeForce MX450", "7.5", False),
        ("NVIDIA GeForce GTX 1080 Ti", "6.1", False),
        ("NVIDIA B200", "10.0", True),
        ("unknown", "", None),
    ],
)
def test_tensor_cores(name: str, capability: str, expected: bool | None) -> None:
    assert parsing.has_tensor_cores(name, capability) is expected


ROCMINFO = """\
ROCk module version 6.12.12 is loaded
==========
HSA Agents
==========
*******
Agent 1
*******
  Name:                    AMD EPYC 9124 16-Core Processor
  Uuid:                    CPU-XX
  Marketing Name:          AMD EPYC 9124 16-Core Processor
  Device Type:             CPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: FINE GRAINED
      Size:                    131797696(0x7db12c0) KB
*******
Agent 2
*******
  Name:                    gfx90a
  Uuid:                    GPU-880b91d040da15d8
  Marketing Name:          AMD Instinct MI210
  Device Type:             GPU
  Pool Info:
    Pool 1
      Segment:                 GLOBAL; FLAGS: COARSE GRAINED
      Size:                    67092480(0x3ffc000) KB
    Pool 2
      Segment:                 GROUP
      Size:                    64(0x40) KB
  ISA Info:
    ISA 1
      Name:                    amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-
*******
Agent 3
*******
  Name:                    gfx1102
  Uuid:                    GPU-XX
  Marketing Name:          AMD Radeon RX 7600
  Device Type:             GPU
"""


@pytest.mark.parametrize("padding", ["", "   "])
def test_rocminfo(padding: str) -> None:
    # Older releases pad every line with spaces.
    text = "".join(f"{line}{padding}\n" for line in ROCMINFO.splitlines())
    first, second = parsing.parse_rocminfo(text)
    assert (first.index, first.name, first.memory_total_mb) == (0, "AMD Instinct MI210", 65520.0)
    assert first.facts == {"gcn_arch": "gfx90a", "uuid": "GPU-880b91d040da15d8"}
    assert first.dtypes == ()
    assert (second.index, second.memory_total_mb) == (1, None)
    assert second.facts == {"gcn_arch": "gfx1102"}


LONG = "9" * 5000


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parsing.parse_nvidia_smi, ",".join([LONG, *"abcdefg"])),
        (parsing.parse_nvidia_smi, f"0,uuid,name,{LONG},{LONG},1,2,3"),
        (parsing.parse_kfd_node, f"gfx_target_version {LONG}"),
        (parsing.parse_meminfo, f"MemTotal: {LONG} kB\nMemAvailable: {LONG} kB\n"),
        (parsing.parse_sockets, f"physical id\t: {LONG}\n"),
        (parsing.parse_rocminfo, f"Agent 1\n  Device Type: GPU\nSegment: GLOBAL\nSize: {LONG}("),
        (partial(parsing.has_tensor_cores, "H100"), LONG),
        (parsing.whole_number, LONG),
    ],
)
def test_no_number_is_too_long(parse: Callable[[str], object], text: str) -> None:
    parse(text)


def test_a_long_line_takes_one_pass() -> None:
    # Quadratic, these would take minutes.
    blanks = " " * 500_000
    parsing.parse_rocminfo(f"***\nAgent 1\n***\n  Device Type: G{blanks}x\n")
    parsing.parse_nvidia_driver("NVRM version:" * 50_000)
    with pytest.raises(RequirementError):
        requirements.parse(f"cuda>=1{blanks}!")


@pytest.mark.parametrize("text", ["", "ROCk module is NOT loaded", "*******\nAgent 1\n*******"])
def test_rocminfo_without_a_gpu(text: str) -> None:
    assert parsing.parse_rocminfo(text) == ()


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("torch-2.13.0+cpu.dist-info", [("torch", "2.13.0+cpu")]),
        ("nvidia_ml_py-13.580.82.dist-info", [("nvidia-ml-py", "13.580.82")]),
        ("onnxruntime.qnn-1.2-py3.11.egg-info", [("onnxruntime-qnn", "1.2")]),
        ("Torch_XLA-2.9.dist-info", [("torch-xla", "2.9")]),
        ("torch", []),
        ("develop.egg-info", []),
    ],
)
def test_distributions(folder: str, found: list[tuple[str, str]]) -> None:
    assert list(parsing.parse_distributions([folder])) == found


def test_the_installed_versions_are_those_that_the_packages_tell() -> None:
    from importlib.metadata import version

    machine = Machine()
    for distribution in ("psutil", "typer", "pytest", "Typing.Extensions"):
        assert machine.package_version(distribution) == version(distribution)
    assert machine.package_version("no-such-distribution") is None


def test_sockets() -> None:
    text = "physical id\t: 0\nphysical id\t: 1\nphysical id\t: 0\n"
    assert parsing.parse_sockets(text) == 2
    assert parsing.parse_sockets("Features : neon\n") is None
