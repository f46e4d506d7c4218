"""What `rp report` says: one plain summary, and its form for Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rp_cli.reporting.store import Store

SCHEMA_VERSION = 1
MAX_REPORT_BYTES = 1024 * 1024


def summarise(store: Store, reports_dir: Path, count: int) -> dict[str, Any]:
    """Return the last ``count`` runs, checks and error reports, newest first."""
    return {
        "schema_version": SCHEMA_VERSION,
        "runs": store.last("run", count),
        "checks": store.last("check", count),
        "error_reports": error_reports(reports_dir, count),
    }


def error_reports(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return the newest error reports of a folder; a file that is none is left out and named.

    A file that cannot be read as a report gives ``{"path": ..., "unreadable": reason}``.
    """
    files = sorted(folder.glob("*.json"), key=_modified, reverse=True) if folder.is_dir() else []
    return [{"path": str(file), **_read_report(file)} for file in files[:count]]


def run_rows(run: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield a row per file: name, status, tests, what it ran on, weights, seconds."""
    for result in run["files"]:
        models = result["pool"].get("models", [])
        tests = result["tests"]
        done = sum(test["status"] == "passed" for test in tests)
        skipped = sum(test["status"] == "skipped" for test in tests)
        counted = f"{done}/{len(tests)}" + (f" ({skipped} skipped)" if skipped else "")
        yield (
            Path(result["path"]).name,
            result["status"],
            counted,
            _joined(f"{model['device']} {model['dtype']}" for model in models),
            _joined(model["weights"] for model in models),
            f"{result['seconds']:.1f}",
        )


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as Markdown, small enough for a CI job's summary."""
    lines = ["# rp report", ""]
    for run in summary["runs"]:
        lines += [f"## {_cell(title('Run', run))}", ""]
        lines += ["| file | status | passed | ran on | weights | seconds |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in run_rows(run)]
        lines += [""]
    for check in summary["checks"]:
        lines += [f"## {_cell(title('Check', check))}", ""]
        lines += [
            f"- {line['status']}: {_cell(line['name'])}: {_cell(line['detail'])}"
            for line in check["lines"]
        ]
        lines += [""]
    if summary["error_reports"]:
        lines += ["## Error reports", ""]
        lines += [f"- {_cell(text)}" for text in map(report_line, summary["error_reports"])]
        lines += [""]
    if not any(summary[part] for part in ("runs", "checks", "error_reports")):
        lines += ["Nothing is recorded yet.", ""]
    return "\n".join(lines)


def title(word: str, record: Mapping[str, Any]) -> str:
    """Return e.g. "Run 7, 2026-01-31 12:00:00 UTC, in /home/me/project"."""
    moment = record["started_at"][:19].replace("T", " ")
    return f"{word} {record['id']}, {moment} UTC, in {record['folder']}"


def report_line(report: Mapping[str, Any]) -> str:
    """Return an error report in one line."""
    if "unreadable" in report:
        return f"{report['path']}: {report['unreadable']}"
    advice = (report.get("recommendations") or ["no recommendation"])[0]
    return (
        f"{report.get('model_name')} on {report.get('hardware_type')}: "
        f"{report.get('error_type')}: {advice} ({report['path']})"
    )


def _joined(parts: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(parts)) or "-"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _modified(file: Path) -> tuple[float, str]:
    try:
        return file.stat().st_mtime, file.name
    except OSError:
        return 0.0, file.name


def _read_report(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_REPORT_BYTES:
            return {"unreadable": "too large for an error report"}
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {"unreadable": "not an error report"}
    return report if isinstance(report, dict) else {"unreadable": "not an error report"}
