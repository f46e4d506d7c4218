"""Whether an engine's answer is torch's: asked when a model is placed, and at each new size.

One number hides what another shows. So: how far off is the worst value, as a share of the
greatest; are whole numbers the same; and do values move together, all of them, within a row of
channels, and within a channel over the rows? A channel of enormous values hides the others from
the first question, and an offset of each row hides from it which value is the greatest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from resource_pool.devices.flat import correlation, difference, masked_in_both
from resource_pool.errors import WrongResultError

# A value so many times as far out as the middle one, and the very same on both sides, is no score
# but stands for an infinity.
_FAR_OUT = 1000.0


class Limits(NamedTuple):
    """What passes in a precision.

    Attributes:
        difference: the greatest, as a share of the greatest value; of whole numbers, the share of
            those that are others.
        correlation: the least of all values; None where the difference says enough.
        within: the least correlation in rows, and in channels.
        matters: the share of the greatest value by which rows and channels must vary, or it is
            rounding.
    """

    difference: float
    correlation: float | None
    within: float
    matters: float


LIMITS = {
    "float32": Limits(1e-3, None, 0.999, 1e-4),
    "float16": Limits(2e-2, None, 0.95, 5e-3),
    "bfloat16": Limits(6e-2, None, 0.9, 2e-2),
    # A tenth of the greatest value alone could be two labels that changed places.
    "int8": Limits(1e-1, 0.99, 0.9, 2e-2),
}


def compare(expected: Any, got: Any, limits: Limits, where: str, about: str) -> float:
    """Return the greatest difference of an answer from torch's.

    Args:
        where: what computed it, and ``about``: on what; for the message.

    Raises:
        WrongResultError: it is another answer.
    """
    pairs = _pairs(expected, got)
    found = max((_apart(*pair) for pair in pairs), default=0.0)
    if not found <= limits.difference:
        raise WrongResultError(
            f"{where} computes something else than torch (by {found:.2g} of the greatest value, "
            f"{about}; {limits.difference:g} passes)."
        )
    if limits.correlation is not None:
        _require(correlation(expected, got), limits.correlation, where, about)
    within = min((_within(*pair, limits.matters) for pair in pairs), default=1.0)
    _require(within, limits.within, where, about)
    return found


def _require(found: float, least: float, where: str, about: str) -> None:
    if not found >= least:
        raise WrongResultError(
            f"{where} computes something else than torch (they correlate by {found:.2g}, {about}; "
            f"{least:g} passes)."
        )


def _pairs(expected: Any, got: Any) -> Sequence[tuple[Any, Any]]:
    import torch
    from torch.utils import _pytree

    leaves = zip(_pytree.tree_leaves(expected), _pytree.tree_leaves(got), strict=True)
    return [(theirs, ours) for theirs, ours in leaves if isinstance(theirs, torch.Tensor)]


def _apart(theirs: Any, ours: Any) -> float:
    import torch

    if theirs.shape != ours.shape:
        return float("inf")
    if theirs.is_complex():
        theirs, ours = torch.view_as_real(theirs), torch.view_as_real(ours)
    if theirs.is_floating_point():
        scores = ~_stands_for_infinity(theirs, ours)
        return difference([theirs[scores]], [ours[scores]])
    return float((theirs != ours).double().mean()) if theirs.numel() else 0.0


def _stands_for_infinity(theirs: Any, ours: Any) -> Any:
    size = theirs.abs()
    middle = size.median() if size.numel() else 0
    return (theirs == ours) & (size > _FAR_OUT * middle) | masked_in_both(ours, theirs)


def _within(theirs: Any, ours: Any, matters: float) -> float:
    """Return the lesser correlation of what varies in rows, and of what varies in channels."""
    if not theirs.is_floating_point() or theirs.dim() < 2 or not theirs.numel():
        return 1.0
    counts = ~_stands_for_infinity(theirs, ours) & theirs.isfinite() & ours.isfinite()
    pair = [one.double().where(counts, 0).flatten(0, -2) for one in (theirs, ours)]
    least = matters * float(pair[0].abs().max())
    found = 1.0
    for axis in (1, 0):
        moved, also = (one - one.mean(axis, keepdim=True) for one in pair)
        if float(moved.abs().max()) > least:
            found = min(found, correlation([moved], [also]))
    return found
