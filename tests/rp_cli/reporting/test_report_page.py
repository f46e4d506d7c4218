"""The page in a real browser: it works by keyboard, loads nothing, and obeys nobody's names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.browsers import find_browsers
from hardware_detection.machine import Machine
from rp_cli.reporting.page import page
from rp_cli.reporting.store import Store
from rp_cli.reporting.summary import summarise

OWN = "document.title='owned'"
HOSTILE = f'<script>{OWN}</script>"\'><img src=x onerror="{OWN}">'
BROWSERS = find_browsers(Machine())

needs_browser = pytest.mark.skipif(
    find_spec("playwright") is None or not BROWSERS,
    reason="playwright or a Chromium-family browser is not installed",
)


@dataclass
class Seen:
    """A page in a browser, and what it did unasked."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def column(self, table: str, number: int) -> list[str]:
        """Return the text of a column of cells, from top to bottom."""
        cells = self.tab.locator(f"{table} tbody tr > :nth-child({number})")
        return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]

    def style(self, selector: str, name: str) -> str:
        """Return a computed style of an element."""
        return str(self.tab.locator(selector).first.evaluate(f"e => getComputedStyle(e).{name}"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    # Chromium refuses to run as root inside its sandbox; the only page that it sees is ours.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=BROWSERS[0].path, args=["--no-sandbox"] if as_root else []
        )
        yield started
        started.close()


@pytest.fixture
def filled(store: Store, make: Any, reports_dir: Callable[..., Path]) -> str:
    """The page of a run in which all that can go wrong did."""
    tests = [make.test("t", "error", make.error_report()["stack_trace"])]
    load = make.event("place", "family:gpt2:cpu:float32", 1.0, numbers={"memory_usage": 2**21})
    gone = make.event("evict", "family:gpt2:cpu:float32", 9.0, reason=HOSTILE)
    files = [
        make.file("gpt2", status="failed", tests=tests, seconds=10.0),
        make.file("bert-base-uncased", seconds=9.0),
        make.file("t5-small", make.placement("t5-small", "cuda:0"), seconds=100.0),
        make.file(HOSTILE, status="crashed", error=HOSTILE, output=HOSTILE, path=HOSTILE),
    ]
    files[0]["pool"]["events"] = [load, gone]
    files[3]["resources"] = {}
    store.save(make.run(files, notes=[HOSTILE], host=HOSTILE))
    store.save(make.check())
    make.measure("gpt2", 20.0, 24.0)
    make.measure(HOSTILE, 2000.0, 2100.0)
    folder = reports_dir(
        good=make.error_report(), bad="{", hostile=make.error_report(HOSTILE, operation=HOSTILE)
    )
    return page(summarise(store, folder, 9))


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Seen]]:
    """Show a page from a file; in the end, nothing was asked for and nothing went wrong."""
    shown = []

    def call(text: str, **options: Any) -> Seen:
        file = tmp_path / "page.html"
        file.write_text(text, encoding="utf-8")
        seen = Seen(browser.new_context(**options).new_page())
        shown.append(seen)
        seen.tab.on("request", lambda request: seen.requests.append(request.url))
        seen.tab.on("console", lambda message: seen.messages.append(message.text))
        seen.tab.on("pageerror", lambda error: seen.messages.append(str(error)))
        seen.tab.on("dialog", lambda dialog: seen.messages.append(dialog.message))
        seen.tab.goto(file.as_uri())
        return seen

    yield call
    for seen in shown:
        assert seen.messages == []
        assert [url for url in seen.requests if not url.startswith("data:")] == [
            (tmp_path / "page.html").as_uri()
        ]
        seen.tab.context.close()


