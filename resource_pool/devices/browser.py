"""Transformers models in a browser, on WebGPU or WebNN: see ``forwards`` for how.

The forward is exported to ONNX and runs in onnxruntime-web, in a headless browser of the model's
own. The first answer at every new set of sizes is compared with torch: the engines have given
wrong answers without an error.
"""

from __future__ import annotations

import importlib.util
import logging
import weakref
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from resource_pool._hardware import detect
from resource_pool.devices import forwards, modules
from resource_pool.devices.browser_runtime import require_runtime
from resource_pool.devices.browser_session import BrowserSession, Program
from resource_pool.devices.flat import (
    Inputs,
    as_array,
    correlation,
    difference,
    without_masked,
)
from resource_pool.devices.onnx_export import Exported, changing_axes
from resource_pool.devices.onnx_precision import CORRELATIONS, TOLERANCES
from resource_pool.devices.web_engines import BrowserEngine, Engine, Run, SimulatedEngine
from resource_pool.errors import UnsupportedOperationError, WrongResultError

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
    forwards.attach(model, _compared(model, device, dtype or "float32", inputs))


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
        self.tolerance = TOLERANCES[dtype]
        self.backend = self.device if engine.simulated else engine.provider
        self.difference = 0.0
        self.exports: dict[Hashable, Exported] = {}

    def kind(self, inputs: Inputs) -> Hashable:
        """WebNN's graphs are built for the very sizes; others serve any in the changing ones."""
        if self.engine.provider == "webnn":
            return inputs.signature, _sizes(inputs.tensors)
        return self._traced_kind(inputs)

    def convert(self, model: Any, inputs: Inputs) -> forwards.Computation:
        """Export the forward, unless that was done for other sizes, and load it there."""
        kind = self._traced_kind(inputs)
        exported = self.exports.get(kind)
        if exported is None:
            path = self.engine.folder / f"model-{id(self)}-{len(self.exports)}.onnx"
            exported = self.exports[kind] = Exported(model, inputs, path, self.dtype)
        sizes = {
            name: inputs.tensors[index].shape[axis] for (index, axis), name in exported.axes.items()
        }
        run = self.engine.load(exported, sizes)
        return _Computation(self, model, inputs, exported, run)

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

    def _traced_kind(self, inputs: Inputs) -> Hashable:
        changing = set(changing_axes(inputs))
        fixed = tuple(
            size
            for index, tensor in enumerate(inputs.tensors)
            for axis, size in enumerate(tensor.shape)
            if (index, axis) not in changing
        )
        return inputs.signature, fixed


class _Computation:
    """One exported forward, loaded; compares with torch whenever the sizes are new."""

    def __init__(
        self, forward: WebForward, model: Any, inputs: Inputs, exported: Exported, run: Run
    ) -> None:
        # Weakly: the model refers to the forward, and the forward to this.
        self._forward, self._model = weakref.ref(forward), weakref.ref(model)
        self._inputs, self._exported, self._run = inputs, exported, run
        self._compared: set[Hashable] = set()

    def __call__(self, tensors: Sequence[Any]) -> Any:
        named = zip(self._exported.inputs, tensors, strict=True)
        arrays = {name: as_array(tensor) for name, tensor in named if name is not None}
        output = self._exported.outputs.rebuilt(self._run(arrays))
        sizes = _sizes(tensors)
        if sizes not in self._compared:
            self._compare(tensors, output)
            self._compared.add(sizes)
        return output

    def _compare(self, tensors: Sequence[Any], output: Any) -> None:
        import torch

        forward: Any = self._forward()
        model: Any = self._model()
        given = self._inputs.rebuilt(tensors)
        with torch.no_grad():
            expected = type(model).forward(model, **given)
        if forward.dtype != "float32":
            # What stands where the mask leaves positions out is nobody's answer, and rounding
            # changes it without bounds.
            mask = given.get("attention_mask")
            changing = self._exported.graph.changing
            expected, output = (without_masked(one, mask, changing) for one in (expected, output))
        found = difference(expected, output)
        if not found <= forward.tolerance:
            raise WrongResultError(
                f"{forward.device} computes something else than torch (by {found:.2g} of the "
                f"greatest value, for inputs of {_sizes(tensors)}; in {forward.dtype}, "
                f"{forward.tolerance:g} passes)."
            )
        least = CORRELATIONS.get(forward.dtype)
        if least is not None and not (alike := correlation(expected, output)) >= least:
            raise WrongResultError(
                f"{forward.device} computes something else than torch (they correlate by "
                f"{alike:.2g}, for inputs of {_sizes(tensors)}; in {forward.dtype}, {least:g} "
                "passes)."
            )
        forward.difference = max(forward.difference, found)


def _sizes(tensors: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in tensors)
