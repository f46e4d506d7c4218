"""What a script asks of a machine: ``cuda>=1,vram>=40GiB``, read and judged.

A requirement is a list of clauses, all of which must hold. A clause is ``NAME`` (at least one of
it), or ``NAME OPERATOR VALUE`` with one of ``>= > == = <= < !=``:

===============  ==================================================================
name             what is compared
===============  ==================================================================
a backend        how many of its devices computed correctly: ``cuda>=2``
``vram``         total memory of the largest GPU: ``vram>=40GiB``
``vram_free``    free memory of the GPU that has most of it; not met where it is not known
                 as of now
``vram_total``   total memory of all GPUs together
``memory``       total system memory that this process may have
``memory_free``  what of it is free now
``cores``        cores that this process may use
===============  ==================================================================

Sizes need a unit: MiB, GiB, TiB (powers of 1024) or MB, GB, TB (powers of 1000).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hardware_detection.errors import RequirementError, device_hint
from hardware_detection.names import GPUS, HARDWARE_NAMES

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
    "=": operator.eq,
    "<=": operator.le,
    "<": operator.lt,
    "!=": operator.ne,
}
_MIB = 1 << 20
_UNITS = {
    "mib": 1.0,
    "gib": 1024.0,
    "tib": 1024.0**2,
    "mb": 1e6 / _MIB,
    "gb": 1e9 / _MIB,
    "tb": 1e12 / _MIB,
}
# Free memory that is older tells nothing of now.
_FRESH_S = 60.0
_SIZES = ("vram", "vram_free", "vram_total", "memory", "memory_free")
#: Every name that a clause may use.
NAMES = (*HARDWARE_NAMES, *_SIZES, "cores")
# How alike two names must be for one to be a slip: "gpu" is not "cpu".
_ALIKE = 0.7
_CLAUSE = re.compile(
    r"\s*([a-z_]+)\s*(?:(>=|<=|==|!=|>|<|=)\s*(\d+(?:\.\d+)?)\s*(?:([a-z]+)\s*)?)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Clause:
    """One condition; ``value`` is a count, or MiB for sizes."""

    name: str
    comparison: str
    value: float
    text: str

    def holds(self, found: float) -> bool:
        """Whether what was found meets the condition."""
        return _OPERATORS[self.comparison](found, self.value)


def parse(text: str) -> tuple[Clause, ...]:
    """Return the clauses of a requirement.

    Raises:
        RequirementError: it is none; the message says which part and what is possible.
    """
    return tuple(_clause(part) for part in text.split(","))


def unmet(clauses: tuple[Clause, ...], report: Mapping[str, Any]) -> list[str]:
    """Return for each clause that does not hold, what was asked for and what is there."""
    problems = []
    for clause in clauses:
        found = measure(clause.name, report)
        if found is None:
            problems.append(f"{clause.text} is not met: {_last_known(report)}")
        elif not clause.holds(found):
            problems.append(f"{clause.text} is not met: {_have(clause.name, found, report)}")
    return problems


def measure(name: str, report: Mapping[str, Any]) -> float | None:
    """Return what a clause of this name is compared with; 0 for what is not there.

    None: it is there, and nothing tells how much of it.
    """
    details, system = report["details"], report["system"]
    if name in HARDWARE_NAMES:
        return float(details[name]["device_count"])
    if name == "cores":
        return float(system["cpu_count"] or 0)
    if name == "memory":
        return float(system["memory_total_mb"])
    if name == "memory_free":
        return float(system["memory_available_mb"])
    gpus = _gpus(report)
    if name == "vram_free":
        free = [row["memory_free_mb"] for row in gpus if row["memory_free_age_seconds"] < _FRESH_S]
        known = [size for size in free if size is not None]
        return max(known, default=None if gpus else 0.0)
    sizes = [float(row["memory_total_mb"] or 0.0) for row in gpus]
    return sum(sizes) if name == "vram_total" else max(sizes, default=0.0)


def _gpus(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    details = report["details"]
    return [row for gpu in GPUS for row in details[gpu]["devices"] if row["dtypes"]]


def _last_known(report: Mapping[str, Any]) -> str:
    rows = [row for row in _gpus(report) if row["memory_free_mb"] is not None]
    if not rows:
        return "the GPU does not tell its free memory"
    best = max(rows, key=lambda row: float(row["memory_free_mb"]))
    free, age = best["memory_free_mb"] / 1024, best["memory_free_age_seconds"] / 60
    return (
        f"free memory cannot be asked here (last known {free:.1f} GiB, {age:.0f} min ago);"
        " --refresh detects anew"
    )


def _clause(part: str) -> Clause:
    found = _CLAUSE.fullmatch(part)
    if found is None:
        raise RequirementError(
            f"cannot read the requirement {part.strip()!r}; write it like cuda>=1 or vram>=40GiB"
        )
    name, comparison, number, unit = found.groups()
    name = name.lower()
    if name not in NAMES:
        hint = device_hint(name, NAMES, cutoff=_ALIKE)
        raise RequirementError(
            f"unknown name {name!r} in a requirement{hint}; use {', '.join(NAMES)}"
        )
    text = "".join(part.split())
    if comparison is None:
        if name in _SIZES:
            raise RequirementError(f"{name} needs a size, such as {name}>=40GiB")
        return Clause(name, ">=", 1.0, text)
    return Clause(name, comparison, _value(name, float(number), (unit or "").lower()), text)


def _value(name: str, number: float, unit: str) -> float:
    if name not in _SIZES:
        if unit:
            raise RequirementError(f"{name} is a count and has no unit {unit!r}")
        return number
    if unit not in _UNITS:
        raise RequirementError(
            f"{name} needs a unit: MiB, GiB, TiB, MB, GB or TB, such as {name}>=40GiB"
        )
    return number * _UNITS[unit]


def _have(name: str, found: float, report: Mapping[str, Any]) -> str:
    where = "the described machine" if report.get("described_by") else "this machine"
    if name in _SIZES:
        return f"{where} has {found / 1024:.1f} GiB"
    if name in HARDWARE_NAMES and not found:
        return f"{where} has none ({report['details'][name]['reason']})"
    return f"{where} has {found:.0f}"
