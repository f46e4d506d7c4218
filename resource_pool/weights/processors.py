"""Tokenizer, image processor, feature extractor and processor of a twin, from its config alone."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resource_pool.weights.cases import twin_case
from resource_pool.weights.configs import nested_configs, text_config, value_of
from resource_pool.weights.shrink import IMAGE_SIDE
from resource_pool.weights.tokens import TokenLayout, build_tokenizer, lay_out_tokens, text_kind

_PLACEHOLDERS = ("image", "video", "audio")
# How processors ask their tokenizer for a special token.
_TOKEN_READ = re.compile(r"tokenizer\.(\w+?)_token(?:_id)?\b")
_ORDINARY_ROLES = {"bos", "cls", "eos", "mask", "pad", "sep", "unk"}
_NO_ROLES = {"add_bos", "add_eos", "convert"}


def prepare_tokens(config: Any) -> TokenLayout | None:
    """Lay out the special tokens of a model that has a vocabulary; None for one that has none.

    Completes the config, so this comes before the model is built.
    """
    vocabulary = getattr(text_config(config), "vocab_size", None)
    if not isinstance(vocabulary, int) or not _reads_text(config):
        return None
    return lay_out_tokens(config, _placeholders(config))


def save_processors(config: Any, layout: TokenLayout | None, folder: Path) -> dict[str, str]:
    """Write what turns texts, images and sounds into the model's inputs into ``folder``.

    Returns:
        What could not be made, and why (a package is not installed, say): the model itself runs
        without it.
    """
    missing: dict[str, str] = {}

    def attempt(name: str, make: Callable[[], Any | None]) -> Any | None:
        try:
            part = make()
            if part is not None:
                # Each part is saved by itself too: the Auto class of a part then finds it.
                part.save_pretrained(folder)
        except OSError:
            raise
        except Exception as error:
            # Third-party constructors raise whatever they like.
            missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            return None
        return part

    parts = {
        "tokenizer": attempt(
            "tokenizer", lambda: build_tokenizer(config, layout, folder) if layout else None
        ),
        "image_processor": attempt("image_processor", lambda: _image_processor(config)),
        "feature_extractor": attempt("feature_extractor", lambda: _feature_extractor(config)),
        "video_processor": attempt("video_processor", lambda: _video_processor(config)),
    }
    attempt("processor", lambda: _processor(config, parts))
    return missing


def _reads_text(config: Any) -> bool:
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    if any(part.model_type in TOKENIZER_MAPPING_NAMES for part in nested_configs(config)):
        return True
    if "tokenizer" in _parameters(_processor_class(config)):
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
    for name, value in twin_case(config.model_type).processor.items():
        if hasattr(processor, name):
            setattr(processor, name, value)
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
    for part in nested_configs(config):
        size = value_of(part, "image_size")
        if isinstance(size, (list, tuple)) and len({*size}) == 1:
            size = size[0]  # of a square
        if isinstance(size, int):
            return size
    return IMAGE_SIDE


def _small_size(size: dict[str, int], side: int) -> dict[str, int]:
    """Scale a processor's size so that its smallest number is ``side``; the shape stays."""
    smallest = min(value for value in size.values() if value)
    return {name: value and max(side, value * side // smallest) for name, value in size.items()}


def _video_processor(config: Any) -> Any | None:
    import transformers
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

    names = _names(VIDEO_PROCESSOR_MAPPING_NAMES.get(config.model_type))
    return getattr(transformers, names[0])() if names else None


# Sounds ------------------------------------------------------------------------------------------


def _feature_extractor(config: Any) -> Any | None:
    import transformers
    from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

    name = FEATURE_EXTRACTOR_MAPPING_NAMES.get(config.model_type)
    cls = getattr(transformers, name, None) if name else None
    if cls is None or not hasattr(cls, "from_pretrained"):
        return None
    arguments = {}
    bins = (value_of(part, "num_mel_bins") for part in nested_configs(config))
    if (count := next((one for one in bins if isinstance(one, int)), None)) is not None:
        arguments["feature_size"] = count
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


def _parameters(cls: Any | None) -> dict[str, Any]:
    """Return what a processor's class takes, and its defaults.

    One that needs a package that is not installed takes nothing: it stands for itself until then.
    """
    try:
        parameters = inspect.signature(cls).parameters if cls else {}
    except (ImportError, AttributeError, TypeError):
        return {}
    return {parameter.name: parameter.default for parameter in parameters.values()}


def _source(cls: Any | None) -> str:
    """Return a class's source; nothing of one that stands for itself, or is not there."""
    try:
        return inspect.getsource(cls) if cls else ""
    except (OSError, TypeError):
        return ""


def _placeholders(config: Any) -> dict[str, str]:
    """Return role -> text of the modality tokens that the model's processor knows or asks for."""
    cls = _processor_class(config)
    defaults = _parameters(cls)
    asked = _TOKEN_READ.findall(_source(cls))
    known = {role: defaults.get(f"{role}_token") for role in _PLACEHOLDERS}
    texts = {role: f"<{role}>" for role in asked if role not in _ORDINARY_ROLES | _NO_ROLES}
    return texts | {role: text for role, text in known.items() if isinstance(text, str)}


def _processor(config: Any, parts: Mapping[str, Any]) -> Any | None:
    cls = _processor_class(config)
    if cls is None:
        return None
    arguments = dict(_processor_arguments(config, cls, parts))
    told = twin_case(config.model_type).processor
    arguments.update({name: told[name] for name in told if name in _parameters(cls)})
    lacking = [name for name in parts if name in arguments and arguments[name] is None]
    if lacking:
        raise ValueError(f"it needs a {' and a '.join(lacking)}, which cannot be made here")
    return cls(**arguments)


def _processor_arguments(
    config: Any, cls: Any, parts: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield a processor's arguments: its parts, and what the config says under the same name."""
    for name in _parameters(cls):
        if name in parts or name == "qformer_tokenizer":
            yield name, parts.get(name, parts["tokenizer"])
            continue
        for part in nested_configs(config):
            if name != "kwargs" and (value := value_of(part, name)) is not None:
                yield name, value
                break
