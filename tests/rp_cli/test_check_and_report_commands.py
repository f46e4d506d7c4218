"""`rp check` and `rp report`: what works here, and what the records say."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report
from rp_cli.checking import checks
from rp_cli.errors import ExitCode
from rp_cli.reporting.store import Store
from rp_cli.reporting.summary import (
    check_lines,
    markdown,
    report_line,
    run_notes,
    run_rows,
    title,
)

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


def test_the_whole_check_passes_and_prints_the_guides_block(rp_process, monkeypatch):
    # Real browsers have tests of their own, and take seconds.
    monkeypatch.setenv("RP_BROWSER", "/nowhere/chromium")
    done = rp_process("check", "--test", "all", "--debug")
    assert done.code == 0, done.out + done.err
    assert "ok      run the generated test: passed" in done.out
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


@pytest.mark.parametrize("part", ["hardware", "classification", "web", "openvino"])
def test_one_part_is_checked_alone(rp, part):
    record = rp("check", "--test", part, "--json").json
    assert record["checks"] == [part]
    assert record["lines"]


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
        assert f"{count} ok, 1 missing" in out
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
    assert "--test must be one of all, hardware" in done.err


def test_a_report_of_nothing_says_so(rp):
    assert "Nothing is recorded yet" in rp("report").out
    assert "Nothing is recorded yet" in rp("report", "--markdown").out
    assert rp("report", "--json").json["runs"] == []


def test_a_report_tells_runs_checks_and_errors(rp, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store().save(RUN)
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
    Store().save(RUN)
    assert "test_hf_m.py: setUpClass: OSError: a | b [red]" in rp("report").out


def test_why_tests_skipped_is_told_once_per_reason(rp):
    skip = {"name": "m.T.a", "status": "skipped", "seconds": 0, "detail": "no GPU"}
    file = {**RUN["files"][0], "tests": [skip, skip, {**skip, "detail": "no weights"}]}
    Store().save({**RUN, "files": [file]})
    for form in ([], ["--markdown"]):
        out = rp("report", *form).out
        assert out.count("2 skipped: no GPU") == 1
        assert "1 skipped: no weights" in out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def keyed(*keys: str) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(keys, JSON))


TESTS = st.lists(keyed("name", "status", "detail") | JSON, max_size=2)
FILES = st.fixed_dictionaries(
    {"tests": TESTS | JSON, "pool": keyed("models") | JSON}
) | keyed("path", "status", "seconds", "error")  # fmt: skip
RECORDS = st.fixed_dictionaries(
    {"files": st.lists(FILES, max_size=2) | JSON, "lines": st.lists(keyed("name", "status"))},
    optional={"started_at": JSON, "folder": JSON, "interrupted": JSON},
)


@given(RECORDS, keyed("path", "unreadable", "recommendations", "model_name", "error_type"))
def test_any_json_can_be_reported_and_none_of_it_steers_a_terminal(record, report):
    told = markdown({"runs": [record], "checks": [record], "error_reports": [report]})
    lines = [title("Run", record), *run_notes(record), *check_lines(record), report_line(report)]
    lines += [cell for row in run_rows(record) for cell in row]
    assert all(line.isprintable() for line in (*lines, *told.split("\n")))


def test_a_report_file_of_any_kind_is_survived(rp, tmp_path):
    reports = {"list": "[1]", "deep": "[" * 100_000, "odd": '{"recommendations": 3}',
               "escape": '{"model_name": "\\u001b]0;title\\u0007\\u009b2J", "error_type": {}}',
               "half": '{"model_name": "\\ud800"}'}  # fmt: skip
    for name, text in reports.items():
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "folder.json").mkdir()
    for form in ([], ["--markdown"], ["--json"]):
        done = rp("report", "--reports-dir", tmp_path, "--last", "9", *form)
        assert done.code == 0, done.err
        assert not set("\x1b\x07\x9b") & set(done.out)
    assert {report["model_name"] for report in done.json["error_reports"] if "model_name" in report}


@pytest.mark.parametrize("text", ["[]", "3", "{", "[" * 100_000])
def test_a_row_that_is_no_record_is_named(rp, text):
    Store().save(RUN)
    with contextlib.closing(sqlite3.connect(Store().path)) as connection, connection:
        connection.execute("UPDATE records SET record = ?", (text,))
    done = rp("report")
    assert done.code == ExitCode.BAD_INPUT
    assert "move it away" in done.err


def test_a_record_is_kept_again_in_its_place():
    store = Store()
    number = store.save({**RUN, "files": []})
    other = store.save(RUN)
    assert store.save(RUN, number) == number
    kept = store.last("run", 5)
    assert [record["id"] for record in kept] == [other, number]
    assert kept[1]["files"] == RUN["files"]


def test_markdown_cells_cannot_break_the_table():
    run = {**RUN, "id": 1, "files": [{**RUN["files"][0], "path": "a|b\nc.py"}]}
    text = markdown({"runs": [run], "checks": [], "error_reports": []})
    assert "| a\\|b c.py |" in text


def test_the_newest_come_first_and_last_bounds_them(rp):
    for number in range(4):
        Store().save({**RUN, "started_at": f"2026-01-0{number + 1}"})
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
