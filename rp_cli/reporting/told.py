"""A report in rows and lines, as the terminal and Markdown show them."""

from __future__ import annotations

from collections.abc import Iterator

from rp_cli.reporting.plots import size_label
from rp_cli.reporting.reading import UNKNOWN, joined
from rp_cli.reporting.runs import Tidy, failures_of, skip_reasons
from rp_cli.text import not_run

RUN_HEADINGS = ("file", "status", "passed", "ran on", "weights", "seconds", "peak memory")
COMPARED_HEADINGS = ("file", "change", "before", "after", "seconds", "ran on", "weights")

# So many reasons are told; they come by how many tests each has skipped.
_MOST_REASONS = 20


def title(word: str, record: Tidy) -> str:
    """Return e.g. "Run 7, 2026-01-31 12:00:00 UTC, in /home/me/project, interrupted"."""
    moment = record["started_at"][:19].replace("T", " ")
    ended = ", interrupted" if record["status"] == "interrupted" else ""
    return f"{word} {record['id']}, {moment} UTC, in {record['folder']}{ended}"


def run_rows(run: Tidy) -> Iterator[tuple[str, ...]]:
    """Yield a row per file, with a cell for each of ``RUN_HEADINGS``."""
    for file in run["files"]:
        placed = file["placements"]
        yield (
            file["name"],
            file["status"],
            _passed(file["tests"]),
            joined(one["ran_on"] for one in placed),
            joined(one["weights"] for one in placed),
            _seconds(file["seconds"]),
            UNKNOWN if file["peak_mb"] is None else size_label(file["peak_mb"]),
        )


def run_notes(run: Tidy) -> list[str]:
    """Return each failure in a line, what was not run, and why tests were skipped."""
    names = {file["path"]: file["name"] for file in run["files"]}
    failures = [failure_line(failure, names[failure["file"]]) for failure in failures_of(run)]
    left_out = [not_run(len(run["not_run"]))] if run["not_run"] else []
    skips = [f"{count} skipped: {reason}" for count, reason in skip_reasons(run)]
    if len(skips) > _MOST_REASONS:
        others = sum(count for count, _ in skip_reasons(run)[_MOST_REASONS:])
        skips[_MOST_REASONS:] = [f"{others} skipped for other reasons; `rp report --json` has them"]
    return [*failures, *left_out, *skips]


def failure_line(failure: Tidy, file: str) -> str:
    """Return the exception of a failure and its message, and where it was."""
    where = f"{file}: {failure['test']}" if failure["test"] else file
    return f"{where}: {failure['message']}"


def check_lines(check: Tidy) -> list[str]:
    """Return the lines that are not ok, with what to do, and a line of totals."""
    bad = [line for line in check["lines"] if line["status"] != "ok"]
    return [*map(_check_line, bad), totals(check["totals"]) or "no check ran"]


def totals(counts: dict[str, int]) -> str:
    """Return e.g. "1 failed, 9 passed"."""
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def compared_rows(comparison: Tidy) -> Iterator[tuple[str, ...]]:
    """Yield a row per file, with a cell for each of ``COMPARED_HEADINGS``."""
    for row in comparison["files"]:
        before, after = row["before"] or {}, row["after"] or {}
        ratio = f" (x{row['ratio']:.2f})" if row["ratio"] is not None else ""
        yield (
            row["path"],
            row["change"],
            before.get("status", "-"),
            after.get("status", "-"),
            f"{_seconds(before.get('seconds'))} -> {_seconds(after.get('seconds'))}{ratio}",
            _moved(before.get("ran_on", []), after.get("ran_on", [])),
            _moved(before.get("weights", []), after.get("weights", [])),
        )


def compared_title(comparison: Tidy) -> str:
    """Return which runs are compared."""
    sides = (
        f"run {run['id']} ({run['started_at'][:19].replace('T', ' ')} UTC, {run['host']})"
        for run in (comparison["before"], comparison["after"])
    )
    return " against ".join(sides)


def _moved(before: list[str], after: list[str]) -> str:
    first, second = joined(before), joined(after)
    return first if first == second else f"{first} -> {second}"


def _passed(tests: list[Tidy]) -> str:
    done = sum(test["status"] == "passed" for test in tests)
    skipped = sum(test["status"] == "skipped" for test in tests)
    return f"{done}/{len(tests)}" + (f" ({skipped} skipped)" if skipped else "")


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}"


def _check_line(line: Tidy) -> str:
    advice = f" -> {line['remedy']}" if line["remedy"] else ""
    return f"{line['status']}: {line['name']}: {line['detail']}{advice}"
