"""What can be proven of a loaded model's parameters: where they came from, or that nobody knows.

A name proves nothing: ``from_config`` on a downloaded config gives random parameters under the
real model's name. So a few small parameters are compared with the same tensors in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from resource_pool.weights import folders

_Item = TypeVar("_Item")
Provenance = Literal["tiny", "pretrained", "partial", "random", "unknown"]

# An extra field in a twin's config: unlike a file beside it, it travels with every copy.
TWIN_FIELD = "rp_twin"

_SAMPLES = 3
_MAX_SAMPLE = 65_536
# Half precision moves a value by at most 0.4 %; other random draws differ by about 140 %.
_MAX_RELATIVE_DIFFERENCE = 0.25


def provenance(model: Any) -> Provenance:
    """Return what can be proven about a model's parameters, in milliseconds.

    "pretrained" and "tiny" (a twin): sampled parameters equal the tensors of the safetensors
    file that the model names, up to a cast. "random": all biases and scales have the values
    that a constructor gives them. "partial": the body agrees with the file, and the head has
    parameters that are not in it. Everything else is "unknown", as are None, models of other
    libraries, quantised models and those changed since they were loaded.
    """
    config = getattr(model, "config", None)
    if config is None or not callable(getattr(model, "named_parameters", None)):
        return "unknown"
    parameters = dict(model.named_parameters())
    if _is_freshly_constructed(parameters):
        return "random"
    folder = _folder_of(model, config)
    if folder is None or not _agrees(model, parameters, folder):
        return "unknown"
    if _has_new_head(model, parameters, folder):
        return "partial"
    return "tiny" if getattr(config, TWIN_FIELD, None) else "pretrained"


def _has_new_head(model: Any, parameters: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether parameters outside the model's body have no tensor in the files.

    Inside the body, a name may differ because transformers converts what it stores; so may the
    way to a head, but not its own name.
    """
    from safetensors import safe_open

    prefix = str(getattr(model, "base_model_prefix", ""))
    if not prefix or not hasattr(model, prefix):
        return False
    head = [name for name in parameters if not name.startswith(f"{prefix}.")]
    stored: set[str] = set()
    for file in folders.weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            stored |= set(tensors.keys())
    return any(
        not _stored_name(name, stored, prefix) and not any(k.endswith(f".{name}") for k in stored)
        for name in head
    )


def _is_freshly_constructed(parameters: Mapping[str, Any]) -> bool:
    """Tell whether every vector (bias, scale) still holds one value, as no trained one does."""
    vectors = [p for p in parameters.values() if p.dim() == 1 and _is_usable(p, minimum=8)]
    return len(vectors) > 1 and all(bool((vector == vector[0]).all()) for vector in vectors)


def _is_usable(parameter: Any, minimum: int) -> bool:
    return (
        parameter.is_floating_point()
        and not parameter.is_meta
        and minimum <= parameter.numel() <= _MAX_SAMPLE
    )


def _folder_of(model: Any, config: Any) -> Path | None:
    name = getattr(model, "name_or_path", None) or getattr(config, "_name_or_path", None)
    if not isinstance(name, str) or not name:
        return None
    folder = folders.as_folder(name)
    if folder is not None:
        return folder
    from resource_pool.weights.hub import HuggingFaceHub

    return HuggingFaceHub().snapshot(name, getattr(config, "_commit_hash", None))


def _agrees(model: Any, parameters: Mapping[str, Any], folder: Path) -> bool:
    """Tell whether sampled parameters equal their tensors in the folder's safetensors files."""
    try:
        files = folders.weight_files(folder)
    except (folders.MissingWeightsError, OSError):
        return False
    samples = {name: p for name, p in parameters.items() if _is_usable(p, minimum=8)}
    prefix = str(getattr(model, "base_model_prefix", ""))
    compared = [_is_close(*pair) for pair in islice(_pairs(samples, files, prefix), _SAMPLES)]
    return bool(compared) and all(compared)


def _pairs(samples: Mapping[str, Any], files: list[Path], prefix: str) -> Iterator[tuple[Any, Any]]:
    """Yield parameters, spread over the model, with the tensors that they came from."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored = set(tensors.keys())
            names = {name: _stored_name(name, stored, prefix) for name in samples}
            for name, key in _spread([pair for pair in names.items() if pair[1]]):
                tensor = tensors.get_tensor(key)
                # A constant tensor agrees with any constructor; a reshaped one was converted.
                if tensor.shape == samples[name].shape and bool((tensor != tensor[0]).any()):
                    yield samples[name].detach(), tensor


def _stored_name(name: str, stored: set[str], prefix: str) -> str:
    """Return the tensor of a parameter: a body may be saved from, or loaded into, a head."""
    candidates = (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}."))
    return next((candidate for candidate in candidates if candidate in stored), "")


def _spread(items: list[_Item]) -> list[_Item]:
    """Return the items with every n-th first, so that a few of them come from everywhere."""
    step = max(1, len(items) // _SAMPLES)
    return [item for offset in range(step) for item in items[offset::step]]


def _is_close(parameter: Any, tensor: Any) -> bool:
    ours, theirs = parameter.cpu().double(), tensor.double()
    spread = (theirs - theirs.mean()).norm()
    return bool((ours - theirs).norm() <= _MAX_RELATIVE_DIFFERENCE * spread)
