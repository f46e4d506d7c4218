"""Example inputs of any model: what its forward takes, at the modality it is made for.

Which arguments, and their sizes, follow from the forward's signature and the config; what does
not is told by the table of exceptions (``model_db/twins.yaml``). Nothing is tried out.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from resource_pool.weights.arguments import MASKS_OF_TEXT, specifications
from resource_pool.weights.cases import Case, twin_case
from resource_pool.weights.configs import nested_configs, text_config, value_of
from resource_pool.weights.facts import Facts
from resource_pool.weights.values import Draw, make_value

_MODALITIES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "pixel_values",
        "image_embeds",
        "flattened_patches",
        "image_pixel_values",
        "image_patches",
    ),
    "video": ("pixel_values_videos", "pixel_values_video"),
    "audio": ("input_features", "input_values", "audio_values", "audio_input_features"),
}


def example_inputs(model: Any, batch: int = 2, seed: int = 0) -> dict[str, Any]:
    """Return the arguments of one forward: ``model(**example_inputs(model))``.

    Rows stand on the first dimension: (batch, tokens), (batch, channels, height, width).
    Tensors lie on the CPU, floating ones as float32; a value may also be a plain one. A row of a
    batch is the same whatever the batch's size, and rows differ. Nothing is padded. Where the
    patches of all images are packed end to end, rows have no axis of their own.

    Args:
        model: a transformers model; its config and the signature of its forward decide.
        batch: the number of rows.
        seed: of the values; the process's generators are left alone.

    Raises:
        ValueError: the forward insists on an argument that is not known how to make, or the
            table of exceptions says that this type has no forward of its own.
    """
    case = twin_case(model.config.model_type)
    if case.declared and case.declared.cause == "no_forward":
        raise ValueError(f"{type(model).__name__}: {case.declared.detail}; {case.declared.remedy}")
    rows = [_Row(model, case, seed, index).inputs() for index in range(batch)]
    axes = case.join
    return {n: _joined([row[n] for row in rows], axes.get(n, 0)) for n in rows[0]}


def _joined(values: list[Any], axis: int) -> Any:
    import torch

    return torch.cat(values, dim=axis) if torch.is_tensor(values[0]) else values[0]


class _Row:
    """The inputs of one row: the modalities first, then the text with its placeholders."""

    def __init__(self, model: Any, case: Case, seed: int, index: int) -> None:
        import torch

        self._model, self._case = model, case
        self._facts = Facts(model.config, case.facts)
        generator = torch.Generator("cpu").manual_seed(seed * 10_007 + index)
        self._draw = Draw(generator, index, _ordinary_tokens(model.config, case))

    def inputs(self) -> dict[str, Any]:
        wanted = specifications(self._model, self._case)
        made = {
            name: self._make(specification)
            for name, specification in wanted.items()
            if name not in MASKS_OF_TEXT
        }
        if "input_ids" in made:
            made["input_ids"] = self._with_placeholders(made)
        for name in MASKS_OF_TEXT:
            if name in wanted:
                made[name] = self._text_mask(name, wanted[name], made)
        return made

    def _make(self, specification: Any) -> Any:
        import torch

        if isinstance(specification, list):
            return torch.tensor(specification)
        if not isinstance(specification, str):
            return specification
        kind, *sizes = specification.split()
        return make_value(kind, [self._facts.dimension(size) for size in sizes], self._draw)

    # Text with placeholders ----------------------------------------------------------------------

    def _with_placeholders(self, made: Mapping[str, Any]) -> Any:
        """Return the text with as many placeholders as the other modalities have features."""
        import torch

        ids = made["input_ids"]
        for modality, names in _MODALITIES.items():
            token = _placeholder(self._model.config, modality)
            given = next((name for name in names if name in made), None)
            if given is None or token is None:
                continue
            count = self._features(modality, made)
            marks = torch.full((1, count), token)
            ids = torch.cat([ids[:, :2], marks, ids[:, 2:]], dim=1)
        return ids

    def _features(self, modality: str, made: Mapping[str, Any]) -> int:
        """Return how many tokens stand for one input: as the model's encoder gives features."""
        told = f"{modality}_tokens"
        if told in self._case.facts:
            return self._facts[told]
        # The model below the head names all that it takes; the head may pass it on unnamed.
        for part in (self._model.base_model, self._model):
            if hasattr(part, f"get_{modality}_features"):
                encode = getattr(part, f"get_{modality}_features")
                return _count_features(encode, made, self._model)
        return 0

    def _text_mask(self, name: str, specification: Any, made: Mapping[str, Any]) -> Any:
        import torch

        ids = made.get("input_ids")
        if ids is None or not isinstance(specification, str):
            return self._make(specification)
        if name == "attention_mask":
            return torch.ones(ids.shape[:2], dtype=torch.long)
        types = torch.zeros_like(ids)
        if name == "mm_token_type_ids":
            for number, modality in enumerate(_MODALITIES, start=1):
                token = _placeholder(self._model.config, modality)
                types[ids == token] = number
        return types


def _count_features(encode: Any, made: Mapping[str, Any], model: Any) -> int:
    import torch

    taken = inspect.signature(encode).parameters
    arguments = {name: _as_weights(made[name], model) for name in taken if name in made}
    with torch.no_grad():
        features = encode(**arguments)
    if hasattr(features, "pooler_output"):
        pooled = features.pooler_output
        features = features.last_hidden_state if pooled is None else pooled
    parts = features if isinstance(features, (list, tuple)) else [features]
    return sum(part.numel() // part.shape[-1] for part in parts)


def _as_weights(value: Any, model: Any) -> Any:
    import torch

    if not torch.is_tensor(value):
        return value
    dtype = model.dtype if value.is_floating_point() else value.dtype
    return value.to(model.device, dtype)


def _placeholder(config: Any, modality: str) -> int | None:
    names = [f"{modality}_token_id", f"{modality}_token_index"]
    if modality == "image":
        names += ["img_token_id", "image_patch_id", "media_placeholder_token_id"]
    values = (value_of(part, name) for name in names for part in nested_configs(config))
    return next((value for value in values if isinstance(value, int)), None)


def _ordinary_tokens(config: Any, case: Case) -> list[int]:
    """Return ids that stand for no role, image or sound."""
    special: set[int] = set()
    for part in nested_configs(config):
        for name, value in vars(part).items():
            if name.endswith(("token_id", "token_index", "_token", "token_ids")):
                special.update(value if isinstance(value, list) else [value])
    vocabulary = value_of(text_config(config), "vocab_size")
    top = case.facts.get("token_limit", vocabulary if isinstance(vocabulary, int) else 30)
    free = [index for index in range(3, min(top, 400)) if index not in special]
    return free or [0]
