"""Bytes per device: what is cached, what is being loaded, what is not free yet."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

# A piece of memory: torch's name of its device, and its address there.
Place = tuple[str, int]


def per_device(places: Mapping[Place, int], *, among: Collection[Place | None]) -> dict[str, int]:
    """Return device -> bytes of those places that are ``among`` others."""
    sizes: dict[str, int] = {}
    for place, size in places.items():
        if place in among:
            sizes[place[0]] = sizes.get(place[0], 0) + size
    return sizes


class Charge(NamedTuple):
    """Bytes that one model takes on one device.

    ``kind`` is "reserved" while it is loading (predicted bytes), "used" once it is measured, and
    "leaving" from its eviction until its memory is really free.
    """

    owner: str
    device: str
    size: int
    kind: str


class Holder(Protocol):
    """What has charges, by their numbers."""

    charges: tuple[int, ...]


class Ledger:
    """The charges by number. No lock of its own: the store's lock guards it."""

    def __init__(self) -> None:
        self._charges: dict[int, Charge] = {}
        self._numbers = itertools.count()

    def charge(self, holder: Holder, owner: str, sizes: Mapping[str, int], kind: str) -> None:
        """Enter bytes per device. Their numbers are the holder's before they count: whatever
        interrupts this, they can be struck out.
        """
        numbers = tuple(itertools.islice(self._numbers, len(sizes)))
        holder.charges += numbers
        for number, (device, size) in zip(numbers, sizes.items(), strict=True):
            self._charges[number] = Charge(owner, device, size, kind)

    def settle(self, numbers: Iterable[int]) -> int:
        """Strike charges out; a number that is struck out already is passed over.

        Returns:
            How many bytes are free again by the ledger.
        """
        struck = [self._charges.pop(number, None) for number in numbers]
        return sum(charge.size for charge in struck if charge)

    def lessen(self, numbers: Iterable[int], sizes: Mapping[str, int]) -> None:
        """Take bytes per device from charges: they are charged for somebody else now."""
        for number in numbers:
            charge = self._charges[number]
            rest = max(0, charge.size - sizes.get(charge.device, 0))
            self._charges[number] = charge._replace(size=rest)

    def total(self, device: str, *kinds: str) -> int:
        """Return the bytes on a device, of these kinds or of all."""
        return sum(
            charge.size
            for charge in self._charges.values()
            if charge.device == device and (not kinds or charge.kind in kinds)
        )

    def has(self, kind: str) -> bool:
        """Whether there is any charge of that kind."""
        return any(charge.kind == kind for charge in self._charges.values())

    def devices(self) -> list[str]:
        """Return the devices that have charges."""
        return sorted({charge.device for charge in self._charges.values()})

    def holders(self, device: str) -> list[Charge]:
        """Return the charges on a device, the largest first."""
        charges = (charge for charge in self._charges.values() if charge.device == device)
        return sorted(charges, key=lambda charge: -charge.size)
