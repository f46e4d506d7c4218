"""What a generated test needs to measure: how far two right answers may be apart."""

from __future__ import annotations

from typing import Any

# Relative and absolute tolerance between two computations of the same thing in a dtype:
# another batch size, another kernel, another device. About the square root of the machine
# epsilon for float32 (sums of thousands of terms, TF32 in convolutions), and a few dozen
# epsilons for the half types, whose activations are rounded after every layer.
_TOLERANCES = {
    "float64": (1e-6, 1e-6),
    "float32": (1e-3, 1e-3),
    "float16": (2e-2, 2e-2),
    "bfloat16": (1e-1, 1e-1),
}


def tolerance(dtype: Any) -> dict[str, float]:
    """Return ``{"rtol": ..., "atol": ...}`` for ``torch.testing.assert_close``.

    Args:
        dtype: a torch dtype or its name; the coarser one where two are compared.

    Raises:
        KeyError: not a floating point dtype that rp knows.
    """
    rtol, atol = _TOLERANCES[str(dtype).removeprefix("torch.")]
    return {"rtol": rtol, "atol": atol}
