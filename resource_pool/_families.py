"""What the classifier knows, as far as the pool needs it: a family and the hardware it suits."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resource_pool._hardware import CPU, CUDA, MPS, WEBGPU, WEBNN

logger = logging.getLogger("resource_pool")

_LEVELS = ("high", "medium", "low", "none")


@dataclass(frozen=True)
class FamilyFacts:
    """A family, the hardware it prefers (best first) and the hardware that is barred, with why.

    ``browsers`` are the browsers' interfaces, the best first.
    """

    family: str
    priority: tuple[str, ...] = (CUDA, MPS, CPU)
    barred: Mapping[str, str] | None = None
    browsers: tuple[str, ...] = ()


@functools.lru_cache(maxsize=4096)
def family_facts(model_type: str, model_name: str) -> FamilyFacts:
    """Normalise ``model_type`` (a family, a model type or anything) for the model of that name.

    A family is taken at its word; anything else is classified, first as a model type, then by
    the model's name. What stays unknown keeps the caller's word as its family.
    """
    classify = _classifier()
    if classify is None:
        return FamilyFacts(model_type)
    named = _try(classify, model_name)
    if model_type in _families():
        family = model_type
    else:
        typed = _try(classify, model_type)
        found = [c["family"] for c in (typed, named) if c and c["family"] in _families()]
        family = found[0] if found else model_type
    if named and named["family"] == family:
        return _facts(family, named["hardware_priority"], named["compatibility"])
    return _facts_of_family(family)


@functools.cache
def _families() -> frozenset[str]:
    from model_family_classifier import FAMILIES

    return frozenset(FAMILIES) - {"unknown"}


def subfamily_of(model_name: str) -> str | None:
    """Return the subfamily that the classifier gives a model's name, or None."""
    classify = _classifier()
    named = None if classify is None else _try(classify, model_name)
    return named["subfamily"] if named else None


def _facts_of_family(family: str) -> FamilyFacts:
    """Return what the matrix says of a family, for a model that nothing else is known of."""
    from model_family_classifier.hardware import compatibility_of, priority_of

    known = family if family in _families() else "unknown"
    cells = compatibility_of(known, None, {})
    return _facts(family, priority_of(known, cells), cells)


def _facts(
    family: str, priority: Sequence[str], cells: Mapping[str, Mapping[str, Any]]
) -> FamilyFacts:
    barred = {name: cell["reason"] for name, cell in cells.items() if not cell["compatible"]}
    # On a tie WebGPU, which more browsers have.
    browsers = sorted((WEBGPU, WEBNN), key=lambda name: _LEVELS.index(cells[name]["level"]))
    return FamilyFacts(family, tuple(priority), barred, tuple(browsers))


def _try(classify: Callable[[str], Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Classify a caller's word, which may be no legal model name at all."""
    from model_family_classifier.errors import ClassificationInputError

    try:
        return classify(name)
    except ClassificationInputError as error:
        logger.info("%r is not classified: %s", name, error)
        return None


@functools.cache
def _classifier() -> Callable[[str], Mapping[str, Any]] | None:
    try:
        from model_family_classifier import classify_model
    except ImportError as error:
        logger.warning(
            "model_family_classifier is missing (%s): families are taken as they are given, "
            "and the hardware order is cuda, mps, cpu.",
            error,
        )
        return None
    return classify_model
