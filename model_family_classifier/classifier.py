"""Weighs the evidence and answers: family, subfamily, confidence, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model_family_classifier import evidence as sources
from model_family_classifier.configs import local_folder
from model_family_classifier.data import template_of
from model_family_classifier.database import look_up
from model_family_classifier.documents import printable
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.evidence import Evidence
from model_family_classifier.hardware import check_hw_compatibility, compatibility_of, priority_of
from model_family_classifier.index import default_auto_class, entry_of

# How much evidence for something else takes from the confidence, at most.
_DOUBT = 0.25
_MAX_NAME = 4096

# What is a kind of something else, and so says more where both are said.
_KINDS = {
    "causal_lm": ("chat_model", "mixture_of_experts", "state_space"),
    "text_encoder": ("masked_lm", "sentence_transformer", "reranker"),
    "masked_lm": ("sentence_transformer", "reranker"),
    "text_classifier": ("reranker",),
    "audio_encoder": ("speech_recognition", "audio_classifier"),
}

# Of an encoder-decoder, embeddings come from the encoder alone.
_SEQ2SEQ, _ENCODER = "AutoModelForSeq2SeqLM", "AutoModelForTextEncoding"


def classify_model(
    model_name: str,
    model_class: str | type | None = None,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    hw_compatibility: Mapping[str, Any] | None = None,
    model_db_path: str | Path | None = None,
    *,
    matrix_path: str | Path | None = None,
    hub: Callable[[str], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Tell what a model is, and why, without loading it; the hub is asked only through ``hub``.

    Args:
        model_name: a name of the hub, or a local folder of a model, a diffusers pipeline or an
            adapter.
        model_class: the model's class or its name ("BertModel", "AutoModelForCausalLM").
        tasks: pipeline tasks it is for ("fill-mask").
        methods: names of methods it has ("encode").
        hw_compatibility: {backend: {"compatible": bool, …}} that goes over the matrix.
        model_db_path: the user's model database (YAML or JSON), which is always right.
        matrix_path: the user's hardware matrix (YAML or JSON), whose cells go over ours.
        hub: what answers with a hub name's metadata, e.g. ``hub_metadata``; nothing is sent
            without it.

    Returns:
        JSON-able dict: model_name, family (one of FAMILIES), subfamily, deployment
        ("web_deployment" or None), confidence and subfamily_confidence (0 to 1), model_type,
        architecture, auto_class (with which a test loads it), main_input, evidence (best first),
        analyses {source: its best evidence}, template, hardware_priority, compatibility.

    Raises:
        ClassificationInputError: the name, the folder, the database or an argument is wrong.
    """
    _check_name(model_name)
    entry = look_up(model_db_path, model_name) if model_db_path is not None else None
    found = _gather(
        model_name,
        _class_name(model_class),
        _texts(tasks, "tasks"),
        _texts(methods, "methods"),
        entry,
        hub,
    )
    own = (entry or {}).get("hw_compatibility") or {}
    answer = _answer(model_name, found, _merged(own, hw_compatibility), matrix_path)
    return {**answer, **_stated(entry or {})}


