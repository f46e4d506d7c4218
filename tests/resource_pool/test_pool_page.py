"""docs/pool.md: every Python block in it runs, and every link leads to a page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

from hardware_detection.testing import fake_report, use_report
from resource_pool import _global
from resource_pool.weights import locate_weights

PAGE = Path(__file__).parents[2] / "docs" / "pool.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.py)\n")
SNIPPETS = [block for block in BLOCKS if not FILE.match(block)]
FILES = {FILE.match(block)[1]: block for block in BLOCKS if FILE.match(block)}


@pytest.fixture
def offline(monkeypatch):
    """What the page loads by name is a tiny twin of it; the machine has nothing but a CPU."""
    monkeypatch.setattr(_global, "_global_pool", None)
    for auto in (transformers.AutoModel, transformers.AutoTokenizer):
        load = auto.from_pretrained

        def load_twin(name, load=load):
            return load(locate_weights(name, mode="tiny").path)

        monkeypatch.setattr(auto, "from_pretrained", load_twin)
    with use_report(fake_report()):
        yield


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
@pytest.mark.usefixtures("offline")
def test_a_block_runs(number):
    exec(compile(SNIPPETS[number], f"{PAGE.name}, block {number}", "exec"), {})


def test_the_files_of_the_page_are_a_test_suite_that_passes(tmp_path):
    assert set(FILES) == {"conftest.py", "test_encoder.py"}
    for name, block in FILES.items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_every_link_leads_somewhere():
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        page, _, anchor = link.partition("#")
        assert (PAGE.parent / page).exists()
        assert not anchor or anchor in anchors
