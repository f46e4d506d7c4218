"""The pool: the public methods, each a thin line from a decision to an action."""

from __future__ import annotations

import difflib
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resource_pool import _stats
from resource_pool._events import Event, EventLog
from resource_pool._families import FamilyFacts, family_facts
from resource_pool._hardware import detect
from resource_pool._planner import Decision, Request, decide
from resource_pool._preferences import Preferences, parse_preferences
from resource_pool._store import Clock, Entry, Removed, Store
from resource_pool._system import system_memory
from resource_pool.devices import torch as torch_devices
from resource_pool.errors import SharedObjectError

logger = logging.getLogger("resource_pool")

Constructor = Callable[[], Any]
DEFAULT_MAX_AGE_MINUTES = 30.0
LOW_MEMORY_MAX_AGE_MINUTES = 10.0


@dataclass(frozen=True)
class _Route:
    """Where a request led: the key of its entry, and the decision that made the key."""

    key: str
    label: str
    decision: Decision


class ResourcePool:
    """Shares models, tokenizers and other resources: each is loaded once.

    Every method may be called from any thread. A key has one load at a time, which all callers
    of that key wait for; loads of different keys run side by side, and a hit waits for nobody.

    Args:
        hardware: returns a report as ``hardware_detection.detect_available_hardware`` does;
            called when a model is first placed, and again at each load.
        clock: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        *,
        hardware: Callable[[], Mapping[str, Any]] = detect,
        clock: Clock = time.monotonic,
    ) -> None:
        self._hardware = hardware
        self._store = Store(clock)
        self._log = EventLog()
        self._lock = threading.Lock()  # guards _routes
        self._routes: dict[tuple[str, ...], _Route] = {}
        self._low_memory = False
        self._read_environment()

    # -- getting -------------------------------------------------------------------------

    def get_resource(
        self,
        resource_type: str,
        resource_id: str | None = None,
        constructor: Constructor | None = None,
    ) -> Any:
        """Return the resource of that type and id, calling ``constructor`` where it is not here.

        Raises:
            ResourceNotFoundError: it is not cached and there is no constructor.
            NoneResourceError: the constructor returned None.
            Exception: whatever the constructor raised; nothing is cached then.
        """
        key = _key("resource", resource_type, resource_id)
        return self._store.get_or_load(key, "resource", constructor)

    def get_tokenizer(
        self, model_type: str, model_name: str, constructor: Constructor | None = None
    ) -> Any:
        """Return the tokenizer (or processor) of a model; errors as in :meth:`get_resource`."""
        family = family_facts(model_type, model_name).family
        key = _key("tokenizer", family, model_name)
        return self._store.get_or_load(key, "tokenizer", constructor)

    def get_model(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor | None = None,
        hardware_preferences: Mapping[str, Any] | None = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
    ) -> Any:
        """Return a model on the hardware that suits it, loading and placing it at most once.

        Args:
            model_type: a family ("embedding"), a model type ("bert") or anything; what is not
                a family is classified.
            model_name: the name under which the model is known.
            constructor: returns the model; called without arguments on a miss only.
            hardware_preferences: see docs/preferences.md for every key.
            revision: tells instances of two revisions apart.
            variant: tells instances of two classes of one name apart.

        Returns:
            What the constructor returned, moved and cast. The same object for the same
            request, until it is dropped.

        Raises:
            PreferenceError: an unknown key or a wrong value in ``hardware_preferences``.
            DeviceUnavailableError: ``force_device`` is set and the device cannot be had.
            SharedObjectError: the constructor returned an object that is cached elsewhere.
            Otherwise as in :meth:`get_resource`.
        """
        preferences = parse_preferences(hardware_preferences)
        facts = family_facts(model_type, model_name)
        identity = (facts.family, model_name, revision or "", variant or "")
        route = self._route(identity, preferences, facts)
        return self._store.get_or_load(
            route.key,
            "model",
            constructor,
            lambda model: self._place(model, route),
        )

    # -- looking -------------------------------------------------------------------------

    @property
    def models(self) -> dict[str, Any]:
        """The cached models by key, as they are at this moment."""
        return {key: entry.future.result() for key, entry in self._store.ready("model").items()}

    @property
    def _stats(self) -> dict[str, dict[str, Any]]:
        """Per model: ``memory_usage`` (bytes), ``memory_estimation_method``, ``device``, ..."""
        return {key: dict(entry.facts) for key, entry in self._store.ready("model").items()}

    def get_stats(self) -> dict[str, Any]:
        """Return usage, memory and hardware statistics as plain values; docs/statistics.md."""
        return _stats.collect(self._store, self._log, low_memory=self._low_memory)

    def get_resource_details(self, resource_key: str) -> dict[str, Any]:
        """Return what is known of one entry.

        Raises:
            KeyError: nothing is cached under the key; the message names the nearest keys.
        """
        entries = {entry.key: entry for entry in self._store.entries() if entry.ready}
        if resource_key not in entries:
            near = difflib.get_close_matches(resource_key, entries, n=3, cutoff=0.3)
            raise KeyError(f"{resource_key!r} is not cached; nearest: {', '.join(near) or 'none'}")
        entry = entries[resource_key]
        return {
            "key": entry.key,
            "kind": entry.kind,
            **_stats.model_facts(entry, self._store.now()),
        }

    def events(self) -> list[Event]:
        """Return the last decisions of the pool, oldest first."""
        return self._log.all()

    def check_memory_pressure(self) -> bool:
        """Whether at least 90 % of the machine's memory is in use; False where unknown."""
        return bool(system_memory().get("under_pressure", False))

    def get_recommended_device(self, model_type: str, model_family: str | None = None) -> str:
        """Return the torch device, e.g. "cuda:0", on which the pool would put such a model."""
        facts = family_facts(model_family or model_type, model_type)
        request = Request(model_type, Preferences(), facts.priority, facts.barred)
        return decide(request, self._hardware()).device

    def __repr__(self) -> str:
        stats = self.get_stats()
        return (
            f"<ResourcePool {stats['cached_models']} models, {stats['cached_resources']} entries, "
            f"{stats['memory_usage_mb']:.1f} MB, {stats['hits']} hits, {stats['misses']} misses>"
        )

    # -- releasing -----------------------------------------------------------------------

    def cleanup_unused_resources(self, max_age_minutes: float | None = None) -> dict[str, Any]:
        """Drop what nobody asked for within ``max_age_minutes``.

        Args:
            max_age_minutes: fractions are legal; the default is 30, in low-memory mode 10.

        Returns:
            ``removed`` (how many), ``freed_bytes`` (of models that are really gone),
            ``kept`` and ``held`` (key -> why it is still here).
        """
        if max_age_minutes is None:
            low = self._low_memory
            max_age_minutes = LOW_MEMORY_MAX_AGE_MINUTES if low else DEFAULT_MAX_AGE_MINUTES
        if not max_age_minutes >= 0:
            raise ValueError(f"max_age_minutes must be 0 or more, not {max_age_minutes!r}.")
        oldest = self._store.now() - 60.0 * max_age_minutes
        self._log.add(Event("cleanup", "", f"idle for more than {max_age_minutes} minutes"))
        return self._drop(lambda entry: entry.last_used <= oldest)

    def clear(self) -> dict[str, Any]:
        """Drop everything that is not being loaded; returns as cleanup_unused_resources does."""
        return self._drop(lambda _: True)

    def _drop(self, doomed: Callable[[Entry], bool]) -> dict[str, Any]:
        removed = self._store.remove(doomed)
        if removed:
            gc.collect()
            torch_devices.release_cached_memory()
        for item in removed:
            self._log.add(Event("evict", item.key))
        live = {entry.key: entry for entry in self._store.entries()}
        with self._lock:
            self._routes = {sign: r for sign, r in self._routes.items() if r.key in live}
        held = [item for item in removed if item.alive()]
        freed = sum(_bytes(item) for item in removed if item.alive() is False)
        return {
            "removed": len(removed),
            "freed_bytes": freed,
            "kept": {key: _why_kept(entry) for key, entry in live.items()},
            "held": {item.key: "the caller still holds it" for item in held},
        }

    # -- modes ---------------------------------------------------------------------------

    def enable_low_memory_mode(self) -> None:
        """Turn on low-memory mode: unused resources are dropped after 10 minutes, not 30."""
        if not self._low_memory:
            self._low_memory = True
            logger.info("Low-memory mode is on.")

    def _read_environment(self) -> None:
        value = os.environ.get("RESOURCE_POOL_LOW_MEMORY", "").strip().lower()
        if value not in ("", "0", "false", "no", "off"):
            self.enable_low_memory_mode()

    # -- errors --------------------------------------------------------------------------

    def generate_error_report(
        self,
        model_name: str,
        hardware_type: str,
        error_message: str,
        stack_trace: str | None = None,
    ) -> dict[str, Any]:
        """Return a plain dictionary: what failed, why, what to do, what else is here."""
        from resource_pool import reports  # needed only when something has failed

        return reports.error_report(
            model_name, hardware_type, error_message, stack_trace, hardware=self._hardware()
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

    # -- inside --------------------------------------------------------------------------

    def _route(
        self, identity: tuple[str, ...], preferences: Preferences, facts: FamilyFacts
    ) -> _Route:
        """Return the key that this request led to before, while it is cached, or decide anew.

        So the same request gives the same instance, however much memory is free by now.
        """
        signature = (*identity, repr(preferences))
        with self._lock:
            route = self._routes.get(signature)
        if route is None or not self._store.has(route.key):
            label = ":".join(part for part in identity[:2] if part)
            request = Request(label, preferences, facts.priority, facts.barred)
            decision = decide(request, self._hardware())
            route = _Route(_model_key(identity, decision), label, decision)
            with self._lock:
                self._routes[signature] = route
        return route

    def _place(self, model: Any, route: _Route) -> dict[str, Any]:
        """Put a new model where it was decided, and return what it then is."""
        from resource_pool.weights import provenance

        decision = route.decision
        if decision.notes:
            logger.warning("%s goes to %s: %s", route.label, decision.device, _told(decision))
        self._refuse_shared(model, route)
        left = torch_devices.place(model, decision.device, decision.dtype)
        if left:
            logger.info("%s is left where it is: %s.", route.label, left)
        else:
            logger.info("Selected optimal device for %s: %s", route.label, decision.device)
        facts = torch_devices.describe(model)
        facts["backend"] = "unknown" if left else decision.backend
        facts["weights"] = provenance(model)
        self._log.add(Event("place", route.key, _told(decision), dict(facts)))
        return facts

    def _refuse_shared(self, model: Any, route: _Route) -> None:
        """Placing an object that is cached already would move it behind a holder's back."""
        if not torch_devices.is_module(model):
            return
        wanted = route.decision
        for key, entry in self._store.ready("model").items():
            stays = entry.facts["device"] == wanted.device and wanted.dtype in (
                None,
                entry.facts["dtype"],
            )
            if entry.future.result() is model and not stays:
                raise SharedObjectError(
                    f"The constructor of {route.key} returned the object that is cached as {key}; "
                    "it must load an instance of its own."
                )


_global_pool: ResourcePool | None = None
_global_lock = threading.Lock()  # guards _global_pool


def get_global_resource_pool() -> ResourcePool:
    """Return the one pool of this process.

    The environment is read again at each call, so that ``RESOURCE_POOL_LOW_MEMORY=1`` works
    when it is set later; nothing in the environment turns the mode off again.
    """
    global _global_pool
    with _global_lock:
        if _global_pool is None:
            _global_pool = ResourcePool()
        else:
            _global_pool._read_environment()
        return _global_pool


def _key(*parts: str | None) -> str:
    return ":".join(str(part) for part in parts if part)


def _model_key(identity: tuple[str, ...], decision: Decision) -> str:
    family, name, revision, variant = identity
    extra = [f"@{revision}"] if revision else []
    extra += [f"#{variant}"] if variant else []
    return _key(family, name + "".join(extra), decision.device, decision.dtype or "native")


def _told(decision: Decision) -> str:
    return "; ".join(decision.notes)


def _bytes(item: Removed) -> int:
    return int(item.facts.get("memory_usage", 0))


def _why_kept(entry: Entry) -> str:
    return "used recently" if entry.ready else "it is being loaded"
