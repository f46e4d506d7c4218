"""What a prediction says."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

#: How ``config`` begins where it is the model type's default one.
DEFAULTS_OF = "defaults of "

Method = Literal["recorded", "trace", "headroom", "file_size"]


@dataclass(frozen=True)
class Prediction:
    """The memory of one forward of one model. All sizes are bytes.

    Attributes:
        model_name: the name, the folder, or the model type of a config that was passed in.
        architecture: the transformers class, None where it was not built.
        config: which config this is about; a default one says so.
        dtype: torch's name of the parameters' dtype.
        seq: tokens per row; for raw sound, frames of the encoder; None for images alone.
        inputs: the shapes that were traced, by argument name.
        weights_bytes: parameters and buffers, those that are tied counted once.
        kv_cache_bytes: the attention cache that the forward leaves, for ``seq`` tokens.
        kv_bytes_per_token: what each further token of the batch adds; None where unknown.
        activations_bytes: all else that is alive at the peak, inputs and outputs included.
        method: "recorded": measured before; "trace": the forward was run without data;
            "headroom": weights are known, the rest is a share of them; "file_size": a guess.
        margin: the fraction to add for what the method does not see on ``backend``.
        fixed_bytes: what the backend takes whatever the model is (a CUDA context).
        notes: what else one has to know, such as why a better method was not used.
        key: names the same question again, for ``record_peak``.
    """

    model_name: str
    model_type: str | None
    architecture: str | None
    config: str
    dtype: str
    batch: int
    seq: int | None
    backend: str
    inputs: dict[str, list[int]]
    weights_bytes: int
    activations_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int | None
    method: Method
    margin: float
    fixed_bytes: int
    notes: tuple[str, ...]
    key: str

    @property
    def is_of_defaults(self) -> bool:
        """Whether the model's own config is not here: it may have quite another size."""
        return self.config.startswith(DEFAULTS_OF)

    @property
    def total_bytes(self) -> int:
        """The predicted peak, without margin."""
        return self.weights_bytes + self.activations_bytes + self.kv_cache_bytes

    @property
    def needed_bytes(self) -> int:
        """The free memory to ask for: the peak, its margin, and what the backend itself takes."""
        return math.ceil(self.total_bytes * (1 + self.margin)) + self.fixed_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able values."""
        return {
            **dataclasses.asdict(self),
            "notes": list(self.notes),
            "total_bytes": self.total_bytes,
            "needed_bytes": self.needed_bytes,
        }