def _stated(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the user's entry states and no inference may change.

    That a model is not made for browsers (null) is a statement; no Auto class is none.
    """
    stated = {"deployment": entry["deployment"]} if "deployment" in entry else {}
    return stated | ({"auto_class": entry["auto_class"]} if entry.get("auto_class") else {})


def _gather(
    name: str,
    class_name: str | None,
    tasks: Sequence[str],
    methods: Sequence[str],
    entry: Mapping[str, Any] | None,
    hub: Callable[[str], Mapping[str, Any]] | None,
) -> list[Evidence]:
    folder = local_folder(name)
    found = [*sources.from_database(entry)]
    found += sources.from_folder(folder) if folder else sources.from_hub_cache(name)
    found += sources.from_metadata(hub(name) if hub and not folder else None)
    found += sources.from_class(class_name)
    found += sources.from_tasks([*tasks, *((entry or {}).get("tasks") or ())])
    found += sources.from_methods(methods)
    found += sources.from_name(folder.resolve().name if folder else name)
    # Of equally strong sources the earlier one is the better one: sorting is stable.
    return sorted(found, key=lambda one: -one.strength)


def _answer(
    name: str,
    found: Sequence[Evidence],
    hw_compatibility: Mapping[str, Any],
    matrix_path: str | Path | None,
) -> dict[str, Any]:
    said, confidence = _weigh((one.family, one.confidence) for one in found)
    family = said or "unknown"
    agreeing = [one for one in found if (one.family or "unknown") == family]
    subfamily, sub_confidence = _weigh(_subfamilies(agreeing))
    if family != "unknown":
        sub_confidence = min(sub_confidence, confidence)
    model_type = _model_type(found, agreeing)
    auto_class = _auto_class(agreeing, family, subfamily, model_type)
    compatibility = compatibility_of(family, model_type, hw_compatibility, matrix_path)
    return {
        "model_name": name,
        "family": family,
        "subfamily": subfamily,
        "deployment": _first(one.deployment for one in found),
        "confidence": round(confidence, 2),
        "subfamily_confidence": round(sub_confidence, 2),
        "model_type": model_type,
        "architecture": _architecture(agreeing, model_type, auto_class),
        "auto_class": auto_class,
        "main_input": entry_of(model_type).get("main_input"),
        "evidence": [_shown(one) for one in found],
        "analyses": {one.source: _shown(one) for one in reversed(found)},
        "template": template_of(family),
        "hardware_priority": priority_of(family, compatibility, matrix_path),
        "compatibility": compatibility,
    }


def _weigh(said: Iterable[tuple[str | None, float]]) -> tuple[str | None, float]:
    """Return the first value that is said, and how sure it is.

    What contradicts it takes from that, except from certainty: the user's database is right.
    """
    stated = [(value, confidence) for value, confidence in said if value]
    if not stated:
        return None, 0.0
    value, confidence = stated[0]
    if confidence == 1.0:
        return value, confidence
    against = max((sure for other, sure in stated if other != value), default=0.0)
    return value, confidence - _DOUBT * against


def _subfamilies(agreeing: Sequence[Evidence]) -> list[tuple[str | None, float]]:
    """Return what is said of the subfamily, without what another one makes more precise."""
    said = [(one.subfamily, one.subfamily_confidence) for one in agreeing]
    named = {subfamily for subfamily, _ in said}
    return [one for one in said if not named & set(_KINDS.get(one[0] or "", ()))]


def _model_type(found: Sequence[Evidence], agreeing: Sequence[Evidence]) -> str | None:
    """Return the model type of the evidence that agrees, else one that can be what it says.

    With the task text-classification, "gpt2" is no text generation, yet still of type gpt2.
    """
    wanted = {one.auto_class for one in agreeing if one.auto_class}
    able = (
        one.model_type
        for one in found
        if wanted & set(entry_of(one.model_type).get("architectures", ()))
    )
    return _first(one.model_type for one in agreeing) or _first(able)


def _auto_class(
    agreeing: Sequence[Evidence], family: str, subfamily: str | None, model_type: str | None
) -> str:
    """Return the best evidence's class that this model type really has."""
    entry = entry_of(model_type)
    tables = entry.get("architectures", {})
    if family == "embedding" and entry.get("auto_class") == _SEQ2SEQ and _ENCODER in tables:
        return _ENCODER  # the whole encoder-decoder would ask for decoder inputs
    for one in agreeing:
        if one.auto_class and (not tables or one.auto_class in tables):
            return one.auto_class
    return str(entry.get("auto_class") or default_auto_class(family, subfamily))


def _architecture(
    agreeing: Sequence[Evidence], model_type: str | None, auto_class: str
) -> str | None:
    named = _first(one.architecture for one in agreeing)
    known: Sequence[str] = entry_of(model_type).get("architectures", {}).get(auto_class, ())
    return named or _first(known)


def _shown(one: Evidence) -> dict[str, Any]:
    return {
        "source": one.source,
        "detail": printable(one.detail),
        "family": one.family or "unknown",
        "subfamily": one.subfamily,
        "confidence": round(one.confidence, 2),
    }


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise ClassificationInputError(f"the model name must be text, not {type(name).__name__}.")
    if not name.strip():
        raise ClassificationInputError("the model name is empty; give a name or a folder.")
    if len(name) > _MAX_NAME:
        raise ClassificationInputError(f"the model name is longer than {_MAX_NAME} characters.")
    # Control characters and lone surrogates are neither in a hub name nor in a printable path.
    if any(not one.isprintable() for one in name):
        raise ClassificationInputError(f"the model name {name!r} has unprintable characters.")


def _class_name(model_class: Any) -> str | None:
    if model_class is None or isinstance(model_class, str):
        return model_class
    if isinstance(model_class, type):
        return model_class.__name__
    raise ClassificationInputError("model_class must be a class or the name of one.")


def _texts(values: Any, what: str) -> list[str]:
    if values is None:
        return []
    if isinstance(values, str):
        return [values]
    if isinstance(values, Iterable) and not isinstance(values, Mapping):
        listed = list(values)
        if all(isinstance(one, str) for one in listed):
            return listed
    raise ClassificationInputError(f"{what} must be a list of names.")


def _merged(own: Mapping[str, Any], given: Any) -> Any:
    """Return the database's hardware facts with the caller's over them, backend by backend."""
    checked = check_hw_compatibility(given)
    return {**own, **{name: {**own.get(name, {}), **cell} for name, cell in checked.items()}}
