"""WebGPU and WebNN: a real browser, started headless by Playwright, computes the test product."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hardware_detection.proofs import matrices

#: What makes browsers offer the interfaces on systems for which they do not yet vouch. Linux
#: reaches a GPU through Vulkan, and a headless browser has no surface to show.
EXPERIMENTAL_FLAGS = (
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan,WebMachineLearningNeuralNetwork",
    "--disable-vulkan-surface",
)
_QUIET_FLAGS = ("--disable-quic", "--no-first-run", "--no-proxy-server")
_START_TIMEOUT_MS = 40_000
# Never asked for over a network: the answer is given below. Only secure origins have the
# interfaces.
_PAGE = "https://localhost/"


def prove(interface: str, executable: str, mode: str) -> dict[str, Any]:
    """Compute in one browser.

    Args:
        interface: "webgpu" or "webnn".
        executable: the browser's path.
        mode: "plain", or "flags" for a start with EXPERIMENTAL_FLAGS.
    """
    from playwright.sync_api import sync_playwright

    script = Path(__file__).with_name(f"{interface}.js").read_text(encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            headless=True,
            args=start_flags(experimental=mode == "flags"),
            timeout=_START_TIMEOUT_MS,
        )
        page = browser.new_page()
        page.route(
            "**/*", lambda route: route.fulfill(body="<!doctype html>", content_type="text/html")
        )
        page.goto(_PAGE)
        said = page.evaluate(script, _factors())
        facts = {"browser_version": browser.version, **said["facts"]}
        browser.close()
    devices = [{"index": 0, **row} for row in said["devices"]]
    return {"devices": devices, "facts": facts}


def _factors() -> dict[str, Any]:
    left, right = (sum(rows, []) for rows in (matrices.left(), matrices.right()))  # noqa: RUF017
    return {"size": matrices.SIZE, "left": left, "right": right}


def start_flags(*, experimental: bool) -> list[str]:
    """Return the flags to start a browser with for a page of ours, and for no other page."""
    # Chromium refuses to run as root (as in most containers) inside its sandbox. The only page
    # that it will see is ours.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [
        *_QUIET_FLAGS,
        *(["--no-sandbox"] if as_root else []),
        *(EXPERIMENTAL_FLAGS if experimental else ()),
    ]
