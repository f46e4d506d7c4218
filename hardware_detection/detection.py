"""A whole detection: every probe, run side by side, and when and where it was done."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from datetime import datetime, timezone

from hardware_detection.fingerprint import fingerprint
from hardware_detection.log import log
from hardware_detection.machine import Machine
from hardware_detection.names import CPU
from hardware_detection.probes import PROBES
from hardware_detection.record import Detection, ProbeResult


def detect(machine: Machine, probes: Mapping[str, str] = PROBES) -> Detection:
    """Run every probe, at the same time where they wait for children, and collect the records."""
    from concurrent.futures import ThreadPoolExecutor

    started = time.monotonic()
    # Taken first: what changes while the probes run makes the result stale, never falsely fresh.
    taken = fingerprint(machine)
    with ThreadPoolExecutor(max_workers=len(probes)) as pool:
        # The CPU last: to read about it keeps the interpreter busy, when the others could start
        # the children for which everybody waits.
        order = sorted(probes, key=CPU.__eq__)
        futures = {name: pool.submit(_run, machine, name, probes[name]) for name in order}
        try:
            results = tuple(futures[name].result() for name in probes)
        except BaseException:
            # Interrupted. The pool waits for its threads, and they for their children.
            machine.close()
            raise
    log().debug("all probes: %.2f s", time.monotonic() - started)
    return Detection(results, taken, datetime.now(timezone.utc))


def _run(machine: Machine, name: str, module: str) -> ProbeResult:
    started = time.monotonic()
    try:
        result: ProbeResult = importlib.import_module(module).probe(machine)
    except Exception as error:
        log().debug("probe %s failed", name, exc_info=True)
        reason = f"the probe itself failed ({type(error).__name__}: {error}); please report it"
        result = ProbeResult(name, "error", reason, retry=True)
    log().debug("%s: %s in %.2f s", name, result.status, time.monotonic() - started)
    return result
