"""The plan of one generated test: everything its template needs, decided by pure functions."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hardware_detection import CPU, HARDWARE_NAMES, OPENVINO, WEBGPU, WEBNN
from model_family_classifier.data import compiled_data
from model_family_classifier.index import entry_of
from rp_cli import __version__
from rp_cli.codegen.names import class_name, file_name
from rp_cli.errors import BadInputError

GENERIC_TEMPLATE = "hf_generic_template.py"
STYLES = ("unittest", "pytest")
DEFAULT_TIMEOUT = 0.1
# What a model is exported for; it is chosen by itself for few families, or for none.
_ENGINES = (OPENVINO, WEBNN, WEBGPU)
# Stands in the base template where the digest of the finished text goes.
NO_DIGEST = "0" * 16

# The Auto classes whose outputs a family's template checks: (family, subfamily or any, classes).
# Vision: those whose first output has a row per image.
_KNOWN_CLASSES: tuple[tuple[str, str | None, frozenset[str]], ...] = (
    ("embedding", None, frozenset({"AutoModel", "AutoModelForTextEncoding"})),
    ("text_generation", None, frozenset({"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"})),
    (
        "vision",
        None,
        frozenset(
            {
                "AutoModel",
                "AutoModelForDepthEstimation",
                "AutoModelForImageClassification",
                "AutoModelForImageSegmentation",
                "AutoModelForImageToImage",
                "AutoModelForInstanceSegmentation",
                "AutoModelForMaskedImageModeling",
                "AutoModelForObjectDetection",
                "AutoModelForSemanticSegmentation",
                "AutoModelForUniversalSegmentation",
            }
        ),
    ),
    (
        "audio",
        None,
        frozenset(
            {
                "AutoModel",
                "AutoModelForAudioClassification",
                "AutoModelForCTC",
                "AutoModelForSpeechSeq2Seq",
            }
        ),
    ),
    ("multimodal", None, frozenset({"AutoModelForImageTextToText"})),
    ("multimodal", "image_text_encoder", frozenset({"AutoModel"})),
)
#: The templates that rp has, as the guides print their names.
TEMPLATES = (*dict.fromkeys(f"hf_{row[0]}_template.py" for row in _KNOWN_CLASSES), GENERIC_TEMPLATE)

_BACKBONE = "AutoBackbone"
_AUTO_CLASS = re.compile(r"AutoModel[A-Za-z0-9]*|AutoBackbone")
_WORD = re.compile(r"[\w.+-]{1,100}", re.ASCII)


@dataclass(frozen=True)
class TestPlan:
    """What a test file says: all that a template can use, as ``plan``.

    Attributes:
        device: the backend that ``--device`` forces, or None.
        priority: backends in the order in which the test tries them.
        engines: what is never or seldom chosen by itself and may be asked for: OpenVINO, browsers.
        timeout_minutes: the age that the test passes to cleanup.
        style: "unittest" or "pytest".
        precision: in which the model is loaded.
        options: further words of the command that made the file.
        left_out: tests that this architecture fails by design, and why; the file lacks them.
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
    engines: tuple[str, ...] = ()
    style: str = STYLES[0]
    precision: str = "as stored"
    options: tuple[str, ...] = ()
    rp_version: str = __version__
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The name of the file, without a folder."""
        return file_name(self.model_name)

    @property
    def class_name(self) -> str:
        """The name of the test class."""
        return class_name(self.model_name)

    @property
    def loader(self) -> str:
        """The class of transformers that loads the model: AutoBackbone takes no folder."""
        known = entry_of(self.model_type).get("architectures", {}).get(_BACKBONE)
        return str(known[0]) if known and self.auto_class == _BACKBONE else self.auto_class

    @property
    def preferences(self) -> dict[str, Any]:
        """A forced device, or the family's order, in which the test falls back when it runs."""
        if self.device:
            return {"device": self.device, "force_device": True}
        return {"priority_list": list(self.priority)}

    @property
    def other_backends(self) -> tuple[str, ...]:
        """The accelerators and engines that have a test of their own."""
        if self.device:
            return ()
        named = {*self.priority, *self.engines} - {CPU}
        return tuple(name for name in HARDWARE_NAMES if name in named)

    @property
    def command(self) -> str:
        """The command that writes this file again."""
        words = ["rp", "generate", "--model", self.model_name]
        words += ["--device", self.device] if self.device else []
        changed = self.timeout_minutes != DEFAULT_TIMEOUT
        # All digits, since the same number must come back; 60 as a person writes it.
        minutes = repr(self.timeout_minutes).removesuffix(".0")
        words += ["--timeout", minutes] if changed else []
        words += ["--style", self.style] if self.style != STYLES[0] else []
        return shlex.join([*words, *self.options])


