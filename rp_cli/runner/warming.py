"""What a zygote does before it forks: slow imports, and models that several files share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

from hardware_detection.names import OPENVINO
from rp_cli.runner.constructing import Located


def import_all(wanted: Mapping[str, Any]) -> str:
    """Import packages, and from transformers the named classes and those of model types.

    Returns:
        What could not be imported and why, or "": the files that need it will say so themselves.
    """
    problems = []
    for name in wanted["imports"]:
        try:
            _import(name)
        except Exception as error:  # an installation may be broken in every way
            problems.append(f"{name}: {type(error).__name__}: {error}")
    if "torch" in sys.modules:
        set_threads(1)
    if "transformers" in sys.modules:
        _import_from_transformers(wanted["classes"], wanted["types"])
    return "; ".join(problems)


def _import(name: str) -> None:
    """Import a package; or what is named of ours, a module or something in a module."""
    if name == OPENVINO:
        _import_openvino()
        return
    package, _, part = name.rpartition(".")
    if package:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
            return
        getattr(importlib.import_module(package), part, None)
    else:
        importlib.import_module(name)


def _import_openvino() -> None:
    """Import it, and what converts models, as the pool does: where it is installed."""
    if importlib.util.find_spec("openvino") is None:
        return
    from resource_pool.devices.openvino_convert import import_openvino

    import_openvino()
    with contextlib.suppress(ImportError):
        importlib.import_module("openvino.frontend.pytorch")


def set_threads(count: int) -> None:
    """Let torch compute on so many threads, where it is imported."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


def _import_from_transformers(classes: list[str], types: list[str]) -> None:
    """Import what transformers imports on first use. Whatever fails, fails later for the file."""
    transformers = sys.modules["transformers"]
    for name in classes:
        with contextlib.suppress(Exception):
            getattr(transformers, name)
    for model_type in types:
        for mapping in _mappings_of(classes):
            with contextlib.suppress(Exception):
                mapping[transformers.CONFIG_MAPPING[model_type]]
    with contextlib.suppress(Exception):
        # A table of a thousand patterns, which the first load of a process builds.
        transformers.conversion_mapping.get_checkpoint_conversion_mapping("bert")


def _mappings_of(classes: list[str]) -> list[Any]:
    transformers = sys.modules["transformers"]
    found = (getattr(getattr(transformers, name, None), "_model_mapping", None) for name in classes)
    return [mapping for mapping in found if mapping is not None]


# Options of from_pretrained with which it places the model itself.
_TOUCHES_DEVICES = {"device_map", "tp_plan", "tp_size", "quantization_config", "max_memory"}


def load_shared(plan: Mapping[str, Any]) -> str:
    """Load a model into the pool as the files would; return why not, or "".

    ``plan`` has the fields of a ``ModelPlan``. Only the CPU's memory can be shared.
    """
    try:
        return _load_shared(plan)
    except Exception as error:  # the files will try it themselves, and tell
        return f"{type(error).__name__}: {error}"


def _load_shared(plan: Mapping[str, Any]) -> str:
    import torch
    import transformers

    from resource_pool import get_global_resource_pool, preferences_from_environment

    touching = _TOUCHES_DEVICES & plan["options"].keys()
    if touching:  # a CUDA that is in use forbids to fork
        return f"it is loaded with {', '.join(sorted(touching))}"
    pool = get_global_resource_pool()
    path, variant = _resolved(plan)
    preferences = plan["preferences"]
    if plan["from_environment"]:
        preferences = preferences_from_environment(preferences or {})
    key = {"revision": plan["revision"], "variant": variant}
    decided = pool.explain(plan["family"], plan["name"], preferences, **key)
    if decided.device != "cpu":
        return f"it goes to {decided.device}"
    loader = getattr(transformers, plan["auto_class"]).from_pretrained

    def construct() -> Any:
        model = loader(path, **plan["options"], trust_remote_code=False)
        return model.eval() if plan["evaluated"] else model

    with torch.random.fork_rng(devices=[]), _one_thread():
        pool.get_model(plan["family"], plan["name"], construct, preferences, **key)
    return ""


def _resolved(plan: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return path and variant with what ``locate_weights`` says in the place of its marks."""
    path, variant = plan["path"], plan["variant"]
    if plan["located"] is None:
        return path, variant
    from resource_pool.weights import locate_weights

    weights = locate_weights(**plan["located"])
    filled = [
        None
        if text is None
        else text.replace(Located.PATH, str(weights.path)).replace(Located.KIND, weights.kind)
        for text in (path, variant)
    ]
    return filled[0] or "", filled[1]


@contextlib.contextmanager
def _one_thread() -> Any:
    """Keep transformers from loading in threads, of which some might be left at the fork."""
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
