"""What `rp report` knows, as plain values; docs/schemas/report.json describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rp_cli import __version__
from rp_cli.reporting import reading
from rp_cli.reporting.errors import error_reports, report_of, tidy_error_report
from rp_cli.reporting.events import pool_events
from rp_cli.reporting.matrix import matrix
from rp_cli.reporting.memory import memory_points
from rp_cli.reporting.reading import Json
from rp_cli.reporting.runs import Tidy, failures_of, tidy_check, tidy_run
from rp_cli.reporting.store import Store

SCHEMA_VERSION = 3
_POINTS = 500
# So many are looked through for those of the failures.
_REPORTS = 500


def summarise(store: Store, reports_dir: Path, count: int) -> dict[str, Any]:
    """Return what the last ``count`` runs, checks and error reports say, newest first.

    Raises:
        OutputError: the records cannot be opened.
        BadInputError: the file of records is none.
    """
    records = store.last("run", count)
    checks = [tidy_check(record) for record in store.last("check", count)]
    runs = [tidy_run(record) for record in records]
    reports = _reports(records, reports_dir)
    failures = [
        {**failure, "error_report": report_of(failure, run, reports)}
        for run in runs
        for failure in failures_of(run)
    ]
    told = {failure["error_report"] for failure in failures}
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "rp_version": __version__,
        "runs": runs,
        "checks": checks,
        "matrix": matrix(runs),
        "memory": memory_points(runs, _POINTS),
        "pool_events": [event for record in records for event in pool_events(record)],
        "failures": failures,
        "error_reports": [
            report
            for place, report in enumerate(reports)
            if place < count or report["path"] in told
        ],
    }


def is_empty(summary: Mapping[str, Any]) -> bool:
    """Whether nothing is recorded."""
    return not any(summary[part] for part in ("runs", "checks", "error_reports"))


def _reports(records: Sequence[Json], folder: Path) -> list[Tidy]:
    """Return the folder's error reports, and those that runs recorded and the folder lost."""
    found = error_reports(folder, _REPORTS)
    names = {Path(report["path"]).name for report in found}
    for record in records:
        for report in reading.mappings(record, "error_reports"):
            path = reading.text(report, "path")
            if Path(path).name not in names:
                names.add(Path(path).name)
                found.append(tidy_error_report(report, path))
    return found