def make_plan(
    classification: Mapping[str, Any],
    *,
    device: str | None = None,
    timeout_minutes: float = DEFAULT_TIMEOUT,
    use_model_family: bool = True,
    style: str = STYLES[0],
    own_templates: Collection[str] = (),
    options: tuple[str, ...] = (),
) -> TestPlan:
    """Plan a test from a classification as ``classify_model`` gives it.

    Without ``use_model_family`` the generic template is taken and the bare model is loaded,
    whatever the family; the family is still named, because the pool places models by it. The
    generic template is also taken for a class that the family's template does not know.

    Args:
        own_templates: the names of the user's templates; one for the family is taken as it is.

    Raises:
        BadInputError: a family, backend or class of the classification, which may come from a
            model database, is no plain name and so does not go into code.
    """
    _refuse_what_is_no_name(classification)
    family, subfamily = classification["family"], classification["subfamily"]
    model_type = classification["model_type"]
    auto_class = classification["auto_class"] if use_model_family else "AutoModel"
    own = f"hf_{family}_template.py" in own_templates
    generic = why_generic(model_type) is not None
    if family == "embedding" and not (own or generic or _knows(family, subfamily, auto_class)):
        auto_class = "AutoModel"  # an embedding is what the bare model gives, under any head
    known = _knows(family, subfamily, auto_class) and not generic
    fits = use_model_family and (own or known)
    return TestPlan(
        model_name=classification["model_name"],
        model_type=model_type,
        family=family,
        subfamily=subfamily,
        confidence=classification["confidence"],
        auto_class=auto_class,
        template=f"hf_{family}_template.py" if fits else GENERIC_TEMPLATE,
        device=device,
        priority=tuple(classification["hardware_priority"]),
        timeout_minutes=timeout_minutes,
        engines=_engines(classification.get("compatibility", {})),
        style=style,
        options=options if use_model_family else ("--no-use-model-family", *options),
        left_out=compiled_data()["generated_tests"]["left_out"].get(model_type, {}),
    )


def why_generic(model_type: str | None) -> str | None:
    """Return why a type takes the generic template, in words to go on with; None if it need not."""
    reasons: Mapping[str | None, str] = compiled_data()["generated_tests"]["generic_template"]
    return reasons.get(model_type)


def _engines(compatibility: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the engines that the matrix allows, if only for small models.

    Those of which it knows nothing good are left out: an export takes seconds.
    """
    cells = {name: compatibility.get(name, {"compatible": False}) for name in _ENGINES}
    return tuple(
        name
        for name, cell in cells.items()
        if cell["compatible"] and (cell["level"] in ("high", "medium") or cell["size_limit"])
    )


def _knows(family: str, subfamily: str | None, auto_class: str) -> bool:
    """Whether the family's template checks what this class gives."""
    return any(
        family == known and only in (None, subfamily) and auto_class in classes
        for known, only, classes in _KNOWN_CLASSES
    )


def _refuse_what_is_no_name(classification: Mapping[str, Any]) -> None:
    words = [
        classification["family"],
        classification["subfamily"],
        *classification["hardware_priority"],
    ]
    wrong = [word for word in words if word is not None and not _WORD.fullmatch(word)]
    if not _AUTO_CLASS.fullmatch(classification["auto_class"]):
        wrong.append(classification["auto_class"])
    if wrong:
        raise BadInputError(
            f"{wrong[0]!r}, said of {classification['model_name']!r}, is no plain name of a "
            "family, backend or Auto class; correct the model database."
        )
