"""Numbers and tensors that came out of a model: what they are, and how far two are apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from resource_pool.devices.flat import masked_in_both
from resource_pool.measuring.states import precision_of

# How far two computations of one thing (another batch size, another kernel, another device) may
# be apart, as a share of the largest value. float32: sums of thousands of terms, and TF32 in
# convolutions on GPUs. The half types round every activation of every layer; int8 is of a browser's
# weights, and as much as its placement allows.
_TOLERANCES = {"float64": 1e-6, "float32": 2e-3, "float16": 2e-2, "bfloat16": 8e-2, "int8": 1e-1}
# The same computation twice: kernels that add in no fixed order are the only difference.
_REPEATED = 1e-2
_TINY = 1e-30  # stands for 0 as a divisor


def tolerance(dtype: Any, *, repeated: bool = False) -> float:
    """Return the largest difference that is no fault, as a share of the largest value.

    Args:
        dtype: a torch dtype, its name, or "int8"; the coarser one where two are compared.
        repeated: the very same computation, done twice.

    Raises:
        KeyError: not a floating point dtype that rp knows.
    """
    allowed = _TOLERANCES[str(dtype).removeprefix("torch.")]
    return allowed * _REPEATED if repeated else allowed


def difference(actual: Any, expected: Any) -> float:
    """Return the largest difference of two tensors as a share of the largest expected value.

    What both have masked out, by the lowest number of their dtype, is left out. Infinity where
    their shapes differ, or integers or truth values; not a number where one holds one, or an
    infinity that the other does not hold.
    """
    if actual.shape != expected.shape:
        return float("inf")
    actual, expected = actual.detach().cpu(), expected.detach().cpu()
    if bool((actual == expected).all()):
        return 0.0
    if not (actual.is_floating_point() and expected.is_floating_point()):
        return float("inf")
    finite = expected.isfinite()
    if not bool((actual[~finite] == expected[~finite]).all()):
        return float("nan")
    told = finite & ~masked_in_both(actual, expected)
    if not bool(told.any()):
        return 0.0
    apart = (actual.double() - expected.double())[told].abs().max()
    return float(apart / expected[told].double().abs().max().clamp_min(_TINY))


def differing(
    found: Any, expected: Any, precision: Any, *, repeated: bool = False
) -> dict[str, str]:
    """Return the outputs that are not as expected, by name, and what is wrong with each.

    A tensor by itself is called "tensor".

    Args:
        found: outputs or inputs of a model, or a tensor.
        expected: the same, as they should be.
        precision: a dtype, or the model whose precision it is; see :func:`tolerance`.
        repeated: the very same computation, done twice.
    """
    dtype = precision_of(precision) if hasattr(precision, "forward") else precision
    limit = tolerance(dtype, repeated=repeated)
    one, other = tensors(found), tensors(expected)
    wrong = {name: "missing" for name in other if name not in one}
    wrong |= {name: "not expected" for name in one if name not in other}
    for name in one.keys() & other.keys():
        apart = difference(one[name], other[name])
        if not apart <= limit:  # which no comparison with what is no number is
            wrong[name or "tensor"] = (
                f"differs by {apart:.3g} of the largest value, {limit:.3g} is allowed"
            )
    return wrong


def tensors(outputs: Any) -> dict[str, Any]:
    """Return the tensors of inputs or outputs by name; those in tuples as ``attentions.0``.

    Caches are left out: they are what the next step continues with, not what the model says.
    """
    return dict(_named(outputs, ""))


def layout(outputs: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and dtype of each tensor of a model's outputs."""
    return {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in tensors(outputs).items()
    }


def not_finite(outputs: Any) -> list[str]:
    """Return the names of outputs that hold an infinity, or what is not a number."""
    return [name for name, value in tensors(outputs).items() if not bool(value.isfinite().all())]


def identical(one: Any, other: Any) -> bool:
    """Whether two outputs of a model are equal in every bit.

    What an encoder puts out on the way to the answer does not count beside the answer itself: a
    decoder may be deaf to it.
    """
    first, second = _answer(tensors(one)), _answer(tensors(other))
    return first.keys() == second.keys() and all(first[n].equal(v) for n, v in second.items())


def _answer(found: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in found.items() if not name.startswith("encoder_")}
    return own or found


def is_tensor(value: Any) -> bool:
    """Whether ``value`` is a tensor, found out without importing torch."""
    return hasattr(value, "untyped_storage")


def _named(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if is_tensor(value):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)) and name != "past_key_values":
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in pairs:
            yield from _named(one, f"{name}.{key}" if name else str(key))
