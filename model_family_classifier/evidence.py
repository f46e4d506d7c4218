"""Gathers what can be known of a model without loading it: one record per source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier.configs import Config, cached_snapshot, read_folder
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
    confidence: float
    auto_class: str | None = None
    model_type: str | None = None
    architecture: str | None = None


# Tasks that no head of transformers stands for, or that say more than the head's own word.
_TASKS = {
    "sentence-similarity": Verdict("embedding", "sentence_transformer", "AutoModel", 0.9),
    "feature-extraction": Verdict("embedding", None, "AutoModel", 0.6),
    "text-ranking": Verdict("embedding", "reranker", None, 0.9),
    "summarization": Verdict("text_generation", "seq2seq", None, 0.85),
    "translation": Verdict("text_generation", "seq2seq", None, 0.85),
    "ner": Verdict("embedding", "token_classifier", None, 0.9),
    "sentiment-analysis": Verdict("embedding", "text_classifier", None, 0.9),
    "zero-shot-classification": Verdict("embedding", "text_classifier", None, 0.8),
    "image-feature-extraction": Verdict("vision", "image_encoder", "AutoModel", 0.9),
    "image-to-text": Verdict("multimodal", "vision_language", None, 0.5),
    "text-to-speech": Verdict("audio", "text_to_speech", None, 0.9),
    "zero-shot-audio-classification": Verdict("multimodal", "audio_text_encoder", "AutoModel", 0.9),
}
# A method's name is a hint: "generate" is also Whisper's and LLaVA's.
_METHODS = {
    "generate": Verdict("text_generation", None, None, 0.4),
    "chat": Verdict("text_generation", "chat_model", None, 0.5),
    "encode": Verdict("embedding", "sentence_transformer", None, 0.6),
    "embed": Verdict("embedding", "sentence_transformer", None, 0.6),
    "similarity": Verdict("embedding", "sentence_transformer", None, 0.5),
    "get_image_features": Verdict("multimodal", "image_text_encoder", None, 0.7),
    "transcribe": Verdict("audio", "speech_recognition", None, 0.7),
    "synthesize": Verdict("audio", "text_to_speech", None, 0.6),
    "generate_speech": Verdict("audio", "text_to_speech", None, 0.7),
    "post_process_object_detection": Verdict("vision", "object_detection", None, 0.7),
    "post_process_semantic_segmentation": Verdict("vision", "segmentation", None, 0.7),
}


def from_database(entry: Mapping[str, Any] | None) -> Iterator[Evidence]:
    """Yield what the user's entry says: it is certain."""
    if entry is not None:
        keys = ("family", "subfamily", "auto_class", "model_type", "architecture")
        said = {key: entry.get(key) for key in keys}
        yield Evidence(MODEL_DATABASE, "entry of the model database", confidence=1.0, **said)


def from_folder(folder: Path) -> Iterator[Evidence]:
    """Yield what a local folder's config.json says; raise ClassificationInputError without one."""
    yield _from_config("config", read_folder(folder))


def from_hub_cache(name: str) -> Iterator[Evidence]:
    """Yield what the config.json of a snapshot in the hub's cache says."""
    snapshot = cached_snapshot(name)
    if snapshot is None:
        return
    try:
        yield _from_config("hub_cache", read_folder(snapshot))
    except ClassificationInputError as error:
        # The user did not name this file: it is reported, and the other evidence stands.
        yield Evidence("hub_cache", str(error), None, None, 0.0)


def from_class(class_name: str | None) -> Iterator[Evidence]:
    """Yield what the name of a model class says."""
    if class_name:
        verdict = judge_class(class_name)
        architecture = None if class_name.startswith("Auto") else class_name
        detail = f"class {class_name}"
        yield _evidence("model_class", detail, verdict, architecture=architecture)


def from_tasks(tasks: Sequence[str]) -> Iterator[Evidence]:
    """Yield what each pipeline task says."""
    for task in tasks:
        yield _evidence("tasks", f"task {task}", _TASKS.get(task) or judge_task(task))


def from_methods(methods: Sequence[str]) -> Iterator[Evidence]:
    """Yield what each method that tells something says."""
    for method in methods:
        if method in _METHODS:
            yield _evidence("methods", f"method {method}", _METHODS[method])


def from_name(name: str) -> Iterator[Evidence]:
    """Yield what the name says, which may be that it says nothing."""
    found = judge_name(name)
    if found is None:
        yield Evidence("name", "no known name, model type or organisation in it", None, None, 0.0)
    else:
        yield _evidence("name", found.detail, found.verdict, model_type=found.model_type)


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
        return Verdict("embedding", "sentence_transformer", "AutoModel", 0.98)
    if architecture:
        verdict = judge_class(architecture, config.model_type)
        if verdict != UNKNOWN:
            return verdict
    if of_type != UNKNOWN:
        return of_type._replace(confidence=min(of_type.confidence, 0.93))
    return _judge_parts(config)


def _judge_parts(config: Config) -> Verdict:
    """Judge a model that transformers does not know by the parts its config has."""
    if {"vision_config", "text_config"} <= config.parts:
        return Verdict("multimodal", "vision_language", None, 0.7)
    if {"audio_config", "text_config"} <= config.parts:
        return Verdict("multimodal", "audio_language", None, 0.7)
    return UNKNOWN


def _evidence(source: str, detail: str, verdict: Verdict, **facts: str | None) -> Evidence:
    if verdict == UNKNOWN:
        detail = f"{detail}: says nothing"
    family, subfamily, auto_class, confidence = verdict
    return Evidence(source, detail, family, subfamily, confidence, auto_class, **facts)
