"""What a generated test needs to measure: how far two right answers may be apart."""

from __future__ import annotations

from typing import Any

# How far two computations of one thing (another batch size, another kernel, another device) may
# be apart, as a share of the largest value. float32: sums of thousands of terms, and TF32 in
# convolutions on GPUs. The half types round every activation of every layer.
_TOLERANCES = {"float64": 1e-6, "float32": 2e-3, "float16": 2e-2, "bfloat16": 8e-2}


def tolerance(dtype: Any) -> float:
    """Return the largest difference that is no fault, as a share of the largest value.

    Args:
        dtype: a torch dtype or its name; the coarser one where two are compared.

    Raises:
        KeyError: not a floating point dtype that rp knows.
    """
    return _TOLERANCES[str(dtype).removeprefix("torch.")]


def readable_gib(size: float) -> str:
    """Return bytes as GiB with one decimal: "9.1 GiB"."""
    return f"{size / 2**30:.1f} GiB"
