"""What computes an ONNX file for the pool: a real browser, or onnxruntime in its place."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import statistics
import tempfile
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from resource_pool.devices.browser_session import BrowserSession
from resource_pool.devices.onnx_export import Exported
from resource_pool.devices.web_tensors import Arrays, packed, unpacked
from resource_pool.errors import UnsupportedOperationError, first_line

_PLACED = re.compile(r"placed on \[(\w+)ExecutionProvider\]\. Number of nodes: (\d+)")
_NODE = re.compile(r"ToAnEp\]\s+(\w+) \(")
_TITLES = {"webgpu": "WebGPU", "webnn": "WebNN"}
#: All weights together may not exceed this limit of model_db/web_limits.yaml: they are in the
#: engine's memory, whatever the family.
WEIGHTS_LIMIT = "wasm_memory"

# So many runs are timed.
_MOST_RUNS = 1000

# The outputs come in the file's order.
Run = Callable[[Arrays], list[Any]]


class Timings(NamedTuple):
    """What was measured of an engine's runs; milliseconds."""

    load_ms: float
    run_ms: list[float]

    def note(self, run_ms: float) -> None:
        """Add a run; of many, the first and the last are kept."""
        self.run_ms.append(run_ms)
        if len(self.run_ms) > _MOST_RUNS:
            del self.run_ms[1]

    def to_dict(self) -> dict[str, float | None]:
        """Return load, first run, and the median of the runs after the first."""
        later = self.run_ms[1:]
        return {
            "load_ms": self.load_ms,
            "first_ms": self.run_ms[0] if self.run_ms else None,
            "median_ms": statistics.median(later) if later else None,
        }


class Engine(Protocol):
    """Loads and runs ONNX files.

    Attributes:
        provider: "webgpu" or "webnn".
        simulated: whether it only stands in for a browser.
        folder: where the files are to be.
    """

    provider: str
    simulated: bool
    folder: Path

    def load(self, exported: Exported, dimensions: Mapping[str, int]) -> Run:
        """Return what runs a file, whose changing dimensions have these sizes at first."""

    def memory(self) -> int:
        """Return the bytes of RAM that it takes beside the model."""

    def kind(self) -> dict[str, str]:
        """Return ``browser`` and ``adapter_kind``: what computes, as a record needs it."""

    def facts(self) -> dict[str, Any]:
        """Return what is known of it and of its runs, as plain values."""


class BrowserEngine:
    """onnxruntime-web in a browser of its own; see ``Engine``.

    Args:
        session: the running browser.
        provider: "webgpu" or "webnn".
        adapter_kind: what detection found to compute: "hardware", "software" or "unknown".
        verbose: let the engine tell which node runs where, for :meth:`facts`.
    """

    simulated = False

    def __init__(
        self, session: BrowserSession, provider: str, adapter_kind: str, *, verbose: bool = False
    ) -> None:
        self.provider, self._session = provider, session
        self._verbose = verbose
        self._nodes: dict[str, Any] = {}
        self.folder = session.folder
        self._numbers = itertools.count()
        self._timings = Timings(0.0, [])
        self._dispatches = 0
        self._released: deque[int] = deque()
        self._told = session.call("describe", {"provider": provider})
        # What was detected may not be what is there now: Chromium falls back by itself.
        emulated = (self._told["adapter"] or {}).get("emulated")
        self._kind = "software" if emulated else adapter_kind

    def load(self, exported: Exported, dimensions: Mapping[str, int]) -> Run:
        """Hand the file over; WebNN builds its graph for the very sizes."""
        number = next(self._numbers)
        model = self._session.offer(exported.path.name, exported.path)
        released = [self._released.popleft() for _ in range(len(self._released))]
        wanted = {
            "release": released,
            "session": number,
            "model": model,
            "provider": self.provider,
            "verbose": self._verbose,
        }
        if self.provider == "webnn":
            wanted["dimensions"] = dict(dimensions)
        told = self._session.call("load", wanted)
        self._nodes = self._nodes or node_placements(told["placements"])
        self._timings = self._timings._replace(load_ms=self._timings.load_ms + told["ms"])

        def run(arrays: Arrays) -> list[Any]:
            return self._run(number, arrays)

        # Told to the page with the next file: whoever drops the last reference must not wait.
        weakref.finalize(run, self._released.append, number).atexit = False
        return run

    def memory(self) -> int:
        """Return what the browser's processes take."""
        return self._session.memory()

    def kind(self) -> dict[str, str]:
        """Return the browser's name, and what kind of device computes."""
        return {"browser": self._session.program.name, "adapter_kind": self._kind}

    def facts(self) -> dict[str, Any]:
        """Return browser, adapter, limits, timings and the dispatches of the last run."""
        return {
            **self.kind(),
            "browser_version": self._session.version,
            "flags": list(self._session.program.flags),
            "adapter": self._told["adapter"],
            "limits": self._told["limits"],
            "launch_seconds": self._session.launch_seconds,
            "dispatches": self._dispatches,
            **self._nodes,
            **self._timings.to_dict(),
        }

    def _run(self, session: int, arrays: Arrays) -> list[Any]:
        number = next(self._numbers)
        into, out = f"input-{number}", f"output-{number}"
        tensors, body = packed(arrays)
        wanted = {
            "session": session,
            "input": self._session.offer(into, body),
            "output": self._session.expect(out),
            "tensors": tensors,
        }
        try:
            told = self._session.call("run", wanted)
        finally:
            self._session.withdraw(into)
        answer = self._session.take(out)
        self._dispatches = told["dispatches"]
        if not self._dispatches:
            raise UnsupportedOperationError(
                f"Nothing of the model ran on {_TITLES[self.provider]}: its engine computed "
                "everything on the CPU."
            )
        self._timings.note(told["ms"])
        return unpacked(told["outputs"], answer)


