"""What earlier loads of a model showed: its bytes, its own dtype, whether it is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from resource_pool._estimate import folder_stamp
from resource_pool._identity import Identity
from resource_pool._plans import Decision, Request

# (model name, revision, torch's name of the dtype or None, family) -> bytes in use, or None where
# that is unknown.
Estimate = Callable[[str, str, str | None, str], int | None]


# So many models are known; the oldest is forgotten.
_MOST = 1024


@dataclass
class _Shown:
    """What the loads of one model showed.

    Attributes:
        stamp: of the folder then; another model may lie in it now.
        measured: dtype that was asked for -> bytes.
        native: the dtype that the constructor gives, with the quantization.
    """

    stamp: tuple[Any, ...]
    measured: dict[str | None, int] = field(default_factory=dict)
    native: str | None = None
    quantized: bool = False


class Experience:
    """Knows models by their identity. No lock of its own: the store's lock guards what is noted."""

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate
        self._shown: dict[Identity, _Shown] = {}

    def key(self, identity: Identity, device: str, dtype: str | None) -> str:
        """Return the key, in which a model's own dtype has its name once it is known.

        A quantized model is in no other, whatever was asked for.
        """
        shown = self._shown.get(identity)
        if shown and (dtype is None or shown.quantized):
            dtype = shown.native
        return identity.key(device, dtype)

    def with_needs(self, identity: Identity, request: Request) -> Request:
        """Return the request with what the model needs, where the caller has not told it.

        What was seen of a folder that has changed since is forgotten.
        """
        shown = self._shown.get(identity)
        if shown and shown.stamp != folder_stamp(identity.name):
            self._shown.pop(identity, None)
            shown = None
        if request.needed is not None:
            return request

        def needed(dtype: str | None) -> int | None:
            known = shown.measured.get(dtype, 0) if shown else 0
            # Of a quantized model the files' headers and the records know too little.
            if known and shown and shown.quantized:
                return known
            # What was measured is the model at rest; what is estimated has its forward as well.
            estimated = self._estimate(identity.name, identity.revision, dtype, identity.family)
            return max(known, estimated or 0) or None

        return replace(request, needed=needed)

    def learn(self, identity: Identity, decision: Decision, facts: Mapping[str, Any]) -> bool:
        """Note what a load showed; return whether it was in the model's own dtype."""
        stamp = folder_stamp(identity.name)
        shown = self._shown.get(identity)
        if shown is None or shown.stamp != stamp:
            shown = self._shown[identity] = _Shown(stamp)
            if len(self._shown) > _MOST:
                del self._shown[next(iter(self._shown))]
        # Of a module that computes elsewhere, what it takes there is planned for apart.
        shown.measured[decision.dtype] = facts.get("module_bytes", facts["memory_usage"])
        shown.quantized = shown.quantized or bool(facts.get("quantization"))
        if not facts["sizes"] or (decision.dtype is not None and not shown.quantized):
            return False
        parts = (facts["dtype"], facts.get("quantization"))
        shown.native = "/".join(filter(None, parts))
        return True
