"""The architecture index: what is known of each model type of transformers.

Written by ``rp models index``; see rp_cli/modeldb/build_index.py.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from model_family_classifier.confidence import confidence_of
from model_family_classifier.data import compiled_data, data_dir

#: Every family: a row of the hardware matrix each.
FAMILIES = tuple(compiled_data()["hardware_matrix"]["families"])

_ENCODERS = {
    "embedding": "text_encoder",
    "text_generation": "text_encoder",
    "vision": "image_encoder",
    "audio": "audio_encoder",
    "video": "video_encoder",
}


class Verdict(NamedTuple):
    """What a model is said to be, and on which basis; family None: nothing is said of it."""

    family: str | None
    subfamily: str | None
    auto_class: str | None
    basis: str

    @property
    def confidence(self) -> float:
        """How often such a verdict is right about the family."""
        return confidence_of(self.basis)


UNKNOWN = Verdict(None, None, None, "nothing")


@functools.cache
def load_index() -> dict[str, Any]:
    """Return the index: transformers, auto_classes, tasks, model_types."""
    text = (data_dir("model_db") / "architectures.json").read_text(encoding="utf-8")
    index: dict[str, Any] = json.loads(text)
    return index


def entry_of(model_type: str | None) -> dict[str, Any]:
    """Return the entry of a model type, or an empty one."""
    return load_index()["model_types"].get(model_type, {}) if model_type else {}


def judge_type(model_type: str | None) -> Verdict:
    """Return what a model type is when nothing is known of its class."""
    entry = entry_of(model_type)
    if not entry:
        return UNKNOWN
    basis = f"type_{entry['basis']}"
    return Verdict(_known(entry["family"]), entry["subfamily"], entry["auto_class"], basis)


def judge_class(class_name: str, model_type: str | None = None) -> Verdict:
    """Return what a model class, or an Auto class, says; UNKNOWN for a name that says nothing.

    Without a model type, the first type that has the class counts.
    """
    heads = load_index()["auto_classes"]
    if class_name in heads:
        return _of_head(class_name, "auto_class")
    for candidate in [model_type] if entry_of(model_type) else _types_with(class_name):
        verdict = _judge_known(class_name, candidate)
        if verdict != UNKNOWN:
            return verdict
    row = load_index()["classes"].get(class_name)
    if row:
        return Verdict(row["family"], row["subfamily"], "AutoModel", "class")
    return judge_suffix(class_name)


def default_auto_class(family: str, subfamily: str | None) -> str:
    """Return the Auto class for a family and subfamily of which no model type is known."""
    for name, head in load_index()["auto_classes"].items():
        if (head["family"], head["subfamily"]) == (family, subfamily):
            return str(head["loads"] or name)
    return "AutoModel"


def judge_task(task: str) -> Verdict:
    """Return what a pipeline task ("fill-mask") says; UNKNOWN for a task nobody knows."""
    row = load_index()["tasks"].get(task)
    if row:
        basis = "task_hint" if row["hint"] else "task"
        return Verdict(row["family"], row["subfamily"], row["auto_class"], basis)
    for name, head in load_index()["auto_classes"].items():
        if head["task"] == task:
            return _of_head(name, "task")
    return UNKNOWN


def judge_suffix(class_name: str) -> Verdict:
    """Judge a class that transformers does not have, e.g. of remote code, by how it ends."""
    if class_name.endswith("LMHeadModel"):
        return _of_head("AutoModelForCausalLM", "class_suffix")
    for auto_class in load_index()["auto_classes"]:
        suffix = auto_class.removeprefix("AutoModel")
        if suffix.startswith("For") and class_name.endswith(suffix):
            return _of_head(auto_class, "class_suffix")
    return UNKNOWN


def _of_head(auto_class: str, basis: str) -> Verdict:
    head = load_index()["auto_classes"][auto_class]
    return Verdict(_known(head["family"]), head["subfamily"], auto_class, basis)


def _known(family: str) -> str | None:
    return None if family == "unknown" else family


def _types_with(class_name: str) -> Iterator[str]:
    for model_type, entry in load_index()["model_types"].items():
        if any(class_name in names for names in entry["architectures"].values()):
            yield model_type


def _judge_known(class_name: str, model_type: str | None) -> Verdict:
    entry = entry_of(model_type)
    tables = entry["architectures"]
    of_type = judge_type(model_type)
    # The base model of a masked language model is an encoder that lost the head.
    if class_name in tables.get(entry["auto_class"], ()) and of_type.subfamily != "masked_lm":
        return of_type._replace(basis="class")
    if class_name in tables.get("AutoModel", ()):
        return _base_model(of_type)
    for auto_class in load_index()["auto_classes"]:
        if class_name in tables.get(auto_class, ()):
            return _in_family(_of_head(auto_class, "class"), of_type)
    if class_name in tables.get("AutoModelForPreTraining", ()):
        return of_type._replace(auto_class="AutoModel", basis="class")
    return UNKNOWN


def _in_family(of_head: Verdict, of_type: Verdict) -> Verdict:
    """Return what a head says, in the family of a type whose input no classifier changes.

    A sequence classifier of wav2vec2 hears and one of LLaVA sees, whatever the head's table says.
    """
    takes_text = of_type.family in (None, "embedding", "text_generation")
    if of_head.family == "embedding" and not takes_text:
        return of_type._replace(auto_class=of_head.auto_class, basis="class")
    return of_head


def _base_model(of_type: Verdict) -> Verdict:
    """Judge a checkpoint without a head: a language model that lost it gives embeddings."""
    subfamily = _ENCODERS.get(of_type.family or "", of_type.subfamily)
    if of_type.family == "text_generation":
        return Verdict("embedding", subfamily, "AutoModel", "base_class")
    return of_type._replace(subfamily=subfamily, auto_class="AutoModel", basis="base_class")
