"""`rp report` as a user calls it: every form, every refusal."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from rp_cli.errors import ExitCode
from rp_cli.reporting.markdown import MAX_BYTES


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Error reports are looked for in the current folder, which may have some."""
    monkeypatch.chdir(tmp_path)


FAILS = {"name": "setUpClass (test_hf_m.TestM)", "status": "error", "seconds": 0.0,
         "detail": "Traceback\nOSError: a | b [red]"}  # fmt: skip


def test_a_report_of_nothing_says_so(rp):
    assert "Nothing is recorded yet" in rp("report").out
    assert "Nothing is recorded yet" in rp("report", "--markdown").out
    assert rp("report", "--json").json["runs"] == []


def test_a_report_tells_runs_checks_and_errors(rp, store, make, reports_dir):
    passes = make.test("test_a")
    store.save(make.run([make.file("m", status="failed", tests=[passes, FAILS])]))
    store.save(make.check())
    folder = reports_dir(good=make.error_report("m"), torn="{")
    os.utime(folder / "torn.json", (0, 0))
    for form in ([], ["--markdown"]):
        out = rp("report", "--last", "5", *form).out
        for words in ("test_hf_m.py", "failed", "1/2", "cpu float32", "tiny", "344 MiB",
                      "missing: package openvino: optional -> pip install openvino",
                      "Generate fewer tokens", "not an error report"):  # fmt: skip
            assert words in out
    summary = rp("report", "--last", "5", "--json").json
    assert [run["id"] for run in summary["runs"]] == [1]
    assert [report["path"] for report in summary["error_reports"]] == [
        str(Path("hardware_reports", name)) for name in ("good.json", "torn.json")
    ]


def test_a_persons_report_names_each_failure_in_one_line(rp, store, make):
    store.save(make.run([make.file("m", status="failed", tests=[FAILS])]))
    assert "test_hf_m.py: setUpClass: OSError: a | b [red]" in rp("report").out


def test_files_of_one_name_are_told_apart(rp, store, make):
    paths = ("a/test_s.py", "b/test_s.py", "c/test_t.py")
    bad = {"status": "failed", "tests": [FAILS]}
    store.save(make.run([make.file("m", path=path, **bad) for path in paths]))
    for form in ([], ["--markdown"]):
        out = rp("report", *form).out
        for name in ("a/test_s.py", "b/test_s.py", "test_t.py"):
            assert f"{name}: setUpClass: OSError" in out
        assert "c/test_t.py" not in out


def test_why_tests_skipped_is_told_once_per_reason(rp, store, make):
    skips = [make.test("a", "skipped", reason) for reason in ("no GPU", "no GPU", "no weights")]
    store.save(make.run([make.file("m", status="skipped", tests=skips)]))
    for form in ([], ["--markdown"]):
        out = rp("report", *form).out
        assert out.count("2 skipped: no GPU") == 1
        assert "1 skipped: no weights" in out


def test_equal_reasons_of_different_models_are_one(rp, store, make):
    why = "cuda is forced and cannot be used: no driver is here"
    files = [
        make.file(name, tests=[make.test("t", "skipped", f"embedding:{name}: {why}")])
        for name in ("gpt2", "org/bert", "m")
    ]
    files[2]["tests"] = [make.test("t", "skipped", f"reason {n}") for n in range(30)]
    store.save(make.run(files))
    for form in ([], ["--markdown"]):
        out = rp("report", *form).out
        assert f"2 skipped: {why}" in out
        assert out.count(why) == 1
        assert "11 skipped for other reasons" in out


def test_the_newest_come_first_and_last_bounds_them(rp, store, make):
    for number in range(4):
        store.save(make.run([], started_at=f"2026-01-0{number + 1}"))
    runs = rp("report", "--json", "--last", "2").json["runs"]
    assert [run["started_at"] for run in runs] == ["2026-01-04", "2026-01-03"]


def test_an_interrupted_run_is_called_so(rp, store, make):
    store.save(make.run([], interrupted=True, not_run=["test_a.py", "test_b.py"]))
    out = rp("report").out
    assert "interrupted" in out
    assert "2 files were not run" in out


