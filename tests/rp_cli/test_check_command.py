"""`rp check`: what works here, and what is recorded of it."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.requirements import Requirement

from hardware_detection.testing import fake_report
from model_family_classifier.data import data_dir
from rp_cli.checking import checks
from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store


@pytest.mark.parametrize("name", ["check", "check-integration"])
def test_check_only_looks_at_files(rp, name):
    done = rp(name, "--check-only")
    assert done.code == 0
    assert "ok      resource_pool: present" in done.out
    assert "templates hf_embedding_template.py.j2" in done.out
    assert done.out.splitlines()[-1].startswith("All required files are there")
    assert rp(name, "--test", "files").out == done.out


@pytest.mark.parametrize("folder", checks.DATA)
def test_each_file_of_rps_own_is_looked_for(folder):
    assert sorted(checks.DATA[folder]) == sorted(file.name for file in data_dir(folder).iterdir())


def test_each_required_package_is_looked_for():
    needed = {Requirement(line) for line in metadata.requires("rp-toolchain") or ()}
    names = {one.name for one in needed if one.marker is None}
    imported = {"pillow": "PIL", "pyyaml": "yaml"}
    assert {imported.get(name, name) for name in names} == set(checks.REQUIRED)


def test_the_whole_check_passes_and_prints_the_guides_block(rp_process, monkeypatch):
    # Real browsers have tests of their own, and take seconds.
    monkeypatch.setenv("RP_BROWSER", "/nowhere/chromium")
    done = rp_process("check", "--test", "all", "--debug")
    assert done.code == 0, done.out + done.err
    assert "ok      run the generated test: passed" in done.out
    assert "Loading weights" not in done.err  # there is no terminal to draw a bar on
    assert "tiny weights, float32 on cpu, loaded once" in done.out
    assert "Model: bert-base-uncased\n  Family: embedding" in done.out
    (record,) = Store().last("check", 1)
    assert record["passed"]
    assert {line["status"] for line in record["lines"]} <= {"ok", "missing"}
    assert not record["interrupted"]
    assert done.out.splitlines()[-1] == checks.verdict(record["lines"])


def test_without_test_all_no_model_is_shown(rp, monkeypatch):
    monkeypatch.setattr(checks, "CHECKS", {"files": checks.check_files})
    assert "Model:" not in rp("check").out
    assert "Model: bert-base-uncased" in rp("check", "--test", "all").out


@pytest.mark.parametrize(
    ("lines", "verdict"),
    [
        ([("pool", "ok")], "All required parts work."),
        ([("package openvino", "missing"), ("openvino", "missing"), ("hardware cuda", "missing")],
         "All required parts work; optional and missing: openvino, cuda."),
        ([("pool", "failed"), ("web", "missing")], "1 check failed: pool."),
        ([("pool", "failed"), ("run the test", "failed")], "2 checks failed: pool, run the test."),
    ],
)  # fmt: skip
def test_the_last_line_is_a_verdict(lines, verdict):
    assert checks.verdict([{"name": name, "status": status} for name, status in lines]) == verdict


def test_browsers_that_were_not_asked_are_not_called_missing(monkeypatch):
    """One run said "missing hardware webgpu" and, after it had asked, "ok webgpu"."""
    report = fake_report()
    report["details"]["webgpu"]["asked"] = False
    name = "hardware_detection.detect_hardware_with_comprehensive_checks"
    monkeypatch.setattr(name, lambda: report)
    named = {line.name for line in checks.check_hardware()}
    assert {"hardware cpu", "hardware webnn"} <= named
    assert "hardware webgpu" not in named


@pytest.mark.parametrize("part", ["hardware", "classification", "web", "openvino"])
def test_one_part_is_checked_alone(rp, part):
    done = rp("check", "--test", part, "--json")
    assert done.code == 0
    assert done.json["checks"] == [part]
    assert done.json["lines"]
    assert done.json["passed"]


def web_report(**facts):
    report = fake_report(webgpu=True)
    report["details"]["webgpu"].update(facts)
    report["hardware"]["webgpu"] = report["details"]["webgpu"]["status"] == "available"
    return report


@pytest.mark.parametrize(
    ("facts", "status", "words"),
    [
        ({"adapter": "hardware"}, "ok", "real adapter"),
        ({"adapter": "software"}, "ok", "software adapter (the CPU, as an emulated GPU)"),
        ({"adapter": "unknown"}, "ok", "does not tell on what"),
        ({"status": "absent", "simulated": True}, "missing", "simulated, not hardware"),
        ({"status": "absent", "simulated": False}, "missing", "absent"),
        ({"status": "unusable", "adapter": None}, "missing", "unusable"),
        ({"status": "error"}, "missing", "error"),
    ],
)
def test_the_web_check_says_what_is_behind_each_interface(monkeypatch, facts, status, words):
    asked = []

    def detect(*, web):
        asked.append(web)
        return web_report(**facts)

    monkeypatch.setattr("hardware_detection.detect_available_hardware", detect)
    lines = {line.name: line for line in checks.CHECKS["web"]()}
    assert asked == [True]
    assert lines["webgpu"].status == status
    assert words in lines["webgpu"].detail.partition(": ")[0]
    assert lines["webnn"].status == "missing"
    assert lines["webnn"].detail.startswith("absent")


def test_the_openvino_check_names_the_devices_and_starts_no_browser(monkeypatch):
    report = fake_report(openvino=True)
    report["details"]["openvino"]["devices"][0]["openvino_device"] = "CPU"
    asked = []

    def detect(*, web):
        asked.append(web)
        return report

    monkeypatch.setattr("hardware_detection.detect_available_hardware", detect)
    (line,) = checks.CHECKS["openvino"]()
    assert asked == [False]
    assert (line.status, line.detail.partition(":")[0]) == ("ok", "computes on CPU (Fake openvino)")
    report["hardware"]["openvino"] = False
    report["details"]["openvino"].update(status="unusable", reason="no driver")
    (line,) = checks.CHECKS["openvino"]()
    assert (line.status, line.detail) == ("missing", "unusable: no driver")


def test_a_failed_construction_fails_the_check(rp, monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("not enough for the twin")

    monkeypatch.setattr("resource_pool.weights.locate_weights", no_memory)
    done = rp("check", "--test", "pool")
    assert done.code == ExitCode.FAILED
    assert "failed  pool: MemoryError: not enough for the twin" in done.out
    assert done.out.splitlines()[-1] == "1 check failed: pool."


@pytest.mark.parametrize(
    ("broken", "code", "advice"),
    [("home", ExitCode.CANNOT_WRITE, "RP_HOME"), ("records", ExitCode.BAD_INPUT, "move it away")],
)
def test_a_record_that_cannot_be_kept_is_said_before_any_check(
    rp, isolated_home, monkeypatch, broken, code, advice
):
    (isolated_home / "records.sqlite3").write_text("this is no database, it is a long text" * 9)
    if broken == "home":
        monkeypatch.setenv("RP_HOME", str(isolated_home / "records.sqlite3"))
    done = rp("check", "--check-only")
    assert done.code == code
    assert advice in done.err
    assert done.out == ""


def test_a_check_that_was_killed_stands_in_the_report_as_interrupted(rp):
    Store().save(checks.new_record(["pool"]))
    out = rp("report").out
    assert "interrupted" in out
    assert "no check ran" in out


def test_a_report_shows_of_a_check_what_is_not_ok_and_the_totals(rp, monkeypatch):
    monkeypatch.setattr(checks, "OPTIONAL", {"no_such_package": "it is not used"})
    count = len(rp("check", "--check-only").out.splitlines()) - 2  # without the verdict
    for form in ([], ["--markdown"]):
        out = rp("report", *form).out
        assert "missing: package no_such_package: optional -> it is not used" in out
        assert f"1 missing, {count} ok" in out
        assert "package torch" not in out


def test_a_missing_required_part_fails_and_an_optional_one_does_not(rp, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(checks, "REQUIRED", (*checks.REQUIRED, "no_such_package"))
        done = rp("check", "--check-only")
    assert done.code == ExitCode.FAILED
    assert "no_such_package: missing -> pip install no_such_package" in done.out
    monkeypatch.setattr(checks, "OPTIONAL", {"no_such_package": "it is not used"})
    done = rp("check", "--check-only")
    assert done.code == 0
    assert "missing package no_such_package: optional -> it is not used" in done.out


def test_an_unknown_part_is_refused(rp):
    done = rp("check", "--test", "everything")
    assert done.code == ExitCode.BAD_INPUT
    assert "--test must be one of all, files, hardware" in done.err


def test_what_runs_nothing_and_what_runs_a_part_exclude_each_other(rp):
    done = rp("check", "--check-only", "--test", "pool")
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert "--check-only runs nothing, --test pool does" in done.err
