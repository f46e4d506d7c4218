"""Inputs of a batch of two rows, changed in ways whose effect on the outputs is known."""

from __future__ import annotations

import inspect
import sys
import unittest
from collections.abc import Mapping
from typing import Any

from resource_pool.measuring.numbers import difference, is_tensor, tensors

Inputs = dict[str, Any]

# The arguments that carry what a model is to look at; the others (masks, sizes, positions) say how,
# or are what a loss is computed from, as the rewards of a decision transformer are.
_CARRYING = (
    *("input_ids", "inputs", "embeds", "states", "values", "features", "videos", "bbox", "patches"),
    *("actions", "returns_to_go", "latents", "mel"),
)
# Arguments that do not go along with the tokens of the text, even where they are as long.
_NOT_OF_TEXT = ("decoder", "pixel", "spatial", "input_features", "audio", "protein", "qformer")


def placed(inputs: Mapping[str, Any], model: Any) -> Inputs:
    """Return the inputs on the model's device, floating ones in its dtype."""
    parameter = next(model.parameters())

    def place(value: Any) -> Any:
        if not is_tensor(value):
            return value
        dtype = parameter.dtype if value.is_floating_point() else value.dtype
        return value.to(parameter.device, dtype)

    return {name: place(value) for name, value in inputs.items()}


