"""What the pools of a run did, in the order of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rp_cli.reporting import reading
from rp_cli.reporting.reading import Json
from rp_cli.reporting.runs import Tidy, model_of

# A process for each file: it ends with the file. A GPU's worker goes on.
_OWN_PROCESS = ("fork", "process")


def pool_events(record: Json) -> list[Tidy]:
    """Return the events of a recorded run's files, oldest first.

    Each has run, files (those that saw it: a model that several files share was loaded once),
    at, seconds since the run began, what, key, model, device, memory_mb and reason. An event
    without a time is left out.
    """
    began = reading.moment(record, "started_at")
    found: dict[tuple[Any, ...], Tidy] = {}
    for result in reading.mappings(record, "files"):
        path = reading.text(result, "path")
        for event in reading.mappings(reading.mapping(result, "pool"), "events"):
            at = reading.moment(event, "timestamp")
            if at is not None and began is not None:
                tidy = _event(event, reading.whole(record, "id") or 0, at, began)
                same = found.setdefault((tidy["what"], tidy["key"], at), tidy)
                same["files"].append(path)
    return sorted(found.values(), key=lambda event: event["seconds"])


def _event(event: Json, run: int, at: datetime, began: datetime) -> Tidy:
    numbers, key = reading.mapping(event, "numbers"), reading.text(event, "key", "")
    device = reading.optional_text(numbers, "device")
    return {
        "run": run,
        "files": [],
        "at": at.isoformat(),
        "seconds": (at - began).total_seconds(),
        "what": reading.text(event, "what"),
        "key": key,
        "model_name": model_of(key, device or ""),
        "device": device,
        "memory_mb": reading.megabytes(numbers, "memory_usage"),
        "reason": reading.text(event, "reason", ""),
    }


def spans(events: Sequence[Tidy], files: Sequence[Tidy]) -> list[Tidy]:
    """Return when each model was in memory: key, model, device, memory_mb, files, and times.

    ``start`` and ``end`` are seconds since the run began. ``end`` is None where no event ended
    it: then it was there until its processes ended, which was at ``latest`` (None is unknown).
    One that several files share ends when it has been evicted in each of them.
    """
    loads = [event for event in events if event["what"] == "place"]
    evictions = [event for event in events if event["what"] == "evict"]
    took = {file["path"]: file["seconds"] for file in files if file["ran_in"] in _OWN_PROCESS}
    return [_span(load, evictions, took) for load in loads]


def _span(load: Tidy, evictions: Sequence[Tidy], took: Mapping[str, float | None]) -> Tidy:
    first: dict[str, Tidy] = {}
    for event in evictions:
        if event["key"] == load["key"] and event["seconds"] >= load["seconds"]:
            for file in event["files"]:
                first.setdefault(file, event)
    ended = [first.get(file) for file in load["files"]]
    last = max(filter(None, ended), key=lambda event: event["seconds"], default=None)
    over = last if all(ended) else None
    # What a file loaded itself goes with its process, which had begun before.
    alone = took.get(load["files"][0]) if len(load["files"]) == 1 else None
    return {
        **{name: load[name] for name in ("key", "model_name", "device", "memory_mb", "files")},
        "start": load["seconds"],
        "end": over["seconds"] if over else None,
        "latest": None if alone is None else load["seconds"] + alone,
        "why": over["reason"] if over else "",
    }
