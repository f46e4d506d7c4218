"""What earlier loads of a model showed: its bytes, its own dtype, whether it is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from resource_pool._identity import Identity
from resource_pool._plans import Decision, Request

# (model name, revision, torch's name of the dtype or None, family) -> bytes in use, or None where
# that is unknown.
Estimate = Callable[[str, str, str | None, str], int | None]


class Experience:
    """Knows models by their identity. No lock of its own: the store's lock guards what is noted."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._measured: dict[tuple[Identity, str | None], int] = {}
        self._native: dict[Identity, str] = {}  # the dtype that the constructor gives
        self._quantized: set[Identity] = set()

    def native_dtype(self, identity: Identity) -> str | None:
        """Return the model's own dtype, with its quantization; None before the first load."""
        return self._native.get(identity)

    def key(self, identity: Identity, decision: Decision) -> str:
        """Return the key, in which a model's own dtype has its name once it is known."""
        return identity.key(decision.device, decision.dtype or self._native.get(identity))

    def with_needs(self, identity: Identity, request: Request) -> Request:
        """Return the request with what the model needs, where the caller has not told it."""
        if request.needed is not None:
            return request

        def needed(dtype: str | None) -> int | None:
            known = self._measured.get((identity, dtype), 0)
            # Of a quantized model the files' headers and the records know too little.
            if known and identity in self._quantized:
                return known
            # What was measured is the model at rest; what is estimated has its forward as well.
            estimated = self._estimate(identity.name, identity.revision, dtype, identity.family)
            return max(known, estimated or 0) or None

        return replace(request, needed=needed)

    def learn(self, identity: Identity, decision: Decision, facts: Mapping[str, Any]) -> bool:
        """Note what a load showed; return whether it was in the model's own dtype."""
        # Of a module that computes elsewhere, what it takes there is planned for apart.
        measured = facts.get("module_bytes", facts["memory_usage"])
        self._measured[identity, decision.dtype] = measured
        if facts.get("quantization"):
            self._quantized.add(identity)
        if decision.dtype is not None or not facts["sizes"]:
            return False
        parts = (facts["dtype"], facts.get("quantization"))
        self._native[identity] = "/".join(filter(None, parts))
        return True
