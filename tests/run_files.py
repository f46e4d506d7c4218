"""Test files that end in every way, for the tests of `rp run`."""

from __future__ import annotations

from pathlib import Path

import psutil

PASSES = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): print('said')\n"
FAILS = PASSES.replace("print('said')", "self.fail('no good')")
SKIPS = PASSES.replace("print('said')", "self.skipTest('not here')")
SUBTESTS = PASSES.replace("print('said')", "\n        with self.subTest(1): self.fail('inner')")
SETUP = PASSES + "    @classmethod\n    def setUpClass(cls): raise OSError('no weights')\n"
CLASS_SKIP = PASSES.replace("class T", "@unittest.skip('no GPU')\nclass T")
EXPECTED = PASSES.replace("    def", "    @unittest.expectedFailure\n    def")
HANGS = "import threading\nthreading.Event().wait()\n"
CRASHES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
LEAVES = "import os\nos._exit(3)\n"
EXITS = "import sys\nsys.exit(5)\n"
EMPTY = "x = 1\n"


def write(folder: Path, source: str, name: str = "test_it.py") -> Path:
    path = folder / name
    path.write_text(source)
    return path


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not, or ends when it is given the time."""
    for _ in range(30):
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(1)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            continue
    return False
