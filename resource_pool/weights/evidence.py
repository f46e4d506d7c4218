"""What can be proven of a loaded model's parameters: where they came from, or that nobody knows.

A name proves nothing: ``from_config`` on a downloaded config gives random parameters under the
real model's name. So a few small parameters are compared with the same tensors in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from resource_pool.devices import modules
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
    """Return what can be proven about a model's parameters, in about a millisecond.

    "pretrained" and "tiny" (a twin): sampled parameters equal the tensors of the safetensors
    file that the model names, up to a cast. "random": all biases and scales have the values
    that a constructor gives them. "partial": the body agrees with the file, and the head has
    parameters that are not in it. Everything else is "unknown", as are None, models of other
    libraries, quantised models and those changed since they were loaded.
    """
    config = getattr(model, "config", None)
    if config is None or not modules.is_module(model):
        return "unknown"
    parameters = modules.named_parameters(model)
    if _is_freshly_constructed(parameters):
        return "random"
    folder = _folder_of(model, config)
    return "unknown" if folder is None else _compared(model, config, parameters, folder)


def _compared(model: Any, config: Any, parameters: Mapping[str, Any], folder: Path) -> Provenance:
    from safetensors import SafetensorError

    prefix = str(getattr(model, "base_model_prefix", ""))
    try:
        stored = _Stored(folder)
        if not _agrees(parameters, stored, prefix):
            return "unknown"
    except (OSError, SafetensorError):
        return "unknown"
    if prefix and hasattr(model, prefix) and _has_new_head(parameters, stored, prefix):
        return "partial"
    return "tiny" if getattr(config, TWIN_FIELD, None) else "pretrained"


class _Stored:
    """The tensors in a folder's safetensors files: their names, and each on demand."""

    def __init__(self, folder: Path) -> None:
        self._single = folder / folders.SINGLE
        self._open: dict[Path, Any] = {}
        if self._single.is_file():
            self._shards = {}
            self.names: Set[str] = set(self._opened(self._single).keys())
        else:
            self._shards = folders.shards(folder)
            self.names = self._shards.keys()

    def tensor(self, name: str) -> Any:
        return self._of(name).get_tensor(name)

    def shape(self, name: str) -> list[int]:
        return list(self._of(name).get_slice(name).get_shape())

    def rows(self, name: str, which: slice) -> Any:
        return self._of(name).get_slice(name)[which]

    def _of(self, name: str) -> Any:
        return self._opened(self._shards.get(name, self._single))

    def _opened(self, file: Path) -> Any:
        from safetensors import safe_open

        if file not in self._open:
            self._open[file] = safe_open(file, framework="pt")
        return self._open[file]


def _has_new_head(parameters: Mapping[str, Any], stored: _Stored, prefix: str) -> bool:
    """Tell whether parameters outside the model's body have no tensor in the files.

    Inside the body, a name may differ because transformers converts what it stores; so may the
    way to a head. A head of another name is known by its numbers.
    """
    nameless = [
        parameters[name]
        for name in parameters
        if not name.startswith(f"{prefix}.")
        and not _stored_name(name, stored.names, prefix)
        and not any(known.endswith(f".{name}") for known in stored.names)
    ]
    if not nameless:
        return False
    others = [name for name in stored.names if name not in parameters]
    return not all(_is_among(parameter, others, stored) for parameter in nameless)


def _is_among(parameter: Any, names: Sequence[str], stored: _Stored) -> bool:
    """Tell whether the first rows of a parameter are those of one of the tensors in the files."""
    if parameter.dim() == 0 or parameter.is_meta:
        return False
    shape, row = list(parameter.shape), max(1, parameter[0].numel())
    first = slice(0, max(1, _MAX_SAMPLE // row))
    return any(
        _is_close(parameter.detach()[first], stored.rows(name, first))
        for name in names
        if stored.shape(name) == shape
    )


def _is_freshly_constructed(parameters: Mapping[str, Any]) -> bool:
    """Tell whether every vector (bias, scale) still holds one value, as no trained one does."""
    count = 0
    for parameter in parameters.values():
        if parameter.dim() == 1 and _is_usable(parameter, minimum=8):
            count += 1
            if not bool((parameter == parameter[0]).all()):
                return False
    return count > 1


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


def _agrees(parameters: Mapping[str, Any], stored: _Stored, prefix: str) -> bool:
    """Tell whether sampled parameters equal their tensors in the files."""
    pairs = islice(_pairs(parameters, stored, prefix), _SAMPLES)
    compared = [_is_close(*pair) for pair in pairs]
    return bool(compared) and all(compared)


def _pairs(
    parameters: Mapping[str, Any], stored: _Stored, prefix: str
) -> Iterator[tuple[Any, Any]]:
    """Yield parameters, spread over the model, with the tensors that they came from."""
    for name in _spread([*parameters]):
        parameter, key = parameters[name], _stored_name(name, stored.names, prefix)
        if not key or not _is_usable(parameter, minimum=8):
            continue
        tensor = stored.tensor(key)
        # A constant tensor agrees with any constructor; a reshaped one was converted.
        if tensor.shape == parameter.shape and bool((tensor != tensor[0]).any()):
            yield parameter.detach(), tensor


def _stored_name(name: str, stored: Set[str], prefix: str) -> str:
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
