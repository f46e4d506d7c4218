"""A report in words: the cells of the table that `rp detect` draws, and the same as lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hardware_detection.report import printable


class Row(NamedTuple):
    """One backend, for people."""

    backend: str
    status: str
    devices: str
    reason: str


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Return one row per backend, in the order of the report."""
    return [
        Row(name, details["status"], _devices(details), details["reason"])
        for name, details in report["details"].items()
    ]


def system_line(report: Mapping[str, Any]) -> str:
    """Return one line about the machine and the age of the detection."""
    system = report["system"]
    cpu = report["details"]["cpu"]
    return (
        f"{system['platform']} {system['architecture']}, Python {system['python']},"
        f" {_cores(cpu)}, {_gib(system['memory_available_mb'])} of"
        f" {_gib(system['memory_total_mb'])} free; best: {report['best_available']}"
        f" (torch: {report['torch_device']}); {_source(report)}"
    )


def _source(report: Mapping[str, Any]) -> str:
    if report["described_by"]:
        return f"described by {printable(report['described_by'])}, not detected here"
    if report["from_cache"]:
        return f"cached, {_age(report['age_seconds'])} old"
    return "detected now"


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the system line and one line per backend, without a table."""
    lines = [system_line(report)]
    for row in rows(report):
        devices = f" {row.devices};" if row.devices else ""
        lines.append(f"{row.backend:<9} {row.status:<9}{devices} {row.reason}")
    return lines


def _devices(details: Mapping[str, Any]) -> str:
    return "; ".join(_device(row, len(details["devices"])) for row in details["devices"])


def _device(row: Mapping[str, Any], count: int) -> str:
    text = f"{row['index']}: {row['name']}" if count > 1 else str(row["name"])
    if row["memory_total_mb"] is not None:
        free, age = row["memory_free_mb"], row["memory_free_age_seconds"]
        known = "" if free is None else f"{_gib(free)} of "
        stale = f" ({_age(age)} ago)" if known and age >= 1 else ""
        text += f", {known}{_gib(row['memory_total_mb'])}{' free' if known else ''}{stale}"
    if "compute_capability" in row:
        text += f", compute capability {printable(str(row['compute_capability']))}"
    return text


def _cores(cpu: Mapping[str, Any]) -> str:
    physical, logical = cpu.get("physical_cores"), cpu.get("logical_cores")
    usable = cpu.get("usable_cores")
    limited = f" ({usable} usable)" if usable and logical and usable < logical else ""
    return f"{physical or '?'} cores, {logical or '?'} threads{limited}"


def _gib(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f} GiB"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
