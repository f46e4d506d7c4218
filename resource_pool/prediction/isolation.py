"""Traces in a process of its own, which can be stopped at any moment.

A config is untrusted: it may ask for a billion layers, and a model's Python may loop without
calling torch, where no check inside the trace would see the deadline. A trace also changes what
threads share (torch's default dtype), and imports of hundreds of MiB would stay in the caller.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from resource_pool.prediction.trace import TraceRequest

_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
# "-c" puts the current folder, which may hold anybody's files, first on the import path. Looking
# for garbage during imports, which make none, takes a third of their time.
_START = (
    "import gc, sys; gc.disable(); sys.path[:] = [sys.argv[1], *filter(None, sys.path)];"
    " from resource_pool.prediction.isolation import answer_stdin; answer_stdin()"
)
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# A 70B model takes half a GiB; a config that takes this much is meant to do harm.
_MEMORY_LIMIT = 4 * 2**30


class _StoppedError(Exception):
    """A trace came to no end of its own; ``known`` is what it had found out by then."""

    def __init__(self, problem: str, known: dict[str, Any]) -> None:
        super().__init__(problem)
        self.known = known


def traced(request: TraceRequest, deadline_s: float) -> dict[str, Any]:
    """Return everything that ``trace`` yields, merged, and a ``problem`` if it was stopped."""
    if deadline_s <= 0:
        return {"problem": "no time was given to trace it"}
    try:
        return _finished(request, deadline_s)
    except _StoppedError as stopped:
        return {**stopped.known, "problem": str(stopped)}


# An answer depends on nothing but the request and the installed versions; how long it took, and
# whether it came at all, depends on the machine's moment and is asked again.
@functools.lru_cache(maxsize=256)
def _finished(request: TraceRequest, deadline_s: float) -> dict[str, Any]:
    try:
        child = subprocess.run(
            [sys.executable, "-c", _START, _PACKAGE_ROOT],
            input=json.dumps(dataclasses.asdict(request)).encode(),
            capture_output=True,
            timeout=deadline_s,
            env={**os.environ, **_SETTINGS},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        problem = f"the trace was stopped after {deadline_s:g} s"
        raise _StoppedError(problem, _merged(late.output)) from None
    except OSError as error:
        problem = f"no process could be started for the trace ({error.strerror})"
        raise _StoppedError(problem, {}) from error
    if child.returncode:
        raise _StoppedError(_death(child), _merged(child.stdout))
    return _merged(child.stdout)


def _merged(output: bytes | None) -> dict[str, Any]:
    """Merge the lines that are whole; the last one may have been cut."""
    known: dict[str, Any] = {}
    for line in (output or b"").splitlines(keepends=True):
        if line.endswith(b"\n"):
            known.update(json.loads(line))
    return known


def _death(child: subprocess.CompletedProcess[bytes]) -> str:
    last = next(reversed(child.stderr.decode(errors="replace").strip().splitlines()), "")
    return f"the trace ended with status {child.returncode} ({last[:200]})"


def answer_stdin() -> None:
    """Trace the request on stdin and write what becomes known to stdout, a JSON line each."""
    from contextlib import redirect_stdout

    from resource_pool.prediction.trace import trace

    _limit_memory()
    _leave_out_scipy()
    request = TraceRequest(**json.load(sys.stdin))
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever a model's code prints is no answer
        for known in trace(request):
            answers.write(json.dumps(known) + "\n")
            answers.flush()
            # The model is built and all is imported; a forward's garbage is collected again.
            gc.freeze()
            gc.enable()
    # Taking thousands of modules apart, which nobody needs, takes a quarter of a second.
    os._exit(0)


def _leave_out_scipy() -> None:
    """Put off ``scipy.optimize``, an eighth of all that transformers imports.

    Transformers wants one name of it, for the losses of object detectors, and a forward without
    labels has no loss.
    """
    scipy = importlib.util.find_spec("scipy")
    if scipy is not None and scipy.submodule_search_locations:
        folders = [str(Path(place, "optimize")) for place in scipy.submodule_search_locations]
        sys.modules["scipy.optimize"] = _PutOff("scipy.optimize", folders)


class _PutOff(ModuleType):
    """Stands in for a package until somebody wants more of it than the one name."""

    linear_sum_assignment = None

    def __init__(self, name: str, folders: list[str]) -> None:
        super().__init__(name)
        self.__path__ = folders

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspect asks all modules for their __file__
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft == resource.RLIM_INFINITY or soft > _MEMORY_LIMIT:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_LIMIT, hard))
