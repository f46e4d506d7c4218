"""How the answer of a proof becomes a record; shared by the probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hardware_detection.answers import Answer, ProofError, ask
from hardware_detection.machine import Machine
from hardware_detection.record import Device, ProbeResult

_NO_MAPPING: Mapping[str, Any] = {}


def prove(
    machine: Machine,
    name: str,
    proof: tuple[str, ...],
    *,
    none_found: str,
    remedy: str,
    seen: tuple[Device, ...] = (),
    facts: Mapping[str, Any] = _NO_MAPPING,
    sources: Mapping[str, str] = _NO_MAPPING,
) -> ProbeResult:
    """Run a proof and return the record that it justifies.

    Args:
        machine: where to run it.
        name: the backend.
        proof: the proof's name and arguments.
        none_found: the reason where the proof finds no device at all.
        remedy: what to do where the proof fails on every device, or itself.
        seen: devices that something else saw, for a record without the proof's own.
        facts: what is known already.
        sources: where those facts come from.
    """
    try:
        answer = ask(machine, *proof)
    except ProofError as error:
        return ProbeResult(name, "error", f"{error}; {remedy}", seen, facts, sources, retry=True)
    facts = {**facts, **{key: value for key, value in answer.facts.items() if value is not None}}
    sources = {**dict.fromkeys(["devices", *answer.facts], proof[0]), **sources}
    if answer.proved:
        retry = any(device.problem for device in answer.devices)
        devices = answer.devices
        return ProbeResult(name, "available", _praise(answer), devices, facts, sources, retry)
    reason = none_found
    if answer.devices:
        reason = f"{answer.devices[0].problem or 'nothing could be computed'}; {remedy}"
    devices = answer.devices or seen
    return ProbeResult(name, "unusable", reason, devices, facts, sources, retry=True)


def _praise(answer: Answer) -> str:
    proved = [device for device in answer.devices if device.dtypes]
    count = "1 device" if len(proved) == 1 else f"{len(proved)} devices"
    text = f"{count} computed a test product correctly in {', '.join(proved[0].dtypes)}"
    failed = [device for device in answer.devices if not device.dtypes]
    return text + "".join(f"; device {device.index} did not: {device.problem}" for device in failed)
