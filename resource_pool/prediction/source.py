"""What is asked about: which architecture, which config, which files, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resource_pool.errors import PredictionError
from resource_pool.prediction.files import stored_dtype
from resource_pool.prediction.records import identity
from resource_pool.weights import folders
from resource_pool.weights.hub import HuggingFaceHub

# How the original was stored, and code from a hub, which is never run.
_DROPPED = ("auto_map", "quantization_config", "compression_config", "torch_dtype", "dtype")
_DTYPES = ("float32", "float16", "bfloat16", "float64")
# What transformers may refuse to build where a package or a GPU is missing, and fetches from the
# hub if it has a slash, unless it is one of these.
_ATTENTION, _BUILT_IN = ("attn_implementation", "_attn_implementation"), ("eager", "sdpa", None)


@dataclass(frozen=True)
class Source:
    """A model to predict for.

    Attributes:
        name: for people.
        model_type: transformers' name of the architecture; None where nobody knows it.
        auto_class: the class that would load it.
        family: the classifier's family, "unknown" included.
        config: its config as canonical JSON; None means the defaults of the model type.
        origin: where the config is from; None for the defaults.
        dtype: the dtype that its config names, else that of its weights here, else float32.
        folder: where its files are; None when they are not on this disk.
        identity: what stands for it in the records; None where the config is not known to be the
            one that a load would find.
        notes: what was left out of the config.
    """

    name: str
    model_type: str | None
    auto_class: str
    family: str
    config: str | None
    origin: str | None
    dtype: str
    folder: Path | None
    identity: str | None = None
    notes: tuple[str, ...] = ()


def find_source(
    model: str | Path | Mapping[str, Any],
    revision: str | None,
    model_type: str | None,
    auto_class: str | None,
) -> Source:
    """Look for the config: passed in, in a folder, in the hub's cache; else take the defaults.

    Raises:
        PredictionError: a mapping without a model type, or a class that is none of transformers'.
        ClassificationInputError: a folder without a readable config.json, or an impossible name.
    """
    if isinstance(model, Mapping):
        kind = model_type or model.get("model_type")
        if not isinstance(kind, str):
            raise PredictionError("The config names no model_type; add it, or pass model_type.")
        return _source(kind, kind, auto_class, model, "the given config", None)
    name = str(model)
    folder, origin = _folder(name, revision)
    config = folders.read_json(folder / folders.CONFIG) if folder else None
    return _source(name, model_type, auto_class, config, origin, folder)


def _folder(name: str, revision: str | None) -> tuple[Path | None, str | None]:
    named = folders.as_folder(name)
    if named is not None and (named / folders.CONFIG).is_file():
        return named, "config.json in the folder"
    cached = HuggingFaceHub().snapshot(name, revision)
    return cached, "config.json in the hub's cache" if cached else None


def _source(
    name: str,
    model_type: str | None,
    auto_class: str | None,
    config: Mapping[str, Any] | None,
    origin: str | None,
    folder: Path | None,
) -> Source:
    from model_family_classifier import classify_model

    known = classify_model(name)
    kind = model_type or (config or {}).get("model_type") or known["model_type"]
    if isinstance(kind, str) and known["model_type"] != kind:
        known = classify_model(kind)  # the name says something else, or nothing
    chosen = auto_class or known["auto_class"]
    dropped = _what_is_dropped(config or {})
    if not (chosen.isidentifier() and chosen.startswith("AutoModel")):
        raise PredictionError(f"{chosen!r} is no Auto class of transformers, such as AutoModel.")
    return Source(
        name=name,
        model_type=kind if isinstance(kind, str) else None,
        auto_class=chosen,
        family=known["family"],
        config=None if config is None else _canonical(config),
        origin=origin,
        dtype=_own_dtype(config or {}, folder),
        folder=folder,
        identity=identity(name) if folder is not None and not dropped else None,
        notes=dropped,
    )


def _canonical(config: Mapping[str, Any]) -> str:
    dropped = ("model_type", *_DROPPED, *_foreign_attention(config))
    kept = {key: value for key, value in config.items() if key not in dropped}
    try:
        return json.dumps(kept, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise PredictionError(f"The config cannot be written as JSON: {error}.") from None


def _own_dtype(config: Mapping[str, Any], folder: Path | None) -> str:
    """Return what ``from_pretrained`` takes: the config's, else the weights', else float32."""
    named = config.get("dtype") or config.get("torch_dtype")
    if named is None and folder is not None:
        return stored_dtype(folder) or "float32"
    plain = str(named).removeprefix("torch.")
    return plain if plain in _DTYPES else "float32"


def _foreign_attention(config: Mapping[str, Any]) -> list[str]:
    return [key for key in _ATTENTION if config.get(key) not in _BUILT_IN]


def _what_is_dropped(config: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if config.get("quantization_config"):
        notes.append("its quantization_config is ignored: this is the model unquantized")
    if _foreign_attention(config):
        notes.append("its attn_implementation is ignored: this is PyTorch's own attention")
    return tuple(notes)
