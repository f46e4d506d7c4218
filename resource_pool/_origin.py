"""Where a model's weights come from: proven when somebody first asks, not at each load."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from resource_pool._estimate import folder_stamp

UNKNOWN = "unknown"


class Origin:
    """Says of a model what its weights are; the model may have gone, or changed, meanwhile.

    The proof compares a few parameters with the files and takes about a millisecond, which most
    loads never need. Until then, only what tells whether the parameters are still those of the
    load, and the files those of then, is kept: where either was changed before anybody asked,
    nothing is known.
    """

    def __init__(self, model: Any, marks: Any) -> None:
        self._marks, self._files = marks, _stamp_of_files(model)
        self._told = ""
        try:
            self._model = weakref.ref(model)
        except TypeError:  # an int, a tuple: no model of any library
            self._told = UNKNOWN

    def __str__(self) -> str:
        """Return "pretrained", "tiny", "partial", "random" or "unknown"."""
        if not self._told:
            self._told = self._proven()
        return self._told

    def __deepcopy__(self, _: Any) -> str:
        """A copy of the facts is plain."""
        return str(self)

    def _proven(self) -> str:
        from resource_pool.devices import modules
        from resource_pool.weights import provenance

        model = self._model()
        if model is None or not modules.is_module(model):
            return UNKNOWN
        same = self._marks is None or modules.marks(model) == self._marks
        return provenance(model) if same and _stamp_of_files(model) == self._files else UNKNOWN


def _stamp_of_files(model: Any) -> Any:
    """Return what changes with the files that a model names; those of a hub's commit do not."""
    config = getattr(model, "config", None)
    name = getattr(model, "name_or_path", None) or getattr(config, "_name_or_path", None)
    return folder_stamp(name) if isinstance(name, str) and name else None


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of facts in which the origin of the weights is a word."""
    return {name: str(v) if isinstance(v, Origin) else v for name, v in facts.items()}
