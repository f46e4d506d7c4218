"""What a file's tests did before it crashed, or ran out of time, is kept."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from rp_cli.reporting.runs import failures_of, tidy_run
from rp_cli.runner.junit import junit_xml

# A test that passes, one that never comes to its end, and one that is never begun.
UNFINISHED = """\
import os, signal, unittest
class T(unittest.TestCase):
    @classmethod
    def setUpClass(cls): pass
    def test_a(self): pass
    def test_b(self):
        with self.subTest(): self.fail("b is bad")
    def test_c(self): END
    def test_d(self): pass
"""
IN_PYTEST = """\
import os, signal
def test_a(): pass
def test_b(): assert 0, "b is bad"
def test_c(): END
def test_d(): pass
"""
HANGS = "open({begun!r}, 'w').close(); signal.pause()"


@pytest.mark.parametrize(
    ("text", "prefix"), [(UNFINISHED, "test_it.T."), (IN_PYTEST, "test_it.py::")]
)
@pytest.mark.parametrize(("end", "status"), [("os.abort()", "crashed"), (HANGS, "timeout")])
def test_a_file_that_breaks_keeps_what_its_tests_did_and_names_the_one_that_ran(
    run, tmp_path, late_when, text, prefix, end, status
):
    begun = tmp_path / "begun"
    late_when(begun)
    in_order = {"PYTEST_ADDOPTS": "-p no:randomly"}
    text = text.replace("END", end.format(begun=str(begun)))
    record = run({"test_it": text}, environment=in_order)
    (result,) = record["files"]
    tests = {test["name"].rpartition(prefix)[2]: test for test in result["tests"]}
    assert result["status"] == status
    assert {name: test["status"] for name, test in tests.items()} == {
        "test_a": "passed", "test_b": "failed", "test_c": "error",
    }  # fmt: skip
    assert "b is bad" in tests["test_b"]["detail"]
    assert tests["test_c"]["exception"] == status
    assert result["error"].endswith(f"it was running {tests['test_c']['name']}")
    told = [(one["test"], one["status"]) for one in failures_of(tidy_run(record))]
    assert told == [("test_b", "failed"), ("test_c", status)]
    suite = ElementTree.fromstring(junit_xml(record).encode())
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("3", "1", "1")


def test_a_class_that_cannot_be_set_up_is_kept_when_the_file_breaks(run):
    text = UNFINISHED.replace("pass\n", "raise ValueError('no')\n", 1) + "class U(T):\n    "
    text += "setUpClass = classmethod(lambda cls: None)\n    def test_a(self): os.abort()\n"
    (result,) = run({"test_it": text})["files"]
    assert [(test["name"], test["status"]) for test in result["tests"]] == [
        ("setUpClass (test_it.T)", "error"), ("test_it.U.test_a", "error"),
    ]  # fmt: skip


def test_a_test_that_raises_what_nobody_catches_is_the_one_that_ran(run):
    (result,) = run({"test_it": UNFINISHED.replace("END", "raise KeyboardInterrupt")})["files"]
    tests = {test["name"].rpartition(".")[2]: test["status"] for test in result["tests"]}
    assert tests == {"test_a": "passed", "test_b": "failed", "test_c": "error"}
    assert result["error"].endswith("it was running test_it.T.test_c")
