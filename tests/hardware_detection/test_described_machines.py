"""Machines that are not here: exported, written by hand, and never taken for detected ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware_detection as hd
from hardware_detection import described
from hardware_detection.errors import HardwareDescriptionError
from hardware_detection.report import automatic_hardware
from hardware_detection.requirements import parse, unmet
from hardware_detection.testing import fake_report, use_report

EIGHT = {
    "rp_machine": 1,
    "name": "eight small GPUs",
    "memory_total_mb": 262144,
    "devices": {"cuda": [{"name": "RTX 4090", "memory_total_mb": 24576, "count": 8}]},
}


def written(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_machine_of_eight_gpus_written_by_hand(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", EIGHT)
    with hd.use_described_hardware(path) as report:
        assert hd.detect_available_hardware() == report
        assert hd.detect_hardware_with_comprehensive_checks() == report
        detector = hd.HardwareDetector()
    cuda = report["details"]["cuda"]
    assert cuda["device_count"] == 8
    assert [row["index"] for row in cuda["devices"]] == list(range(8))
    assert {row["memory_free_mb"] for row in cuda["devices"]} == {24576.0}
    assert report["hardware"]["cpu"] is True
    assert report["system"]["memory_total_mb"] == 262144.0
    assert report["system"]["hostname"] == "eight small GPUs"
    assert detector.get_torch_device() == "cuda:0"


def test_nothing_of_it_looks_detected(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", EIGHT)
    report = described.load(path)
    assert report["described_by"] == str(path)
    assert report["from_cache"] is False
    for details in report["details"].values():
        assert str(path) in details["reason"]
    assert "described by" in "\n".join(summary(report))
    with hd.use_described_hardware(path):
        pass
    assert not hd.default_cache_path().exists()


def summary(report: dict[str, Any]) -> list[str]:
    from hardware_detection.summary import summary_lines

    return summary_lines(report)


def test_what_is_exported_is_read_back(tmp_path: Path) -> None:
    gpus = [
        {"name": "A", "memory_total_mb": 40960.0, "memory_free_mb": 1000.0, "uuid": "GPU-1"},
        {"name": "B", "memory_total_mb": 81920.0, "compute_capability": "9.0"},
    ]
    original = fake_report(cuda=gpus, mps=True, cpu={"usable_cores": 2, "logical_cores": 8})
    path = tmp_path / "m.json"
    described.export(original, path)
    report = described.load(path)
    assert report["hardware"] == original["hardware"]
    assert report["best_available"] == original["best_available"]
    assert report["system"]["cpu_count"] == 2
    for name in ("cuda", "mps", "cpu"):
        for row, before in zip(
            report["details"][name]["devices"], original["details"][name]["devices"], strict=True
        ):
            assert {key: row[key] for key in before} == before
    described.export(report, tmp_path / "again.json")
    again, first = (json.loads((tmp_path / name).read_text()) for name in ("again.json", "m.json"))
    assert {**again, "exported_at": 0} == {**first, "exported_at": 0}


def test_a_real_machine_survives_the_way(empty_machine: Any, tmp_path: Path) -> None:
    original = hd.detect_available_hardware()
    described.export(original, tmp_path / "m.json")
    report = described.load(tmp_path / "m.json")
    assert report["hardware"] == original["hardware"]
    assert report["system"]["memory_total_mb"] == original["system"]["memory_total_mb"]
    assert set(report) == set(original)


def test_only_what_computed_is_exported() -> None:
    report = fake_report(errors={"cuda": "broken"})
    assert set(described.describe(report)["devices"]) == {"cpu"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ("{torn", "JSON"),
        ({}, "rp_machine"),
        ({"rp_machine": 2, "devices": {}}, "rp_machine"),
        ({"rp_machine": 1}, "devices"),
        ({"rp_machine": 1, "devices": []}, "devices"),
        ({"rp_machine": 1, "devices": {"gpu": []}}, "unknown backend 'gpu'"),
        ({"rp_machine": 1, "devices": {}, "memroy": 1}, "unknown key 'memroy'"),
        ({"rp_machine": 1, "devices": {"cuda": {}}}, "must be a list"),
        ({"rp_machine": 1, "devices": {"cuda": [3]}}, "must be an object"),
        ({"rp_machine": 1, "devices": {"cuda": [{}]}}, "needs memory_total_mb"),
        ({"rp_machine": 1, "devices": {"cuda": [{"memory_total_mb": "24 GB"}]}}, "number of MiB"),
        ({"rp_machine": 1, "devices": {"cuda": [{"memory_total_mb": -1}]}}, "no size"),
        ({"rp_machine": 1, "devices": {"cuda": [{"memory_total_mb": 10**400}]}}, "no size"),
        ({"rp_machine": 1, "devices": {"cuda": [{"memory_total_mb": True}]}}, "number of MiB"),
        ({"rp_machine": 1, "devices": {"mps": [{"count": 0}]}}, "count"),
        ({"rp_machine": 1, "devices": {"mps": [{"count": 10**9}]}}, "count"),
        ({"rp_machine": 1, "devices": {"mps": [{"count": 1024}, {}]}}, "more than 1024"),
        ({"rp_machine": 1, "devices": {"mps": [{"dtypes": []}]}}, "dtypes"),
        ({"rp_machine": 1, "devices": {"mps": [{"dtypes": "fp16"}]}}, "dtypes"),
        ({"rp_machine": 1, "devices": {"mps": [{"name": 3}]}}, "name must be a text"),
        ({"rp_machine": 1, "devices": {"cpu": [{"usable_cores": "8"}]}}, "usable_cores of cpu"),
        ({"rp_machine": 1, "devices": {"webgpu": [{"adapter": "gpu"}]}}, "adapter of webgpu"),
        (
            {"rp_machine": 1, "devices": {}, "memory_total_mb": 1, "memory_available_mb": 2},
            "more than",
        ),
        (
            {"rp_machine": 1, "devices": {"mps": [{"memory_total_mb": 1, "memory_free_mb": 2}]}},
            "more memory_free_mb",
        ),
        ("x" * (1 << 21), "larger"),
    ],
    ids=range(27),
)
def test_what_describes_no_machine_is_refused(tmp_path: Path, data: Any, word: str) -> None:
    path = written(tmp_path / "m.json", data)
    with pytest.raises(HardwareDescriptionError, match=word) as caught:
        described.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(HardwareDescriptionError, match="--export"):
        described.load(tmp_path / "none.json")
    with pytest.raises(HardwareDescriptionError), hd.use_described_hardware(tmp_path / "none.json"):
        pass


def test_a_description_inside_another_ends_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", EIGHT)
    with use_report(fake_report(mps=True)):
        with hd.use_described_hardware(path), hd.use_described_hardware(path):
            assert hd.detect_available_hardware()["hardware"]["cuda"] is True
        assert hd.detect_available_hardware()["hardware"]["mps"] is True


def published_schema() -> Any:
    """Return the schema of reports, or None where jsonschema is not installed."""
    try:
        import jsonschema
    except ImportError:
        return None
    path = Path(__file__).parents[2] / "docs" / "schemas" / "detection.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


SCHEMA = published_schema()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SIZE = st.floats(0, 1e5) | JSON
DEVICE = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text() | JSON,
        "memory_total_mb": SIZE,
        "memory_free_mb": SIZE,
        "dtypes": st.just(["fp16"]) | JSON,
        "count": st.integers(1, 3) | JSON,
        "adapter": st.sampled_from(["hardware", "software"]) | JSON,
        "usable_cores": st.integers(1, 8) | JSON,
        "mig": JSON,
        "uuid": JSON,
        "status": JSON,
        "dtypes_failed": JSON,
    },
)


@given(st.dictionaries(st.sampled_from(hd.HARDWARE_NAMES), st.lists(DEVICE, max_size=2) | JSON))
def test_any_content_gives_a_report_or_one_sentence(devices: dict[str, Any]) -> None:
    try:
        report = described.report_of({"rp_machine": 1, "devices": devices}, "m.json")
    except ValueError:
        return
    json.dumps(report, allow_nan=False)
    assert report["hardware"]["cpu"] is True
    assert summary(report)
    assert automatic_hardware(report)["cpu"] is True
    assert unmet(parse("cores>=1000000,vram>=1TiB,memory>=1000TiB"), report)
    if SCHEMA is not None:
        SCHEMA.validate(report)
