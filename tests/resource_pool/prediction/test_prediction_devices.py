"""Where a prediction fits: described devices, this machine's, and the arithmetic."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report
from resource_pool.errors import PredictionError
from resource_pool.prediction import Device, Fit, Prediction, described_device, devices_of
from resource_pool.prediction.margins import margin

MIB = 2**20
GIB = 2**30
UNITS = {"KiB": 2**10, "MiB": MIB, "GiB": GIB, "TiB": 2**40, "MB": 10**6, "GB": 10**9, "G": 10**9}


def prediction(
    total: int, *, backend: str = "cpu", margin: float = 0.0, fixed: int = 0
) -> Prediction:
    return Prediction(
        model_name="m", model_type="bert", architecture="BertModel", config="the given config",
        dtype="float32", batch=1, seq=8, backend=backend, inputs={}, weights_bytes=total,
        activations_bytes=0, kv_cache_bytes=0, kv_bytes_per_token=None, method="trace",
        margin=margin, fixed_bytes=fixed, notes=(), key="k",
    )  # fmt: skip


# Descriptions ------------------------------------------------------------------------------------


@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,20}", fullmatch=True),
    number=st.integers(1, 10**6),
    unit=st.sampled_from(list(UNITS)),
)
def test_a_description_is_read_back(name: str, number: int, unit: str) -> None:
    device = described_device(f"{name}:{number}{unit}")
    assert device.label == name
    assert device.free_bytes == number * UNITS[unit]


@given(st.text(max_size=40))
def test_any_text_is_a_device_with_memory_or_a_sentence(text: str) -> None:
    with contextlib.suppress(PredictionError):
        assert (described_device(text).free_bytes or 0) > 0


@pytest.mark.parametrize(
    "text",
    ["", "h100", "h100:", ":80GiB", "h100:80", "h100:-1GiB", "h100:0GiB", "h100:nanGiB",
     "h100:1e3GiB", "h100:80GiB:2", "$(x):1GiB", "h100:٣GiB", "h100:80GiB\n; rm"],
)  # fmt: skip
def test_what_describes_no_device(text: str) -> None:
    with pytest.raises(PredictionError, match="describes no device"):
        described_device(text)


def test_a_backends_name_is_that_backend_and_any_other_counts_as_cuda() -> None:
    assert described_device("cpu:16GiB").backend == "cpu"
    assert described_device("MPS:24GB").backend == "mps"
    assert described_device("a10 pcie:1.5GiB") == Device("a10 pcie", "cuda", 3 * GIB // 2)


# This machine ------------------------------------------------------------------------------------


def test_devices_of_a_report_are_those_that_torch_computes_on() -> None:
    report = fake_report(
        cuda=[{"name": "Big", "memory_total_mb": 100.0, "memory_free_mb": 60.0},
              {"name": "Broken", "dtypes": ()}],
        openvino=True, memory_available_mb=50.0,
    )  # fmt: skip
    assert devices_of(report) == [
        Device("cuda:0 (Big)", "cuda", 60 * MIB),
        Device("cpu (Fake CPU)", "cpu", 50 * MIB),
    ]


def test_free_memory_may_be_unknown() -> None:
    (mps, _) = devices_of(fake_report(mps=True))
    fit = Fit(mps, prediction(GIB))
    assert fit.fits is None
    assert str(fit) == "unknown: needs 1.0 GiB (1.0 GiB + 0%), and its free memory is not known"


# Arithmetic --------------------------------------------------------------------------------------


@given(total=st.integers(0, 2**45), free=st.integers(0, 2**45), fixed=st.integers(0, 2**30))
def test_it_fits_where_the_peak_its_margin_and_the_backends_own_are_free(
    total: int, free: int, fixed: int
) -> None:
    needed = prediction(total, margin=0.25, fixed=fixed)
    assert needed.needed_bytes == math.ceil(total * 1.25) + fixed
    assert Fit(Device("d", "cpu", free), needed).fits is (needed.needed_bytes <= free)


def test_the_arithmetic_is_said() -> None:
    needed = prediction(8 * GIB, backend="cuda", margin=0.10, fixed=512 * MIB)
    assert str(Fit(Device("d", "cuda", round(7.8 * GIB)), needed)) == (
        "does not fit: needs 9.3 GiB (8.0 GiB + 10% + 512.0 MiB of cuda's own), 7.8 GiB free"
    )
    assert str(Fit(Device("d", "cuda", 10 * GIB), needed)).startswith("fits: needs 9.3 GiB")
    unknown = dataclasses.replace(needed, config="defaults of LlamaConfig, not the real one")
    for free, verdict in ((10, "would fit"), (8, "would not fit")):
        said = str(Fit(Device("d", "cuda", free * GIB), unknown))
        assert said.startswith(f"{verdict} with these defaults: needs 9.3 GiB")


def test_a_fit_is_json() -> None:
    fit = Fit(Device("d", "cpu", 10), prediction(11))
    assert fit.to_dict() == {
        "device": "d", "backend": "cpu", "fits": False, "needed_bytes": 11, "free_bytes": 10,
        "margin": 0.0, "fixed_bytes": 0, "verdict": str(fit),
    }  # fmt: skip


# Margins -----------------------------------------------------------------------------------------


@given(st.lists(st.floats(-0.5, 0.5), min_size=10, max_size=60))
def test_a_fitted_margin_covers_nearly_all_recorded_errors(errors: list[float]) -> None:
    fitted = margin("trace", "cpu", errors).fraction
    assert sum(error <= fitted for error in errors) >= 0.95 * len(errors)
    assert fitted >= 0.01


def test_few_errors_say_nothing() -> None:
    assert margin("trace", "cpu", [0.4] * 9) == margin("trace", "cpu")


def test_an_unknown_backend_counts_as_cuda() -> None:
    assert margin("trace", "xpu") == margin("trace", "cuda")
    assert margin("trace", "cuda").fixed_bytes > 0
