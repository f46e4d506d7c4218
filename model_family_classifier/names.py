"""What a model's name says: whole words, the longest match wins, never a substring."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from model_family_classifier.data import known_names
from model_family_classifier.index import (
    UNKNOWN,
    Verdict,
    entry_of,
    judge_class,
    judge_type,
    load_index,
)
from model_family_classifier.purposes import deployment_of, purpose_of, verdict_of

_SEPARATOR = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_VERSION = re.compile(r"(?<=[a-z])(v?\d+)$")
_TYPE_VERSION = re.compile(r"[-_]v(?=\d)")
# Eight times seven, and three of thirty, thousand million parameters.
_BILLIONS = re.compile(r"(\d+x|a|e)?\d+b")
_TEXT = ("embedding", "text_generation")
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
    words = _words(base)
    found = _judge(organisation, base, words) or _judge_parts(base, words) or _by_size(words)
    deployment = deployment_of(organisation.lower(), words)
    if deployment is None:
        return found
    if found is None:
        return NameVerdict("made for browsers", None, UNKNOWN, deployment)
    return found._replace(deployment=deployment)


def _judge(organisation: str, base: str, words: list[str]) -> NameVerdict | None:
    found = (
        _match_name(words)
        or _match_class(base)
        or _match_pattern(words)
        or _match_organisation(organisation)
    )
    return _with_purpose(organisation, words, found)


def _judge_parts(base: str, words: list[str]) -> NameVerdict | None:
    """Judge the words that capitals part: "MeloTTS", "TinyMistral"; less sure than whole words."""
    parts = _words(_CAMEL.sub("-", base))
    if parts == words:
        return None
    found = _with_purpose("", parts, _match_name(parts))
    return found._replace(verdict=found.verdict._replace(basis="name_word")) if found else None


def _by_size(words: list[str]) -> NameVerdict | None:
    """Guess what is measured in billions of parameters and says nothing else of itself."""
    size = next((word for word in words if _BILLIONS.fullmatch(word)), None)
    if size is None:
        return None
    verdict = Verdict("text_generation", "causal_lm", "AutoModelForCausalLM", "name_size")
    return _with_purpose("", words, NameVerdict(f"size {size!r} in the name", None, verdict))


def _with_purpose(
    organisation: str, words: list[str], found: NameVerdict | None
) -> NameVerdict | None:
    purpose = purpose_of(organisation.lower(), words, found.verdict if found else UNKNOWN)
    if purpose is None:
        return found
    word, verdict = purpose
    if found is None:
        return NameVerdict(f"{word!r} in the name", None, verdict)
    if found.verdict.basis == "name_size":  # no surer than what it stands on
        verdict = verdict._replace(basis="name_size")
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


def _match_name(words: list[str]) -> NameVerdict | None:
    """Find the longest known name, the first of equally long ones.

    What sees or hears is often named after the language model inside it, too
    (blip2-flan-t5): then the language model is only a part.
    """
    known = _known_names()
    found = []
    for start, end, word in _runs(words):
        meaning = known.get(word)
        if meaning is not None and not (meaning.only_first and start > 0):
            found.append((end - start, -start, len(word), word))
    if not found:
        return None
    found.sort(reverse=True)
    first = found[0]
    best = _explain(first[-1], known[first[-1]], words[first[0] - first[1] :])
    if best.verdict.family in _TEXT:
        beside = (one for one in found[1:] if not _overlap(one, first))
        others = (_explain(word, known[word]) for *_, word in beside)
        return next((one for one in others if one.verdict.family == "multimodal"), best)
    return best


def _overlap(one: tuple[int, int, int, str], other: tuple[int, int, int, str]) -> bool:
    """Say whether two finds (words, -start, …) share a word."""
    return -one[1] < other[0] - other[1] and -other[1] < one[0] - one[1]


def _runs(words: list[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, joined) for each run of words, also without a final version number.

    "gpt-2" and "gpt2" join to the same, and "llama3" and "llamav2" are also "llama"; but "2b" is
    no version, so "gemma-2b" is not "gemma2".
    """
    longest = _longest_known()
    for start in range(len(words)):
        joined = ""
        for end in range(start, len(words)):
            stem = _VERSION.sub("", words[end])
            if stem != words[end]:
                yield start, end + 1, joined + stem
            joined += words[end]
            if len(joined) > longest:
                break
            yield start, end + 1, joined


