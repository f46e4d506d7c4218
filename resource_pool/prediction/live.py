"""Counts the bytes of tensors that are alive, operation by operation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

# What torch's CPU allocator aligns a block to, in bytes.
_ALIGNMENT = 64

# Returns what an operation gives, or None where it is to be run.
Answer = Callable[[Any, tuple[Any, ...]], Any]


class LiveMemory:
    """The bytes of all live storages that were seen, and their peak.

    A storage is counted once, however many tensors share it, from the operation that made it
    until nobody holds it any longer.
    """

    def __init__(self) -> None:
        self._alive: dict[int, weakref.ref[Any]] = {}
        self.current = 0
        self.peak = 0

    def add(self, tensors: Iterable[Any]) -> None:
        """Count the tensors' storages until they die."""
        for tensor in tensors:
            self._add_storage(tensor.untyped_storage())
        self.peak = max(self.peak, self.current)

    def add_for_a_moment(self, size: int) -> None:
        """Count bytes that a kernel takes and gives back before anything else happens."""
        self.peak = max(self.peak, self.current + size)

    def restart_peak(self) -> None:
        """Let the peak begin at what is alive now."""
        self.peak = self.current

    def _add_storage(self, storage: Any) -> None:
        # The address of the C++ object: it is unique for as long as the storage lives.
        address = storage._cdata
        if address in self._alive:
            return
        size = -(-storage.nbytes() // _ALIGNMENT) * _ALIGNMENT

        def forget(_: Any) -> None:
            del self._alive[address]
            self.current -= size

        self._alive[address] = weakref.ref(storage, forget)
        self.current += size


def watching(memory: LiveMemory | None, answer: Answer) -> Any:
    """Return a context manager in which every operation of torch is answered or run, and counted.

    Args:
        memory: counts the results; None where only answers are wanted.
        answer: asked before each operation.
    """
    from torch import Tensor, ops
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    convolution = ops.aten.convolution.default

    class Watching(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            result = answer(op, args)
            if result is None:
                result = op(*args, **(kwargs or {}))
            if memory is None:
                return result
            if isinstance(result, Tensor):  # nearly always, and much faster
                memory.add((result,))
            else:
                memory.add(one for one in tree_iter(result) if isinstance(one, Tensor))
            if op is convolution:
                memory.add_for_a_moment(_reordered(*args[:2]))
            return result

    return Watching()


def _reordered(rows: Any, weight: Any) -> int:
    """Return the bytes that oneDNN copies into its own layout for a convolution over sounds.

    Measured on the CPU: over images it works on the layouts that it is given.
    """
    if rows.dim() != 3:
        return 0
    return int(rows.numel() * rows.element_size() + weight.numel() * weight.element_size())
