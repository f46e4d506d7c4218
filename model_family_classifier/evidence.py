"""Gathers what can be known of a model without loading it: one record per source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier import diffusers
from model_family_classifier.card import Card, read_card
from model_family_classifier.confidence import confidence_of, strength_of
from model_family_classifier.configs import Config, cached_snapshot, read_adapter, read_folder
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.index import UNKNOWN, Verdict, judge_class, judge_task, judge_type
from model_family_classifier.names import judge_name

MODEL_DATABASE = "model_database"


class Evidence(NamedTuple):
    """What one source says. ``family`` is None where the source says nothing about it."""

    source: str
    detail: str
    family: str | None
    subfamily: str | None
    basis: str
    auto_class: str | None = None
    model_type: str | None = None
    architecture: str | None = None
    deployment: str | None = None

    @property
    def strength(self) -> int:
        """How strong it is against other evidence."""
        return strength_of(self.basis)

    @property
    def confidence(self) -> float:
        """How often such evidence is right about the family; 0 where it says nothing."""
        return confidence_of(self.basis) if self.family or self.subfamily else 0.0

    @property
    def subfamily_confidence(self) -> float:
        """How often such evidence is right about the subfamily; 0 where it says nothing."""
        return confidence_of(self.basis, "subfamily") if self.subfamily else 0.0


# A method's name is a hint: "generate" is also Whisper's and LLaVA's.
_METHODS = {
    "generate": Verdict("text_generation", None, None, "method_hint"),
    "chat": Verdict("text_generation", "chat_model", None, "method"),
    "encode": Verdict("embedding", "sentence_transformer", None, "method"),
    "embed": Verdict("embedding", "sentence_transformer", None, "method"),
    "similarity": Verdict("embedding", "sentence_transformer", None, "method"),
    "get_image_features": Verdict("multimodal", "image_text_encoder", None, "method"),
    "transcribe": Verdict("audio", "speech_recognition", None, "method"),
    "synthesize": Verdict("audio", "text_to_speech", None, "method"),
    "generate_speech": Verdict("audio", "text_to_speech", None, "method"),
    "post_process_object_detection": Verdict("vision", "object_detector", None, "method"),
    "post_process_semantic_segmentation": Verdict("vision", "segmentation", None, "method"),
    "forecast": Verdict("time_series", "forecasting", None, "method"),
}


def from_database(entry: Mapping[str, Any] | None) -> Iterator[Evidence]:
    """Yield what the user's entry says: it is certain."""
    if entry is not None:
        keys = ("family", "subfamily", "auto_class", "model_type", "architecture", "deployment")
        said = {key: entry.get(key) for key in keys}
        yield Evidence(MODEL_DATABASE, "entry of the model database", basis="database", **said)


def from_folder(folder: Path) -> Iterator[Evidence]:
    """Yield what the files of a local folder say.

    Raises:
        ClassificationInputError: neither a config.json nor a diffusers pipeline nor an adapter,
            or one that is malformed.
    """
    yield from _from_files("config", folder)


def from_hub_cache(name: str) -> Iterator[Evidence]:
    """Yield what the files of a snapshot in the hub's cache say."""
    snapshot = cached_snapshot(name)
    if snapshot is None:
        return
    try:
        yield from _from_files("hub_cache", snapshot)
    except ClassificationInputError as error:
        # The user did not name this file: it is reported, and the other evidence stands.
        yield Evidence("hub_cache", str(error), None, None, "nothing")


def from_metadata(metadata: Mapping[str, Any] | None) -> Iterator[Evidence]:
    """Yield what the hub answered: its config, then the card's facts."""
    if not isinstance(metadata, Mapping):
        return
    if metadata.get("error"):
        yield Evidence("hub", str(metadata["error"]), None, None, "nothing")
        return
    config = Config.from_untrusted(Path("hub"), metadata.get("config"))
    if config.model_type or config.architectures:
        yield _from_config("hub", config)
    yield from _from_card("hub", Card.from_untrusted(metadata))