def exchanged(inputs: Mapping[str, Any]) -> list[tuple[str, Inputs]]:
    """Return what was changed, and inputs in which two rows have exchanged that.

    For each argument that carries content: all of it, and the second half of its last dimension.
    What is alike in both rows is left out.

    Raises:
        unittest.SkipTest: nothing is left.
    """
    changed = []
    for name, value in inputs.items():
        if name.endswith(_CARRYING) and not name.startswith("future_") and _has_rows(value):
            half = value.clone()
            half[..., value.shape[-1] // 2 :] = value.flip(0)[..., value.shape[-1] // 2 :]
            changed += [(name, name, value.flip(0)), (f"the end of {name}", name, half)]
    different = [(what, {**inputs, n: v}) for what, n, v in changed if not v.equal(inputs[n])]
    if not different:
        raise unittest.SkipTest(f"nothing to compare: no content differs in {', '.join(inputs)}")
    return different


def reversed_rows(inputs: Mapping[str, Any]) -> Inputs:
    """Return a batch of two in the opposite order.

    Raises:
        unittest.SkipTest: the rows are packed into one dimension (patches of images, say).
    """
    if any(_has_rows(value) and value.shape[0] != 2 for value in inputs.values()):
        raise unittest.SkipTest("the rows of this model's inputs are packed end to end")
    return {name: value.flip(0) if _has_rows(value) else value for name, value in inputs.items()}


def mirrored(backwards: Any, outputs: Any) -> tuple[Inputs, Inputs]:
    """Return the outputs of a reversed batch in the first order again, and the others.

    Left out are tensors without a row per input, losses, and scores of each row against each
    other, in which both dimensions are rows.

    Raises:
        unittest.SkipTest: nothing is left.
    """
    expected = {
        name: value
        for name, value in tensors(outputs).items()
        if _has_rows(value)
        and value.shape[0] == 2
        and not name.startswith("logits_")
        and not _is_loss(name)
    }
    _need_some(expected, outputs)
    found = {name: value for name, value in tensors(backwards).items() if name in expected}
    return {name: _turned(value, expected[name]) for name, value in found.items()}, expected


def _turned(value: Any, expected: Any) -> Any:
    """Return a value with its rows in the opposite order.

    Where the second dimension is of two as well, the first may be layers: the closer one counts.
    """
    both = value.shape[1:2] == (2,) and value.shape == expected.shape
    turned = [value.flip(axis) for axis in ((0, 1) if both else (0,))]
    return min(turned, key=lambda one: difference(one, expected))


def first_rows(together: Any, alone: Any, *, per_token: bool = False) -> tuple[Inputs, Inputs]:
    """Return the first rows of a batch, cut to the length that they have alone, and those alone.

    Left out are tensors in which rows do not stand on the first dimension, and losses, which are
    means over the rows.

    Args:
        per_token: only what is longer in the batch, since what is pooled may be pooled at the end;
            where nothing is longer, all.

    Raises:
        unittest.SkipTest: nothing is left.
    """
    batch = tensors(together)
    found: dict[str, tuple[Any, Any]] = {}
    for name, value in tensors(alone).items():
        other = batch.get(name)
        if other is None or not _has_rows(value) or value.shape[0] != 1 or other.ndim != value.ndim:
            continue
        if _is_loss(name):
            continue
        inside = (0, *(slice(0, size) for size in value.shape[1:]))
        found[name] = other[inside], value[0]
    _need_some(found, alone)
    if per_token:
        longer = {n: pair for n, pair in found.items() if batch[n].shape[1:] != pair[1].shape}
        found = longer or found
    return {n: pair[0] for n, pair in found.items()}, {n: pair[1] for n, pair in found.items()}


def _need_some(compared: Mapping[str, Any], outputs: Any) -> None:
    if not compared:
        names = ", ".join(tensors(outputs)) or "no tensor"
        raise unittest.SkipTest(f"nothing to compare: no output has a row per input ({names})")


def padded(inputs: Mapping[str, Any], count: int, model: Any, side: str = "right") -> Inputs:
    """Return texts with ``count`` more tokens on one side, which the mask covers.

    Raises:
        unittest.SkipTest: the model takes no texts, or no mask of them.
    """
    import torch

    from resource_pool.weights.configs import text_config

    ids = inputs.get("input_ids")
    if ids is None or "attention_mask" not in inspect.signature(model.forward).parameters:
        raise unittest.SkipTest("this model takes no texts, or no mask of their padding")
    masked = {"attention_mask": ids.new_ones(ids.shape[:2]), **inputs}
    config = getattr(model, "config", None)
    padding = config and getattr(text_config(config), "pad_token_id", None)
    more = ids[:, -1:].expand(-1, count, *ids.shape[2:])
    # Some models count positions by the token of padding, whatever the mask says. For some it
    # stands for an image too, or is the decoder's alone and none of the text's.
    known = padding is not None and padding in range(_vocabulary(config))
    if known and not bool((ids == padding).any()):
        more = torch.full_like(more, padding)
    return _extended(masked, more, covered=True, left=side == "left")


def _vocabulary(config: Any) -> int:
    """Return how many tokens a text may hold; no limit where the config does not say."""
    from resource_pool.weights.configs import text_config

    of_text = getattr(config, "encoder_config", None) or text_config(config)
    return getattr(of_text, "vocab_size", None) or sys.maxsize


def continued(inputs: Mapping[str, Any], sequences: Any) -> Inputs:
    """Return inputs whose text is all of the generated sequences, (1, tokens).

    Those of an encoder-decoder are the decoder's tokens.
    """
    sequences, ids = sequences.cpu(), inputs.get("input_ids")
    if ids is None or "decoder_input_ids" in inputs:
        return {**inputs, "decoder_input_ids": sequences}
    return _extended(inputs, sequences[:, ids.shape[1] :], covered=False)


def _extended(inputs: Mapping[str, Any], more: Any, *, covered: bool, left: bool = False) -> Inputs:
    """Return inputs with more tokens; what goes along with tokens (types, masks) grows too.

    By zeros where the tokens are covered, else by what the last token has.
    """
    import torch

    shape = inputs["input_ids"].shape[:2]  # where tokens are in channels, those stand third

    def extend(name: str, value: Any) -> Any:
        if not _has_rows(value) or value.shape[:2] != shape or name.startswith(_NOT_OF_TEXT):
            return value
        added = value[:, -1:].expand(-1, more.shape[1], *value.shape[2:])
        if name == "input_ids":
            added = more
        elif covered:
            added = torch.zeros_like(added)
        return torch.cat([added, value] if left else [value, added], dim=1)

    return {name: extend(name, value) for name, value in inputs.items()}


def _has_rows(value: Any) -> bool:
    return is_tensor(value) and value.ndim > 0


def _is_loss(name: str) -> bool:
    return name.endswith("loss")
