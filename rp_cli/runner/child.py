"""Runs one test file in this process and writes what happened as JSON.

The exit status of the process says only whether the result was written; whether the tests
passed stands in it.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import traceback
import types
import unittest
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hardware_detection.files import write_atomically
from rp_cli.runner.journal import NO_JOURNAL, Journal, journal_of
from rp_cli.runner.selecting import Selection, parse_selection
from rp_cli.runner.unittests import run_unittests, shortened, skipped_whole

if TYPE_CHECKING:
    from resource_pool import ResourcePool


def run_file(
    path: Path,
    stream: TextIO,
    meant: Selection = lambda _: True,
    journal: Journal = NO_JOURNAL,
) -> dict[str, Any]:
    """Import and run a test file; return what it did.

    Returns:
        tests [{name, status, seconds, detail, exception}]; deselected: how many were not meant;
        error and exception: the trace and the type of what stopped the import, or ""; model,
        asked (device) and weights [{kind, reason}], as far as the file is a generated one;
        pool: what ran where.
    """
    use = _PoolUse()
    try:
        module = _import(path)
    except unittest.SkipTest as reason:
        return {"tests": [skipped_whole(path.name, str(reason))], "error": "", "pool": {}}
    except BaseException as error:  # whatever a file does when it is imported, it is told
        trace = shortened(traceback.format_exc())
        return {"tests": [], "error": trace, "exception": type(error).__name__, "pool": {}}
    done = run_unittests(module, stream, meant, journal)
    return {"error": "", **done, **_generated_facts(module), "pool": use.facts()}


def run_file_with_pytest(path: Path, meant: Selection, journal: Journal) -> dict[str, Any]:
    """Run a file under pytest; return what :func:`run_file` returns."""
    from rp_cli.runner.pytests import run_pytest

    use = _PoolUse()
    done, module = run_pytest(path, meant, journal)
    facts = _generated_facts(module) if module is not None else {}
    return {**done, **facts, "pool": use.facts()}


def _import(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _generated_facts(module: types.ModuleType) -> dict[str, Any]:
    """Read what a generated file and its test class say; any other file has nothing to say."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    tests = [one for one in classes if issubclass(one, unittest.TestCase)]
    preferences = [_read(one, "preferences") for one in tests]
    devices = [one.get("device") for one in preferences if isinstance(one, Mapping)]
    located = [_read(one, "weights") for one in tests]
    told = [{"kind": _read(one, "kind"), "reason": _read(one, "reason")} for one in located]
    model = _read(module, "MODEL_NAME")
    return {
        "model_name": model if isinstance(model, str) else None,
        "asked": next((str(one) for one in devices if one not in (None, "auto")), None),
        "weights": [one for one in told if all(isinstance(fact, str) for fact in one.values())],
    }


def _read(owner: Any, name: str) -> Any:
    """Return an attribute, or None: in anybody's file it may be something that raises."""
    with suppress(Exception):
        return getattr(owner, name)
    return None


class _PoolUse:
    """What a file does with the pool, which may have been used before the file began."""

    def __init__(self) -> None:
        pool = _pool()
        nothing: dict[str, Any] = {"hits": 0, "misses": 0, "models": {}}
        self._stats = pool.get_stats() if pool else nothing
        self._events = len(pool.events()) if pool else 0

    def facts(self) -> dict[str, Any]:
        """Say what ran where; a file that never used the pool has nothing to say."""
        pool = _pool()
        if pool is None:
            return {}
        stats, events = pool.get_stats(), pool.events()
        unused = {key for key in self._stats["models"] if self._is_untouched(key, stats)}
        # What was loaded beforehand counts where this file used it.
        mine = [
            event
            for index, event in enumerate(events)
            if index >= self._events or (event.what == "place" and event.key not in unused)
        ]
        placed = {
            event.key: {"key": event.key, **event.numbers, "note": event.reason}
            for event in mine
            if event.what == "place"
        }
        return {
            "models": list(placed.values()),
            "events": [asdict(event) for event in mine],
            "hits": stats["hits"] - self._stats["hits"],
            "misses": stats["misses"] - self._stats["misses"],
            "low_memory_mode": stats["low_memory_mode"],
        }

    def _is_untouched(self, key: str, stats: Mapping[str, Any]) -> bool:
        now = stats["models"].get(key, {"hits": None})
        return bool(now["hits"] == self._stats["models"][key]["hits"])


def _pool() -> ResourcePool | None:
    """Return the pool where there is one; it is not made for the question."""
    module = sys.modules.get("resource_pool._global")
    return getattr(module, "_global_pool", None)


def main(test_file: str, result_file: str, style: str = "unittest", selection: str = "") -> None:
    """Run a test file, which sees itself as a script does, and write the result as JSON."""
    logging.basicConfig(level=logging.WARNING)
    path, meant = Path(test_file), parse_selection(selection)
    journal = Journal(journal_of(Path(result_file)))
    sys.argv[:] = [test_file]
    sys.path.insert(0, str(path.resolve().parent))
    if style == "pytest":
        result = run_file_with_pytest(path, meant, journal)
    else:
        result = run_file(path, sys.stderr, meant, journal)
    write_atomically(Path(result_file), json.dumps(result, default=str))
