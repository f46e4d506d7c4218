"""A forward taken apart: tensors in, tensors out, and how what is around them goes together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from resource_pool.errors import UnsupportedOperationError

#: Outputs are compared by their own greatest value, but none by less than this.
SMALLEST_SCALE = 1e-4
# What an encoder gives, whose second axis is that of its tokens.
_ENCODED = ("encoder_outputs", "encoder_hidden_states")
# Values that differ by so small a share are alike: the rest is float32's rounding.
_ALIKE = 1e-5


class Inputs:
    """The arguments of a forward, taken apart: tensors, and how the rest goes around them.

    Attributes:
        names: of the arguments that the tensors come from.
        tensors: in the order in which the converted model takes them.
        signature: what a converted model depends on besides the tensors' values and lengths.
    """

    def __init__(self, given: Mapping[str, Any], where: str) -> None:
        import torch
        from torch.utils import _pytree

        leaves, self._spec = _pytree.tree_flatten(dict(given))
        counts = [(name, len(_pytree.tree_leaves(value))) for name, value in given.items()]
        origins = [name for name, count in counts for _ in range(count)]
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor | bool | int | float | str | None):
                raise UnsupportedOperationError(
                    f"{where} cannot be given an argument of type {type(leaf).__name__}; load "
                    "the model on device='cpu'."
                )
        self._leaves = [None if isinstance(leaf, torch.Tensor) else (leaf,) for leaf in leaves]
        self.tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        self.names = [
            name
            for name, leaf in zip(origins, leaves, strict=True)
            if isinstance(leaf, torch.Tensor)
        ]
        kinds = tuple((tensor.dtype, tensor.dim()) for tensor in self.tensors)
        self.signature = (kinds, repr(self._leaves), repr(self._spec))

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each tensor."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)

    def changing_axes(self) -> list[tuple[int, int]]:
        """Return (index of the tensor, axis) of the dimensions that one graph serves at any size.

        Rows, and the length of token ids and masks, and of what an encoder made of them. Another
        size elsewhere (of an image, say) is another graph: models compute with the traced one.
        """
        return [
            (index, axis)
            for index, (name, tensor) in enumerate(zip(self.names, self.tensors, strict=True))
            for axis in range(min(tensor.dim(), _changing_axes(name, tensor)))
        ]

    @property
    def traced_kind(self) -> tuple[Any, ...]:
        """What a graph that serves any size in the changing axes depends on."""
        changing = set(self.changing_axes())
        fixed = tuple(
            size
            for index, sizes in enumerate(self.sizes)
            for axis, size in enumerate(sizes)
            if (index, axis) not in changing
        )
        return (self.signature, fixed)

    def rebuilt(self, tensors: Sequence[Any]) -> dict[str, Any]:
        """Return the arguments by name, with other tensors in the place of these."""
        from torch.utils import _pytree

        rest = iter(tensors)
        leaves = [next(rest) if leaf is None else leaf[0] for leaf in self._leaves]
        return dict(_pytree.tree_unflatten(leaves, self._spec))


def _changing_axes(name: str, tensor: Any) -> int:
    of_tokens = name in _ENCODED and tensor.dim() == 3
    return 2 if of_tokens or not tensor.is_floating_point() else 1


class Outputs:
    """How an output goes together around its tensors."""

    def __init__(self, output: Any) -> None:
        import torch
        from torch.utils import _pytree

        leaves, self._spec = _pytree.tree_flatten(output)
        # A dtype stands for a tensor.
        self._leaves = [v.dtype if isinstance(v, torch.Tensor) else v for v in leaves]

    def rebuilt(self, arrays: Sequence[Any]) -> Any:
        """Return the output with NumPy arrays in the tensors' places, in the tensors' dtypes."""
        import torch
        from torch.utils import _pytree

        values = map(torch.from_numpy, arrays)
        leaves = [
            next(values).to(kind) if isinstance(kind, torch.dtype) else kind
            for kind in self._leaves
        ]
        return _pytree.tree_unflatten(leaves, self._spec)


def flat_forward(model: Any, inputs: Inputs) -> Any:
    """Return a module that takes the tensors by position and returns the tensors of the output.

    After a run, its ``outputs`` says how to put the output together again.
    """
    import torch
    from torch.utils import _pytree

    class FlatForward(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, model: Any) -> None:
            super().__init__()
            # Not from around the class: a class lives until garbage is collected, and so would it.
            self.model = model
            self.outputs: Outputs | None = None

        def forward(self, *values: Any) -> Any:
            output = type(self.model).forward(self.model, **inputs.rebuilt(values))
            self.outputs = Outputs(output)
            leaves = _pytree.tree_leaves(output)
            return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))

    return FlatForward(model).eval()


def as_array(tensor: Any) -> Any:
    """Return a tensor as a contiguous NumPy array; bfloat16, which NumPy lacks, as float32."""
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


def difference(expected: Any, got: Any) -> float:
    """Return the greatest difference of floating outputs, as a share of each one's greatest value.

    Outputs below ``SMALLEST_SCALE`` are held against that: of zeros, there is no share. What both
    have masked out is left out; see :func:`masked_in_both`.
    """
    worst = 0.0
    for theirs, ours in _floating(expected, got):
        if ours.shape != theirs.shape:
            return float("inf")
        theirs, ours = _told(theirs, ours)
        if not theirs.numel():
            continue
        scale = max(SMALLEST_SCALE, float(theirs.abs().max()))
        found = float((ours - theirs).abs().max()) / scale
        if math.isnan(found):
            return float("inf")
        worst = max(worst, found)
    return worst


def correlation(expected: Any, got: Any) -> float:
    """Return the least correlation of a floating output with what was expected of it, -1 to 1.

    It tells values in another order from rounded ones where all are near one another. Outputs
    whose expected values are all alike have none and do not count; nor does what both have masked
    out. The shapes must be the same.
    """
    pairs = (_told(theirs, ours) for theirs, ours in _floating(expected, got))
    found = [_correlation(theirs, ours) for theirs, ours in pairs if theirs.numel()]
    return min(found, default=1.0)


def _correlation(theirs: Any, ours: Any) -> float:
    alike = _ALIKE * max(SMALLEST_SCALE, float(theirs.abs().max()))
    theirs, ours = theirs - theirs.mean(), ours - ours.mean()
    if float(theirs.abs().max()) <= alike:
        return 1.0
    both = float(theirs.norm() * ours.norm())
    return float(theirs @ ours) / both if both else 0.0


def _floating(expected: Any, got: Any) -> Iterator[tuple[Any, Any]]:
    import torch
    from torch.utils import _pytree

    for ours, theirs in zip(_pytree.tree_leaves(got), _pytree.tree_leaves(expected), strict=True):
        if isinstance(theirs, torch.Tensor) and theirs.is_floating_point() and theirs.numel():
            yield theirs, ours


def _told(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Return the values, as float64 in a row, that not both have masked out."""
    told = ~masked_in_both(ours, theirs)
    return theirs.double()[told], ours.double()[told]


