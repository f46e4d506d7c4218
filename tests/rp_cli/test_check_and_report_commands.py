"""`rp check` and `rp report`: what works here, and what the records say."""

from __future__ import annotations

import json
import os

import pytest

from rp_cli.checking import checks
from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.reporting.summary import markdown

RUN = {
    "kind": "run",
    "started_at": "2026-01-01T00:00:00+00:00",
    "folder": "/home/me",
    "files": [
        {
            "path": "skills/test_hf_m.py",
            "status": "failed",
            "seconds": 1.25,
            "error": "",
            "tests": [
                {"name": "test_hf_m.TestM.test_a", "status": "passed", "seconds": 0.1,
                 "detail": ""},
                {"name": "setUpClass (test_hf_m.TestM)", "status": "error", "seconds": 0.0,
                 "detail": "Traceback\nOSError: a | b [red]"},
            ],
            "pool": {"models": [{"device": "cpu", "dtype": "float32", "weights": "tiny"}]},
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ["check", "check-integration"])
def test_check_only_looks_at_files(rp, name):
    done = rp(name, "--check-only")
    assert done.code == 0
    assert "ok      resource_pool: present" in done.out
    assert "template hf_embedding_template.py.j2" in done.out


def test_the_whole_check_passes_and_prints_the_guides_block(rp_process):
    done = rp_process("check", "--debug")
    assert done.code == 0, done.out + done.err
    assert "ok      run the generated test: passed" in done.out
    assert "tiny weights, float32 on cpu, loaded once" in done.out
    assert "Model: bert-base-uncased\n  Family: embedding" in done.out
    (record,) = Store().last("check", 1)
    assert record["passed"]
    assert {line["status"] for line in record["lines"]} <= {"ok", "missing"}


@pytest.mark.parametrize("part", ["hardware", "classification", "web", "openvino"])
def test_one_part_is_checked_alone(rp, part):
    record = rp("check", "--test", part, "--json").json
    assert record["checks"] == [part]
    assert record["lines"]


def test_a_failed_construction_fails_the_check(rp, monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("not enough for the twin")

    monkeypatch.setattr("resource_pool.weights.locate_weights", no_memory)
    done = rp("check", "--test", "pool")
    assert done.code == ExitCode.FAILED
    assert "failed  pool: MemoryError: not enough for the twin" in done.out


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
    assert "--test must be one of all, hardware" in done.err


def test_a_report_of_nothing_says_so(rp):
    assert "Nothing is recorded yet" in rp("report").out
    assert "Nothing is recorded yet" in rp("report", "--markdown").out
    assert rp("report", "--json").json["runs"] == []


def test_a_report_tells_runs_checks_and_errors(rp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store().add(RUN)
    rp("check", "--check-only")
    reports = tmp_path / "hardware_reports"
    reports.mkdir()
    (reports / "good.json").write_text(
        json.dumps({"model_name": "m", "hardware_type": "cuda", "error_type": "out_of_memory",
                    "recommendations": ["Use a smaller batch."]})
    )  # fmt: skip
    (reports / "torn.json").write_text("{")
    os.utime(reports / "torn.json", (0, 0))
    for form in ([], ["--markdown"]):
        out = rp("report", "--last", "5", *form).out
        for words in (
            "test_hf_m.py",
            "failed",
            "1/2",
            "cpu float32",
            "tiny",
            "Use a smaller batch.",
        ):
            assert words in out
        assert "not an error report" in out
    summary = rp("report", "--last", "5", "--json").json
    assert [run["id"] for run in summary["runs"]] == [1]
    assert [report["path"] for report in summary["error_reports"]] == [
        "hardware_reports/good.json",
        "hardware_reports/torn.json",
    ]


def test_a_persons_report_names_each_failure_in_one_line(rp):
    Store().add(RUN)
    assert "test_hf_m.py: setUpClass: OSError: a | b [red]" in rp("report").out


def test_markdown_cells_cannot_break_the_table():
    run = {**RUN, "id": 1, "files": [{**RUN["files"][0], "path": "a|b\nc.py"}]}
    text = markdown({"runs": [run], "checks": [], "error_reports": []})
    assert "| a\\|b c.py |" in text


def test_the_newest_come_first_and_last_bounds_them(rp):
    for number in range(4):
        Store().add({**RUN, "started_at": f"2026-01-0{number + 1}"})
    runs = rp("report", "--json", "--last", "2").json["runs"]
    assert [run["started_at"] for run in runs] == ["2026-01-04", "2026-01-03"]


def test_a_record_file_that_is_none_is_named(rp, isolated_home):
    (isolated_home / "records.sqlite3").write_text("this is no database, it is a long text" * 9)
    done = rp("report")
    assert done.code == ExitCode.BAD_INPUT
    assert "records.sqlite3" in done.err
    assert "move it away" in done.err


def test_json_and_markdown_exclude_each_other(rp):
    assert rp("report", "--json", "--markdown").code == ExitCode.BAD_INPUT
