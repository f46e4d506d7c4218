"""The report as one page of HTML that needs nothing beside it: no network, no fonts, no files."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from rp_cli.reporting import plots
from rp_cli.reporting.events import spans
from rp_cli.reporting.runs import Tidy, counted, rank, skip_reasons

_FOLDER = Path(__file__).parent / "page"
_KINDS = {"passed": "good", "ok": "good", "skipped": "mild", "deselected": "mild",
          "missing": "mild", "not run": "mild", "interrupted": "mild"}  # fmt: skip
_SIGNS = {"good": "✓", "mild": "–", "bad": "✗"}
# Beyond that, a table of events helps nobody.
_EVENTS = 500


def page(summary: Mapping[str, Any]) -> str:
    """Return the page of a summary. Everything that others wrote is text in it, never markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=lambda size: "–" if size is None else plots.size_label(size),
        seconds=_seconds,
        moment=_moment,
        kind=_kind,
        sign=lambda status: _SIGNS[_kind(status)],
        rank=rank,
        sortable=lambda value: "" if value is None else value,
        reason=lambda text: str(text).rpartition(": ")[2],
        skips=skip_reasons,
        percent=lambda share: f"{100 * share:+.1f} %",
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    # The two are files of ours; they may run because the page's policy names their digests.
    return environment.get_template("report.html.j2").render(
        **_view(summary),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _view(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows, with what it would otherwise have to compute."""
    table = summary["matrix"]
    unused = _why_unused(table["cells"])
    return {
        **summary,
        "cells": {(cell["model_name"], cell["hardware"]): cell for cell in table["cells"]},
        # What nothing ran on comes last: it says the same of every model.
        "hardware": sorted(table["hardware"], key=lambda name: name in unused),
        "unused": unused,
        "used": [name for name in table["hardware"] if name in _used(table["cells"])],
        "models": table["models"],
        "cell_totals": counted(cell["status"] for cell in table["cells"]),
        "plot": plots.scatter(summary["memory"]),
        "typical_error": _typical_error(summary["memory"]),
        "errors_by_method": _by_method(summary["memory"]),
        "square": plots.SQUARE,
        "wide": plots.WIDE,
        "lane": plots.LANE,
        "timelines": _timelines(summary),
        "events": summary["pool_events"][:_EVENTS],
        "hidden_events": max(len(summary["pool_events"]) - _EVENTS, 0),
        "reports": {report["path"]: i for i, report in enumerate(summary["error_reports"])},
    }


def _used(cells: list[Tidy]) -> set[str]:
    """Return the hardware on which a model really was."""
    return {cell["hardware"] for cell in cells if cell["weights"]}


def _why_unused(cells: list[Tidy]) -> dict[str, str]:
    """Return hardware -> the one reason for which every model skipped it."""
    reasons: dict[str, set[str]] = {}
    for cell in cells:
        skipped = cell["status"] == "skipped" and not cell["weights"] and cell["detail"]
        reason = cell["detail"].rpartition(": ")[2] if skipped else ""
        reasons.setdefault(cell["hardware"], set()).add(reason)
    return {
        name: min(found) for name, found in reasons.items() if len(found) == 1 and "" not in found
    }


def _timelines(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for run in summary["runs"]:
        mine = [event for event in summary["pool_events"] if event["run"] == run["id"]]
        drawn = plots.timeline(spans(mine, run["files"]), run["seconds"])
        if drawn:
            found.append({"run": run, **drawn})
    return found


def _typical_error(points: list[Tidy]) -> float | None:
    return median(abs(point["error"]) for point in points) if points else None


def _by_method(points: list[Tidy]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return how far off each method is, (what, method) -> {count, median, most}."""
    errors: dict[tuple[str, str], list[float]] = {}
    for point in points:
        errors.setdefault((point["what"], point["method"] or "pool"), []).append(point["error"])
    return {
        key: {
            "count": len(found),
            "median": median(map(abs, found)),
            "most": max(found, key=abs),
        }
        for key, found in sorted(errors.items())
    }


def _kind(status: str) -> str:
    return _KINDS.get(status, "bad")


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 60 else f"{value // 60:.0f} min {value % 60:.0f} s"


def _moment(value: str) -> str:
    """Return a time of ISO 8601 as people read it; anything else as it is."""
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return value


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
