"""A recorded run or check, made tidy: every field is there, and of the type that it says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rp_cli.reporting import reading
from rp_cli.reporting.reading import Json
from rp_cli.text import place_name

FINE = ("passed", "skipped", "deselected")
# The order in which people want to read statuses, the worst first.
WORST_FIRST = (
    "crashed", "timeout", "error", "failed", "no_tests", "missing", "not run", "interrupted",
    "skipped", "deselected", "passed", "ok",
)  # fmt: skip
# What may stand in for a hardware: onnxruntime for a browser, an emulator for a browser's GPU.
STAND_INS = ("simulated", "software")
# Of what a file that broke without a trace has written, so much may say why.
_LAST_LINES = 20

Tidy = dict[str, Any]


def tidy_run(record: Json) -> Tidy:
    """Return a run: when, where, its status, its files, and what they come to."""
    files = _named_apart([_file(result) for result in reading.mappings(record, "files")])
    return {
        **_head(record),
        "host": reading.text(record, "host"),
        "python": reading.text(record, "python"),
        "status": _run_status(record, files),
        "seconds": reading.number(record, "seconds"),
        "jobs": reading.whole(record, "jobs"),
        "totals": counted(file["status"] for file in files),
        "test_totals": counted(test["status"] for file in files for test in file["tests"]),
        "files": files,
        "not_run": reading.texts(record, "not_run"),
        "notes": reading.texts(record, "notes"),
    }


def tidy_check(record: Json) -> Tidy:
    """Return a check: when, where, and its lines."""
    lines = [
        {key: reading.text(line, key, "") for key in ("name", "status", "detail", "remedy")}
        for line in reading.mappings(record, "lines")
    ]
    passed = record.get("passed") is True
    ended = "interrupted" if record.get("interrupted") is True else "failed"
    return {
        **_head(record),
        "status": "passed" if passed else ended,
        "totals": counted(line["status"] for line in lines),
        "lines": lines,
    }


def counted(statuses: Iterable[str]) -> dict[str, int]:
    """Return how often each status is there, the worst first."""
    counts = Counter(statuses)
    return dict(sorted(counts.items(), key=lambda item: (rank(item[0]), item[0])))


def rank(status: str) -> int:
    """Return a status's place, the worst first; one that nobody knows is in the middle."""
    return WORST_FIRST.index(status) if status in WORST_FIRST else WORST_FIRST.index("missing")


def _head(record: Json) -> Tidy:
    return {
        "id": reading.whole(record, "id") or 0,
        "started_at": reading.text(record, "started_at"),
        "folder": reading.text(record, "folder"),
        "rp_version": reading.text(record, "rp_version"),
    }


def _run_status(record: Json, files: list[Tidy]) -> str:
    if record.get("interrupted") is True:
        return "interrupted"
    return "passed" if all(file["status"] in FINE for file in files) else "failed"


def _named_apart(files: list[Tidy]) -> list[Tidy]:
    """Name files by their paths where several of a run have one name."""
    count = Counter(file["name"] for file in files)
    return [{**file, "name": file["path"]} if count[file["name"]] > 1 else file for file in files]


def _file(result: Json) -> Tidy:
    pool, resources = reading.mapping(result, "pool"), reading.mapping(result, "resources")
    path, model = reading.text(result, "path"), reading.optional_text(result, "model_name")
    placements = [_placement(one, model) for one in reading.mappings(pool, "models")]
    return {
        "path": path,
        "name": path.replace("\\", "/").rpartition("/")[2],
        "model_name": model,
        "asked": reading.optional_text(result, "asked"),
        "status": reading.text(result, "status"),
        "seconds": reading.number(result, "seconds"),
        "cpu_seconds": reading.number(resources, "cpu_seconds"),
        "peak_mb": reading.number(resources, "peak_mb"),
        "ran_in": reading.optional_text(result, "ran_in"),
        "node": reading.optional_text(result, "node"),
        "error": reading.lines(result, "error"),
        "last_output": _last_output(result),
        "weights_reasons": _reasons(result),
        "tests": [_test(test) for test in reading.mappings(result, "tests")],
        "placements": placements,
        "hits": reading.whole(pool, "hits"),
        "misses": reading.whole(pool, "misses"),
    }


