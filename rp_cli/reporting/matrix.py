"""Models x hardware: the newest result of each model on each hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hardware_detection import HARDWARE_NAMES
from rp_cli.reporting.runs import STAND_INS, Tidy, rank

# A generated file has a test for each other hardware: `test_cuda_agrees_with_cpu_float32`, after
# "module.Class." as unittest names it, or "file.py::Class::" as pytest does.
_ELSEWHERE = re.compile(rf"(?:^|[.:])test_({'|'.join(HARDWARE_NAMES)})_[^.:]*$")
# Where a file ended before anything was loaded: nobody knows on what it would have run.
NOWHERE = "not loaded"


def matrix(runs: Sequence[Tidy]) -> dict[str, Any]:
    """Return {hardware, models, cells}, of runs that come newest first.

    A cell: model, hardware, status, dtype, weights, seconds, memory_mb, detail, run, file. Where
    files of one run disagree, the worst counts.
    """
    cells: dict[tuple[str, str], Tidy] = {}
    for run in runs:
        for cell in _cells(run):
            place = cell["model_name"], cell["hardware"]
            known = cells.setdefault(place, cell)
            if known["run"] == run["id"] and rank(cell["status"]) < rank(known["status"]):
                cells[place] = cell
    return {
        "hardware": _columns({hardware for _, hardware in cells}),
        "models": sorted({model for model, _ in cells}, key=lambda name: (name.lower(), name)),
        "cells": list(cells.values()),
    }


def _columns(found: set[str]) -> list[str]:
    known = [
        name
        for hardware in HARDWARE_NAMES
        for name in (hardware, *(f"{hardware} ({stand_in})" for stand_in in STAND_INS))
        if name in found
    ]
    others = sorted(found - {*known, NOWHERE})
    return [*known, *others, *({NOWHERE} & found)]


def _cells(run: Tidy) -> Iterator[Tidy]:
    for file in run["files"]:
        if file["status"] == "deselected":
            continue
        elsewhere = dict(_elsewhere(file))
        # Where a model was placed first, it was tested; later ones are what it is compared with.
        first = {one["model_name"]: one for one in reversed(file["placements"])}
        for model, placement in first.items():
            yield _cell(run, file, model, placement["backend"], file, placement)
        for backend, test in elsewhere.items():
            yield _cell(run, file, file["model_name"], backend, test, _placed_on(file, backend))
        if file["model_name"] and file["model_name"] not in first:
            yield _cell(run, file, file["model_name"], file["asked"] or NOWHERE, file, None)


def _placed_on(file: Tidy, backend: str) -> Tidy | None:
    mine = (one for one in file["placements"] if one["model_name"] == file["model_name"])
    return next((one for one in mine if one["backend"] == backend), None)


def _elsewhere(file: Tidy) -> Iterator[tuple[str, Tidy]]:
    """Yield the hardware other than the file's own, and what its test came to there."""
    own = file["placements"][0]["backend"] if file["placements"] else None
    places = {one["backend"] for one in file["placements"]}
    for test in file["tests"] if file["model_name"] else ():
        found = _ELSEWHERE.search(test["name"])
        meant = [f"{found[1]} ({one})" for one in STAND_INS] if found else []
        place = next((one for one in meant if one in places), found[1] if found else own)
        if place != own:
            yield str(place), test


def _cell(
    run: Tidy, file: Tidy, model: str, hardware: str, result: Tidy, placement: Tidy | None
) -> Tidy:
    placed = placement or {}
    return {
        "model_name": model,
        "hardware": hardware,
        "status": result["status"],
        "dtype": placed.get("dtype"),
        "weights": placed.get("weights"),
        "seconds": result["seconds"],
        "memory_mb": placed.get("memory_mb"),
        "detail": _detail(result),
        "run": run["id"],
        "file": file["path"],
    }


def _detail(result: Tidy) -> str:
    """Return the last line of what a test or a file says of how it ended."""
    tests = result.get("tests", ())
    failures = [test["detail"] for test in tests if test["status"] in ("failed", "error")]
    said = [result.get("detail"), result.get("error"), *failures]
    return str(next(filter(None, said), "")).strip().rpartition("\n")[2]
