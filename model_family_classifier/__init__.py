"""Tells what a model is (family, subfamily) and which hardware suits it, and why.

A leaf among rp's packages: hardware is passed in, models are never loaded, the hub is asked only
by whoever passes ``hub_metadata``, and transformers is not imported.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in typing, whose import alone would double the time of this one
if TYPE_CHECKING:
    from model_family_classifier.classifier import classify_model
    from model_family_classifier.errors import ClassificationInputError
    from model_family_classifier.hardware import BACKENDS, hardware_fit
    from model_family_classifier.hub import hub_metadata
    from model_family_classifier.index import FAMILIES
    from model_family_classifier.web import reported_web_limits

__all__ = [
    "BACKENDS",
    "FAMILIES",
    "ClassificationInputError",
    "classify_model",
    "hardware_fit",
    "hub_metadata",
    "reported_web_limits",
]

_HOME = {
    "BACKENDS": "hardware",
    "FAMILIES": "index",
    "ClassificationInputError": "errors",
    "classify_model": "classifier",
    "hardware_fit": "hardware",
    "hub_metadata": "hub",
    "reported_web_limits": "web",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use: importing the package itself stays free."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
