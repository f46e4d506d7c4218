"""What one walk over a torch module finds. A load takes one, not one for each question about it.

An attribute of all tensors is read by ``map``: for a model of two hundred tensors a walk and all
that is read take two tenths of a millisecond together; a function call for each would take
several.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

# torch's name of the device, address
Place = tuple[str, int]

_device, _dtype, _version = map(attrgetter, ("device", "dtype", "_version"))


class Marks(NamedTuple):
    """What tells whether parameters are still the same data, though nothing of it is read.

    A version counts a tensor's changes in place; data that was put in its place lies at another
    address.
    """

    versions: tuple[int, ...]
    addresses: tuple[int, ...]


class Survey:
    """The tensors of a module, each once; good until the module is moved, cast or changed.

    Attributes:
        parameters: tied ones once.
        buffers: those that are no part of the checkpoint included.
        tensors: both.
    """

    def __init__(self, model: Any) -> None:
        self.walk(model)

    def walk(self, model: Any) -> None:
        """Find everything anew, after the model was changed."""
        self.__dict__.clear()  # with what is remembered of the tensors before
        seen = {id(model)}
        waiting = [model]
        parameters: list[Any] = []
        buffers: list[Any] = []
        for module in waiting:  # which grows
            inside = module.__dict__
            if parts := inside["_modules"]:
                for part in parts.values():
                    if (number := id(part)) not in seen and part is not None:
                        seen.add(number)
                        waiting.append(part)
            if tensors := inside["_parameters"]:
                parameters += tensors.values()
            if tensors := inside["_buffers"]:
                buffers += tensors.values()
        self.parameters = _each_once(parameters)
        self.buffers = _each_once(buffers)
        self.tensors = self.parameters + self.buffers

    @functools.cached_property
    def devices(self) -> set[Any]:
        """The devices of the tensors."""
        return set(map(_device, self.tensors))

    @functools.cached_property
    def dtypes(self) -> set[Any]:
        """The dtypes of the parameters."""
        return set(map(_dtype, self.parameters))

    def lacks_data(self) -> bool:
        """Whether a parameter has no memory yet: on the meta device, or of a lazy module."""
        return not self._is_plain and any(map(has_no_data, self.parameters))

    def is_all_on(self, device: str) -> bool:
        """Whether every tensor is on ``device``, by torch's name of it."""
        return all(str(one) == device for one in self.devices)

    def bytes_per_device(self) -> dict[str, int]:
        """Sum the storages under the tensors by torch's name of the device."""
        sizes: dict[str, int] = {}
        for (device, _), size in self.places.items():
            sizes[device] = sizes.get(device, 0) + size
        return sizes

    def marks(self) -> Marks | None:
        """Return what tells whether the parameters change; None where nothing does."""
        if self._storages is None:
            return None
        try:
            versions = tuple(map(_version, self.parameters))
        except RuntimeError:  # a tensor of inference mode counts none
            return None
        return Marks(versions, tuple(self._addresses[: len(versions)]))

    @functools.cached_property
    def _is_plain(self) -> bool:
        """Whether each tensor is of torch's own classes and has memory."""
        torch = sys.modules["torch"]
        own = {torch.Tensor, torch.nn.Parameter}
        has_memory = all(device.type != "meta" for device in self.devices)
        return has_memory and own.issuperset(map(type, self.tensors))

    @functools.cached_property
    def _storages(self) -> list[Any] | None:
        """The storage of each tensor; None where one is not in one piece."""
        try:
            return [t.untyped_storage() for t in self.tensors] if self._is_plain else None
        except (NotImplementedError, RuntimeError):  # a sparse one
            return None

    @functools.cached_property
    def places(self) -> dict[Place, int]:
        """Where the data is, with its bytes: tied weights are in one place."""
        return {place: one.nbytes() for place, one in self.storages.items()}

    @property
    def storages(self) -> dict[Place, Any]:
        """Where the data is, with what holds it there."""
        if self._storages is None:
            return _storages_of(self.tensors)
        names = {device: str(device) for device in self.devices}
        devices = map(names.__getitem__, map(_device, self.tensors))
        return dict(zip(zip(devices, self._addresses, strict=True), self._storages, strict=True))

    @functools.cached_property
    def _addresses(self) -> list[int]:
        return [storage.data_ptr() for storage in self._storages or ()]


def _each_once(tensors: list[Any]) -> list[Any]:
    """Return the tensors without repetitions and without None."""
    found = dict(zip(map(id, tensors), tensors, strict=True))
    found.pop(id(None), None)
    return [*found.values()]


def _storages_of(tensors: Iterable[Any]) -> dict[Place, Any]:
    found = [tensor.untyped_storage() for tensor in _dense(tensors)]
    return {(str(s.device), s.data_ptr()): s for s in found if s.device.type != "meta"}


def has_no_data(tensor: Any) -> bool:
    """Whether a tensor has no memory yet: on the meta device, or of a lazy module."""
    return bool(tensor.is_meta or sys.modules["torch"].nn.parameter.is_lazy(tensor))


def _dense(tensors: Iterable[Any]) -> Iterator[Any]:
    """Yield the tensors that hold the data: of a sparse one its indices and values."""
    torch = sys.modules["torch"]
    for tensor in tensors:
        if has_no_data(tensor):
            continue
        if tensor.layout == torch.strided:
            yield tensor
        elif tensor.layout == torch.sparse_coo:
            yield from (tensor._indices(), tensor._values())
        else:
            yield tensor.values()
