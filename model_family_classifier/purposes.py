"""What words in a name say a model is for, whatever it is built on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model_family_classifier.data import known_names
from model_family_classifier.index import UNKNOWN, Verdict

_TEXT = (None, "embedding", "text_generation")
_LONGEST = 4  # words of the longest purpose


def purpose_of(
    organisation: str, words: Sequence[str], base: Verdict
) -> tuple[str, Verdict] | None:
    """Return the word that says what the model is for, and what; None without one.

    Args:
        organisation: who publishes it, in lower case; some publish for one purpose only.
        words: the words of its name.
        base: what the rest of the name says that it is built on.
    """
    return _of_organisation(organisation, base) or _in_name(words, base)


def deployment_of(organisation: str, words: Sequence[str]) -> str | None:
    """Return "web_deployment" for a model that was converted to run in browsers."""
    browsers = known_names()["browsers"]
    for_browsers = organisation in browsers["organisations"] or set(words) & set(browsers["words"])
    return "web_deployment" if for_browsers else None


def verdict_of(row: Mapping[str, Any], basis: str) -> Verdict:
    """Return the verdict that a row of names.yaml states."""
    return Verdict(row["family"], row.get("subfamily"), row.get("auto_class"), basis)


def _of_organisation(organisation: str, base: Verdict) -> tuple[str, Verdict] | None:
    if base.family not in _TEXT:
        return None
    for group in known_names()["organisations"]:
        if group.get("purpose") and organisation in group["names"]:
            return organisation, verdict_of(group, "name_known")
    return None


def _in_name(words: Sequence[str], base: Verdict) -> tuple[str, Verdict] | None:
    """Return the longest purpose that fits the base; of equals, the one listed first."""
    fitting = []
    for length, word in _runs(words):
        for place, purpose in _purposes().get(word, ()):
            basis = _basis(purpose, base)
            if basis:
                fitting.append((-length, place, word, verdict_of(purpose, basis)))
    return min(fitting)[2:] if fitting else None


@functools.cache
def _purposes() -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
    """Return {word: [(place in the list, row)]}."""
    rows: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for place, row in enumerate(known_names()["purposes"]):
        for word in row["words"]:
            rows.setdefault(word, []).append((place, row))
    return rows


def _basis(purpose: Mapping[str, Any], base: Verdict) -> str | None:
    """Return how far the purpose goes for a model that is built on this; None: it does not."""
    if {base.family, base.subfamily}.intersection(purpose["built_on"]):
        return "name_purpose"
    return "name_word" if base == UNKNOWN and purpose.get("alone") else None


def _runs(words: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield (length, joined) for all runs of words that are short enough to be a purpose."""
    for start in range(len(words)):
        for end in range(start + 1, min(start + _LONGEST, len(words)) + 1):
            yield end - start, "-".join(words[start:end])
