"""Two runs side by side: what broke, what was mended, what takes longer."""

from __future__ import annotations

from typing import Any

from rp_cli.reporting.runs import FINE, Tidy

# Less is noise: a start of Python alone varies by this much.
_SLOWER, _SECONDS = 1.2, 0.5
SCHEMA_VERSION = 1
CHANGES = ("broken", "mended", "new", "gone", "changed", "slower", "faster", "same")


def compare(before: Tidy, after: Tidy) -> dict[str, Any]:
    """Return {schema_version, before, after, totals, files}; what matters most stands first.

    Each has path, change (one of ``CHANGES``), and of both sides status, seconds, peak_mb, ran_on
    and weights, None where the file was not run. ``ratio`` is the seconds after / before.
    """
    sides = [{file["path"]: file for file in run["files"]} for run in (before, after)]
    rows = [_row(path, sides[0].get(path), sides[1].get(path)) for path in sides[0] | sides[1]]
    rows.sort(key=lambda row: (CHANGES.index(row["change"]), row["path"]))
    return {
        "schema_version": SCHEMA_VERSION,
        "before": _about(before),
        "after": _about(after),
        "totals": {
            change: count
            for change in CHANGES
            if (count := sum(row["change"] == change for row in rows))
        },
        "files": rows,
    }


def _about(run: Tidy) -> Tidy:
    return {key: run[key] for key in ("id", "started_at", "folder", "host", "status", "seconds")}


def _row(path: str, before: Tidy | None, after: Tidy | None) -> Tidy:
    ratio = _ratio(before, after)
    return {
        "path": path,
        "change": _change(before, after, ratio),
        "before": _side(before),
        "after": _side(after),
        "ratio": ratio,
    }


def _side(file: Tidy | None) -> Tidy | None:
    if file is None:
        return None
    placed = file["placements"]
    return {
        **{key: file[key] for key in ("status", "seconds", "peak_mb")},
        "ran_on": list(dict.fromkeys(one["ran_on"] for one in placed)),
        "weights": list(dict.fromkeys(one["weights"] for one in placed)),
    }


def _change(before: Tidy | None, after: Tidy | None, ratio: float | None) -> str:
    if before is None or after is None:
        return "new" if before is None else "gone"
    if (before["status"] in FINE) != (after["status"] in FINE):
        return "broken" if before["status"] in FINE else "mended"
    if before["status"] != after["status"]:
        return "changed"
    if ratio is None or abs(after["seconds"] - before["seconds"]) < _SECONDS:
        return "same"
    return "slower" if ratio > _SLOWER else "faster" if ratio < 1 / _SLOWER else "same"


def _ratio(before: Tidy | None, after: Tidy | None) -> float | None:
    if before is None or after is None or not before["seconds"] or after["seconds"] is None:
        return None
    return float(after["seconds"] / before["seconds"])
