"""Reads what a proof's child process answered, and decides what it has proved."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hardware_detection.machine import Machine
from hardware_detection.proofs.matrices import expected
from hardware_detection.record import MOST_MEBIBYTES, Device


class ProofError(Exception):
    """A proof gave no answer that can be used; the message says how it ended."""


@dataclass(frozen=True)
class Answer:
    """A checked answer: the devices, with the number formats that came out right, and facts."""

    devices: tuple[Device, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def proved(self) -> bool:
        """Whether any device computed correctly."""
        return any(device.dtypes for device in self.devices)


def ask(machine: Machine, *arguments: str) -> Answer:
    """Run a proof in a child process and return its checked answer.

    Raises:
        ProofError: the child crashed, hung, failed or answered nonsense.
    """
    outcome = machine.prove(*arguments)
    if not outcome.ok:
        raise ProofError(f"the test computation {outcome.describe()}")
    return read_answer(outcome.stdout)


def read_answer(text: str) -> Answer:
    """Check a child's answer, the JSON object that ``hardware_detection.proofs`` describes.

    Raises:
        ProofError: the child reports an error, or the text is no such object.
    """
    try:
        # A vendor's NaN or Infinity is no JSON value: unknown.
        data = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and isinstance(data.get("error"), str):
        raise ProofError(f"the test computation failed ({data['error']})")
    try:
        devices = tuple(_device(row) for row in data["devices"])
        return Answer(tuple(sorted(devices, key=lambda device: device.index)), dict(data["facts"]))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise ProofError("the test computation answered nonsense") from None


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _device(row: Mapping[str, Any]) -> Device:
    index = row["index"]
    if type(index) is not int or index < 0:
        raise ValueError(index)
    failures = {name: why for name, got in row["results"].items() if (why := _failure(got))}
    dtypes = tuple(name for name in row["results"] if name not in failures)
    facts = dict(row.get("facts", {}))
    if failures and dtypes:
        facts["dtypes_failed"] = failures
    return Device(
        index=index,
        name=str(row.get("name") or "unknown"),
        memory_total_mb=_mebibytes(row.get("memory_total_mb")),
        memory_free_mb=_mebibytes(row.get("memory_free_mb")),
        dtypes=dtypes,
        problem="" if dtypes else str(row.get("problem") or next(iter(failures.values()), "")),
        facts=facts,
    )


def _failure(result: object) -> str:
    """Return why a result proves nothing; empty if it is right."""
    if isinstance(result, str):
        return result or "failed without a message"
    # Exact: every number in the product is a small whole number in every format.
    if isinstance(result, list) and tuple(result) == expected():
        return ""
    return "computed a wrong result"


def _mebibytes(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    if not 0 <= value <= MOST_MEBIBYTES:  # false for NaN too
        raise ValueError(value)
    return round(float(value), 1)
