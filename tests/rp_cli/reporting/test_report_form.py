"""The published form of a report, whatever stands in the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_schemas import assert_fits

from rp_cli.reporting import told
from rp_cli.reporting.compare import compare
from rp_cli.reporting.errors import report_line, tidy_error_report
from rp_cli.reporting.events import pool_events
from rp_cli.reporting.markdown import markdown
from rp_cli.reporting.page import page
from rp_cli.reporting.runs import tidy_check, tidy_run
from rp_cli.reporting.store import Store
from rp_cli.reporting.summary import summarise

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "docs" / "schemas" / "report.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def keyed(known: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects in which each key is missing, right, or anything."""
    return st.fixed_dictionaries({}, optional={k: v | JSON for k, v in known.items()})


def keys(*names: str, **known: Any) -> dict[str, Any]:
    return dict.fromkeys(names, JSON) | known


SIZES = st.floats(0, 1e15) | st.integers(0, 2**60)
TIMES = st.sampled_from(
    ["2026-03-04T10:00:00+00:00", "2026-03-04T09:00:00", "0001-01-01T00:00", "9999-12-31T23:59:59"]
)
KEYS = st.just("family:m:cpu:float32")
STATUSES = st.sampled_from(["passed", "failed", "error", "skipped", "crashed", "x\x1b[2J"])
NAMES = st.text(max_size=9) | st.just("test_cuda_x")
PLACED = keyed(keys("note", key=KEYS, device=st.sampled_from(["cpu", "cuda:0"]),
                    dtype=NAMES, weights=NAMES, memory_usage=SIZES, predicted=SIZES))  # fmt: skip
EVENTS = keyed(keys("reason", what=st.sampled_from(["place", "evict"]), key=KEYS,
                    timestamp=TIMES, numbers=keyed({"memory_usage": SIZES})))  # fmt: skip
TESTS = keyed(keys("seconds", "exception", name=NAMES, status=STATUSES, detail=st.text()))
FILES = keyed(
    keys(
        "error", "output", "weights", "ran_in", path=NAMES, model=NAMES, status=STATUSES,
        seconds=SIZES, tests=st.lists(TESTS, max_size=2), resources=keyed(keys("peak_mb")),
        asked=NAMES, pool=keyed(keys(models=st.lists(PLACED, max_size=2),
                                     events=st.lists(EVENTS, max_size=3))),
    )
)  # fmt: skip
RUNS = keyed(
    keys("folder", "host", "notes", "not_run", "interrupted", started_at=TIMES, seconds=SIZES,
         files=st.lists(FILES, max_size=2), id=st.integers(0, 9))
)  # fmt: skip
CHECKS = keyed(keys("started_at", lines=st.lists(keyed(keys("name", "status", "detail")))))
REPORTS = keyed(keys("unreadable", "recommendations", "stack_trace", "alternatives", "memory",
                     model_name=NAMES, timestamp=TIMES))  # fmt: skip


class Records(Store):
    """Records that lie in no file."""

    def __init__(self, **records: list[dict[str, Any]]) -> None:
        self.records = records

    def last(self, kind: str, count: int) -> list[dict[str, Any]]:
        return self.records[kind][:count]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_what_is_printed_has_the_published_form(
    rp, store, make, reports_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    VALIDATOR.validate(rp("report", "--json").json)
    load = make.event("place", "family:m:cpu:float32", 1.0)
    file = make.file("m", status="failed", tests=[make.test("t", "failed", "E: no")])
    file["pool"]["events"] = [load]
    store.save(make.run([file, make.file("n", status="crashed", error="killed", pool={})]))
    store.save(make.check())
    reports_dir(good=make.error_report("m"), torn="{")
    make.measure("m", 10.0, 11.0)
    report = rp("report", "--last", "9", "--json").json
    VALIDATOR.validate(report)
    # Every kind of thing was there to be checked.
    assert all(report[part] for part in ("runs", "checks", "memory", "pool_events", "failures"))
    listed = rp("report", "errors", "--json").json
    assert_fits(listed, "error-reports")
    # It is what the report says of each, with the version.
    without = [{k: v for k, v in one.items() if k != "schema_version"} for one in listed]
    assert sorted(without, key=str) == sorted(report["error_reports"], key=str)


@settings(max_examples=30)
@given(st.lists(RUNS, min_size=1, max_size=2), st.lists(CHECKS, max_size=1), REPORTS)
def test_any_json_becomes_a_report_of_that_form(tmp_path_factory, runs, checks, found):
    runs[0]["error_reports"] = [found]
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    report = summarise(Records(run=runs, check=checks), nowhere, 5)
    VALIDATOR.validate(json.loads(json.dumps(report, allow_nan=False)))
    assert all(line.isprintable() for line in markdown(report).split("\n"))
    text = page(report)
    assert "\x1b" not in text
    assert text.count("<script>") == 1


@given(RUNS, CHECKS, REPORTS)
def test_nothing_of_a_record_steers_a_terminal(recorded, checked, reported):
    run, check = tidy_run(recorded), tidy_check(checked)
    lines = [told.title("Run", run), told.title("Check", check), *told.run_notes(run)]
    lines += [*told.check_lines(check), report_line(tidy_error_report(reported, "a\x1bb"))]
    lines += [cell for row in told.run_rows(run) for cell in row]
    lines += [cell for row in told.compared_rows(compare(run, run)) for cell in row]
    assert all(line.isprintable() for line in lines)
    seconds = [event["seconds"] for event in pool_events(recorded)]
    assert seconds == sorted(seconds)
