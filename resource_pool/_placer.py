"""Puts a new model where it was decided, and says what it then is."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resource_pool._entries import Entry
from resource_pool._holders import is_held_besides
from resource_pool._identity import Identity
from resource_pool._ledger import Place
from resource_pool._observer import Observer
from resource_pool._origin import Origin
from resource_pool._parts import Owner, Placed
from resource_pool._plans import Decision
from resource_pool.devices import Devices
from resource_pool.errors import SharedObjectError

logger = logging.getLogger("resource_pool")


@dataclass(frozen=True)
class Loaded:
    """A model in its place, its facts, and what the record says of it."""

    value: Any
    facts: dict[str, Any]
    places: Mapping[Place, int]
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

    def disclaim(self, entry: Entry) -> None:
        """Forget whose parameters they were: the load has failed, and may be tried again."""
        self._placed.disclaim(entry.created_for)

    def sharers(self, value: Any) -> list[str]:
        """Return the keys of other models that share parameters with this one and are in use."""
        # The list of parts has gone when their references are counted.
        owners = self._placed.owners(self._devices.parts(value, self._devices.survey(value)))
        others = (
            (one.label, one.model) for one in owners if one.model and one.model() is not value
        )
        return [label for label, model in others if is_held_besides(value, model)]

    def place(self, entry: Entry, value: Any, decision: Decision, identity: Identity) -> Loaded:
        """Put a new model where it was decided, and say what it then is."""
        if decision.notes:
            told = "; ".join(decision.notes)
            level = logging.WARNING if decision.surprising else logging.INFO
            logger.log(level, "%s goes to %s: %s", identity.label, decision.device, told)
        seen = self._devices.survey(value)
        self._claim(entry, value, decision, seen)
        left = ""
        try:
            if decision.spread and self._devices.is_movable(value):
                value = self._devices.spread(value, decision.spread, decision.dtype)
                seen = None
            else:
                left = self._devices.place(value, decision.device, decision.dtype, seen)
        except Exception as error:
            self.disclaim(entry)
            for device in decision.devices:
                self._observer.remember_failure(identity, device, error)
            raise
        if left:
            logger.info("%s is left where it is: %s.", identity.label, left)
        else:
            logger.info("Selected optimal device for %s: %s", identity.label, decision.device)
        facts = self._devices.describe(value, seen)
        facts["backend"] = "unknown" if left else decision.backend
        facts["weights"] = _origin(value, facts.pop("marks", None), at_once=bool(decision.spread))
        cast = facts.get("placed_dtype") or decision.dtype or facts["dtype"]
        facts |= {"needed": decision.needed, "identity": identity, "key_dtype": cast}
        numbers = {name: facts[name] for name in ("device", "dtype", "memory_usage", "weights")}
        numbers |= {name: facts[name] for name in ("web", "simulated") if name in facts}
        numbers |= {"backend": facts["backend"], "predicted": decision.needed}
        places = self._devices.places(value, seen)
        return Loaded(value, facts, places, "; ".join(decision.notes), numbers)

    def _claim(self, entry: Entry, value: Any, decision: Decision, seen: Any) -> None:
        """Note the parameters as this load's; refuse to move those that were handed out before."""
        owner = Owner(entry.created_for, entry.key, _reference(value))
        others = self._placed.claim(self._devices.parts(value, seen), owner)
        if others and self._devices.would_change(value, decision.device, decision.dtype):
            self.disclaim(entry)
            raise SharedObjectError(
                f"The constructor of {entry.key} returned an object that shares parameters with "
                f"{others[0].label}; it must load an instance of its own."
            )


def _reference(model: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(model)
    except TypeError:  # an int, a tuple: nothing that has parameters
        return None


def _origin(model: Any, marks: Any, *, at_once: bool) -> Origin:
    """Return the origin of the weights, proven at once where no later proof would hold."""
    origin = Origin(model, marks)
    if at_once or marks is None:
        str(origin)
    return origin