def test_a_report_file_of_any_kind_is_survived(rp, reports_dir):
    folder = reports_dir(
        list="[1]", deep="[" * 100_000, odd='{"recommendations": 3, "memory": []}',
        escape='{"model_name": "\\u001b]0;title\\u0007\\u009b2J", "error_type": {}}',
        half='{"model_name": "\\ud800"}', large=json.dumps({"stack_trace": "x" * 2**20}),
    )  # fmt: skip
    (folder / "folder.json").mkdir()
    forms = ([], ["--markdown"], ["--html", "page.html"], ["--json"])
    for command in [*(["report", "--last", "9", *form] for form in forms), ["report", "errors"]]:
        done = rp(*command)
        assert done.code == 0, done.err
        assert not set("\x1b\x07\x9b") & set(done.out)
    reports = rp("report", "errors", "--json").json
    unreadable = {Path(one["path"]).stem for one in reports if one["unreadable"]}
    assert unreadable == {"list", "deep", "odd", "escape", "half", "large", "folder"}


def test_errors_are_listed_with_all_that_can_be_done(rp, reports_dir, make):
    reports_dir(good=make.error_report(), bad="{")
    out = rp("report", "errors").out
    for words in ("gpt2 on cuda:0: out_of_memory", "2 GiB needed, 1.5 GiB free", "also here: cpu",
                  "-> Generate fewer", "CUDA out of memory", "not an error report"):  # fmt: skip
        assert words in out
    (first,) = rp("report", "errors", "hardware_reports", "--last", "1", "--json").json
    assert first["path"] in {
        str(Path("hardware_reports", f"{name}.json")) for name in ("good", "bad")
    }


def test_who_held_the_memory_is_told_in_every_form(rp, reports_dir, make):
    held = [{"key": f"embedding:m{n}:cuda:0:float32", "mb": 512.0 - n} for n in range(7)]
    held += [{"key": "loading", "mb": 0.0}, "odd", {"mb": []}]
    reports_dir(good=make.error_report(memory={"held_by": held}))
    out = " ".join(rp("report", "errors").out.split())
    assert "held by: embedding:m0:cuda:0:float32 (512 MiB), embedding:m1" in out
    assert "(508 MiB), 2 more" in out
    (report,) = rp("report", "errors", "--json").json
    assert report["held_by"] == [*held[:8], {"key": "?", "mb": None}]
    assert rp("report", "--html", "page.html").code == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<code>embedding:m6:cuda:0:float32</code> (506 MiB)</dd>" in page


def test_no_errors_are_no_failure_and_a_wrong_folder_is(rp):
    done = rp("report", "errors")
    assert (done.code, done.out) == (0, "")
    assert "No error report is in hardware_reports" in done.err
    done = rp("report", "errors", "nowhere")
    assert done.code == ExitCode.BAD_INPUT
    assert "nowhere is no folder" in done.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--reports-dir", "hardware_reports", "--json"], "--reports-dir and --json"),
        (["--compare", "1", "2", "--last", "1"], "--last and --compare"),
        (["--markdown"], "--markdown"),
        (["--html", "page.html"], "--html"),
    ],
)
def test_options_before_errors_are_refused_and_not_dropped(rp, options, named):
    done = rp("report", *options, "errors")
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert f"{named} would do nothing before errors; write the options" in done.err
    assert len(done.err.splitlines()) == 1
    assert not Path("page.html").exists()


@pytest.mark.parametrize("form", [[], ["--json"], ["--html", "page.html"]])
def test_a_wrong_folder_of_error_reports_is_the_same_mistake_everywhere(rp, form):
    done = rp("report", "--reports-dir", "nowhere", *form)
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert done.err == rp("report", "errors", "nowhere").err
    assert not Path("page.html").exists()
    assert rp("report", "--reports-dir", "hardware_reports", *form).code == 0


def test_forms_exclude_each_other(rp):
    for forms in (
        ["--json", "--markdown"],
        ["--json", "--html", "a"],
        ["--markdown", "--html", "a"],
    ):
        done = rp("report", *forms)
        assert done.code == ExitCode.BAD_INPUT
        assert "exclude each other" in done.err
    assert not Path("a").exists()


