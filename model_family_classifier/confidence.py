"""How far each kind of evidence goes: which is believed first, and how often it is right."""

from __future__ import annotations

import functools
import json
from typing import Any, NamedTuple

from model_family_classifier.data import data_dir


class Basis(NamedTuple):
    """One kind of evidence.

    ``strength``: of two that contradict each other the stronger one is believed; of equals, the
    source that is asked first. ``assumed``: how often it is right, until that is measured.
    """

    strength: int
    assumed: float


# From what a person states to what a single word hints at.
BASES = {
    "database": Basis(9, 1.0),
    "files": Basis(8, 0.97),  # modules.json of sentence-transformers, model_index.json of diffusers
    "class": Basis(7, 0.97),  # a class that transformers has
    "auto_class": Basis(7, 0.95),
    "class_suffix": Basis(6, 0.8),  # a class of remote code, by how its name ends
    "task": Basis(6, 0.9),
    "base_class": Basis(5, 0.85),  # a model without a head
    "type_table": Basis(5, 0.95),
    "type_inputs": Basis(5, 0.88),
    "type_name": Basis(5, 0.75),
    "adapter": Basis(5, 0.8),  # the name of the model that an adapter belongs to
    "name_known": Basis(4, 0.9),
    "name_type": Basis(4, 0.85),
    "name_purpose": Basis(4, 0.85),
    "parts": Basis(3, 0.7),
    "method": Basis(3, 0.6),
    "name_organisation": Basis(2, 0.6),
    "name_word": Basis(2, 0.6),
    "name_size": Basis(2, 0.6),  # billions of parameters, and nothing else
    "task_hint": Basis(2, 0.5),
    "method_hint": Basis(1, 0.4),
    "nothing": Basis(0, 0.0),
}
# A few right answers in a row are no proof of certainty: only a person is certain.
_HIGHEST_MEASURED = 0.99


def strength_of(basis: str) -> int:
    """Return how strong this kind of evidence is; larger is believed first."""
    return BASES[basis].strength


def confidence_of(basis: str, what: str = "family") -> float:
    """Return how often this kind of evidence is right about the "family" or the "subfamily".

    Measured on the labelled sets where they have enough cases, with one wrong and one right
    answer added (Laplace's rule), else assumed. ``benchmarks/classify.py --calibrate`` measures.
    """
    counts = _measured().get(basis, {}).get(what)
    if counts is None:
        return BASES[basis].assumed
    right, total = counts
    return min((right + 1) / (total + 2), _HIGHEST_MEASURED)


@functools.cache
def _measured() -> dict[str, dict[str, list[int]]]:
    text = (data_dir("model_db") / "confidence.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    measured: dict[str, dict[str, list[int]]] = content["measured"]
    return measured
