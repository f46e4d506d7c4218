"""The site is built without a warning and without a network, and needs none to be read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
#: What a page makes a browser fetch.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]* src=\"?(https?:)?//|@import|url\(https?:"
)
_LINKED = re.compile(r"<link[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="zensical is not installed (extra: docs)")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(TOP / "docs", folder / "docs")
    shutil.copy(TOP / "mkdocs.yml", folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_is_in_the_site(site):
    written = {page.relative_to(TOP / "docs") for page in (TOP / "docs").rglob("*.md")}
    assert all((site / page.with_suffix(".html")).is_file() for page in written)
    assert not list(site.rglob("*.py"))


def test_no_page_fetches_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not _FETCHED.search(text), page
        for link in _LINKED.findall(text):
            assert "http" not in link or 'rel="canonical"' in link, f"{page}: {link}"


def test_every_page_stands_in_the_navigation(site):
    nav = (TOP / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (TOP / "docs").rglob("*.md"):
        assert f": {page.relative_to(TOP / 'docs').as_posix()}\n" in nav


@pytest.mark.parametrize("picture", sorted((TOP / "docs" / "images").glob("*.svg")), ids=str)
def test_pictures_fetch_nothing(picture):
    text = picture.read_text(encoding="utf-8")
    assert not re.search(r"(href|src)=\"https?:|url\((?!#)", text)