def from_class(class_name: str | None) -> Iterator[Evidence]:
    """Yield what the name of a model class says."""
    if class_name:
        verdict = judge_class(class_name)
        is_model = class_name.isidentifier() and not class_name.startswith("Auto")
        architecture = class_name if is_model else None
        detail = f"class {class_name}"
        yield _evidence("model_class", detail, verdict, architecture=architecture)


def from_tasks(tasks: Sequence[str]) -> Iterator[Evidence]:
    """Yield what each pipeline task says."""
    for task in tasks:
        yield _evidence("tasks", f"task {task}", judge_task(task))


def from_methods(methods: Sequence[str]) -> Iterator[Evidence]:
    """Yield what each method that tells something says."""
    for method in methods:
        if method in _METHODS:
            yield _evidence("methods", f"method {method}", _METHODS[method])


def from_name(name: str) -> Iterator[Evidence]:
    """Yield what the name says, which may be that it says nothing."""
    found = judge_name(name)
    if found is None:
        yield Evidence("name", "no known name, model type or organisation in it", *_NOTHING)
    else:
        facts = {"model_type": found.model_type, "deployment": found.deployment}
        yield _evidence("name", found.detail, found.verdict, **facts)


_NOTHING = (None, None, "nothing")


def _from_files(source: str, folder: Path) -> Iterator[Evidence]:
    pipeline = diffusers.read_pipeline(folder)
    if pipeline:
        detail = f"{folder}: diffusers pipeline {pipeline}"
        yield _evidence(source, detail, diffusers.judge_pipeline(pipeline))
    elif base := read_adapter(folder):
        found = judge_name(base)
        verdict = found.verdict._replace(basis="adapter") if found else UNKNOWN
        model_type = found.model_type if found else None
        detail = f"{folder}: adapter of {base}"
        yield _evidence(source, detail, verdict, model_type=model_type)
    else:
        yield _from_config(source, read_folder(folder))
    yield from _from_card("model_card", read_card(folder))


def _from_card(source: str, card: Card) -> Iterator[Evidence]:
    deployment = "web_deployment" if card.for_browsers else None
    if card.pipeline_tag:
        detail = f"pipeline_tag {card.pipeline_tag}"
        yield _evidence(source, detail, judge_task(card.pipeline_tag), deployment=deployment)
    elif card.library in diffusers.LIBRARIES:
        yield _evidence(source, f"library {card.library}", diffusers.LIBRARIES[card.library])
    elif deployment:
        yield Evidence(source, "made for browsers", *_NOTHING, deployment=deployment)


def _from_config(source: str, config: Config) -> Evidence:
    architecture = config.architectures[0] if config.architectures else None
    said = [f"model_type {config.model_type}" if config.model_type else "no model_type"]
    if architecture:
        said.append(f"architecture {architecture}")
    if config.sentence_transformer:
        said.append("modules.json of sentence-transformers")
    return _evidence(
        source,
        f"{config.path}: {', '.join(said)}",
        _judge_config(config, architecture),
        model_type=config.model_type,
        architecture=architecture,
    )


def _judge_config(config: Config, architecture: str | None) -> Verdict:
    of_type = judge_type(config.model_type)
    if config.sentence_transformer and of_type.family in (None, "embedding", "text_generation"):
        return Verdict("embedding", "sentence_transformer", "AutoModel", "files")
    for class_name in (architecture, *config.remote_auto_classes):
        verdict = judge_class(class_name, config.model_type) if class_name else UNKNOWN
        if verdict != UNKNOWN:
            return verdict
    return of_type if of_type != UNKNOWN else _judge_parts(config)


def _judge_parts(config: Config) -> Verdict:
    """Judge a model that transformers does not know by the parts its config has."""
    if {"vision_config", "text_config"} <= config.parts:
        return Verdict("multimodal", "vision_language", None, "parts")
    if {"audio_config", "text_config"} <= config.parts:
        return Verdict("multimodal", "audio_language", None, "parts")
    return UNKNOWN


def _evidence(source: str, detail: str, verdict: Verdict, **facts: str | None) -> Evidence:
    if verdict == UNKNOWN:
        detail = f"{detail}: says nothing"
    family, subfamily, auto_class, basis = verdict
    return Evidence(source, detail, family, subfamily, basis, auto_class, **facts)
