"""The parent of a file's process is never the run itself: a file may kill it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rp_cli.errors import ExitCode

KILLS = """\
import os, signal, unittest
class T(unittest.TestCase):
    def test_a(self):
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
"""
GOOD = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n"


@pytest.mark.parametrize(
    "begins", ["", "import pytest\npytest_plugins = ()\n"], ids=["forked", "alone"]
)
def test_a_file_that_kills_its_parent_whenever_it_runs_costs_itself_only(
    rp_process, folder, begins
):
    (folder / "test_bad.py").write_text(begins + KILLS)
    (folder / "test_good.py").write_text(GOOD)
    done = rp_process("run", folder, "--json", "-j", 1)
    assert done.code == ExitCode.FAILED, done.err
    found = {Path(result["path"]).stem: result for result in done.json["files"]}
    assert found["test_good"]["status"] == "passed"
    assert (found["test_bad"]["status"], found["test_bad"]["ran_in"]) == ("crashed", "process")
    assert "SIGKILL" in found["test_bad"]["error"]
