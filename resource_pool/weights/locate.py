"""Decides which weights a model runs with: pretrained ones, or a tiny random twin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resource_pool.errors import PreferenceError, WeightsUnavailableError
from resource_pool.weights import folders
from resource_pool.weights.folders import MissingWeightsError
from resource_pool.weights.hub import Hub, HuggingFaceHub, as_size, fetch, is_offline

MODES = ("auto", "pretrained", "tiny")


@dataclass(frozen=True)
class Weights:
    """Weights on this disk, and why these.

    ``path`` is an absolute folder that ``from_pretrained`` takes for the model, its tokenizer
    and its processor alike; ``size_bytes`` is the size of its weight files.
    """

    model_name: str
    path: Path
    kind: Literal["pretrained", "tiny"]
    reason: str
    size_bytes: int

    def __str__(self) -> str:
        from resource_pool.weights.twins import SEED

        kind = f"tiny (random, seed {SEED})" if self.kind == "tiny" else self.kind
        return f"{kind}: {self.reason}"


def locate_weights(
    model_name: str,
    *,
    auto_class: str = "AutoModel",
    model_type: str | None = None,
    revision: str | None = None,
    mode: str | None = None,
    hub: Hub | None = None,
) -> Weights:
    """Return the weights to run ``model_name`` with, fetching or building them when needed.

    Args:
        model_name: a name on the hub, or a folder.
        auto_class: the transformers class that will load it; a twin has this class's heads.
        model_type: what transformers calls the architecture; found out when it is None.
        revision: branch, tag or commit on the hub.
        mode: "auto" takes pretrained weights where they are at hand or may be fetched, else a
            twin; "pretrained" and "tiny" insist. None: RP_WEIGHTS, else "auto".
        hub: the hub to ask; None is the Hugging Face hub.

    Raises:
        PreferenceError: no such mode, or RP_MAX_DOWNLOAD is no size.
        WeightsUnavailableError: what was asked for is not here and cannot be made.
    """
    chosen = _mode(mode)
    hub = hub or HuggingFaceHub()
    folder = _named_folder(model_name)
    try:
        if chosen == "tiny":
            raise MissingWeightsError("tiny weights were asked for", "")
        return _pretrained(model_name, revision, folder, hub)
    except MissingWeightsError as missing:
        config = _config(model_name, revision, folder, hub)
        kind = (config or {}).get("model_type") or model_type or _classified_type(model_name)
        if chosen == "pretrained":
            twin = ", or use RP_WEIGHTS=auto for a tiny random twin" if kind else ""
            raise WeightsUnavailableError(
                f"no pretrained weights of {model_name}: {missing.reason}; {missing.remedy}{twin}"
            ) from missing
        reason = missing.reason
    return _twin(model_name, auto_class, kind, config, reason)


def _mode(mode: str | None) -> str:
    chosen = mode or os.environ.get("RP_WEIGHTS", "").strip() or "auto"
    if chosen not in MODES:
        origin = "mode" if mode else "RP_WEIGHTS"
        raise PreferenceError(f"{origin} is {chosen!r}; choose one of {', '.join(MODES)}")
    return chosen


def _named_folder(model_name: str) -> Path | None:
    """Return the model folder that ``model_name`` is; None when it is a name on the hub."""
    folder = folders.as_folder(model_name)
    if folder is not None and (folder / folders.CONFIG).is_file():
        if folders.read_json(folder / folders.CONFIG) is None:
            raise WeightsUnavailableError(
                f"{folder / folders.CONFIG} holds no JSON object; "
                "name a folder that save_pretrained wrote"
            )
        return folder.resolve()
    if Path(model_name).is_absolute() or model_name.startswith((".", "~")):
        raise WeightsUnavailableError(
            f"{model_name} is no model folder: it has no config.json; "
            "name a folder that save_pretrained wrote, or a model on the hub"
        )
    return None


def _pretrained(model_name: str, revision: str | None, folder: Path | None, hub: Hub) -> Weights:
    """Return weights from the folder, the hub's cache or the hub, or raise MissingWeightsError."""
    if folder is not None:
        return _whole(model_name, folder, "found in the folder that was named")
    cached = hub.snapshot(model_name, revision)
    if cached is not None:
        try:
            return _whole_snapshot(model_name, cached, "found in the hub's cache")
        except MissingWeightsError:
            if is_offline():
                raise
    elif is_offline():
        raise MissingWeightsError(
            "the hub's cache does not hold it, and the hub may not be asked (offline)",
            "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE",
        )
    return _whole_snapshot(model_name, fetch(hub, model_name, revision), "fetched from the hub")


def _whole_snapshot(model_name: str, folder: Path, origin: str) -> Weights:
    """As `_whole`; in the cache, where whatever was once asked for lies, look at the rest too."""
    if not folders.has_preprocessing(folder):
        raise MissingWeightsError(
            "the hub's cache holds neither tokenizer nor processor for it", "fetch the whole model"
        )
    return _whole(model_name, folder, origin)


def _whole(model_name: str, folder: Path, origin: str) -> Weights:
    size = folders.size_of(folders.weight_files(folder))
    return Weights(model_name, folder, "pretrained", f"{origin} ({as_size(size)})", size)


def _config(
    model_name: str, revision: str | None, folder: Path | None, hub: Hub
) -> Mapping[str, Any] | None:
    """Return the real model's config where it is on this disk."""
    there = folder or hub.snapshot(model_name, revision)
    if there is None:
        return None
    return folders.read_json(there / folders.CONFIG)


def _twin(
    model_name: str,
    auto_class: str,
    kind: object,
    config: Mapping[str, Any] | None,
    reason: str,
) -> Weights:
    from resource_pool.weights.twins import TwinRecipe, tiny_twin

    if not isinstance(kind, str) or not kind:
        raise WeightsUnavailableError(
            f"{model_name}: {reason}, and no tiny twin can be made, because its architecture is "
            "unknown; name a folder with its config.json, or its model type with `rp models add` "
            "before the test is generated"
        )
    path = tiny_twin(TwinRecipe(model_name, kind, auto_class, config))
    return Weights(model_name, path, "tiny", reason, folders.size_of(folders.weight_files(path)))


def _classified_type(model_name: str) -> str | None:
    from model_family_classifier import classify_model

    found = classify_model(model_name)["model_type"]
    return found if isinstance(found, str) else None
