"""A run in sentences: a line per file, and a total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rp_cli.text import one_line, place_name

_ORDER = ("passed", "failed", "error", "skipped")


def result_line(result: Mapping[str, Any]) -> str:
    """Return what a file's tests did, on what, and why not on what was asked for."""
    notes = "; ".join(dict.fromkeys(_notes(result)))
    return one_line(
        f"{result['status'].upper()} {result['path']}{_ran_on(result)}: "
        f"{_counted(result['tests'])} in {result['seconds']:.1f} s"
        + (f" ({notes})" if notes else "")
    )


def total_line(record: Mapping[str, Any]) -> str:
    """Return e.g. "3 files: 2 passed, 1 failed; 20 tests: 18 passed, 2 failed; 31.5 s"."""
    files = record["files"]
    tests = [test for result in files for test in result["tests"]]
    return (
        f"{len(files)} files: {_counted(files)}; "
        f"{len(tests)} tests: {_counted(tests)}; {record['seconds']:.1f} s"
    )


def _ran_on(result: Mapping[str, Any]) -> str:
    models = result["pool"].get("models", [])
    if not models:
        return ""
    places = _all(f"{_place(model)} {model.get('dtype')}" for model in models)
    return f" on {places}, {_all(str(model.get('weights')) for model in models)} weights"


def _place(model: Mapping[str, Any]) -> str:
    return place_name(str(model.get("device")), (model.get("web") or {}).get("adapter_kind"))


def _notes(result: Mapping[str, Any]) -> Iterator[str]:
    asked, models = result["asked"], result["pool"].get("models", [])
    for model in models if asked else ():
        note = model.get("note")
        if note and model.get("backend") == str(asked).partition(":")[0]:
            yield f"as asked for, although {note}"
        elif note:
            yield f"{asked} was asked for: {note.removeprefix(f'{asked} is not used: ')}"
    for weights in result["weights"] if models else ():
        if weights["kind"] == "tiny":
            yield f"tiny because {weights['reason']}"
    if result["status"] == "skipped":
        yield from (test["detail"] for test in result["tests"])
    if result["node"]:
        yield f"node {result['node']}"


def _counted(items: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(item["status"] for item in items)
    known = [status for status in _ORDER if status in counts]
    order = (*known, *sorted(counts.keys() - {*known}))
    return ", ".join(f"{counts[status]} {status}" for status in order) or "no test ran"


def _all(parts: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(parts))