@needs_browser
class TestInABrowser:
    def test_a_table_is_sorted_by_keyboard(self, filled, show):
        seen = show(filled)
        header = seen.tab.get_by_role("button", name="model", exact=True).first
        header.focus()
        names = ["bert-base-uncased", "gpt2", "t5-small"]
        seen.tab.keyboard.press("Enter")
        assert [n for n in seen.column(".matrix", 1) if n in names] == names
        assert seen.tab.locator(".matrix th").first.get_attribute("aria-sort") == "ascending"
        seen.tab.keyboard.press("Space")
        assert [n for n in seen.column(".matrix", 1) if n in names] == names[::-1]
        assert seen.tab.locator(".matrix th").first.get_attribute("aria-sort") == "descending"
        assert seen.tab.get_by_role("status").inner_text() == "Sorted by model, descending."
        # The next header is one Tab away.
        seen.tab.keyboard.press("Tab")
        assert seen.tab.evaluate("document.activeElement.textContent") == "cpu"

    def test_numbers_are_sorted_as_numbers_and_unknown_ones_stay_last(self, filled, show):
        seen = show(filled)
        header = seen.tab.locator("#runs th button", has_text="peak memory")
        seen.tab.locator("#runs th button", has_text="seconds").first.click()
        assert seen.column("#runs table", 6) == ["3.2 s", "9.0 s", "10.0 s", "1 min 40 s"]
        for _ in range(2):
            header.click()
            assert seen.column("#runs table", 8) == ["344 MiB"] * 3 + ["–"]

    def test_statuses_are_sorted_the_worst_first(self, filled, show):
        seen = show(filled)
        seen.tab.locator("#runs th button", has_text="status").click()
        shown = seen.tab.locator("#runs table .status").all_inner_texts()
        words = [text.split()[-1] for text in shown]
        assert words == ["crashed", "failed", "passed", "passed"]

    def test_rows_are_filtered_by_words(self, filled, show):
        seen = show(filled)
        seen.tab.get_by_role("searchbox").fill("bert passed")
        assert [row for row in seen.tab.locator(".matrix tbody tr").all() if row.is_visible()]
        visible = seen.tab.locator(".matrix tbody tr:visible").all_inner_texts()
        assert [text.split()[0] for text in visible] == ["bert-base-uncased"]
        seen.tab.get_by_role("searchbox").fill("")
        assert seen.tab.locator(".matrix tbody tr:visible").count() == 4

    def test_a_failure_leads_to_its_error_report(self, filled, show):
        seen = show(filled)
        seen.tab.locator("#failure-0 summary").focus()
        seen.tab.keyboard.press("Enter")
        assert "CUDA out of memory" in seen.tab.locator("#failure-0 pre").inner_text()
        seen.tab.locator("#failure-0 a").press("Enter")
        report = seen.tab.locator(":target")
        # The page opens it when it hears of the new address.
        seen.tab.wait_for_selector(":target[open]")
        assert "Generate fewer tokens" in report.inner_text()

    def test_names_are_only_text(self, filled, show):
        seen = show(filled)
        assert seen.tab.title().startswith("rp report")
        assert seen.tab.locator("img").count() == 0
        assert seen.tab.locator("script").count() == 1
        assert HOSTILE in seen.column(".matrix", 1)

    def test_no_markup_could_run_if_it_got_in(self, show):
        """The page's policy is a second wall: no script but ours, and nothing is loaded."""
        text = page(summarise(Store(), Path("nowhere"), 1))
        planted = f"<script>{OWN}</script><img src='https://example.org/x.png'>"
        seen = show(text.replace("</main>", f"{planted}</main>"))
        seen.tab.wait_for_load_state()
        assert seen.tab.title().startswith("rp report")
        assert len(seen.messages) == 2
        assert all("Content Security Policy" in message for message in seen.messages)
        seen.messages.clear()
        seen.requests[:] = seen.requests[:1]

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_it_is_legible_in_light_and_dark(self, filled, show, scheme):
        seen = show(filled, color_scheme=scheme)
        for _ in range(2):
            for selector in ("p.quiet", ".status.good", ".status.bad", ".status.mild", ".tag.tiny",
                             "thead th", "td", "header nav a"):  # fmt: skip
                assert contrast(seen, selector) >= 4.5, (scheme, selector)
            seen.tab.get_by_role("button", name="Light / dark").click()
        assert seen.style("body", "backgroundColor") == (
            "rgb(246, 247, 249)" if scheme == "light" else "rgb(16, 19, 23)"
        )

    def test_a_phone_scrolls_tables_and_not_the_page(self, filled, show):
        seen = show(filled, viewport={"width": 390, "height": 800})
        wide = """[...document.querySelectorAll("main *, header *")]
            .filter(e => e.getBoundingClientRect().right > 390 && !e.closest(".scroll"))
            .map(e => e.outerHTML.slice(0, 80))"""
        assert seen.tab.evaluate(wide) == []
        assert seen.tab.evaluate("document.documentElement.scrollWidth") <= 390

    def test_hardware_that_is_not_here_is_told_once_and_last(self, store, make, show, tmp_path):
        files = [
            make.file(name, tests=[make.test("test_cuda_agrees_with_cpu_float32", "skipped",
                                             f"embedding:{name}: cuda is forced: no driver")])
            for name in ("a", "b")
        ]  # fmt: skip
        files.append(make.file("c", make.placement("c", "webgpu:simulation")))
        store.save(make.run(files))
        seen = show(page(summarise(store, tmp_path / "none", 9)))
        heads = [head.strip() for head in seen.tab.locator(".matrix thead th").all_inner_texts()]
        assert heads == ["model", "cpu", "webgpu (simulated)", "cuda"]
        section = seen.tab.locator("#matrix").inner_text()
        assert section.count("no driver") == 1
        assert "2 skipped: cuda is forced: no driver" in seen.tab.locator("#runs").inner_text()

    def test_it_is_whole_without_scripts(self, filled, show):
        seen = show(filled, java_script_enabled=False)
        assert seen.tab.locator("#filter").is_hidden()
        assert seen.tab.locator(".matrix tbody tr:visible").count() == 4

    def test_everything_has_a_name_for_those_who_do_not_see(self, filled, show):
        seen = show(filled)
        assert seen.tab.locator("table").count() == seen.tab.locator("table > caption").count()
        assert seen.tab.locator("th:not([scope])").count() == 0
        assert seen.tab.locator("svg[role=img]").count() == 2
        for plot in seen.tab.get_by_role("img").all():
            assert "table" in plot.evaluate("e => e.getAttribute('aria-label') || e.textContent")
        ids = seen.tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids))

    def test_a_page_of_nothing_says_so(self, show):
        seen = show(page(summarise(Store(), Path("nowhere"), 1)))
        assert "No model has been run yet" in seen.tab.locator("#matrix").inner_text()
        assert "No run is recorded yet" in seen.tab.locator("#runs").inner_text()


# By the formula of WCAG 2: relative luminances of the text and of what is really behind it.
_CONTRAST = """element => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let behind = element;
  while (parse(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map(parse).map(light).sort((a, b) => b - a);
  return (pair[0] + 0.05) / (pair[1] + 0.05);
}"""


def contrast(seen: Seen, selector: str) -> float:
    return float(seen.tab.locator(selector).first.evaluate(_CONTRAST))


def test_the_page_holds_all_that_it_needs(filled):
    assert "http://" not in filled
    assert "https://" not in filled
    assert "url(" not in filled
    assert "@import" not in filled
    assert HOSTILE not in filled
