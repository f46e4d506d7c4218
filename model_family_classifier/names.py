"""What a model's name says: whole tokens, the longest match wins, never a substring."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from model_family_classifier.data import compiled_data
from model_family_classifier.index import UNKNOWN, Verdict, judge_class, judge_type, load_index

_SEPARATOR = re.compile(r"[^a-z0-9]+")
_VERSION = re.compile(r"(?<=[a-z])(v?\d+)$")
_TEXT = ("embedding", "text_generation")
_LONGEST_PURPOSE = 4  # tokens
_CLASS = re.compile(r"[A-Z]\w*(For[A-Z]\w+|LMHeadModel|Model)")


class Meaning(NamedTuple):
    """What one known name stands for."""

    model_type: str | None
    family: str | None
    subfamily: str | None
    auto_class: str | None
    only_first: bool
    basis: str


class NameVerdict(NamedTuple):
    """What a name says, and by which of its words."""

    detail: str
    model_type: str | None
    verdict: Verdict
    deployment: str | None = None


def judge_name(name: str) -> NameVerdict | None:
    """Return what a hub name ("org/name") or a folder's name says; None if it says nothing."""
    organisation, _, base = name.rpartition("/")
    organisation = organisation.lower()
    tokens = [token for token in _SEPARATOR.split(base.lower()) if token]
    found = _with_purpose(organisation, tokens, _found(organisation, base, tokens))
    deployment = _deployment_of(organisation, tokens)
    if deployment is None:
        return found
    if found is None:
        return NameVerdict("made for browsers", None, UNKNOWN, deployment)
    return found._replace(deployment=deployment)


def _found(organisation: str, base: str, tokens: list[str]) -> NameVerdict | None:
    return (
        _match_name(tokens)
        or _match_class(base)
        or _match_pattern(tokens)
        or _match_organisation(organisation)
    )


def _with_purpose(
    organisation: str, tokens: list[str], found: NameVerdict | None
) -> NameVerdict | None:
    purpose = _purpose_of(organisation, tokens, found)
    if purpose is None:
        return found
    word, verdict = purpose
    if found is None:
        return NameVerdict(f"{word!r} in the name", None, verdict)
    return NameVerdict(f"{found.detail}; {word!r} says what it is for", found.model_type, verdict)


def _match_class(base: str) -> NameVerdict | None:
    """Find the class that a test model is named after: tiny-random-LlamaForCausalLM."""
    for token in re.split(r"[^A-Za-z0-9_]+", base):
        if _CLASS.fullmatch(token):
            verdict = judge_class(token)
            if verdict != UNKNOWN:
                detail = f"class {token} in the name"
                return NameVerdict(detail, None, verdict._replace(basis="name_type"))
    return None


def _match_name(tokens: list[str]) -> NameVerdict | None:
    """Find the longest known name, the first of equally long ones.

    What sees or hears is often named after the language model inside it, too
    (blip2-flan-t5): then the language model is only a part.
    """
    known = _known_names()
    found = []
    for start, end, word in _runs(tokens):
        meaning = known.get(word)
        if meaning is not None and not (meaning.only_first and start > 0):
            found.append((end - start, -start, len(word), word))
    if not found:
        return None
    found.sort(reverse=True)
    best = _explain(found[0][-1], known[found[0][-1]])
    if best.verdict.family in _TEXT:
        beside = (one for one in found[1:] if not _overlap(one, found[0]))
        others = (_explain(word, known[word]) for *_, word in beside)
        return next((one for one in others if one.verdict.family == "multimodal"), best)
    return best


def _overlap(one: tuple[int, int, int, str], other: tuple[int, int, int, str]) -> bool:
    """Say whether two finds (tokens, -start, …) share a token."""
    return -one[1] < other[0] - other[1] and -other[1] < one[0] - one[1]


def _runs(tokens: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, joined) for each run of tokens, also without a final version number.

    "gpt-2" and "gpt2" join to the same, and "llama3" and "llamav2" are also "llama"; but "2b" is
    no version, so "gemma-2b" is not "gemma2".
    """
    longest = _longest_known()
    for start in range(len(tokens)):
        joined = ""
        for end in range(start, len(tokens)):
            stem = _VERSION.sub("", tokens[end])
            if stem != tokens[end]:
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
        "type_name" if of_type.basis == "type_name" else meaning.basis,
    )
    what = f"model type {meaning.model_type}" if meaning.model_type else "a known name"
    return NameVerdict(f"{word!r} in the name: {what}", meaning.model_type, verdict)


def _match_pattern(tokens: list[str]) -> NameVerdict | None:
    for pattern, row in _patterns():
        for token in tokens:
            if pattern.fullmatch(token):
                return NameVerdict(f"{token!r} in the name", None, _verdict_of(row, "name_known"))
    return None


def _match_organisation(organisation: str) -> NameVerdict | None:
    for group in _names_file()["organisations"]:
        if organisation in group["names"] and not group.get("purpose"):
            model_type = group["names"][organisation]
            of_type = judge_type(model_type)
            verdict = of_type if of_type != UNKNOWN else _verdict_of(group, "")
            known_for = f"model type {model_type}" if model_type else f"{verdict.family} models"
            detail = f"organisation {organisation!r} is known for {known_for}"
            return NameVerdict(detail, model_type, verdict._replace(basis="name_organisation"))
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
            return organisation, _verdict_of(group, "name_known")
    return None


def _purpose_in_name(tokens: list[str], base: Verdict) -> tuple[str, Verdict] | None:
    said = _grams(tokens)
    for purpose in _names_file()["purposes"]:
        if said.isdisjoint(purpose["words"]):
            continue
        word = next(word for word in purpose["words"] if word in said)
        if {base.family, base.subfamily} & set(purpose["built_on"]):
            return word, _verdict_of(purpose, "name_purpose")
        if base == UNKNOWN and purpose.get("alone"):
            return word, _verdict_of(purpose, "name_word")
    return None


def _grams(tokens: list[str]) -> set[str]:
    """Return all runs of tokens that are short enough to be a purpose, joined by dashes."""
    ends = range(1, _LONGEST_PURPOSE + 1)
    return {"-".join(tokens[at : at + size]) for at in range(len(tokens)) for size in ends}


def _deployment_of(organisation: str, tokens: list[str]) -> str | None:
    """Return "web_deployment" for a model that was converted to run in browsers."""
    browsers = _names_file()["browsers"]
    for_browsers = organisation in browsers["organisations"] or set(tokens) & set(browsers["words"])
    return "web_deployment" if for_browsers else None


def _verdict_of(row: Mapping[str, Any], basis: str) -> Verdict:
    return Verdict(row["family"], row.get("subfamily"), row.get("auto_class"), basis)


def _names_file() -> dict[str, Any]:
    names: dict[str, Any] = compiled_data()["names"]
    return names


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [(re.compile(row["pattern"]), row) for row in _names_file()["patterns"]]


@functools.cache
def _known_names() -> dict[str, Meaning]:
    """Return joined name -> meaning: the model types of transformers, then the curated names."""
    only_first = set(_names_file()["only_first"])
    known = {}
    for model_type in load_index()["model_types"]:
        word = _joined(model_type)
        known[word] = Meaning(model_type, None, None, None, word in only_first, "name_type")
    for word, (model_type, family, subfamily, auto_class) in _names_file()["known"].items():
        said = (model_type, family, subfamily, auto_class)
        known[word] = Meaning(*said, word in only_first, "name_known")
    return known


@functools.cache
def _longest_known() -> int:
    return max(len(word) for word in _known_names())


def _joined(name: str) -> str:
    return _SEPARATOR.sub("", name.lower())
