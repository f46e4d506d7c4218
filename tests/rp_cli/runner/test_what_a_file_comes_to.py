"""What the tests of a file report is what the file comes to, in whatever order they report it."""

from __future__ import annotations

import pytest

CASE = "import unittest\nclass TestA(unittest.TestCase):\n    def test_a(self):\n        BODY\n"
FAILS_IN_PART = "with self.subTest(): self.fail('bad')\n        self.skipTest('not here')"
SKIPS_LATE = "self.fail('bad')\n    def tearDown(self): self.skipTest('not here')"
FAILS_ONCE = "TestA.ran = hasattr(TestA, 'ran'); self.assertTrue(TestA.ran, 'bad')\nTestB = TestA"


@pytest.mark.parametrize(
    "body", [FAILS_IN_PART, SKIPS_LATE, FAILS_ONCE], ids=["in part", "skips late", "runs twice"]
)
def test_a_test_that_failed_stays_so_whatever_it_reports_later(run, body):
    (result,) = run({"test_it": CASE.replace("BODY", body)})["files"]
    (test,) = result["tests"]
    assert (result["status"], test["status"]) == ("failed", "failed")
    assert "bad" in test["detail"]


@pytest.mark.parametrize(
    "source",
    [
        "import unittest\nraise unittest.SkipTest('not here')",
        "import pytest, unittest\nraise unittest.SkipTest('not here')",
        "import pytest\npytest.skip('not here', allow_module_level=True)",
        "import pytest\npytest.importorskip('nobody_has_this', reason='not here')",
    ],
)
def test_a_file_that_skips_itself_as_a_whole_is_skipped_with_its_reason(run, source):
    (result,) = run({"test_it": source})["files"]
    (test,) = result["tests"]
    assert (result["status"], result["error"]) == ("skipped", "")
    assert (test["name"], test["status"], test["detail"]) == ("test_it.py", "skipped", "not here")


RAISES = """
class Lazy:
    def __get__(self, test, owner): raise RuntimeError("not before setUpClass")
class TestB(unittest.TestCase):
    weights = preferences = Lazy()
"""


def test_what_a_file_says_of_itself_may_raise_and_costs_no_result(run):
    source = CASE.replace("BODY", "self.fail('bad')") + RAISES
    (result,) = run({"test_it": source})["files"]
    assert (result["status"], result["error"]) == ("failed", "")
    assert (result["asked"], result["weights"]) == (None, [])


SETTINGS = {"PYTEST_ADDOPTS": "--ff -n 2"}, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.mark.parametrize("environment", SETTINGS, ids=["cache and processes", "no plugins"])
def test_a_projects_settings_of_pytest_do_not_break_its_files(
    run, folder, monkeypatch, environment
):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # where this itself is such a worker
    source = "import os\ndef test_a(): assert 'PYTEST_XDIST_WORKER' not in os.environ\n"
    (result,) = run({"test_it": source}, environment=environment)["files"]
    assert (result["status"], result["error"]) == ("passed", "")
    assert not (folder / ".pytest_cache").exists()


STRICT = "[pytest]\nfilterwarnings = error\n"


@pytest.mark.parametrize("conftest", [False, True], ids=["forked", "process of its own"])
def test_a_project_whose_warnings_are_errors_hears_of_none_that_are_rps(run, folder, conftest):
    (folder / "pytest.ini").write_text(STRICT)
    if conftest:
        (folder / "conftest.py").touch()
    (result,) = run({"test_it": "def test_a(): pass\n"})["files"]
    assert (result["status"], result["error"]) == ("passed", "")
    assert "Warning" not in result["output"]


RAISED = {
    "assert 1.5 == 2.25": ("AssertionError", "AssertionError: assert 1.5 == 2.25"),
    "raise ValueError('one:\\nline')": ("ValueError", "ValueError: one: line"),
    "import pytest; pytest.fail('bad')": ("Failed", "Failed: bad"),
}  # fmt: skip


@pytest.mark.parametrize("body", RAISED)
def test_what_a_test_of_pytests_raised_is_named_with_its_message_at_the_end(run, body):
    (result,) = run({"test_it": f"def test_a():\n    {body}\n"})["files"]
    (test,) = result["tests"]
    assert (test["exception"], test["detail"].splitlines()[-1]) == RAISED[body]


@pytest.mark.parametrize(
    "ends", ["import pytest; pytest.exit('enough', 0)", "raise KeyboardInterrupt"]
)
def test_a_test_that_ends_all_tests_is_an_error_whatever_its_status(run, ends):
    source = f"def test_a(): pass\ndef test_b(): {ends}\n"  # in any order, where pytest-randomly is
    (result,) = run({"test_it": source})["files"]
    assert (result["status"], result["tests"][-1]["status"]) == ("error", "error")
    assert result["tests"][-1]["name"].endswith("test_it.py::test_b")
    assert "the tests were ended by" in result["error"]
    assert "; it was running " in result["error"]
    assert result["error"].endswith("test_it.py::test_b")


def test_a_file_that_ends_all_tests_when_it_is_collected_is_an_error(run):
    (result,) = run({"test_it": "import pytest\npytest.exit('enough', 0)\ndef test_a(): pass"})[
        "files"
    ]
    assert (result["status"], result["tests"]) == ("error", [])
