"""The plan of one generated test: everything its template needs, decided by pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rp_cli import __version__
from rp_cli.codegen.names import class_name, file_name

GENERIC_TEMPLATE = "hf_generic_template.py"
BARE_CLASSES = ("AutoModel", "AutoModelForTextEncoding")


@dataclass(frozen=True)
class TestPlan:
    """What a test file says.

    Attributes:
        device: the backend that ``--device`` forces, or None.
        priority: backends in the order in which the test tries them.
        preferences: the ``hardware_preferences`` that stand in the file.
        timeout_minutes: the age that the test passes to cleanup.
    """

    __test__ = False  # not a test class, whatever pytest thinks of its name

    model_name: str
    model_type: str | None
    family: str
    subfamily: str | None
    confidence: float
    auto_class: str
    template: str
    device: str | None
    priority: tuple[str, ...]
    timeout_minutes: float
    rp_version: str = __version__

    @property
    def file_name(self) -> str:
        """The name of the file, without a folder."""
        return file_name(self.model_name)

    @property
    def class_name(self) -> str:
        """The name of the test class."""
        return class_name(self.model_name)

    @property
    def preferences(self) -> dict[str, Any]:
        """A forced device, or the family's order, in which the test falls back when it runs."""
        if self.device:
            return {"device": self.device, "force_device": True}
        return {"priority_list": list(self.priority)}


def make_plan(
    classification: Mapping[str, Any],
    *,
    device: str | None = None,
    timeout_minutes: float = 0.1,
    use_model_family: bool = True,
) -> TestPlan:
    """Plan a test from a classification as ``classify_model`` gives it.

    Without ``use_model_family`` the generic template is taken and the bare model is loaded,
    whatever the family; the family is still named, because the pool places models by it.
    """
    auto_class = classification["auto_class"] if use_model_family else "AutoModel"
    if classification["family"] == "embedding" and auto_class not in BARE_CLASSES:
        auto_class = "AutoModel"  # an embedding is what the bare model gives, under any head
    return TestPlan(
        model_name=classification["model_name"],
        model_type=classification["model_type"],
        family=classification["family"],
        subfamily=classification["subfamily"],
        confidence=classification["confidence"],
        auto_class=auto_class,
        template=classification["template"] if use_model_family else GENERIC_TEMPLATE,
        device=device,
        priority=tuple(classification["hardware_priority"]),
        timeout_minutes=timeout_minutes,
    )
