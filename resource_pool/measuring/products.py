"""The number formats in which a forward multiplies: matrices, convolutions, attention, experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from resource_pool.measuring.numbers import is_tensor

_MATRICES = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "_scaled_mm")
# What torch keeps whole: of experts, all at once; of a recurrent layer, all of its steps.
_WHOLE = ("_grouped_mm", "_scaled_grouped_mm", "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn")
_PRODUCTS = frozenset(
    (*(f"aten::{name}" for name in (*_MATRICES, "convolution", *_WHOLE)),
     # Of transformers, where torch has none for the experts' format.
     "transformers::grouped_mm_fallback")
)  # fmt: skip


class Products:
    """Notes the formats of what is multiplied.

    torch's attention counts as one product in the format of its arguments: of its kernels, the
    one that it falls back to converts half precision to float32 inside, and others do not. What
    is narrower than the arguments is noted there too.

    Attributes:
        dtypes: torch's names, e.g. "bfloat16".
    """

    def __init__(self, answer: Callable[[Any, tuple[Any, ...]], Any]) -> None:
        self.dtypes: set[str] = set()
        self._answer = answer
        self._attended = 0  # bytes of a number in the attention that is being computed

    def note(self, op: Any, args: tuple[Any, ...]) -> Any:
        """Note one of torch's operations, and return what ``answer`` says of it."""
        if op.name().partition(".")[0] in _PRODUCTS:
            self._add(one for one in filter(is_tensor, args) if self._is_told(one))
        return self._answer(op, args)

    def attention(self) -> Any:
        """Return a context in which attention is noted."""
        from torch.nn.functional import scaled_dot_product_attention
        from torch.overrides import TorchFunctionMode

        products = self

        class Attention(TorchFunctionMode):  # type: ignore[misc]
            def __torch_function__(
                self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
            ) -> Any:
                options = kwargs or {}
                if func is scaled_dot_product_attention:
                    return products._attend(func, args, options)
                return func(*args, **options)

        return Attention()

    def _is_told(self, tensor: Any) -> bool:
        return not self._attended or tensor.dtype.itemsize < self._attended

    def _add(self, tensors: Iterable[Any]) -> None:
        """Add the formats of factors; integers beside them say which rows go to which expert."""
        formats = {one.dtype for one in tensors if one.dtype.is_floating_point}
        self.dtypes.update(str(one).removeprefix("torch.") for one in formats)

    def _attend(self, attention: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call torch's attention and note it; a mask takes part in no product."""
        named = (options.get(name) for name in ("query", "key", "value"))
        factors = list(filter(is_tensor, (*args[:3], *named)))
        self._add(factors)
        self._attended = max(one.dtype.itemsize for one in factors)
        try:
            return attention(*args, **options)
        finally:
            self._attended = 0
