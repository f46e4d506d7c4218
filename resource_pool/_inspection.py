"""What a pool tells of itself: nothing is loaded, moved or dropped by asking."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any

from resource_pool import _checks, _stats
from resource_pool._entries import Entry
from resource_pool._events import Event, EventLog
from resource_pool._hardware import Hardware
from resource_pool._loader import Loader
from resource_pool._mode import Mode
from resource_pool._origin import plain
from resource_pool._plans import Decision, is_on, memory_place
from resource_pool._requests import Preferencelike, requested
from resource_pool._store import Store
from resource_pool._system import system_memory
from resource_pool.devices import Devices, System


class Inspection:
    """The part of a pool that only looks; ``ResourcePool`` makes the parts that it looks at."""

    _store: Store
    _devices: Devices
    _hardware: Hardware
    _system: System
    _log: EventLog
    _mode: Mode
    _loader: Loader

    @property
    def models(self) -> dict[str, Any]:
        """The cached models by key, as they are at this moment."""
        return {key: entry.value for key, entry in self._store.ready("model").items()}

    @property
    def _stats(self) -> dict[str, dict[str, Any]]:
        """Per model: ``memory_usage`` (bytes), ``memory_estimation_method``, ``device``, ..."""
        return {key: plain(entry.facts) for key, entry in self._store.ready("model").items()}

    def get_stats(self) -> dict[str, Any]:
        """Return usage, memory and hardware statistics as plain values; docs/statistics.md."""
        return _stats.collect(
            self._store,
            self._devices,
            self._log,
            self._hardware,
            low_memory=self._mode.low_memory,
            memory=self._system.memory(),
        )

    def get_resource_details(self, resource_key: str) -> dict[str, Any]:
        """Return what is known of one entry.

        Raises:
            KeyError: nothing is cached under the key; the message names the nearest keys.
        """
        entry = self._entry(resource_key)
        facts = _stats.model_facts(entry, self._store.clock())
        return {"key": entry.key, "kind": entry.kind, **facts}

    def events(self) -> list[Event]:
        """Return the last decisions of the pool, oldest first."""
        return self._log.all()

    def explain(
        self,
        model_type: str,
        model_name: str,
        hardware_preferences: Preferencelike = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        needs: int | None = None,
    ) -> Decision:
        """Return where such a model would go now, and what would go for it; nothing is done.

        ``needs`` is in bytes. Raises as :meth:`get_model` would for a lack of hardware or memory.
        """
        return self._loader.plan(
            *requested(model_type, model_name, hardware_preferences, revision, variant, needs)
        )

    def check_memory_pressure(self) -> bool:
        """Whether at least 90 % of the machine's memory is in use; False where unknown."""
        return bool(system_memory(self._system.memory()).get("under_pressure", False))

    def get_recommended_device(self, model_type: str, model_family: str | None = None) -> str:
        """Return the torch device, e.g. "cuda:0", on which the pool would put such a model."""
        return self.explain(model_family or model_type, model_type).device

    def __repr__(self) -> str:
        with self._store.lock:
            ready = [entry for entry in self._store.entries() if entry.ready]
            hits, misses = self._store.hits, self._store.misses
        models = sum(entry.kind == "model" for entry in ready)
        used = sum(sum(entry.charged.values()) for entry in ready) / 2**20
        return (
            f"<ResourcePool {models} models, {len(ready)} entries, "
            f"{used:.1f} MB, {hits} hits, {misses} misses>"
        )

    def generate_error_report(
        self,
        model_name: str,
        hardware_type: str,
        error_message: str | BaseException,
        stack_trace: str | None = None,
    ) -> dict[str, Any]:
        """Return a plain dictionary: what failed, why, what to do, what else is here.

        Of an exception as ``error_message``, type, text and trace are taken.

        Raises:
            TypeError: ``model_name`` or ``hardware_type`` is no text.
        """
        from resource_pool import reports  # needed only when something has failed

        _checks.text("model_name", model_name, "bert-base-uncased")
        _checks.text("hardware_type", hardware_type, "cuda")
        with self._store.lock:
            ledger = self._store.ledger
            named = [d for d in ledger.devices() if is_on(d, memory_place(hardware_type))]
            holders = [charge for device in named for charge in ledger.holders(device)]
        held_by = [{"key": charge.owner, "mb": charge.size / 2**20} for charge in holders]
        return reports.error_report(
            model_name,
            hardware_type,
            error_message,
            stack_trace,
            hardware=self._hardware.ask(),
            held_by=held_by,
        )

    def save_error_report(
        self, report: Mapping[str, Any], output_dir: str | os.PathLike[str] = "./hardware_reports"
    ) -> str:
        """Write a report as JSON into ``output_dir`` and return the file's path.

        Raises:
            OSError: the folder cannot be made or written; no half-written file is left.
        """
        from resource_pool import reports

        return str(reports.save(report, output_dir))

    def _entry(self, key: str) -> Entry:
        entry = self._store.get(_checks.text("key", key, "embedding:m:cpu:float32"))
        if entry is None or not entry.ready:
            known = [e.key for e in self._store.entries() if e.ready]
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.3)
            raise KeyError(f"{key!r} is not cached; nearest: {', '.join(near) or 'none'}")
        return entry
