"""From what a caller says to what is planned: which model is meant, and what is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from resource_pool import _checks
from resource_pool._families import family_facts
from resource_pool._identity import Identity
from resource_pool._plans import BROWSERS, Request
from resource_pool._preferences import parse_preferences

Preferencelike = Mapping[str, Any] | None


def named(model_name: str | os.PathLike[str]) -> str:
    """Return a model's name; a folder may come as a Path.

    Raises:
        TypeError, ValueError: it is neither, or empty.
    """
    name = os.fspath(model_name) if isinstance(model_name, os.PathLike) else model_name
    if not isinstance(name, str):
        raise TypeError(f"model_name must be a name or a path, not {name!r:.40}.")
    if not name:
        raise ValueError("model_name must not be empty.")
    return name


def checked_name(
    model_type: str,
    model_name: str | os.PathLike[str],
    revision: str | None,
    variant: str | None,
) -> str:
    """Return a model's name; raises as :func:`named` does, also for what says which is meant."""
    name = named(model_name)
    _checks.text("model_type", model_type, "embedding")
    _checks.texts_or_none(revision=revision, variant=variant)
    return name


def requested(
    model_type: str,
    model_name: str,
    hardware_preferences: Preferencelike,
    revision: str | None,
    variant: str | None,
    needs: int | None,
) -> tuple[Identity, Request]:
    """Return which model is meant and the request; raises as ``ResourcePool.get_model`` does."""
    model_name = checked_name(model_type, model_name, revision, variant)
    if needs is not None:
        _checks.at_least_zero("needs", needs, "bytes")
    preferences = parse_preferences(hardware_preferences)
    facts = family_facts(preferences.model_family or model_type, model_name)
    identity = Identity(facts.family, model_name, revision or "", variant or "")
    request = Request(
        identity.label, preferences, facts.priority, facts.barred, facts.browsers or BROWSERS
    )
    return identity, request if needs is None else request.needing(needs)