def _placement(placed: Json, model: str | None) -> Tidy:
    device, dtype = reading.text(placed, "device"), reading.text(placed, "dtype")
    key, web = reading.text(placed, "key"), reading.mapping(placed, "web")
    adapter = reading.optional_text(web, "adapter_kind")
    return {
        "key": key,
        "model_name": model or model_of(key, device),
        "device": device,
        "ran_on": f"{place_name(device, adapter)} {dtype}",
        "backend": _hardware(reading.optional_text(placed, "backend"), device, adapter),
        "adapter": adapter,
        "dtype": dtype,
        "weights": reading.text(placed, "weights"),
        "memory_mb": reading.megabytes(placed, "memory_usage"),
        "predicted_mb": reading.megabytes(placed, "predicted"),
        "note": reading.text(placed, "note", ""),
    }


def _hardware(backend: str | None, device: str, adapter: str | None) -> str:
    """Return under which hardware a result counts: what stands in for it is never itself."""
    name, _, index = device.partition(":")
    stand_in = "simulated" if index == "simulation" else adapter
    return f"{backend or name} ({stand_in})" if stand_in in STAND_INS else backend or name


def skip_reasons(run: Tidy) -> list[tuple[int, str]]:
    """Return why tests of a run were skipped, and how many each, the most first.

    What a reason says first, which model it is about, is left out: equal reasons are one.
    """
    reasons = Counter(
        _skip_reason(test["detail"], file["model_name"])
        for file in run["files"]
        for test in file["tests"]
        if test["status"] == "skipped"
    )
    return [(count, reason) for reason, count in reasons.most_common()]


def _skip_reason(detail: str, model: str | None) -> str:
    text = " ".join(detail.split())
    first, found, rest = text.partition(": ")
    # "text_generation:gpt2#AutoModel: cuda is forced ..."
    is_key = model is not None and first.partition(":")[2].startswith(model) and " " not in first
    return rest if found and is_key else text


def model_of(key: str, device: str) -> str:
    """Return the model's name out of the pool's key, "family:name#variant:device:dtype"."""
    name = key.partition(":")[2].rpartition(":")[0].removesuffix(f":{device}")
    return re.split(r"[#@]", name, maxsplit=1)[0] or key


def _test(test: Json) -> Tidy:
    return {
        "name": reading.text(test, "name"),
        "status": reading.text(test, "status"),
        "seconds": reading.number(test, "seconds"),
        "exception": reading.optional_text(test, "exception"),
        "detail": reading.lines(test, "detail"),
    }


def _reasons(result: Json) -> list[str]:
    weights = reading.mappings(result, "weights")
    reasons = (reading.optional_text(one, "reason") for one in weights)
    return list(dict.fromkeys(reason for reason in reasons if reason))


def _last_output(result: Json) -> str:
    return "\n".join(reading.lines(result, "output").splitlines()[-_LAST_LINES:])


def failures_of(run: Tidy) -> Iterator[Tidy]:
    """Yield what went wrong: tests that failed, and files that broke.

    A file that broke in the middle of a test is one failure: the test's, told as the file's.
    """
    for file in run["files"]:
        about = {"run": run["id"], "file": file["path"], "model_name": file["model_name"]}
        bad = [test for test in file["tests"] if test["status"] in ("failed", "error")]
        inside = [test for test in bad if file["error"] and test["detail"] == file["error"]]
        for test in bad:
            told = _of_file(file) if test in inside else _of_test(test)
            yield {**about, "test": method(test["name"]), **told}
        if not inside and (file["error"] or (file["status"] not in FINE and not bad)):
            yield {**about, "test": None, **_of_file(file)}


def _of_test(test: Tidy) -> Tidy:
    message = reading.last_line(test["detail"])
    return {"status": test["status"], "message": message, "trace": test["detail"], "output": ""}


def _of_file(file: Tidy) -> Tidy:
    return {
        "status": file["status"],
        "message": reading.last_line(file["error"] or file["status"]),
        "trace": file["error"],
        "output": file["last_output"],
    }


def method(test_name: str) -> str:
    """Return the method of "module.Class.method" or "file::Class::method".

    Of "setUpClass (...)", that is "setUpClass".
    """
    name = test_name.partition(" (")[0]
    return name.rpartition("::")[2] if "::" in name else name.rpartition(".")[2]
