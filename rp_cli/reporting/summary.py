"""What `rp report` says: one plain summary, its rows and lines, and its form for Markdown.

Records and reports are files that anybody may have written: what is not of the expected type
counts as missing, and no character of them steers a terminal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rp_cli.reporting.store import Store
from rp_cli.text import one_line

SCHEMA_VERSION = 1
MAX_REPORT_BYTES = 1024 * 1024
UNKNOWN = "?"

RUN_HEADINGS = ("file", "status", "passed", "ran on", "weights", "seconds")


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
    return [{**_read_report(file), "path": str(file)} for file in files[:count]]


def title(word: str, record: Mapping[str, Any]) -> str:
    """Return e.g. "Run 7, 2026-01-31 12:00:00 UTC, in /home/me/project, interrupted"."""
    moment = _text(record, "started_at")[:19].replace("T", " ")
    ended = ", interrupted" if record.get("interrupted") is True else ""
    return f"{word} {_text(record, 'id')}, {moment} UTC, in {_text(record, 'folder')}{ended}"


def run_rows(run: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row per file, with a cell for each of ``RUN_HEADINGS``."""
    for result in _objects(run, "files"):
        models = _objects(_object(result, "pool"), "models")
        seconds = result.get("seconds")
        yield (
            Path(_text(result, "path")).name,
            _text(result, "status"),
            _passed(_objects(result, "tests")),
            _joined(f"{_text(model, 'device')} {_text(model, 'dtype')}" for model in models),
            _joined(_text(model, "weights") for model in models),
            f"{seconds:.1f}" if isinstance(seconds, (int, float)) else UNKNOWN,
        )


def run_notes(run: Mapping[str, Any]) -> list[str]:
    """Return each failure's last line (the exception and its message), and why tests skipped."""
    failures = [line for result in _objects(run, "files") for line in _failures(result)]
    skipped = Counter(
        _text(test, "detail")
        for result in _objects(run, "files")
        for test in _objects(result, "tests")
        if test.get("status") == "skipped"
    )
    return failures + [f"{count} skipped: {reason}" for reason, count in skipped.most_common()]


def check_lines(check: Mapping[str, Any]) -> list[str]:
    """Return the lines that are not ok, with what to do, and a line of totals."""
    lines = _objects(check, "lines")
    counts = Counter(_text(line, "status") for line in lines)
    return [
        *(_check_line(line) for line in lines if line.get("status") != "ok"),
        ", ".join(f"{count} {status}" for status, count in counts.most_common()) or "no check ran",
    ]


def report_line(report: Mapping[str, Any]) -> str:
    """Return an error report in one line."""
    path = _text(report, "path")
    if "unreadable" in report:
        return f"{path}: {_text(report, 'unreadable')}"
    given = report.get("recommendations")
    advice = one_line(given[0]) if isinstance(given, list) and given else "no recommendation"
    model, hardware, kind = (
        _text(report, k) for k in ("model_name", "hardware_type", "error_type")
    )
    return f"{model} on {hardware}: {kind}: {advice} ({path})"


def is_empty(summary: Mapping[str, Any]) -> bool:
    """Whether nothing is recorded."""
    return not any(summary[part] for part in ("runs", "checks", "error_reports"))


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary as Markdown, small enough for a CI job's summary."""
    lines = ["# rp report", ""]
    for run in summary["runs"]:
        rows = (RUN_HEADINGS, ["---"] * len(RUN_HEADINGS), *run_rows(run))
        lines += [f"## {_cell(title('Run', run))}", ""]
        lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
        lines += ["", *_bullets(run_notes(run))]
    for check in summary["checks"]:
        lines += [f"## {_cell(title('Check', check))}", "", *_bullets(check_lines(check))]
    if summary["error_reports"]:
        lines += ["## Error reports", "", *_bullets(map(report_line, summary["error_reports"]))]
    if is_empty(summary):
        lines += ["Nothing is recorded yet.", ""]
    return "\n".join(lines)


def _passed(tests: list[Mapping[str, Any]]) -> str:
    done = sum(test.get("status") == "passed" for test in tests)
    skipped = sum(test.get("status") == "skipped" for test in tests)
    return f"{done}/{len(tests)}" + (f" ({skipped} skipped)" if skipped else "")


def _failures(result: Mapping[str, Any]) -> Iterator[str]:
    file = Path(_text(result, "path")).name
    for test in _objects(result, "tests"):
        if test.get("status") in ("failed", "error"):
            yield f"{file}: {_method(_text(test, 'name'))}: {_last_line(test.get('detail'))}"
    if result.get("error"):
        yield f"{file}: {_last_line(result['error'])}"


def _method(test_name: str) -> str:
    """Return the method of "module.Class.method", and "setUpClass" of "setUpClass (...)"."""
    return test_name.partition(" (")[0].rpartition(".")[2]


def _last_line(trace: object) -> str:
    return one_line((str(trace).strip().splitlines() or [UNKNOWN])[-1])


def _check_line(line: Mapping[str, Any]) -> str:
    advice = f" -> {_text(line, 'remedy')}" if line.get("remedy") else ""
    return f"{_text(line, 'status')}: {_text(line, 'name')}: {_text(line, 'detail')}{advice}"


def _bullets(lines: Iterable[str]) -> list[str]:
    bullets = [f"- {_cell(line)}" for line in lines]
    return [*bullets, ""] if bullets else []


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return one_line(value) if isinstance(value, (str, int, float)) else UNKNOWN


def _object(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _objects(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = record.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _joined(parts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(parts)) or "-"


def _cell(text: object) -> str:
    return one_line(text).replace("|", "\\|")


def _modified(file: Path) -> tuple[float, str]:
    try:
        return file.stat().st_mtime, file.name
    except OSError:
        return 0.0, file.name


def _read_report(file: Path) -> dict[str, Any]:
    try:
        if not file.is_file():
            return {"unreadable": "not an error report"}
        if file.stat().st_size > MAX_REPORT_BYTES:
            return {"unreadable": "too large for an error report"}
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {"unreadable": "not an error report"}
    return report if isinstance(report, dict) else {"unreadable": "not an error report"}