def _explain(word: str, meaning: Meaning, later: Sequence[str] = ()) -> NameVerdict:
    model_type = meaning.model_type
    if meaning.basis == "name_type":
        model_type = _continued(word, later) or model_type
    of_type = judge_type(model_type)
    verdict = Verdict(
        meaning.family or of_type.family,
        meaning.subfamily or of_type.subfamily,
        meaning.auto_class or of_type.auto_class,
        "type_name" if of_type.basis == "type_name" else meaning.basis,
    )
    what = f"model type {model_type}" if model_type else "a known name"
    return NameVerdict(f"{word!r} in the name: {what}", model_type, verdict)


def _continued(word: str, later: Sequence[str]) -> str | None:
    """Return the longest model type that begins with this one and goes on further back.

    A size often stands between: qwen2-7b-audio is of type qwen2_audio.
    """
    fitting = (one for one in _longer_types().get(word, ()) if _in_order(one[1], later))
    best = max(fitting, key=lambda one: len(one[1]), default=None)
    return best[0] if best else None


def _in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    left = iter(words)
    return all(one in left for one in wanted)


def _match_pattern(words: list[str]) -> NameVerdict | None:
    for pattern, row in _patterns():
        for word in words:
            if pattern.fullmatch(word):
                verdict = verdict_of(row, row.get("basis", "name_known"))
                return NameVerdict(f"{word!r} in the name", None, verdict)
    return None


def _match_organisation(organisation: str) -> NameVerdict | None:
    """Find what an organisation is known for, or the model type that it is named after."""
    lower = organisation.lower()
    for group in known_names()["organisations"]:
        if lower in group["names"] and not group.get("purpose"):
            model_type = group["names"][lower]
            of_type = judge_type(model_type)
            verdict = of_type if of_type != UNKNOWN else verdict_of(group, "")
            known_for = f"model type {model_type}" if model_type else f"{verdict.family} models"
            return _of_organisation(organisation, known_for, model_type, verdict)
    named = _match_name(_words(organisation))
    if named is None:
        return None
    return _of_organisation(organisation, named.detail, named.model_type, named.verdict)


def _of_organisation(
    organisation: str, known_for: str, model_type: str | None, verdict: Verdict
) -> NameVerdict:
    detail = f"organisation {organisation!r} is known for {known_for}"
    return NameVerdict(detail, model_type, verdict._replace(basis="name_organisation"))


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    return [(re.compile(row["pattern"]), row) for row in known_names()["patterns"]]


@functools.cache
def _known_names() -> dict[str, Meaning]:
    """Return joined name -> meaning: the model types of transformers, then the curated names."""
    only_first = set(known_names()["only_first"])
    known = {}
    # Last the types as they are called: "mobilenet_v2" is also MobileNet2, unless that is a type.
    for spell in (lambda one: _TYPE_VERSION.sub("", one), str):
        for model_type in load_index()["model_types"]:
            word = joined(spell(model_type))
            known[word] = Meaning(model_type, None, None, None, word in only_first, "name_type")
    for word, (model_type, family, subfamily, auto_class) in known_names()["known"].items():
        said = (model_type, family, subfamily, auto_class)
        known[word] = Meaning(*said, word in only_first, "name_known")
    return known


@functools.cache
def _longer_types() -> dict[str, list[tuple[str, list[str]]]]:
    """Return {joined start of a type: [(type, its further words)]}, for types with a table."""
    longer: dict[str, list[tuple[str, list[str]]]] = {}
    for model_type in load_index()["model_types"]:
        words = _words(model_type)
        if entry_of(model_type)["basis"] == "table":
            for at in range(1, len(words)):
                longer.setdefault("".join(words[:at]), []).append((model_type, words[at:]))
    return longer


@functools.cache
def _longest_known() -> int:
    return max(len(word) for word in _known_names())


def _words(name: str) -> list[str]:
    return [word for word in _SEPARATOR.split(name.lower()) if word]


def joined(name: str) -> str:
    """Return a known name as it is looked up: its words without what parts them."""
    return "".join(_words(name))
