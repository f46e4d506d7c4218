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


def test_a_browser_asks_nobody_else_for_anything(site):
    """Open pages as a reader does, search, and note each request that leaves this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser is installed")
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = started.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index.html", "reference/cli.html", "guide-map.html"):
            page.goto((site / name).as_uri())
            page.wait_for_load_state("networkidle")
        started.close()
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