@pytest.mark.parametrize("target", ["nowhere/page.html", "."])
def test_a_page_that_cannot_be_written_is_one_sentence_and_leaves_nothing(rp, target, tmp_path):
    done = rp("report", "--html", target)
    assert done.code == ExitCode.CANNOT_WRITE
    assert len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_page_takes_the_place_of_the_last_one(rp, tmp_path):
    (tmp_path / "page.html").write_text("old")
    done = rp("report", "--html", "page.html")
    assert (done.code, done.out, done.err) == (0, "", "Wrote page.html\n")
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_markdown_is_only_text_and_cannot_break_its_table(rp, store, make):
    store.save(make.run([make.file("m", path="a|b\n<img src=x>`[c](d).py")]))
    out = rp("report", "--markdown").out
    assert "| a\\|b \\<img src=x>\\`\\[c\\](d).py |" in out


def test_markdown_fits_where_ci_shows_it_failures_first(rp, store, make):
    fails = [make.test(f"t{number}", "failed", "E: " + "x" * 500) for number in range(10)]
    files = [make.file(f"model-{n}", status="failed", tests=fails) for n in range(300)]
    store.save(make.run(files))
    out = rp("report", "--markdown").out
    assert len(out.encode()) < MAX_BYTES + 1000
    assert "The report is longer" in out
    assert "❌ Files: 300 failed." in out


class TestCompare:
    def test_what_changed_is_told_first(self, rp, store, make):
        trace = [make.test("t", "failed", "AssertionError: no")]
        gpu = make.placement("moved", "cuda:0", "float16")
        before = [
            make.file("same"),
            make.file("slow"),
            make.file("gone"),
            make.file("breaks"),
            make.file("mended", status="crashed"),
            make.file("moved"),
        ]
        after = [make.file("same", seconds=3.3), make.file("slow", seconds=30.0), make.file("new"),
                 make.file("breaks", status="failed", tests=trace), make.file("mended"),
                 make.file("moved", gpu)]  # fmt: skip
        numbers = [store.save(make.run(files)) for files in (before, after)]
        told = rp("report", "--compare", *numbers, "--json").json
        assert [(row["path"][15:-3], row["change"]) for row in told["files"]] == [
            ("breaks", "broken"), ("mended", "mended"), ("new", "new"), ("gone", "gone"),
            ("slow", "slower"), ("moved", "same"), ("same", "same"),
        ]  # fmt: skip
        assert told["totals"]["same"] == 2
        for form in ([], ["--markdown"]):
            out = rp("report", "--compare", *numbers, *form).out
            assert "run 1 (2026-03-04 10:00:00 UTC, bench) against run 2" in out
            assert "cpu float32 -> cuda:0 float16" in out
            assert "3.2 -> 30.0 (x9.23)" in out

    def test_a_run_that_is_not_there_is_named_with_those_that_are(self, rp, store, make):
        assert "none is recorded yet" in rp("report", "--compare", 1, 2).err
        store.save(make.run([]))
        store.save(make.check())
        done = rp("report", "--compare", 1, 2)
        assert done.code == ExitCode.BAD_INPUT
        assert "There is no run 2; the last ones are 1." in done.err

    @pytest.mark.parametrize(
        "options",
        [["--html", "page.html"], ["--last", "3"], ["--reports-dir", "hardware_reports"]],
    )
    def test_what_a_comparison_has_no_use_for_is_refused(self, rp, store, make, options):
        numbers = [store.save(make.run([])) for _ in range(2)]
        done = rp("report", "--compare", *numbers, *options)
        assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
        assert f"leave out {options[0]}." in done.err

    @pytest.mark.parametrize("numbers", [["1"], ["a", "b"], ["1", "2", "--html", "x"]])
    def test_anything_else_is_refused(self, rp, numbers):
        assert rp("report", "--compare", *numbers).code == ExitCode.BAD_INPUT


def test_a_damaged_record_of_peaks_costs_the_plot_only(rp, isolated_home, store, make):
    store.save(make.run([make.file("m")]))
    (isolated_home / "peaks.sqlite3").write_text("this is no database, it is a long text" * 9)
    assert rp("report", "--json").json["memory"] == []
    (isolated_home / "peaks.sqlite3").unlink()
    sqlite3.connect(isolated_home / "peaks.sqlite3").close()
    assert rp("report").code == 0
