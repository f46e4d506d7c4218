"""What a model's name says: whole tokens, the longest match wins, never a substring."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from model_family_classifier.data import data_dir
from model_family_classifier.documents import load_trusted_yaml
from model_family_classifier.index import UNKNOWN, Verdict, judge_type, load_index

_SEPARATOR = re.compile(r"[^a-z0-9]+")
_TRUST_MODEL_TYPE = 0.85
_TRUST_CURATED = 0.9
_TRUST_ORGANISATION = 0.6
_TRUST_PURPOSE_ALONE = 0.6


class Meaning(NamedTuple):
    """What one known name stands for."""

    model_type: str | None
    family: str | None
    subfamily: str | None
    auto_class: str | None
    only_first: bool
    confidence: float


class NameVerdict(NamedTuple):
    """What a name says, and by which of its words."""

    detail: str
    model_type: str | None
    verdict: Verdict


def judge_name(name: str) -> NameVerdict | None:
    """Return what a hub name ("org/name") or a folder's name says; None if it says nothing."""
    organisation, _, base = name.lower().rpartition("/")
    tokens = [token for token in _SEPARATOR.split(base) if token]
    found = _match_name(tokens) or _match_organisation(organisation)
    purpose = _purpose_of(organisation, tokens, found)
    if purpose is None:
        return found
    word, verdict = purpose
    if found is None:
        return NameVerdict(f"{word!r} in the name", None, verdict)
    return NameVerdict(f"{found.detail}; {word!r} says what it is for", found.model_type, verdict)


def _match_name(tokens: list[str]) -> NameVerdict | None:
    known = _known_names()
    best: tuple[tuple[int, int, int], str] | None = None
    for start, end, word in _runs(tokens):
        meaning = known.get(word)
        if meaning is None or (meaning.only_first and start > 0):
            continue
        rank = (end - start, -start, len(word))
        if best is None or rank > best[0]:
            best = (rank, word)
    return _explain(best[1], known[best[1]]) if best else None


def _runs(tokens: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, joined) for each run of tokens, also without a final version number.

    "gpt-2" and "gpt2" join to the same, and "llama3" is also "llama"; but "2b" is no version,
    so "gemma-2b" is not "gemma2".
    """
    longest = _longest_known()
    for start in range(len(tokens)):
        joined = ""
        for end in range(start, len(tokens)):
            stem = tokens[end].rstrip("0123456789")
            if stem and stem != tokens[end]:
                yield start, end + 1, joined + stem
            joined += tokens[end]
            if len(joined) > longest:
                break
            yield start, end + 1, joined


def _explain(word: str, meaning: Meaning) -> NameVerdict:
    of_type = judge_type(meaning.model_type)
    verdict = Verdict(
        meaning.family or of_type.family,
        meaning.subfamily or of_type.subfamily,
        meaning.auto_class or of_type.auto_class,
        min(meaning.confidence, of_type.confidence or 1.0),
    )
    what = f"model type {meaning.model_type}" if meaning.model_type else "a known name"
    return NameVerdict(f"{word!r} in the name: {what}", meaning.model_type, verdict)


def _match_organisation(organisation: str) -> NameVerdict | None:
    for group in _names_file()["organisations"]:
        if organisation in group["names"] and not group.get("purpose"):
            model_type = group["names"][organisation]
            verdict = judge_type(model_type)._replace(confidence=_TRUST_ORGANISATION)
            detail = f"organisation {organisation!r} is known for model type {model_type}"
            return NameVerdict(detail, model_type, verdict)
    return None


def _purpose_of(
    organisation: str, tokens: list[str], found: NameVerdict | None
) -> tuple[str, Verdict] | None:
    """Return the word that says what the model is for, and what; None without one."""
    base = found.verdict if found else UNKNOWN
    return _purpose_of_organisation(organisation, base) or _purpose_in_name(tokens, base)


def _purpose_of_organisation(organisation: str, base: Verdict) -> tuple[str, Verdict] | None:
    if base.family not in (None, "embedding", "text_generation"):
        return None
    for group in _names_file()["organisations"]:
        if group.get("purpose") and organisation in group["names"]:
            return organisation, _verdict_of(group, _TRUST_CURATED)
    return None


def _purpose_in_name(tokens: list[str], base: Verdict) -> tuple[str, Verdict] | None:
    text = f"-{'-'.join(tokens)}-"
    for purpose in _names_file()["purposes"]:
        word = next((word for word in purpose["words"] if f"-{word}-" in text), None)
        if word and {base.family, base.subfamily} & set(purpose["built_on"]):
            return word, _verdict_of(purpose, max(base.confidence, _TRUST_MODEL_TYPE))
        if word and base == UNKNOWN and purpose.get("alone"):
            return word, _verdict_of(purpose, _TRUST_PURPOSE_ALONE)
    return None


def _verdict_of(row: Mapping[str, Any], confidence: float) -> Verdict:
    return Verdict(row["family"], row["subfamily"], row["auto_class"], confidence)


@functools.cache
def _names_file() -> dict[str, Any]:
    content: dict[str, Any] = load_trusted_yaml(data_dir("model_db") / "names.yaml")
    return content


@functools.cache
def _known_names() -> dict[str, Meaning]:
    """Return joined name -> meaning: the model types of transformers, then the curated names."""
    only_first = {_joined(name) for name in _names_file()["only_first"]}
    known = {}
    for model_type in load_index()["model_types"]:
        word = _joined(model_type)
        known[word] = Meaning(model_type, None, None, None, word in only_first, _TRUST_MODEL_TYPE)
    for group in _names_file()["names"]:
        said = (group.get("family"), group.get("subfamily"), group.get("auto_class"))
        for name, model_type in group["names"].items():
            word = _joined(name)
            known[word] = Meaning(model_type, *said, word in only_first, _TRUST_CURATED)
    return known


@functools.cache
def _longest_known() -> int:
    return max(len(word) for word in _known_names())


def _joined(name: str) -> str:
    return _SEPARATOR.sub("", name.lower())
