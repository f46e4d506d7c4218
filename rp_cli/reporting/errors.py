"""Hardware error reports: the files that the pool saved in a folder, made tidy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rp_cli.reporting import reading
from rp_cli.reporting.reading import Json
from rp_cli.reporting.runs import Tidy
from rp_cli.text import one_line

# Of what `rp report errors --json` prints; docs/schemas/error-reports.json describes it.
SCHEMA_VERSION = 1
# Where the pool saves them, in the folder in which a test runs.
REPORTS_DIR = Path("hardware_reports")
MAX_REPORT_BYTES = 1024 * 1024
# A report is written a moment after the failure, and a run's seconds are counted a little less.
_SLACK = timedelta(seconds=60)
_LONGEST_RUN = 1e8
_MOST_SAVED = 500
_ALWAYS = ("model_name", "hardware_type", "error_type", "error_message")


def error_reports(folder: Path, count: int) -> list[Tidy]:
    """Return the newest error reports of a folder.

    A file that cannot be read as one has its reason in ``unreadable``, and nothing else is known.
    """
    return [tidy_error_report(_read(file), str(file)) for file in _newest(folder, count)]


def versioned(reports: Sequence[Tidy]) -> list[Tidy]:
    """Return error reports as a document of their own: each entry has the version."""
    return [{"schema_version": SCHEMA_VERSION, **report} for report in reports]


def saved_reports(folder: Path, run: Json) -> list[Json]:
    """Return the error reports that were saved while a recorded run went on, as they are.

    In the run's record, as ``error_reports``, they outlive their files.
    """
    found = ({**_read(file), "path": str(file)} for file in _newest(folder, _MOST_SAVED))
    return [report for report in found if _is_of(report, run)]


def tidy_error_report(report: Json, path: str) -> Tidy:
    """Return an error report, every field of the type that it should have."""
    memory = reading.mapping(report, "memory")
    return {
        "path": one_line(path),
        "unreadable": reading.optional_text(report, "unreadable"),
        "timestamp": reading.text(report, "timestamp"),
        "model_name": reading.text(report, "model_name"),
        "model_family": reading.text(report, "model_family"),
        "hardware_type": reading.text(report, "hardware_type"),
        "error_type": reading.text(report, "error_type"),
        "error_message": reading.text(report, "error_message"),
        "stack_trace": reading.lines(report, "stack_trace"),
        "operation": reading.optional_text(report, "operation"),
        "needed_mb": reading.number(memory, "needed_mb"),
        "free_mb": reading.number(memory, "free_mb"),
        "held_by": list(_holders(memory)),
        "recommendations": reading.texts(report, "recommendations"),
        "alternatives": list(_alternatives(report)),
    }


def report_of(failure: Tidy, run: Json, reports: Sequence[Tidy]) -> str | None:
    """Return the path of the report that was saved of a run's failure; None where none was.

    It is of the same model, and was saved while the run went on. Of several, the one whose
    message ends as the failure's does, else the last.
    """
    if failure["model_name"] is None:
        return None
    named = (report for report in reports if report["model_name"] == failure["model_name"])
    mine = [report for report in named if _is_of(report, run)]
    mine.sort(key=lambda report: failure["message"] not in report["error_message"])
    return mine[0]["path"] if mine else None


def _is_of(report: Json, run: Json) -> bool:
    began, at = reading.moment(run, "started_at"), reading.moment(report, "timestamp")
    if began is None or at is None:
        return False
    seconds = min(reading.number(run, "seconds") or 0.0, _LONGEST_RUN)
    return timedelta(0) <= at - began <= timedelta(seconds=seconds) + _SLACK


def report_line(report: Tidy) -> str:
    """Return an error report in one line."""
    path = report["path"]
    if report["unreadable"]:
        return f"{path}: {report['unreadable']}"
    advice = (report["recommendations"] or ["no recommendation"])[0]
    what = f"{report['model_name']} on {report['hardware_type']}: {report['error_type']}"
    return f"{what}: {advice} ({path})"


def _holders(memory: Json) -> Iterator[dict[str, Any]]:
    for one in reading.mappings(memory, "held_by"):
        yield {"key": reading.text(one, "key"), "mb": reading.number(one, "mb")}


def _alternatives(report: Json) -> Iterator[dict[str, Any]]:
    for one in reading.mappings(report, "alternatives"):
        yield {
            "hardware": reading.text(one, "hardware"),
            "available": one.get("available") is True,
            "reason": reading.text(one, "reason", ""),
        }


def _newest(folder: Path, count: int) -> list[Path]:
    files = folder.glob("*.json") if folder.is_dir() else ()
    return sorted(files, key=_modified, reverse=True)[:count]


def _modified(file: Path) -> tuple[float, str]:
    try:
        return file.stat().st_mtime, file.name
    except OSError:
        return 0.0, file.name


def _read(file: Path) -> Json:
    try:
        if not file.is_file():
            return {"unreadable": "not an error report"}
        if file.stat().st_size > MAX_REPORT_BYTES:
            return {"unreadable": "too large for an error report"}
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {"unreadable": "not an error report"}
    return report if _is_report(report) else {"unreadable": "not an error report"}


def _is_report(found: Any) -> bool:
    """Whether a file's JSON says what every report of the pool says."""
    return isinstance(found, dict) and all(isinstance(found.get(key), str) for key in _ALWAYS)
