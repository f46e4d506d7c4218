"""Would a model run in a browser? Export, limits, and the real run where a browser is here."""

from __future__ import annotations

import importlib.util
from typing import Any

from rp_cli.text import one_line

SCHEMA_VERSION = 1
#: What can become of it.
RUNS, MISSING, FAILS = "runs", "not_run", "fails"
_RUNS = 10


def check_model(model_name: str, provider: str, *, optimized: bool = False) -> dict[str, Any]:
    """Return what was found out about a model on "webgpu" or "webnn", as plain values.

    ``verdict`` is "runs" (as PyTorch computes it), "not_run" (``missing`` says what is not here)
    or "fails" (``error`` says why). Times are in milliseconds, ``difference`` is a share of the
    greatest value. ``optimized`` asks for a smaller file than float32 makes.

    Raises:
        WeightsUnavailableError: the weights that RP_WEIGHTS asks for are not here.
        ClassificationInputError: it is no model's name or folder.
    """
    from resource_pool.errors import PoolError
    from resource_pool.weights import locate_weights
    from rp_cli.modeldb.user_database import classified

    known = classified(model_name)
    weights = locate_weights(
        model_name, auto_class=known["auto_class"], model_type=known["model_type"]
    )
    found: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model_name": model_name,
        "provider": provider,
        "family": known["family"],
        "advice": known["compatibility"][provider]["reason"],
        "auto_class": known["auto_class"],
        "weights": {"kind": weights.kind, "reason": weights.reason},
        "export": None,
        "simulation": None,
        "run": None,
        "missing": missing(provider),
        "error": None,
    }
    if not missing_packages():
        try:
            dtype = smaller_dtype(provider) if optimized else "float32"
            _try_out(_load(known["auto_class"], weights.path), provider, dtype, found)
        except PoolError as error:
            found["error"] = one_line(error)
    found["verdict"] = FAILS if found["error"] else MISSING if found["missing"] else RUNS
    return found


def missing(provider: str) -> list[str]:
    """Return what is not here of what a real run needs, one sentence each."""
    from hardware_detection import detect_available_hardware
    from resource_pool.devices.browser_runtime import require_runtime
    from resource_pool.errors import UnsupportedOperationError

    lacking = missing_packages()
    try:
        require_runtime()
    except UnsupportedOperationError as error:
        lacking.append(one_line(error))
    report = detect_available_hardware(web=True)
    if not report["hardware"][provider]:
        lacking.append(f"No browser computes: {report['details'][provider]['reason']}.")
    return lacking


def smaller_dtype(provider: str) -> str:
    """Return the precision that makes a file smaller for the browser that is here."""
    from hardware_detection import detect_available_hardware
    from resource_pool import explain

    wish = {"device": provider, "fallback_to_simulation": True, "browser_optimized": True}
    chosen = explain("", wish, detect_available_hardware(web=True))
    return chosen.dtype if chosen.dtype and chosen.backend == provider else "int8"


def missing_packages() -> list[str]:
    """Return what is not here of the packages that export and simulation need."""
    return [
        f"{package} is not installed; run `pip install 'rp-toolchain[web]'`."
        for package in ("onnx", "onnxruntime")
        if importlib.util.find_spec(package) is None
    ]


def _load(auto_class: str, path: Any) -> Any:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return getattr(transformers, auto_class).from_pretrained(path).float().eval()


def _try_out(model: Any, provider: str, dtype: str, found: dict[str, Any]) -> None:
    """Export and compare by a simulation first, then in the browser, and fill ``found``."""
    from resource_pool.devices import browser, forwards

    inputs = forwards.examples(model, browser.WebForward.title)
    device = f"{provider}:{browser.SIMULATION}"
    simulated = browser.WebForward(model, browser.engine_for(device), device, dtype)
    try:
        simulated(**inputs[0])
        found["simulation"] = simulated.facts()
    finally:
        if simulated.exports:
            exported = next(iter(simulated.exports.values()))
            found["export"] = _export_facts(exported, provider) | {"dtype": dtype}
    if found["missing"]:
        return
    engine = browser.engine_for(provider, verbose=True)
    real = browser.WebForward(model, engine, provider, dtype)
    real.exports.update(simulated.exports)  # the same file
    for one in (*inputs, *inputs[-1:] * _RUNS):
        real(**one)
    found["run"] = real.facts()


def _export_facts(exported: Any, provider: str) -> dict[str, Any]:
    from resource_pool.devices.onnx_operators import OPSET
    from resource_pool.devices.web_engines import too_large

    return {
        "file_bytes": exported.path.stat().st_size,
        "float32_file_bytes": exported.float32_bytes,
        "opset": OPSET,
        "weights_bytes": exported.graph.weights_bytes,
        "largest_tensor_bytes": exported.graph.largest_tensor_bytes,
        "operators": exported.graph.operators,
        "too_large": too_large(provider, exported, {}),
    }
