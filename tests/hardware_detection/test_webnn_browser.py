"""A browser that has WebNN here: the Chromium of an npm package really computes our graph."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hardware_detection.machine import Machine
from hardware_detection.probes import PROBES


def test_webnn_really_computes(webnn_browser: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_BROWSER", str(webnn_browser))
    result = importlib.import_module(PROBES["webnn"]).probe(Machine(web=True))
    assert result.status == "available", result.reason
    assert result.devices[0].dtypes[0] == "fp32"
    # Which device the browser takes is not told, and is not guessed.
    assert result.facts["adapter"] == "unknown"
    assert result.devices[0].facts["limits"]["operations"]
    # With which wish the context was made that computed.
    used = result.devices[0].facts["context"]
    started = result.facts["browsers"]
    assert any(row.get("contexts", {}).get(used) == "accepted" for row in started)
