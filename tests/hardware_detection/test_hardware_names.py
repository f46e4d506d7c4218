from __future__ import annotations

import importlib.util
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware_detection as hd
from hardware_detection.names import DEFAULT_PRIORITY
from hardware_detection.probes import PROBES


def test_the_constants_are_plain_strings() -> None:
    assert (hd.CPU, hd.CUDA, hd.ROCM, hd.MPS, hd.OPENVINO) == (
        "cpu",
        "cuda",
        "rocm",
        "mps",
        "openvino",
    )
    assert hd.XPU == "xpu"
    assert (hd.WEBNN, hd.WEBGPU, hd.TPU, hd.QUALCOMM) == ("webnn", "webgpu", "tpu", "qualcomm")
    assert all(type(name) is str for name in hd.HARDWARE_NAMES)


def test_every_backend_has_a_public_constant_of_its_name() -> None:
    for name in hd.HARDWARE_NAMES:
        said = getattr(hd, name.upper(), None)
        assert said == name, f"hardware_detection/__init__.py must export {name.upper()}"
        assert name.upper() in hd.__all__, f"{name.upper()} is missing from __all__"


def test_every_backend_has_its_place_in_an_order() -> None:
    browsers = {hd.WEBNN, hd.WEBGPU}
    for name in set(hd.HARDWARE_NAMES) - browsers:
        assert name in DEFAULT_PRIORITY, f"names.py: DEFAULT_PRIORITY lacks {name!r}"
    assert len(set(DEFAULT_PRIORITY)) == len(DEFAULT_PRIORITY)
    assert not browsers & set(DEFAULT_PRIORITY)


def test_every_backend_has_a_probe() -> None:
    for name, module in PROBES.items():
        found = importlib.util.find_spec(module)
        assert found, f"hardware_detection/probes/{name}.py is missing: write it for {name!r}"


@pytest.mark.parametrize(
    ("device", "backend", "torch_name"),
    [
        ("cpu", "cpu", "cpu"),
        ("cuda", "cuda", "cuda"),
        ("cuda:1", "cuda", "cuda:1"),
        (" CUDA:0 ", "cuda", "cuda:0"),
        ("rocm", "rocm", "cuda"),
        ("rocm:1", "rocm", "cuda:1"),
        ("mps", "mps", "mps"),
        ("openvino", "openvino", "cpu"),
        ("webgpu:0", "webgpu", "cpu"),
        ("tpu", "tpu", "xla"),
        ("xla:0", "tpu", "xla:0"),
    ],
)
def test_devices(device: str, backend: str, torch_name: str) -> None:
    assert hd.backend_of(device) == backend
    assert hd.torch_device_name(device) == torch_name


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "cuda:1:2"])
def test_unknown_devices(name: str) -> None:
    with pytest.raises(hd.UnknownHardwareError, match="use one of cpu, cuda, rocm"):
        hd.backend_of(name)


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(hd.UnknownHardwareError, match="did you mean 'cuda'") as caught:
        hd.backend_of("cudda")
    assert caught.value.nearest == "cuda"


def test_gpu_is_no_slip_of_xpu() -> None:
    with pytest.raises(hd.UnknownHardwareError, match="by its kind, such as cuda") as caught:
        hd.backend_of("gpu")
    assert caught.value.nearest is None


def test_the_error_crosses_processes() -> None:
    error = hd.UnknownHardwareError("opencl", hd.HARDWARE_NAMES)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.name) == (str(error), "opencl")


@given(st.text())
def test_a_name_is_known_or_refused(name: str) -> None:
    try:
        backend = hd.backend_of(name)
    except hd.UnknownHardwareError as error:
        backend = None
        refused = error.name
    assert backend in hd.HARDWARE_NAMES if backend else refused == name
