"""Transformers models in a browser, on WebGPU or WebNN: see ``forwards`` for how.

The forward is exported to ONNX and runs in onnxruntime-web, in a headless browser of the model's
own. The first answer at every new set of sizes is compared with torch: the engines have given
wrong answers without an error.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from resource_pool._hardware import detect
from resource_pool.devices import forwards, modules
from resource_pool.devices.browser_runtime import require_runtime
from resource_pool.devices.browser_session import BrowserSession, Program
from resource_pool.devices.comparing import LIMITS, compare
from resource_pool.devices.flat import Inputs, as_array, without_masked
from resource_pool.devices.onnx_export import Exported
from resource_pool.devices.web_engines import BrowserEngine, Engine, Run, SimulatedEngine
from resource_pool.errors import UnsupportedOperationError

logger = logging.getLogger("resource_pool")

BACKENDS = ("webgpu", "webnn")
#: What a device's name ends with where nothing but a simulation computes.
SIMULATION = "simulation"


def is_browser(device: str) -> bool:
    """Whether a name means a browser, or the simulation of one: "webgpu", "webnn:0"."""
    return device.partition(":")[0] in BACKENDS


def is_simulated(device: str) -> bool:
    """Whether a name means the simulation of a browser: "webgpu:simulation"."""
    return device.partition(":")[2] == SIMULATION


def place(model: Any, device: str, dtype: str | None = None) -> None:
    """Let a model's forward run in a browser, and compare it with torch.

    Where it does not run in less than float32, or differs too much, it goes there in float32, and
    the log says why.

    Args:
        model: a transformers model; it is set to evaluation, and brought to RAM in float32.
        device: "webgpu", "webnn:INDEX" (of the browsers that detection proved), or
            "webgpu:simulation".
        dtype: "float32", or a smaller file: "float16", or "int8" for the weights alone.

    Raises:
        UnsupportedOperationError: something that it needs is not here, it cannot be exported,
            the browser cannot run it, or computes something else.
        ComputationTimeoutError: the browser gave no answer in time.
    """
    inputs = forwards.examples(model, "A browser")
    forwards.remove(model)
    model.eval()
    if modules.elsewhere(model, "cpu"):
        model.to("cpu")
    modules.cast(model, "float32")
    forwards.attach(model, _compared(model, device, dtype or "float32", inputs), inputs[0])


def _compared(
    model: Any, device: str, dtype: str, inputs: Sequence[Mapping[str, Any]]
) -> WebForward:
    """Return what computes the model there as torch does, in float32 if not in less."""
    forward = WebForward(model, engine_for(device), device, dtype)
    try:
        for one in inputs:
            forward(**one)  # which compares
    except UnsupportedOperationError as error:
        if dtype == "float32":
            raise
        logger.warning("In %s it does not run on %s: %s float32 is tried.", dtype, device, error)
    else:
        if dtype != "float32":
            logger.info("On %s %s", device, forward.effect())
        return forward
    del forward  # and with it its browser, which what failed may have left unsound
    return _compared(model, device, "float32", inputs)


def engine_for(device: str, *, verbose: bool = False) -> Engine:
    """Start what computes on a device.

    Args:
        device: as for :func:`place`.
        verbose: let a browser's engine tell which node runs where.

    Raises:
        UnsupportedOperationError: something that it needs is not here, or does not start.
        ComputationTimeoutError: the browser did not start in time.
    """
    backend, _, index = device.partition(":")
    if is_simulated(device):
        return SimulatedEngine(backend)
    runtime = require_runtime()
    program, kind = proved(backend, int(index or 0))
    return BrowserEngine(BrowserSession(program, runtime), backend, kind, verbose=verbose)


def require_packages() -> None:
    """Raise where a package that the export and the browser need is not installed.

    Raises:
        UnsupportedOperationError: it is not; names it.
    """
    for package in ("onnx", "playwright"):
        if importlib.util.find_spec(package) is None:
            raise UnsupportedOperationError(
                f"{package} is not installed; run `pip install 'rp-toolchain[web]'`."
            )


def proved(backend: str, index: int) -> tuple[Program, str]:
    """Return the browser that computed at detection, and what kind of device it computed on.

    Raises:
        UnsupportedOperationError: none did; says why.
    """
    details: Mapping[str, Any] = detect(web=True).get("details", {}).get(backend, {})
    for device in details.get("devices", ()):
        for browser in details.get("browsers", ()):
            same = (browser["name"], browser["flags"]) == (device["browser"], device["flags"])
            # Stable and unstable have one name; a cache of an older rp has no path there.
            same &= device.get("browser_path") in (None, browser["path"])
            if device["index"] == index and device.get("dtypes") and same:
                return _program(browser), device["adapter"]
    reason = str(details.get("reason") or "it was not asked").rstrip(".")
    raise UnsupportedOperationError(f"No browser here computes on {backend}: {reason}.")


def _program(browser: Mapping[str, Any]) -> Program:
    from hardware_detection.proofs.browser_devices import start_flags

    flags = start_flags(experimental=bool(browser["flags"]))
    return Program(browser["path"], tuple(flags), browser["name"])


class WebForward(forwards.Forward):
    """A forward that a browser computes, or the simulation of one.

    ``device`` is the one that the engine was started for, as for :func:`place`. ``dtype`` is that
    of the file: of "int8", only the weights are in it.

    Attributes:
        engine: what computes.
        tolerance: the greatest difference that passes.
        difference: the greatest difference from torch so far, as a share of the greatest value.
        exports: the ONNX files.
    """

    title = "A browser"

    def __init__(self, model: Any, engine: Engine, device: str, dtype: str = "float32") -> None:
        super().__init__(model, device if ":" in device else f"{device}:0", dtype)
        self.engine = engine
        self.tolerance = LIMITS[dtype].difference
        self.backend = self.device if engine.simulated else engine.provider
        self.difference = 0.0
        self.exports: dict[Hashable, Exported] = {}

    def kind(self, inputs: Inputs) -> Hashable:
        """WebNN's graphs are built for the very sizes; others serve any in the changing ones."""
        fixed = self.engine.provider == "webnn"
        return (inputs.signature, inputs.sizes) if fixed else inputs.traced_kind

    def convert(self, model: Any, inputs: Inputs) -> forwards.Computation:
        """Export the forward, unless that was done for other sizes, and load it there."""
        kind = inputs.traced_kind
        exported = self.exports.get(kind)
        if exported is None:
            path = self.engine.folder / f"model-{id(self)}-{len(self.exports)}.onnx"
            exported = self.exports[kind] = Exported(model, inputs, path, self.dtype)
        sizes = {
            name: inputs.tensors[index].shape[axis] for (index, axis), name in exported.axes.items()
        }
        run = self.engine.load(exported, sizes)
        return _Computation(exported, run)

    def compare(self, expected: Any, output: Any, inputs: Inputs) -> None:
        """Hold an answer against torch's; what smaller files have where a mask is, is nobody's."""
        if self.dtype != "float32":
            changing = self.exports[inputs.traced_kind].graph.changing
            given = inputs.rebuilt(inputs.tensors)
            expected, output = (without_masked(one, given, changing) for one in (expected, output))
        about = f"for inputs of {inputs.sizes}, in {self.dtype}"
        found = compare(expected, output, LIMITS[self.dtype], self.device, about)
        self.difference = max(self.difference, found)

    def for_part(self, part: Any) -> WebForward:
        """Let a part run in the same browser."""
        return WebForward(part, self.engine, self.device, self.dtype)

    def describe(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Count what the browser's processes take beside the module."""
        size = facts["memory_usage"] + self.engine.memory()
        beside = "onnx_file" if self.engine.simulated else "browser_processes"
        return facts | {
            "device": self.device,
            "dtype": self.dtype,
            "placed_dtype": self.dtype,
            "simulated": self.engine.simulated,
            "web": {**self.measured(), **self.engine.kind()},
            "memory_usage": size,
            "memory_estimation_method": f"parameters_buffers_and_{beside}",
            "sizes": {"cpu": size},
        }

    def facts(self) -> dict[str, Any]:
        """Return what was found out about it in the browser, as plain values; times in ms."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "simulated": self.engine.simulated,
            **self.measured(),
            **self.engine.facts(),
        }

    def measured(self) -> dict[str, Any]:
        """Return what the precision does: bytes to download, and the difference from torch."""
        exports = self.exports.values()
        return {
            "difference": self.difference,
            "tolerance": self.tolerance,
            "download_bytes": sum(one.path.stat().st_size for one in exports),
            "float32_download_bytes": sum(one.float32_bytes for one in exports),
        }

    def effect(self) -> str:
        """Say in a sentence what less than float32 does."""
        known = self.measured()
        size, full = known["download_bytes"], known["float32_download_bytes"]
        return (
            f"its file is in {self.dtype}: {size / full:.0%} of {full / 2**20:.1f} MiB; it differs "
            f"from torch by {self.difference:.2g} of the greatest value, {self.tolerance:g} passes."
        )


class _Computation:
    """One exported forward, loaded."""

    def __init__(self, exported: Exported, run: Run) -> None:
        self._exported, self._run = exported, run

    def __call__(self, tensors: Sequence[Any]) -> Any:
        named = zip(self._exported.inputs, tensors, strict=True)
        arrays = {name: as_array(tensor) for name, tensor in named if name is not None}
        return self._exported.outputs.rebuilt(self._run(arrays))
