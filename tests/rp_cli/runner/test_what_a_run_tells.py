"""What a run tells: to people, to CI systems, and to the next run."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import PASSES

from rp_cli.errors import BadInputError, ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.display import Bar
from rp_cli.runner.junit import _names, junit_xml
from rp_cli.runner.run import new_record
from rp_cli.runner.selecting import parse_selection

FAILS = PASSES.replace(
    "print('said')", "print('why', '\\x00\\x1b'); self.fail('no good \\x00 <&>')"
)


@pytest.fixture
def three(folder: Path) -> Path:
    for name, source in (("test_a", PASSES), ("test_b", FAILS), ("test_c", PASSES)):
        (folder / f"{name}.py").write_text(source)
    return folder


def ran(number: int = 0) -> list[str]:
    record = Store().last("run", number + 1)[number]
    return sorted(Path(result["path"]).stem for result in record["files"])


def test_only_those_that_fail_show_what_they_said(rp, three):
    done = rp("run", three)
    assert done.code == ExitCode.FAILED
    assert "why" in done.err
    assert "said" not in done.err
    assert "3 files: 2 passed, 1 failed" in done.err
    assert done.out == ""


def test_quiet_tells_failures_only(rp, three):
    done = rp("run", three, "--quiet")
    assert "FAILED" in done.err
    assert "PASSED" not in done.err
    (three / "test_b.py").unlink()
    assert rp("run", three, "--quiet").err == ""


def test_last_failed_runs_what_failed_the_last_time_it_ran(rp, three, folder):
    assert "No failure" in rp("run", three / "test_a.py", "--last-failed").err
    rp("run", three)
    rp("run", three / "test_c.py")
    assert rp("run", three, "--last-failed").code == ExitCode.FAILED
    assert ran() == ["test_b"]
    (three / "test_b.py").write_text(PASSES)
    assert rp("run", three, "--last-failed").code == 0
    assert "No failure" in rp("run", three, "--last-failed").err
    assert ran() == ["test_a", "test_b", "test_c"]


def test_fail_fast_ends_at_the_first_failure(rp, three):
    done = rp("run", three, "--fail-fast", "-j", 1, "--json")
    assert done.code == ExitCode.FAILED
    assert [Path(path).stem for path in done.json["not_run"]] == ["test_c"]
    assert "; 1 file was not run." in done.err


def test_k_picks_tests_by_words(rp, folder):
    both = PASSES + "    def test_padding(self): pass\n"
    (folder / "test_a.py").write_text(both)
    (folder / "test_b.py").write_text("def test_padding(): pass\ndef test_other(): pass\n")
    (folder / "test_c.py").write_text(PASSES)
    done = rp("run", folder, "-k", "padding and not t_b", "--json")
    assert done.code == 0, done.err
    statuses = {Path(one["path"]).stem: one["status"] for one in done.json["files"]}
    assert statuses == {"test_a": "passed", "test_b": "deselected", "test_c": "deselected"}
    assert [test["name"] for test in done.json["files"][0]["tests"]] == ["test_a.T.test_padding"]
    assert rp("run", folder, "-k", "nothing").code == ExitCode.BAD_INPUT
    assert rp("run", folder, "-k", "(or").code == ExitCode.BAD_INPUT


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        ("", "anything", True),
        ("padding", "T.test_Padding_left", True),
        ("not padding", "T.test_padding", False),
        ("a and b or c", "xcx", True),
        ("a and (b or c)", "xcx", False),
        ("not not a", "a", True),
        ("test_a[org/m-1]", "test_a[org/m-1]", True),
    ],
)
def test_expressions(text, name, meant):
    assert parse_selection(text)(name) is meant


@pytest.mark.parametrize("text", ["a b", "and", "a or", "(a", "a)", "not", "()"])
def test_what_is_no_expression_is_refused_with_an_example(text):
    with pytest.raises(BadInputError, match="such as -k"):
        parse_selection(text)


WORDS = st.recursive(
    st.sampled_from(["a", "b", "c"]),
    lambda inner: st.one_of(
        inner.map("not {}".format),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} and {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} or {two[1]})"),
    ),
)


@given(WORDS, st.sets(st.sampled_from("abc")))
def test_expressions_mean_what_python_means(text, letters):
    values = {letter: letter in letters for letter in "abc"}
    assert parse_selection(text)("".join(letters)) is eval(text, {}, values)


@pytest.mark.parametrize(
    ("test", "owner", "name"),
    [
        ("test_m.TestA.test_b", "test_m.TestA", "test_b"),
        ("r/test_m.py::test_b", "r.test_m", "test_b"),
        ("r/test_m.py::TestA::test_b[x.y::z]", "r.test_m.TestA", "test_b[x.y::z]"),
        ("setUpClass (test_m.TestA)", "test_m.TestA", "setUpClass"),
        ("test_m.py", "test_m", "test_m.py"),
    ],
)
def test_junit_names_class_and_test(test, owner, name):
    assert _names(test, Path("r/test_m.py")) == (owner, name)


def test_junit_is_xml_that_counts_right(rp, three, tmp_path):
    (three / "test_d.py").write_text("import os\nprint('before')\nos.abort()\n")
    (three / "test_e.py").write_text(PASSES.replace("print('said')", "self.skipTest('not here')"))
    target = tmp_path / "out.xml"
    assert rp("run", three, "--junit", target).code == ExitCode.FAILED
    top = ElementTree.parse(target).getroot()
    counts = {name: top.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "1"}
    failure = top.find(".//failure")
    assert failure is not None
    assert failure.get("type") == "AssertionError"
    assert "no good \N{REPLACEMENT CHARACTER} <&>" in str(failure.text)
    error = top.find(".//error")
    assert error is not None
    assert "SIGABRT" in str(error.get("message"))
    broken = next(case for case in top.iter("testcase") if case.find("error") is not None)
    assert (broken.get("classname"), broken.get("name")) == ("test_d", "test_d.py")
    assert "ran_in" in [one.get("name") for one in top.iter("property")]


@given(st.text(), st.text(max_size=40))
def test_junit_is_xml_whatever_a_test_says(text, name):
    test = {"name": name, "status": "failed", "seconds": 0.1, "detail": text, "exception": name}
    result = {
        "path": name, "status": "failed", "seconds": 1.0, "error": text, "exception": "",
        "tests": [test], "pool": {}, "resources": {"peak_mb": None}, "output": text,
        "ran_in": "fork", "node": "n",
    }  # fmt: skip
    record = {**new_record([]), "files": [result], "not_run": [name]}
    xml = junit_xml(record).encode("utf-8", errors="surrogatepass")
    assert ElementTree.fromstring(xml).get("tests") == "2"


@pytest.mark.parametrize("target", ["absent/out.xml", "."])
def test_a_target_that_cannot_be_written_is_said_before_any_test(rp, three, tmp_path, target):
    done = rp("run", three, "--junit", tmp_path / target)
    assert done.code == ExitCode.CANNOT_WRITE
    assert Store().last("run", 1) == []


@pytest.mark.parametrize("arguments", [("-j", "0"), ("-j", "-1"), ("-k", "(")])
def test_wrong_options_are_one_sentence(rp, three, arguments):
    done = rp("run", three, *arguments)
    assert done.code == ExitCode.BAD_INPUT
    assert len(done.err.splitlines()) == 1


def on_a_terminal(command: list[str], **environment: str) -> str:
    """Run a command whose stderr is a terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "CI")}
    env = {**clean, "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=env) as process:
        os.close(theirs)
        written = io.BytesIO()
        while True:
            try:
                written.write(os.read(ours, 4096))
            except OSError:  # how Linux says that the other end is closed
                break
        process.wait(60)
    os.close(ours)
    return written.getvalue().decode(errors="replace")


def test_a_terminal_gets_a_bar_and_no_color_is_respected(rp_command, three):
    command = rp_command("run", three, "-j", 1)
    shown = on_a_terminal(command)
    assert re.search(r"\d/3", shown)
    assert "FAILED" in shown
    colours = re.compile("\x1b\\[[0-9;]*3[0-9]")
    assert colours.search(shown)
    assert not colours.search(on_a_terminal(command, NO_COLOR="1"))


def test_the_bar_says_what_runs_where():
    bar = Bar(3, quiet=True)
    bar.started(Path("a/test_m.py"))
    bar.started(Path("b/test_m.py"), "gpu 0")
    bar.started(Path("c/test_m.py"), "node-1/3fa2b1")
    bar.started(Path("c/test_m.py"), "node-2/77aa00")  # again, as its first node was lost
    bar.finished({"path": "a/test_m.py", "status": "passed"})
    assert bar._progress.tasks[0].description == "test_m (gpu 0), test_m (node-2/77aa00)"


def test_without_a_terminal_there_is_no_bar(rp_process, three):
    done = rp_process("run", three)
    assert "\x1b[?25l" not in done.err  # the cursor is not hidden
    assert not re.search(r"\d/3", done.err)


def test_the_record_says_what_each_file_took(rp, three):
    record = rp("run", three, "--json").json
    assert json.loads(json.dumps(record)) == record
    for result in record["files"]:
        assert set(result["resources"]) == {"cpu_seconds", "peak_mb", "shared_mb"}
        assert result["resources"]["peak_mb"] >= 1
        assert result["ran_in"] == "fork"
