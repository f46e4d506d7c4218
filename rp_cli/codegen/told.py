"""What is told of generated files: as a document, as lines, and as a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from model_family_classifier.index import entry_of
from rp_cli.codegen.plan import GENERIC_TEMPLATE, TEMPLATES, TestPlan, why_generic

if TYPE_CHECKING:
    from rp_cli.codegen.write import Draft

SCHEMA_VERSION = 1


# Heads that a model has for its training, and that nobody asks an embedding for.
_TRAINING_HEADS = ("AutoModel", "AutoModelForMaskedLM", "AutoModelForPreTraining")


def warning(plan: TestPlan, expected: str, auto_class: str) -> str | None:
    """Return where the file checks less than a person may expect of it, if it does.

    Args:
        expected: the template of the model's family, or the generic one where that was asked for.
        auto_class: with which the whole model is loaded.
    """
    name, family, kind = plan.model_name, plan.family, plan.model_type
    if kind is not None and not entry_of(kind):
        return (
            f"{kind}, the model type of {name}, is none that rp knows: where the installed "
            "transformers has none, either, the test fails, as rp runs no code that a model brings."
        )
    if family == "unknown" or not plan.confidence:
        return (
            f"nothing is known of {name}, so its test checks only what holds for any model; name "
            "its family in a --model-db file."
        )
    if kind is None and plan.template in TEMPLATES:  # who wrote another one knows what it loads
        return (
            f"the architecture of {name} is unknown, so no tiny twin can stand in where its "
            "weights are not here; `rp models add` can name its model type."
        )
    if expected == GENERIC_TEMPLATE:
        return None
    if plan.auto_class == "AutoModel" and auto_class not in _TRAINING_HEADS:
        return (
            f"the head of {name} ({auto_class}) is not loaded: its test is about the embeddings "
            "below it."
        )
    if plan.template != GENERIC_TEMPLATE:
        return None
    reason = why_generic(kind)
    if reason:
        return (
            f"the template of {family} does not fit {name}, and the generic one is taken "
            f"({kind}: {reason})."
        )
    return (
        f"the template of {family} does not know {plan.auto_class}, with which {name} is loaded; "
        "the generic one is taken."
    )


def results(
    plans: Sequence[TestPlan],
    classified: Sequence[Mapping[str, Any]],
    drafts: Sequence[Draft],
    pages: Sequence[Draft],
    report: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the document of all files: ``pages`` has one for each test, or none at all."""
    beside: Sequence[Draft | None] = pages or [None] * len(drafts)
    rows = zip(plans, classified, drafts, beside, strict=True)
    return [_result(*row, report) for row in rows]


def _result(
    plan: TestPlan,
    classified: Mapping[str, Any],
    draft: Draft,
    page: Draft | None,
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """Say what was written, and what the test would run on now, on the report's machine."""
    from model_family_classifier import hardware_fit
    from resource_pool import DeviceUnavailableError, explain

    device, reason = None, ""
    try:
        device = explain(plan.model_name, plan.preferences, report).device
    except DeviceUnavailableError as error:
        reason = str(error)
    return {
        "schema_version": SCHEMA_VERSION,
        **_file(draft),
        "page": None if page is None else _file(page),
        "model_name": plan.model_name,
        "family": plan.family,
        "subfamily": plan.subfamily,
        "confidence": plan.confidence,
        "template": plan.template,
        "style": plan.style,
        "auto_class": plan.auto_class,
        "forced_device": plan.device,
        "device": device,
        "device_reason": reason,
        "hardware_priority": hardware_fit(classified, report["hardware"])["hardware_priority"],
        "precision": plan.precision,
        "weights": "decided when the test runs: pretrained, else a tiny random twin",
    }


def _file(draft: Draft) -> dict[str, str]:
    return {"path": str(draft.path), "status": draft.status}


def files(result: Mapping[str, Any], *, dry_run: bool, force: bool) -> Iterator[str]:
    """Yield a line for each file of a result: what was done to it, or would be."""
    for file in filter(None, (result, result["page"])):
        yield f"{_done(file['status'], dry_run, force)} {file['path']}"


def _done(status: str, dry_run: bool, force: bool) -> str:
    if status == "unchanged":
        return "Unchanged:"
    if not dry_run:
        return "Wrote"
    if status != "edited":
        return "Would write"
    return "Would overwrite what was edited:" if force else "Edited, needs --force:"


def details(result: Mapping[str, Any], report: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines of what is in a file, and of what it would run on."""
    described = bool(report["described_by"])
    family = "/".join(part for part in (result["family"], result["subfamily"]) if part)
    yield f"  Family:    {family} (confidence: {result['confidence']:.2f})"
    yield f"  Template:  {result['template']}, {result['auto_class']}"
    yield f"  Device:    {_device(result, described)}"
    yield f"  Precision: {result['precision']}"
    yield f"  Weights:   {result['weights']}"


def _device(result: Mapping[str, Any], described: bool) -> str:
    here, this = ("there", "that") if described else ("here", "this")
    forced, device = result["forced_device"], result["device"]
    if device is None:
        reason = result["device_reason"].rpartition("cannot be used: ")[2].rstrip(".")
        return f"{forced} (not {here}: {reason}; the test will be skipped on {this} machine)"
    if forced:
        return f"{forced} and nothing else, which is {device} {here}"
    return f"{device} {here}, of {' > '.join(result['hardware_priority'])}"
