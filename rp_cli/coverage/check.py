"""Checks one model type: its twin is built, loaded, and runs a forward at its real modality."""

from __future__ import annotations

import inspect
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BATCH = 2
_MODALITIES = {
    "image": ("pixel_values", "flattened_patches", "image_embeds", "image_pixel_values", "image"),
    "video": ("pixel_values_videos", "pixel_values_video"),
    "audio": ("input_features", "input_values", "audio_values", "audio_input_features", "waveform"),
    "text": ("input_ids", "text_input_ids"),
    "time series": ("past_values",),
}


def check_type(model_type: str, auto_class: str) -> dict[str, Any]:
    """Return what came of one model type: status, cause, modality, seconds, megabytes.

    The twin is built below RP_HOME and removed again.
    """
    started = time.perf_counter()
    facts: dict[str, Any] = {"model_type": model_type, "auto_class": auto_class, "stage": "build"}
    try:
        _check(facts)
        facts["status"] = "passed"
    except Exception as error:
        # Whatever a library raises at a model that it cannot build or run is the finding here.
        facts |= {"status": "failed", "cause": _cause(error)}
    return facts | {"seconds": round(time.perf_counter() - started, 2)}


def _check(facts: dict[str, Any]) -> None:
    import torch

    from resource_pool.weights import locate_weights
    from resource_pool.weights.inputs import example_inputs
    from resource_pool.weights.twins import MARKER

    name, auto_class = facts["model_type"], facts["auto_class"]
    weights = locate_weights(
        f"coverage/{name}", model_type=name, auto_class=auto_class, mode="tiny"
    )
    try:
        facts |= {
            "megabytes": round(weights.size_bytes / 2**20, 2),
            "stage": "load",
            "processors": sorted(set(_processor_files(weights.path))),
            "missing": json.loads((weights.path / MARKER).read_text())["missing"],
        }
        model = _loaded(auto_class, str(weights.path))
        facts |= {"stage": "inputs", "model_class": type(model).__name__}
        inputs = example_inputs(model, BATCH)
        facts |= {"stage": "forward", "modality": modality_of(inputs), "inputs": _shapes(inputs)}
        _check_modality(model, inputs)
        with torch.no_grad():
            output = model(**inputs)
        facts["stage"] = "outputs"
        _check_outputs(output, facts)
        facts["stage"] = "inputs reach outputs"
        _check_influence(model, inputs, output)
        del facts["stage"]
    finally:
        shutil.rmtree(weights.path, ignore_errors=True)


def _loaded(auto_class: str, path: str) -> Any:
    import transformers

    cls = getattr(transformers, auto_class)
    if auto_class == "AutoBackbone":
        # Its own from_pretrained asks the hub first, and so takes no folder.
        config = transformers.AutoConfig.from_pretrained(path)
        cls = cls._model_mapping[type(config)]
    return cls.from_pretrained(path)


def modality_of(inputs: Mapping[str, Any]) -> str:
    """Return what goes into a forward: "text", "image+text", "audio", …"""
    found = [m for m, names in _MODALITIES.items() if any(name in inputs for name in names)]
    return "+".join(found) or "+".join(sorted(inputs))[:40]


def _check_modality(model: Any, inputs: Mapping[str, Any]) -> None:
    """Raise unless every modality that the forward takes is given; of images and videos, one."""
    from resource_pool.weights import twin_case

    left_out = twin_case(model.config.model_type).inputs
    taken = inspect.signature(model.forward).parameters
    given = modality_of(inputs).split("+")
    for modality, names in _MODALITIES.items():
        wanted = [name for name in names if name in taken and left_out.get(name, name) is not None]
        if wanted and modality not in given and not {modality, *given} >= {"image", "video"}:
            raise ValueError(f"the forward takes {wanted[0]} too, and none is given")


def _processor_files(folder: Path) -> Iterator[str]:
    for path in folder.glob("*.json"):
        if path.name.endswith(("processor_config.json", "preprocessor_config.json")):
            yield path.name.removesuffix("_config.json")
        if path.name in ("tokenizer.json", "tokenizer_config.json"):
            yield "tokenizer"


def _shapes(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(getattr(value, "shape", ())) or value for name, value in inputs.items()}


def _check_outputs(output: Any, facts: dict[str, Any]) -> None:
    import torch

    tensors = list(tensors_of(output))
    if not tensors:
        raise ValueError("the forward returned no tensor")
    facts["outputs"] = [list(tensor.shape) for tensor in tensors[:3]]
    if not all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point()):
        # Scores that are masked out are minus infinity by intent.
        if any(bool(torch.isnan(t).any()) for t in tensors if t.is_floating_point()):
            raise ValueError("the outputs hold NaN")
        if not any(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point()):
            raise ValueError("the outputs are infinite")


def _check_influence(model: Any, inputs: Mapping[str, Any], output: Any) -> None:
    """Raise unless each modality changes the outputs: a forward may ignore what it takes."""
    import torch

    from resource_pool.weights.inputs import example_inputs

    others = example_inputs(model, BATCH, seed=1)
    before = list(tensors_of(output))
    for names in _MODALITIES.values():
        for name in (name for name in names if name in inputs):
            if name == "input_ids":
                continue
            with torch.no_grad():
                after = list(tensors_of(model(**{**inputs, name: others[name]})))
            if all(map(torch.equal, before, after)):
                raise ValueError(f"the outputs do not depend on {name}")


def tensors_of(value: Any) -> Iterator[Any]:
    """Yield the tensors in an output, whatever holds them."""
    import torch

    if torch.is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def _cause(error: Exception) -> str:
    inner = error.__cause__ or error
    traceback = inner.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    place = ""
    if traceback:
        file = Path(traceback.tb_frame.f_code.co_filename).name
        place = f" ({file}:{traceback.tb_lineno})"
    lines = str(inner).strip().splitlines() or [""]
    return f"{type(inner).__name__}: {' '.join(lines)[:300]}{place}"
