"""Models stored in half precision, as engines that compute in float32 need them."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from resource_pool.devices import forwards, modules
from resource_pool.errors import UnsupportedOperationError


def as_float32(tensor: Any) -> Any:
    """Return a tensor, in float32 where it is in half precision."""
    return tensor.float() if _is_half(tensor) else tensor


def in_float32(model: Any) -> Any:
    """Return a model without half precision: itself, or a copy that shares what needs no cast.

    The copy's forwards are its class's own, wherever the model's are computed.

    Raises:
        UnsupportedOperationError: something in the model cannot be copied.
    """
    import torch

    tensors = [*itertools.chain(model.parameters(), model.buffers())]
    if not any(map(_is_half, tensors)):
        return model
    memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    for tensor in filter(_is_half, tensors):
        wide = tensor.detach().float()
        if isinstance(tensor, torch.nn.Parameter):
            wide = torch.nn.Parameter(wide, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = wide
    for _, module in modules.walk(model):
        if (forward := forwards.placement(module)) is not None:
            memo[id(forward)] = forward  # it holds a lock; the copy gives it back below
    try:
        made = copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, RecursionError) as error:
        raise UnsupportedOperationError(
            f"the model cannot be copied to float32: {error}; load it with dtype=torch.float32."
        ) from error
    forwards.remove(made)
    return made


def _is_half(tensor: Any) -> bool:
    import torch

    return tensor.dtype in (torch.bfloat16, torch.float16)
