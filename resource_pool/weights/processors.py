"""Tokenizer, image processor, feature extractor and processor of a twin, from its config alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resource_pool.weights.shrink import IMAGE_SIDE, nested_configs
from resource_pool.weights.tokens import TokenLayout, build_tokenizer, lay_out_tokens, text_kind

# What a processor must be told beyond what its config says.
_PROCESSOR_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "llava": {"num_additional_image_tokens": 1},  # CLIP's class token
}
_PLACEHOLDERS = ("image", "video", "audio")


def prepare_tokens(config: Any) -> TokenLayout | None:
    """Lay out the special tokens of a model that has a vocabulary; None for one that has none.

    Completes the config, so this comes before the model is built.
    """
    vocabulary = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    if not isinstance(vocabulary, int) or not _reads_text(config):
        return None
    return lay_out_tokens(config, _placeholders(config))


def save_processors(config: Any, layout: TokenLayout | None, folder: Path) -> None:
    """Write what turns texts, images and sounds into the model's inputs into ``folder``."""
    tokenizer = build_tokenizer(config, layout, folder) if layout else None
    image_processor = _image_processor(config)
    feature_extractor = _feature_extractor(config)
    parts = {
        "tokenizer": tokenizer,
        "image_processor": image_processor,
        "feature_extractor": feature_extractor,
    }
    # Each part is saved by itself too: the Auto class of a part then finds it in any version.
    for part in parts.values():
        if part is not None:
            part.save_pretrained(folder)
    processor = _processor(config, parts)
    if processor is not None:
        processor.save_pretrained(folder)


def _reads_text(config: Any) -> bool:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    if any(part.model_type in TOKENIZER_MAPPING_NAMES for part in nested_configs(config)):
        return True
    kind = text_kind(config)
    return kind.encoder or kind.decoder_only or kind.encoder_decoder


# Images ------------------------------------------------------------------------------------------


def _image_processor(config: Any) -> Any | None:
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    names = _names(IMAGE_PROCESSOR_MAPPING_NAMES.get(config.model_type))
    processor = next(filter(None, map(_constructed, names)), None)
    if processor is None:
        return None
    side = _image_side(config)
    for attribute in ("size", "crop_size", "pad_size"):
        size = getattr(processor, attribute, None)
        if size is not None:
            setattr(processor, attribute, _small_size(dict(size), side))
    return processor


def _names(entry: Any) -> list[str]:
    """Flatten a table's entry: one name, a pair, or a mapping from backend to name."""
    if isinstance(entry, Mapping):
        entry = entry.values()
    return [name for name in ([entry] if isinstance(entry, str) else entry or ()) if name]


def _constructed(class_name: str) -> Any | None:
    """Return an instance with defaults; None when the package it needs is not installed."""
    import transformers

    try:
        return getattr(transformers, class_name)()
    except ImportError:
        return None


def _image_side(config: Any) -> int:
    sizes = (getattr(part, "image_size", None) for part in nested_configs(config))
    return next((size for size in sizes if isinstance(size, int)), IMAGE_SIDE)


def _small_size(size: dict[str, int], side: int) -> dict[str, int]:
    """Scale a processor's size so that its smallest number is ``side``; the shape stays."""
    smallest = min(value for value in size.values() if value)
    return {name: value and max(side, value * side // smallest) for name, value in size.items()}


# Sounds ------------------------------------------------------------------------------------------


def _feature_extractor(config: Any) -> Any | None:
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type)
    cls = getattr(transformers, name, None) if name else None
    if cls is None or not hasattr(cls, "from_pretrained"):
        return None
    arguments = {}
    if hasattr(config, "num_mel_bins"):
        arguments["feature_size"] = config.num_mel_bins
    if "chunk_length" in inspect.signature(cls).parameters and hasattr(
        config, "max_source_positions"
    ):
        # Seconds in a clip, which must fill the encoder: two frames of 10 ms per position.
        arguments["chunk_length"] = config.max_source_positions // 50
    return cls(**arguments)


# Processors --------------------------------------------------------------------------------------


def _processor_class(config: Any) -> Any | None:
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    name = PROCESSOR_MAPPING_NAMES.get(config.model_type)
    return getattr(transformers, name, None) if name else None


def _placeholders(config: Any) -> dict[str, str]:
    """Return the texts of the modality tokens, by the defaults of the model's processor."""
    cls = _processor_class(config)
    if cls is None:
        return {}
    defaults = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    found = {role: defaults.get(f"{role}_token") for role in _PLACEHOLDERS}
    return {role: text for role, text in found.items() if isinstance(text, str)}


def _processor(config: Any, parts: Mapping[str, Any]) -> Any | None:
    cls = _processor_class(config)
    if cls is None:
        return None
    arguments = dict(_processor_arguments(config, cls, parts))
    arguments.update(_PROCESSOR_ARGUMENTS.get(config.model_type, {}))
    return cls(**arguments)


def _processor_arguments(
    config: Any, cls: Any, parts: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield a processor's arguments: its parts, and what the config says under the same name."""
    for name in inspect.signature(cls).parameters:
        if name in parts:
            yield name, parts[name]
            continue
        for part in nested_configs(config):
            if name != "kwargs" and hasattr(part, name):
                yield name, getattr(part, name)
                break
