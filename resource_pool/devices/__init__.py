"""How a model gets to a place, and what it costs there.

The pool decides by pure functions and acts through one object that looks like :class:`Devices`.
``resource_pool.devices.torch.TorchDevices`` is the real one; ``resource_pool.testing`` has a fake
with memory that a test sets.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

logger = logging.getLogger("resource_pool")


class Memory(NamedTuple):
    """Bytes of a device. ``free`` counts what its allocator could reuse."""

    total: int
    free: int


class System(Protocol):
    """The machine's memory, for the upkeep: the mode, the warnings and the statistics."""

    def memory(self) -> Memory | None:
        """Return the RAM that this process may use; None where it cannot be read."""

    def container_memory(self) -> Memory | None:
        """Return its container's limit and what is left of it; None without one."""


class Devices(Protocol):
    """Side effects on models and devices. A device is named as torch names it, e.g. "cuda:0"."""

    def memory(self, device: str) -> Memory | None:
        """Return the device's memory, or None where asking is impossible or would start it."""

    def survey(self, model: Any) -> Any:
        """Return what one walk over the model finds, for the others to take as ``seen``."""

    def place(self, model: Any, device: str, dtype: str | None, seen: Any = None) -> str:
        """Move and cast in place; return why the model was left as it is, or "".

        ``seen``, where it is given, is brought up to date.
        """

    def spread(self, model: Any, budgets: Mapping[str, int], dtype: str | None) -> Any:
        """Cast a model and spread it over several devices, given the bytes for each."""

    def describe(self, model: Any, seen: Any = None) -> dict[str, Any]:
        """Return ``device``, ``dtype``, ``memory_usage``, ``memory_estimation_method``, ``sizes``.

        ``sizes`` maps each device to the bytes there; ``marks``, where there are any, tell
        whether the weights are still the same.
        """

    def is_movable(self, model: Any) -> bool:
        """Whether ``place`` would move it: a module without a device map, not quantized."""

    def parts(self, model: Any, seen: Any = None) -> list[Any]:
        """Return the objects, weakly referable, that a move or a cast of the model changes."""

    def storages(self, model: Any) -> Mapping[tuple[str, int], Any]:
        """Return (device, address) -> an object, weakly referable, that lives as long as what the
        model has in memory there does.
        """

    def places(self, model: Any, seen: Any = None) -> Mapping[tuple[str, int], int]:
        """Return (device, address) -> bytes of what the model has in memory; none without any."""

    def would_change(self, model: Any, device: str, dtype: str | None) -> bool:
        """Whether ``place`` would move or cast any part of it."""

    def release(self, devices: Sequence[str]) -> None:
        """Give memory that is cached but not used back to the system."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that a device or the machine has no memory left."""

    def fingerprint(self, model: Any) -> Mapping[str, Hashable]:
        """Return what must not change while a model is shared: name -> value."""


def released(devices: Devices, names: Sequence[str]) -> None:
    """Empty the caches of devices; one that has failed for good keeps what it has."""
    try:
        devices.release([*names])
    except RuntimeError as error:
        logger.warning("The caches of %s cannot be emptied: %s", ", ".join(names), error)


def memory_of(devices: Devices, device: str) -> Memory | None:
    """Return a device's memory, or None where asking fails: the device may have gone."""
    try:
        return devices.memory(device)
    except RuntimeError as error:
        logger.warning("The memory of %s cannot be asked for: %s", device, error)
        return None
