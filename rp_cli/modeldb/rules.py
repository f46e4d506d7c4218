"""Decides what a model type is from the facts that transformers states about it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Facts(NamedTuple):
    """What transformers says about one model type.

    ``architectures`` maps Auto class to model classes, in the order of its own tables.
    ``modalities`` is empty where the class only inherits the library's default, "text".
    """

    model_type: str
    config: str
    architectures: Mapping[str, Sequence[str]]
    main_input: str | None
    modalities: frozenset[str]
    sub_configs: frozenset[str]
    experts: int


class Head(NamedTuple):
    """One row of `heads` in families.yaml."""

    auto_class: str
    task: str
    family: str
    subfamily: str
    decides: bool = False
    loads: str | None = None


class Verdict(NamedTuple):
    """What a model type is; ``basis`` says how that is known, best first: table, inputs, name."""

    family: str
    subfamily: str | None
    auto_class: str
    basis: str


# What the name of a part of a model says about it, the most telling word first.
_PART_OF_NAME = (
    (re.compile(r"(^|_)(talker|token2wav)($|_)"), "audio"),
    (re.compile(r"(^|_)text(_model|_module)?$"), "embedding"),
    (re.compile(r"(^|_)(vision|image|vit|vqgan|vqmodel)($|_)"), "vision"),
    (re.compile(r"(^|_)(audio|speech|asr)($|_)"), "audio"),
)
_ENCODER = {"vision": "image_encoder", "audio": "audio_encoder", "embedding": "text_encoder"}
_SOUND = {"input_features", "input_values", "audio_mel", "latents"}


def decide(
    facts: Facts, heads: Sequence[Head], exceptions: Mapping[str, Mapping[str, str]]
) -> Verdict:
    """Return the verdict of the tables or of the inputs, corrected by the exceptions."""
    verdict = _by_heads(facts, heads) or _by_inputs(facts) or _by_name(facts)
    exception = exceptions.get(facts.model_type)
    if not exception:
        return verdict
    return verdict._replace(**{**exception, "basis": "table"})


def _by_heads(facts: Facts, heads: Sequence[Head]) -> Verdict | None:
    for head in heads:
        if head.decides and head.auto_class in facts.architectures:
            subfamily = head.subfamily
            if subfamily == "causal_lm" and facts.experts > 1:
                subfamily = "mixture_of_experts"
            return Verdict(head.family, subfamily, head.loads or head.auto_class, "table")
    return None


def _by_inputs(facts: Facts) -> Verdict | None:
    """Judge a type that has no telling head by what its base model takes."""
    if not facts.architectures:
        return None
    family = _modality(facts)
    if family is None:
        return None
    auto_class = (
        "AutoModel" if "AutoModel" in facts.architectures else next(iter(facts.architectures))
    )
    if family == "multimodal":
        subfamily = "audio_text_encoder" if "audio" in facts.modalities else "image_text_encoder"
        return Verdict(family, subfamily, auto_class, "inputs")
    return Verdict(family, _ENCODER[family], auto_class, "inputs")


def _modality(facts: Facts) -> str | None:
    part = _part(facts.model_type)
    if part and not {"vision_config", "text_config"} <= facts.sub_configs:
        return part
    if facts.main_input in ("pixel_values", "pixel_values_videos"):
        return "vision"
    if facts.main_input in _SOUND:
        return "audio"
    if len(facts.sub_configs & {"text_config", "vision_config", "audio_config"}) > 1:
        return "multimodal"
    if "text" in facts.modalities and len(facts.modalities) > 1:
        return "multimodal"
    return "embedding" if facts.main_input in ("input_ids", None) else None


def _by_name(facts: Facts) -> Verdict:
    """Judge a part that no Auto class loads by what its name says it is a part of."""
    family = _part(facts.model_type)
    if family is None:
        return Verdict("unknown", None, "AutoModel", "name")
    return Verdict(family, _ENCODER[family], "AutoModel", "name")


def _part(model_type: str) -> str | None:
    return next((family for pattern, family in _PART_OF_NAME if pattern.search(model_type)), None)
