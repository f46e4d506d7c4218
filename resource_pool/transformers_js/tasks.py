"""The tasks of transformers.js that rp tests: what goes in, and what PyTorch gives for it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from resource_pool.devices.flat import SMALLEST_SCALE

TEXTS = ("Prices fell.", "A man is playing a guitar on the stage.")
_DEFAULT_SIDE = 224

#: Auto class -> transformers.js's task; of "AutoModel", by the kind of its input.
TASKS = {
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTextEncoding": "feature-extraction",
}
_TASKS_OF_BARE_MODELS = {"embedding": "feature-extraction", "vision": "image-feature-extraction"}
#: Families whose pipelines rp does not test, and why.
UNSUPPORTED = {
    "text_generation": "its pipeline wants decoders with a key-value cache, and rp exports none",
    "audio": "its pipelines want encoder and decoder apart, and rp exports one file",
    "multimodal": "its pipelines want a file for each part, and rp exports one",
}


def task_of(auto_class: str, family: str) -> str | None:
    """Return the task by its name in transformers.js; None where rp tests none."""
    if auto_class == "AutoModel":
        return _TASKS_OF_BARE_MODELS.get(family)
    return TASKS.get(auto_class) if family not in UNSUPPORTED else None


def why_not(auto_class: str, family: str) -> str:
    """Return why a model has no task here, or ""."""
    if task_of(auto_class, family):
        return ""
    return UNSUPPORTED.get(family, f"rp knows no pipeline for {auto_class}")


class Given(NamedTuple):
    """Inputs of one run.

    Attributes:
        tensors: what the model takes on PyTorch.
        plain: the same as plain values, for the page.
        processor: what made the tensors, and goes into the page's folder.
    """

    tensors: dict[str, Any]
    plain: dict[str, Any]
    processor: Any


def texts(folder: Any) -> Given:
    """Return two texts of different lengths, tokenized."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    return Given(dict(tokenizer(list(TEXTS), **options)), {"texts": list(TEXTS)}, tokenizer)


def image(folder: Any) -> Given:
    """Return an image at the model's own size: resizing is not what is compared."""
    import numpy as np
    import transformers
    from PIL import Image

    processor = transformers.AutoImageProcessor.from_pretrained(
        folder, trust_remote_code=False, backend="pil"
    )
    height, width = _size(processor)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    tensors = processor(images=Image.fromarray(pixels), return_tensors="pt")
    plain = {"pixels": pixels.reshape(-1).tolist(), "width": width, "height": height}
    return Given(dict(tensors), {"image": plain}, processor)


def _size(processor: Any) -> tuple[int, int]:
    cropped = processor.crop_size if getattr(processor, "do_center_crop", None) else None
    size = dict(cropped or getattr(processor, "size", None) or {})
    side = size.get("shortest_edge") or _DEFAULT_SIDE
    return size.get("height") or side, size.get("width") or side


def given(task: str, folder: Any) -> Given:
    """Return the inputs of a task for the model in a folder."""
    return image(folder) if task.startswith("image") else texts(folder)


def expected(task: str, model: Any, tensors: dict[str, Any]) -> list[Any]:
    """Return what PyTorch gives, in the form in which the page answers: see :func:`flat`."""
    import torch

    with torch.no_grad():
        output = model(**tensors)
    if task.endswith("feature-extraction"):
        return list(output[0].flatten().tolist())
    names = model.config.id2label
    # As transformers.js does: of texts, each label by itself where several may hold.
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    by_itself = several and task == "text-classification"
    rows = (output.logits.sigmoid() if by_itself else output.logits.softmax(-1)).tolist()
    return flat([
        [{"label": names[index], "score": score} for index, score in enumerate(row)] for row in rows
    ])  # fmt: skip


def flat(answer: Any) -> list[Any]:
    """Return the numbers of an answer in an order that does not depend on their sizes.

    Labels with their scores are sorted by label; a tensor's numbers come as they are.
    """
    if not (answer and isinstance(answer[0], dict | list)):
        return list(answer)
    rows = [answer] if isinstance(answer[0], dict) else answer
    return [(one["label"], one["score"]) for row in rows for one in sorted(row, key=_label)]


def _label(one: dict[str, Any]) -> str:
    return str(one["label"])


def difference(expected: list[Any], found: list[Any]) -> float:
    """Return the greatest difference as a share of the greatest value; inf for another form.

    Values below ``SMALLEST_SCALE`` are held against that: of zeros, there is no share.
    """
    if len(expected) != len(found) or not expected:
        return float("inf")
    if isinstance(expected[0], tuple):
        if [label for label, _ in expected] != [label for label, _ in found]:
            return float("inf")
        return difference([score for _, score in expected], [score for _, score in found])
    apart: list[float] = [abs(a - b) for a, b in zip(expected, found, strict=True)]
    if any(map(math.isnan, apart)):
        return float("inf")
    greatest: float = max(SMALLEST_SCALE, *map(abs, expected))
    return max(apart) / greatest