class SimulatedEngine:
    """onnxruntime on the CPU, within the limits that browsers are known to have; see ``Engine``.

    It shows that the file is whole and computes what torch does, and which of its operators a
    browser that was asked once does not have. It does not show that a browser's engine computes
    the same.
    """

    simulated = True

    def __init__(self, provider: str) -> None:
        from model_family_classifier.web import recorded_browser

        self.provider = provider
        self.folder = Path(tempfile.mkdtemp(prefix="rp-web-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self._sizes: weakref.WeakKeyDictionary[Run, int] = weakref.WeakKeyDictionary()
        self._timings = Timings(0.0, [])
        self._recorded = recorded_browser(provider)
        self._absent: dict[str, int] = {}

    def load(self, exported: Exported, dimensions: Mapping[str, int]) -> Run:
        """Refuse what browsers have no room or no operators for; load the rest.

        Raises:
            UnsupportedOperationError: a tensor, or all weights together, are too large, or the
                browser that was asked once has none of the operators.
        """
        import onnxruntime

        why = too_large(self.provider, exported, self._recorded)
        if why:
            raise UnsupportedOperationError(f"Too large for {_TITLES[self.provider]}: {why}.")
        if self._recorded:
            self._look_for_operators(exported, dimensions)
        started = time.perf_counter()
        with _told_as_unsupported():
            session = onnxruntime.InferenceSession(
                str(exported.path), providers=["CPUExecutionProvider"]
            )
        load_ms = self._timings.load_ms + _milliseconds_since(started)
        self._timings = self._timings._replace(load_ms=load_ms)

        def run(arrays: Arrays) -> list[Any]:
            return self._run(session, arrays)

        self._sizes[run] = exported.path.stat().st_size
        return run

    def memory(self) -> int:
        """Return the size of the files, which onnxruntime holds in memory."""
        return sum(self._sizes.values())

    def kind(self) -> dict[str, str]:
        """Say that there is no browser."""
        import onnxruntime

        name = f"none: onnxruntime {onnxruntime.__version__} on the CPU simulates it"
        return {"browser": name, "adapter_kind": "simulated"}

    def facts(self) -> dict[str, Any]:
        """Return what stands in, and its timings."""
        return {
            **self.kind(),
            "recorded_browser": self._recorded.get("browser"),
            "absent_operators": dict(self._absent) if self._recorded else None,
            **self._timings.to_dict(),
        }

    def _look_for_operators(self, exported: Exported, dimensions: Mapping[str, int]) -> None:
        """Count the operators that the recorded browser lacks, in the graph that it would get.

        With fixed sizes, onnxruntime computes beforehand what depends on sizes alone.
        """
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        reduced = exported.path.with_suffix(".reduced")
        options.optimized_model_filepath = str(reduced)
        for name, size in dimensions.items():
            options.add_free_dimension_override_by_name(name, size)
        try:
            with _told_as_unsupported():
                onnxruntime.InferenceSession(str(exported.path), options, ["CPUExecutionProvider"])
            nodes = Counter(node.op_type for node in onnx.load(str(reduced)).graph.node)
        finally:
            reduced.unlink(missing_ok=True)
        known = set(self._recorded["operators"]) | {"Constant"}
        self._absent = {name: count for name, count in nodes.items() if name not in known}
        if nodes and sum(self._absent.values()) == nodes.total():
            raise UnsupportedOperationError(
                f"Nothing of the model would run on {_TITLES[self.provider]}: "
                f"{self._recorded['browser']} has no {', '.join(self._absent)}."
            )

    def _run(self, session: Any, arrays: Arrays) -> list[Any]:
        started = time.perf_counter()
        with _told_as_unsupported():
            answer: list[Any] = session.run(None, dict(arrays))
        self._timings.note(_milliseconds_since(started))
        return answer


@contextlib.contextmanager
def _told_as_unsupported() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # onnxruntime has a class for each status
        raise UnsupportedOperationError(
            f"onnxruntime cannot run the file: {first_line(error)}."
        ) from error


def too_large(provider: str, exported: Exported, reported: Mapping[str, Any]) -> str | None:
    """Return why a file is too large for a browser, or None.

    Args:
        reported: the limits that the browser reports; without them the guaranteed ones hold.
    """
    from model_family_classifier.web import too_large as beyond

    sizes = {
        "weights_bytes": exported.graph.weights_bytes,
        "largest_tensor_bytes": exported.graph.largest_tensor_bytes,
    }
    return beyond(provider, WEIGHTS_LIMIT, sizes, reported)


def node_placements(log: Sequence[str]) -> dict[str, Any]:
    """Return what the engine's log says of the first file: nodes by execution provider.

    ``cpu_operators`` counts the operators of those that run on the CPU; {} without a log.
    """
    nodes: dict[str, int] = {}
    cpu: Counter[str] = Counter()
    provider = ""
    for line in log:
        if found := _PLACED.search(line):
            provider = found[1]
            nodes[provider] = int(found[2])
        elif (found := _NODE.search(line)) and provider == "CPU":
            cpu[found[1]] += 1
    return {"nodes": nodes, "cpu_operators": dict(cpu.most_common())} if nodes else {}


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
