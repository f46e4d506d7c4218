"""The facts at the top of a model card: the YAML between two lines of dashes in README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from model_family_classifier.configs import is_word
from model_family_classifier.documents import load_yaml, read_head
from model_family_classifier.errors import ClassificationInputError

# Front matter is a few hundred bytes; some lists of languages or metrics take more.
_MAX_BYTES = 256 * 1024
_FOR_BROWSERS = ("transformers.js", "web-llm", "mlc-llm")


class Card(NamedTuple):
    """What a card says of a model's purpose; None where it says nothing, or nothing usable."""

    pipeline_tag: str | None
    library: str | None
    for_browsers: bool

    @classmethod
    def from_untrusted(cls, facts: Mapping[str, Any]) -> Card:
        """Take from a card, or from the hub's answer, what can be used."""
        tag, library = facts.get("pipeline_tag"), facts.get("library_name")
        tags = facts.get("tags")
        labels = [library, *(tags if isinstance(tags, list) else ())]
        return cls(
            pipeline_tag=tag if is_word(tag) else None,
            library=library if is_word(library) else None,
            for_browsers=any(label in _FOR_BROWSERS for label in labels),
        )


NO_CARD = Card(None, None, False)


def read_card(folder: Path) -> Card:
    """Return the facts of a folder's README.md; what is missing or malformed says nothing.

    Models are used with broken cards all the time, so a card is never an error.
    """
    block = _front_matter(read_head(folder / "README.md", _MAX_BYTES))
    if block is None:
        return NO_CARD
    try:
        facts = load_yaml(block)
    except (ValueError, RecursionError, ClassificationInputError):
        return NO_CARD
    return Card.from_untrusted(facts) if isinstance(facts, dict) else NO_CARD


def _front_matter(text: str) -> str | None:
    lines = text.splitlines()
    if not lines or lines[0].rstrip() != "---":
        return None
    end = next((at for at, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    return None if end is None else "\n".join(lines[1:end])
