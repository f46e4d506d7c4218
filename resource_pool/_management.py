"""What a pool does with what it has: keeps, moves and drops it, on the caller's word."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from resource_pool import _checks
from resource_pool._entries import Entry, Removed
from resource_pool._events import Event
from resource_pool._evicting import Evictor
from resource_pool._families import family_facts
from resource_pool._inspection import Inspection
from resource_pool._maintenance import Maintenance
from resource_pool._mover import Mover
from resource_pool._preferences import parse_device
from resource_pool._requests import checked_name

logger = logging.getLogger("resource_pool")


class Management(Inspection):
    """The part of a pool that manages what is cached."""

    _evictor: Evictor
    _maintenance: Maintenance
    _mover: Mover
    # Requests without preferences -> key, so that a hit costs two look-ups. A row may be
    # stale, and then leads nowhere.
    _known: dict[tuple[str, str, str | None, str | None], str]

    def pin(self, key: str) -> None:
        """Keep an entry until it is unpinned: no cleanup, no eviction, no clear() drops it.

        Raises:
            KeyError: nothing is cached under the key.
        """
        with self._store.lock:
            self._entry(key).pinned = True

    def unpin(self, key: str) -> None:
        """Undo :meth:`pin`; KeyError as there."""
        with self._store.lock:
            self._entry(key).pinned = False

    def move_model_to_device(
        self,
        model_type: str,
        model_name: str,
        device: str,
        *,
        from_device: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
    ) -> Any:
        """Move a cached model and return it. Whoever holds it sees it move: that is your consent.

        Args:
            device: where to, e.g. "cpu" or "cuda:1".
            from_device, revision, variant: which instance, where there are several of that name.

        Raises:
            ResourceNotFoundError: no such model is cached.
            DeviceBusyError: it is leased, pinned, or cannot be moved as a whole; it shares weights
                with another model that is in use; or there are several instances and
                ``from_device`` does not tell which.
            PreferenceError, DeviceUnavailableError, InsufficientMemoryError: the device.
        """
        model_name = checked_name(model_type, model_name, revision, variant)
        if from_device is not None:
            parse_device(from_device)
        family = family_facts(model_type, model_name).family
        wanted = {"family": family, "name": model_name, "revision": revision, "variant": variant}
        told = {name: value for name, value in wanted.items() if value is not None}

        def meant(entry: Entry) -> bool:
            identity = entry.facts.get("identity")
            return all(getattr(identity, name, None) == value for name, value in told.items())

        return self._mover.move(meant, f"{family}:{model_name}", device, from_device)

    def cleanup_unused_resources(self, max_age_minutes: float | None = None) -> dict[str, Any]:
        """Drop what nobody asked for within ``max_age_minutes``.

        Args:
            max_age_minutes: fractions are legal; the default is 30, in low-memory mode 10.

        Returns:
            ``removed`` (how many), ``freed_bytes`` (of models that are really gone),
            ``kept`` and ``held`` (key -> why it is still here).

        Raises:
            TypeError, ValueError: the age is no number, or below 0.
        """
        age = self._maintenance.max_age_minutes if max_age_minutes is None else max_age_minutes
        _checks.at_least_zero("max_age_minutes", age, "minutes")
        why = f"unused for {age:g} minutes"
        self._log.add(Event("cleanup", "", why))
        return self._told(self._maintenance.drop_older_than(60.0 * age, why))

    def clear(self) -> dict[str, Any]:
        """Drop everything that is not loading, leased or pinned; returns as the cleanup does."""
        why = "the pool is cleared"
        return self._told(self._evictor.evict(lambda _: True, why, even_used=True))

    def _told(self, removed: list[Any]) -> dict[str, Any]:
        self._loader.forget_routes()
        self._known.clear()
        entries = self._store.entries()
        freed = [item for item in removed if item.alive() is False]
        held = [item for item in removed if item.alive()]
        return {
            "removed": len(removed),
            "freed_bytes": sum(sum(item.sizes.values()) for item in freed),
            "kept": {entry.key: _why_kept(entry) for entry in entries},
            "held": {item.key: _why_held(item, entries) for item in held},
        }

    def enable_low_memory_mode(self) -> None:
        """Turn on low-memory mode; docs/low-memory.md has its effects in numbers."""
        if not self._mode.low_memory:
            logger.info("Low-memory mode is on.")
        self._maintenance.enable_low_memory()

    def _read_environment(self) -> None:
        value = os.environ.get("RESOURCE_POOL_LOW_MEMORY", "").strip().lower()
        if value not in ("", "0", "false", "no", "off"):
            self.enable_low_memory_mode()


def _why_held(item: Removed, kept: Sequence[Entry]) -> str:
    shared = next((entry.key for entry in kept if entry.key in item.sharers), "")
    others_have_all = shared and not any(item.sizes.values())
    return f"shared with {shared}" if others_have_all else "the caller still holds it"


def _why_kept(entry: Entry) -> str:
    if not entry.ready:
        return "it is being loaded"
    if entry.lessees:
        return "leased"
    if entry.pinned:
        return "pinned"
    return "used recently" if entry.keep_alive is None else "its keep_alive is not over"
