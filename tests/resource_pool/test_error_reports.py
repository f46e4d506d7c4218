"""Error reports: fields, the kind of failure, advice, and files that cannot be misled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_schemas import assert_fits

from hardware_detection.testing import fake_report
from resource_pool import InsufficientMemoryError, ResourcePool, saved_error_report
from resource_pool.reports import error_type, recommendations, save
from resource_pool.testing import FakeMachine

OOM = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB "
    "of which 512.00 MiB is free."
)


@pytest.fixture
def pool() -> ResourcePool:
    gpu = {"name": "GPU", "memory_total_mb": 8000}
    return ResourcePool(hardware=lambda: fake_report(cuda=[gpu]))


def test_a_report_has_every_field(pool):
    report = pool.generate_error_report("bert-base-uncased", "cuda", OOM, "Traceback ...")
    assert report.keys() == {
        "schema_version", "timestamp", "model_name", "model_family", "subfamily",
        "hardware_type", "error_type", "error_message", "stack_trace", "operation", "memory",
        "environment", "recommendations", "alternatives",
    }  # fmt: skip
    assert report["model_family"] == "embedding"
    assert report["error_type"] == "out_of_memory"
    assert report["memory"] == {"needed_mb": 2560.0, "free_mb": 512.0, "held_by": []}
    assert set(report["environment"]["versions"]) == {"torch", "transformers"}
    assert_fits(json.loads(json.dumps(report)), "error-report")


def test_alternatives_are_the_hardware_that_is_here_first(pool):
    alternatives = pool.generate_error_report("gpt2", "cuda:0", OOM)["alternatives"]
    assert alternatives[0]["hardware"] == "cpu"
    assert alternatives[0]["available"]
    assert "cuda" not in {item["hardware"] for item in alternatives}
    assert not any(item["available"] for item in alternatives[1:])


def test_an_unknown_model_is_said_to_be_unknown(pool):
    report = pool.generate_error_report("zzz-nobody-knows", "cpu", "boom")
    assert report["model_family"] == "unknown"
    assert report["error_type"] == "unknown"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (OOM, "out_of_memory"),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "out_of_memory"),
        ("MPS backend out of memory", "out_of_memory"),
        ("cuda is forced and cannot be used: it needs 50.0 MiB, 10.0 MiB free", "out_of_memory"),
        ("No module named 'timm'", "missing_package"),
        ("Torch not compiled with CUDA enabled", "device_absent"),
        ("CUDA error: invalid device ordinal", "device_absent"),
        ("The NVIDIA driver on your system is too old", "driver"),
        ("CUDA driver version is insufficient for CUDA runtime version", "driver"),
        ('"addmm_impl_cpu_" not implemented for \'Half\'', "dtype"),
        ("expected scalar type Half but found Float", "dtype"),
        ("mat1 and mat2 must have the same dtype, but got Float and Half", "dtype"),
        (
            "The operator 'aten::_linalg_svd' is not currently implemented for the MPS device",
            "unsupported_operation",
        ),
        ("Could not run 'aten::nms' with arguments from ...", "unsupported_operation"),
        ("no kernel image is available for execution on the device", "driver"),
        ("libcudart.so.12: cannot open shared object file: No such file or directory", "driver"),
        ("HIP error: invalid device function", "driver"),
        ("The operator 'x' is not implemented for the 'mps' device", "unsupported_operation"),
        ("deadline exceeded", "timeout"),
        ("something else", "unknown"),
    ],
)  # fmt: skip
def test_the_kind_of_failure(message, kind):
    assert error_type(message) == kind


def test_an_exception_is_taken_as_it_is(pool):
    try:
        raise MemoryError("no room")
    except MemoryError as error:
        report = pool.generate_error_report("gpt2", "cpu", error)
        given = pool.generate_error_report("gpt2", "cpu", error, "a trace of my own")
    assert report["error_message"] == "MemoryError: no room"
    assert report["error_type"] == "out_of_memory"
    assert report["stack_trace"].endswith("MemoryError: no room\n")
    assert given["stack_trace"] == "a trace of my own"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Expected all tensors to be on the same device, but found at least two", "inputs.to"),
        ("CUDA error: no kernel image is available for execution", "get_arch_list"),
    ],
)
def test_some_messages_have_advice_of_their_own(pool, message, advice):
    assert advice in pool.generate_error_report("gpt2", "cuda", message)["recommendations"][0]


def test_the_trace_decides_where_the_message_is_silent():
    assert error_type("", "...\nMemoryError") == "out_of_memory"


def test_the_operation_is_named(pool):
    message = "Could not run 'aten::nms' with arguments from the 'CUDA' backend"
    assert pool.generate_error_report("m", "cuda", message)["operation"] == "aten::nms"


def test_advice_differs_by_family_and_platform():
    oom = {
        family: recommendations("out_of_memory", family, "cuda")[0]
        for family in ("vision", "audio")
    }
    assert oom["vision"] != oom["audio"]
    assert "PYTORCH_ENABLE_MPS_FALLBACK" in recommendations("unsupported_operation", "", "mps")[0]


def test_two_saves_in_one_second_are_two_files(pool, tmp_path):
    report = pool.generate_error_report("m", "cuda", OOM)
    paths = {pool.save_error_report(report, tmp_path / "reports") for _ in range(20)}
    assert len(paths) == 20
    assert all(json.loads(Path(path).read_text()) == report for path in paths)


@given(st.text())
def test_a_model_name_cannot_leave_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("reports")
    assert save({"model_name": name}, folder).resolve().parent == folder.resolve()


def test_a_folder_that_cannot_be_made_is_an_error_and_leaves_nothing(pool, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        pool.save_error_report({"model_name": "m"}, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_an_error_and_leaves_no_half_written_report(pool, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        pool.save_error_report({"model_name": "m"}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_report_does_not_take_the_place_of_the_error(pool, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ZeroDivisionError),
        saved_error_report(pool, "m", {"device": "cpu"}, tmp_path / "file"),
    ):
        raise ZeroDivisionError


def test_what_goes_wrong_inside_is_reported_with_its_hardware(pool, tmp_path):
    with (
        pytest.raises(RuntimeError),
        saved_error_report(pool, "gpt2", {"priority_list": ["cpu"]}, tmp_path),
    ):
        raise RuntimeError("expected scalar type Half but found Float")
    (path,) = tmp_path.iterdir()
    report = json.loads(path.read_text())
    assert (report["hardware_type"], report["error_type"]) == ("cpu", "dtype")


def test_a_report_says_what_the_memory_is_held_by():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    for name, mib, device in (("a", 10, "cuda:0"), ("b", 30, "cuda:0"), ("c", 20, "cuda:1")):
        pool.get_model("vision", name, machine.loader(mib), {"device": device})
    report = pool.generate_error_report("gpt2", "cuda:0", OOM)
    assert report["memory"]["held_by"] == [
        {"key": "vision:b:cuda:0:float32", "mb": 30.0},
        {"key": "vision:a:cuda:0:float32", "mb": 10.0},
    ]
    everywhere = pool.generate_error_report("gpt2", "cuda", OOM)["memory"]["held_by"]
    assert {row["mb"] for row in everywhere} == {10.0, 20.0, 30.0}


def test_a_report_names_the_subfamily_and_each_familys_own_advice(pool):
    report = pool.generate_error_report("openai/whisper-tiny", "cuda", OOM)
    assert (report["model_family"], report["subfamily"]) == ("audio", "speech_recognition")
    first = {
        pool.generate_error_report(name, "cuda", OOM)["recommendations"][0]
        for name in (
            "bert-base-uncased",
            "gpt2",
            "google/vit-base-patch16-224",
            "openai/whisper-tiny",
            "llava-hf/llava-1.5-7b-hf",
        )
    }
    assert len(first) == 5


@pytest.mark.parametrize("hardware", ["mps", "cuda", "openvino"])
def test_an_unsupported_operation_has_the_platforms_own_alternative(pool, hardware):
    message = "The operator 'aten::_linalg_svd' is not currently implemented for the MPS device"
    report = pool.generate_error_report("bert-base-uncased", hardware, message)
    assert report["error_type"] == "unsupported_operation"
    assert report["operation"] == "aten::_linalg_svd"
    others = {
        pool.generate_error_report("bert-base-uncased", other, message)["recommendations"][0]
        for other in ("mps", "cuda", "openvino")
        if other != hardware
    }
    assert report["recommendations"][0] not in others


def test_an_alternative_says_why_it_is_not_here(pool):
    rows = pool.generate_error_report("gpt2", "mps", "boom")["alternatives"]
    assert [row["hardware"] for row in rows if row["available"]] == ["cuda", "cpu"]
    assert all(row["reason"] for row in rows if not row["available"])


def test_the_pools_own_error_is_understood_by_its_own_report():
    """The arithmetic of an InsufficientMemoryError reaches the report as numbers."""
    machine = FakeMachine({"cpu": 50})
    pool = machine.pool()
    with pytest.raises(InsufficientMemoryError) as failure:
        pool.get_model("vision", "m", machine.loader(70), needs=70 * 2**20)
    report = pool.generate_error_report("m", "cpu", str(failure.value))
    assert report["error_type"] == "out_of_memory"
    assert (report["memory"]["needed_mb"], report["memory"]["free_mb"]) == (70.0, 50.0)
