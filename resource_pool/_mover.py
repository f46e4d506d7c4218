"""Moves cached models between devices, with the caller's consent or while nobody holds them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from resource_pool._entries import Entry, State
from resource_pool._events import Event, EventLog
from resource_pool._hardware import CPU
from resource_pool._identity import Identity
from resource_pool._loader import Loader
from resource_pool._observer import LOW_MEMORY_GPU_SHARE
from resource_pool._plans import ENGINES, Decision, Request, is_on, memory_place
from resource_pool._preferences import parse_preferences
from resource_pool._sharing import sharing
from resource_pool._store import Store
from resource_pool.devices import Devices, memory_of, released
from resource_pool.errors import DeviceBusyError, ResourceNotFoundError

logger = logging.getLogger("resource_pool")


_TO_RAM = parse_preferences({"device": CPU})


@dataclass(frozen=True)
class _Moving:
    """A move that has begun: whoever asks for the entry waits for its end.

    Its room is among the entry's charges, which the end strikes out, whichever it is.

    Attributes:
        changed: the facts that the move changes and nothing tells afterwards.
    """

    entry: Entry
    value: Any
    old: str
    came_from: str
    device: str
    changed: dict[str, Any]


class Mover:
    """Moves entries of a store; whoever asks for one meanwhile waits for the end of the move."""

    def __init__(self, store: Store, devices: Devices, loader: Loader, log: EventLog) -> None:
        self._store, self._devices, self._loader, self._log = store, devices, loader, log
        self.demoted: set[Identity] = set()  # models that low-memory mode brought to RAM

    def move(
        self, meant: Callable[[Entry], bool], label: str, device: str, from_device: str | None
    ) -> Any:
        """Move the one instance that is meant; see ``ResourcePool.move_model_to_device``."""
        preferences = parse_preferences({"device": device, "force_device": True})
        entry = self._find(meant, label, from_device)
        identity: Identity = entry.facts["identity"]
        size = entry.facts.get("memory_usage", 0)
        request = Request(identity.label, preferences).needing(size)
        with self._store.failing() as mine:
            with self._loader.planned_alone(identity):
                self._refuse_unless_movable(entry)  # before others go for it
                self._refuse_if_shared_outside(entry)
                decision = self._loader.with_room(
                    identity, request, f"room to move {entry.key}", staying=entry
                )
                if decision.device == entry.facts["device"]:
                    return self._still_there(entry)
                moving = self._begin(entry, decision, mine)
            return self._carry_out(moving)

    def demote_idle(self, identity: Identity) -> None:
        """Bring a model that nobody holds to RAM before it is handed out, if its GPU is full."""
        for entry in self._instances(lambda e: e.facts.get("identity") == identity):
            device = str(entry.facts.get("device"))
            memory = None if device == CPU else memory_of(self._devices, device)
            full = memory and memory.free < (1 - LOW_MEMORY_GPU_SHARE) * memory.total
            if full and not entry.seems_held():
                try:
                    if self._move_idle(entry, Request(identity.label, _TO_RAM)):
                        self.demoted.add(identity)
                except Exception as error:  # it stays where it is, and is handed out there
                    logger.warning("%s is not brought to RAM: %s", entry.key, error)

    def bring_back(self, identity: Identity, request: Request) -> None:
        """After low-memory mode, give a model that it demoted the place that it would get now.

        What somebody holds is brought back at a later request.
        """
        entries = self._instances(lambda e: e.facts.get("identity") == identity)
        if len(entries) != 1 or entries[0].facts["device"] != CPU:
            self.demoted.discard(identity)  # it has gone, or was loaded or moved by other means
            return
        (entry,) = entries
        try:
            if entry.movable and not entry.seems_held() and self._move_idle(entry, request):
                self.demoted.discard(identity)
        except Exception as error:  # it stays where it is, and is handed out there
            self.demoted.discard(identity)
            logger.warning("%s is not brought back from RAM: %s", entry.key, error)

    def in_ram(self, identity: Identity, request: Request) -> Request:
        """Send a request that names no device to the model that was brought to RAM, if it is
        there: the GPU has room again, and would get a second copy.
        """
        if identity in self.demoted and any(
            entry.facts["device"] == CPU
            for entry in self._instances(lambda e: e.facts.get("identity") == identity)
        ):
            return replace(request, family_priority=(CPU,))
        return request

    def _move_idle(self, entry: Entry, request: Request) -> bool:
        """Move a model that nobody holds where it would go now; False where others had to go."""
        identity: Identity = entry.facts["identity"]
        request = request.needing(entry.facts.get("memory_usage", 0))
        with self._store.failing() as mine:
            with self._loader.planned_alone(identity):
                decision = self._loader.plan(identity, request)
                if decision.evict or decision.device == entry.facts["device"]:
                    return False
                moving = self._begin(entry, decision, mine, unless_held=True)
            self._carry_out(moving)
        return True

    def _still_there(self, entry: Entry) -> Any:
        value = entry.value
        if value is None:
            raise _gone(entry)
        return value

    def _instances(self, meant: Callable[[Entry], bool]) -> list[Entry]:
        return [entry for entry in self._store.ready("model").values() if meant(entry)]

    def _find(self, meant: Callable[[Entry], bool], label: str, from_device: str | None) -> Entry:
        found = self._instances(meant)
        if from_device is not None:
            found = [entry for entry in found if is_on(entry.facts["device"], from_device)]
        if not found:
            where = f" on {from_device}" if from_device else ""
            raise ResourceNotFoundError(f"{label} is not cached{where}; load it first.")
        if len(found) > 1:
            keys = ", ".join(sorted(entry.key for entry in found))
            raise DeviceBusyError(
                "Several instances are cached, say which by from_device, revision or variant: "
                f"{keys}."
            )
        return found[0]

    def _begin(
        self, entry: Entry, decision: Decision, mine: list[Entry], *, unless_held: bool = False
    ) -> _Moving:
        """Take an entry out of everybody's hands, and reserve its room at the new place."""
        device, backend = decision.device, decision.backend
        dtype = _dtype_after(entry, backend)
        weights = str(entry.facts["weights"])  # afterwards the data is elsewhere
        old, new = entry.key, entry.facts["identity"].key(device, dtype)
        with self._store.lock:
            self._refuse_unless_movable(entry)
            if self._store.get(new) is not None:
                raise DeviceBusyError(f"{new} is cached already; drop one of the two.")
            if unless_held and entry.seems_held():
                raise DeviceBusyError(f"{entry.key} is held by somebody by now.")
            mine.append(entry)
            value = self._store.reopen(entry, new)
            self._loader.reroute(old, new)  # whoever asks meanwhile waits
            size = entry.facts.get("memory_usage", 0)
            room = {memory_place(device): size}
            self._store.ledger.charge(entry, new, room, "reserved")
        changed = {"backend": backend, "key_dtype": dtype, "weights": weights}
        return _Moving(entry, value, old, entry.facts["device"], device, changed)

    def _carry_out(self, moving: _Moving) -> Any:
        entry, value, device = moving.entry, moving.value, moving.device
        identity: Identity = entry.facts["identity"]
        try:
            self._devices.place(value, device, None)
            described = self._devices.describe(value)
        except BaseException:
            self._put_back(entry, value, moving.old, moving.came_from)
            raise
        kept = entry.facts.keys() & {"identity", "needed"}
        facts = {name: entry.facts[name] for name in kept} | described
        facts.pop("marks", None)
        self._store.publish(entry, value, facts | moving.changed)
        released(self._devices, [memory_place(moving.came_from)])
        self._log.add(Event("move", entry.key, f"from {moving.came_from} to {device}"))
        logger.info("Moved %s from %s to %s.", identity.label, moving.came_from, device)
        return value

    def _put_back(self, entry: Entry, value: Any, key: str, device: str) -> None:
        """After a failed move: a module is moved tensor by tensor, and half of it may be there."""
        try:
            self._devices.place(value, device, entry.facts.get("placed_dtype"))
            described = self._devices.describe(value)
        except BaseException:
            self._store.write_off(entry, value)
            raise
        with self._store.lock:
            self._loader.reroute(entry.key, key)
            self._store.rekey(entry, key)
            self._store.publish(entry, value, {**entry.facts, **described})

    def _sharing_with(self, entry: Entry) -> list[Entry]:
        groups = sharing([e for e in self._store.entries() if e.kind == "model"])
        return next(group for group in groups if entry in group)

    def _refuse_unless_movable(self, entry: Entry) -> None:
        if entry.state is State.EVICTING:
            raise _gone(entry)
        if not entry.movable:
            raise DeviceBusyError(f"{entry.key} is leased or pinned; end that before it is moved.")
        if len(self._sharing_with(entry)) > 1:
            raise DeviceBusyError(f"{entry.key} shares weights with another cached model.")
        if not self._devices.is_movable(entry.value):
            raise DeviceBusyError(f"{entry.key} has a device map of its own, or is quantized.")

    def _refuse_if_shared_outside(self, entry: Entry) -> None:
        """Leave alone what somebody has a part of in a model that has left the pool.

        Not under the store's lock: the parameters are looked at.
        """
        sharers = self._loader.sharers(self._still_there(entry))
        if sharers:
            raise DeviceBusyError(
                f"{entry.key} shares weights with {sharers[0]}, which has left the pool and is "
                "still in use; let that go before it is moved."
            )


def _gone(entry: Entry) -> ResourceNotFoundError:
    return ResourceNotFoundError(f"{entry.key} has just left the pool; load it again.")


def _dtype_after(entry: Entry, backend: str) -> str:
    """Return the dtype that a model computes in after a move, which casts nothing.

    An engine outside torch computes in float32 where nothing else is asked; beside it the module
    keeps a dtype of its own.
    """
    if backend in ENGINES:
        return "float32"
    return str(entry.facts.get("module_dtype") or entry.facts["key_dtype"])
