"""Puts a new model where it was decided, and says what it then is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from resource_pool._entries import Entry
from resource_pool._identity import Identity
from resource_pool._observer import Observer
from resource_pool._parts import Placed
from resource_pool._planner import Decision
from resource_pool.devices import Devices
from resource_pool.errors import SharedObjectError

logger = logging.getLogger("resource_pool")


@dataclass(frozen=True)
class Loaded:
    """A model in its place, its facts, and what the record says of it."""

    value: Any
    facts: dict[str, Any]
    note: str
    numbers: dict[str, Any]


class Placer:
    """Moves and casts models that nobody has seen yet."""

    def __init__(self, devices: Devices, observer: Observer) -> None:
        self._devices, self._observer = devices, observer
        self._placed = Placed()

    def after_fork(self) -> None:
        """In a forked child, where no other thread is left."""
        self._placed.after_fork()

    def place(self, entry: Entry, value: Any, decision: Decision, identity: Identity) -> Loaded:
        """Put a new model where it was decided, and say what it then is."""
        from resource_pool.weights import provenance

        if decision.notes:
            told = "; ".join(decision.notes)
            level = logging.WARNING if decision.surprising else logging.INFO
            logger.log(level, "%s goes to %s: %s", identity.label, decision.device, told)
        self._refuse_shared(entry, value, decision)
        left = ""
        try:
            if decision.spread and self._devices.is_movable(value):
                value = self._devices.spread(value, decision.spread, decision.dtype)
            else:
                left = self._devices.place(value, decision.device, decision.dtype)
        except Exception as error:
            for device in decision.spread or (decision.device,):
                self._observer.remember_failure(identity, device, error)
            raise
        if left:
            logger.info("%s is left where it is: %s.", identity.label, left)
        else:
            logger.info("Selected optimal device for %s: %s", identity.label, decision.device)
        facts = self._devices.describe(value)
        facts["backend"] = "unknown" if left else decision.backend
        facts["weights"] = provenance(value)
        cast = facts.get("placed_dtype") or decision.dtype or facts["dtype"]
        facts |= {"needed": decision.needed, "identity": identity, "key_dtype": cast}
        numbers = {name: facts[name] for name in ("device", "dtype", "memory_usage", "weights")}
        numbers |= {"web": facts["web"]} if "web" in facts else {}
        numbers |= {"backend": facts["backend"], "predicted": decision.needed}
        return Loaded(value, facts, "; ".join(decision.notes), numbers)

    def _refuse_shared(self, entry: Entry, value: Any, decision: Decision) -> None:
        """Placing what was handed out before would move it behind its holder's back."""
        parts = self._devices.parts(value)
        owner = self._placed.claim(parts, entry.created_for, entry.key)
        if owner and self._devices.would_change(value, decision.device, decision.dtype):
            raise SharedObjectError(
                f"The constructor of {entry.key} returned an object that shares parameters with "
                f"{owner}; it must load an instance of its own."
            )