def masked_in_both(one: Any, other: Any) -> Any:
    """Return where two floating tensors of one shape both hold what stands for an infinity.

    Scores that do not count are set to the lowest number of their dtype, or near it: as a scale,
    it would hide every other difference. Infinities themselves are numbers like any other here.
    """
    import torch

    def far(tensor: Any) -> Any:
        return tensor.isfinite() & (tensor.abs() >= torch.finfo(tensor.dtype).max / 2)

    return far(one) & far(other) & (one.sign() == other.sign())


def without_masked(output: Any, given: Mapping[str, Any], changing: Container[int]) -> Any:
    """Return an output with zeros where a mask of (rows, tokens) leaves positions out.

    Args:
        given: the arguments, of which the masks count: of an encoder-decoder, the decoder's for all
            but what its encoder puts out.
        changing: the tensors, by their place in the output, whose second axis is no fixed length.
            Of two axes, only these can be (rows, tokens): others are, say, as many labels.
    """
    import torch
    from torch.utils import _pytree

    decodes = any(name.startswith("decoder_input") for name in given)
    leaves, spec = _pytree.tree_flatten_with_path(output)
    tensors = itertools.count()

    def zeroed(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        decoded = decodes and not str(getattr(path[0], "key", "")).startswith("encoder_")
        mask = given.get("decoder_attention_mask" if decoded else "attention_mask")
        of_tokens = next(tensors) in changing or leaf.dim() > 2
        if not isinstance(mask, torch.Tensor) or not of_tokens or leaf.shape[:2] != mask.shape:
            return leaf
        left_out = (mask == 0).reshape(*mask.shape, *[1] * (leaf.dim() - 2))
        return leaf.masked_fill(left_out, 0)

    return _pytree.tree_unflatten([zeroed(path, leaf) for path, leaf in leaves], spec)
