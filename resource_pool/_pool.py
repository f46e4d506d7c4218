"""The pool: the public methods, each a thin line from a request to the parts that serve it."""

from __future__ import annotations

import difflib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from resource_pool import _stats, _system
from resource_pool._aside import aside
from resource_pool._entries import Entry
from resource_pool._estimate import needed_bytes
from resource_pool._events import Event, EventLog
from resource_pool._experience import Estimate
from resource_pool._families import family_facts
from resource_pool._hardware import Hardware, detect
from resource_pool._identity import Identity
from resource_pool._lease import Lease
from resource_pool._loader import Loader
from resource_pool._maintenance import Maintenance, Monitor
from resource_pool._mode import Mode
from resource_pool._mover import Mover
from resource_pool._origin import plain
from resource_pool._plans import BROWSERS, Decision, Request, is_on, memory_place
from resource_pool._preferences import Preferences, parse_preferences
from resource_pool._store import Clock, Store, quoted
from resource_pool._system import system_memory
from resource_pool.devices import Devices, System
from resource_pool.devices.torch import TorchDevices

logger = logging.getLogger("resource_pool")

Constructor = Callable[[], Any]
Preferencelike = Mapping[str, Any] | None


class ResourcePool:
    """Shares models, tokenizers and other resources: each is loaded once.

    Every method may be called from any thread. A key has one load at a time, which all callers
    of that key wait for; loads of different keys run side by side, and a hit waits for nobody.

    Args:
        hardware: returns a report as ``hardware_detection.detect_available_hardware`` does;
            called at each load.
        devices: what moves and measures models.
        estimate: (model name, revision, dtype, family) -> bytes that it takes in use, before the
            load; None where that is unknown.
        clock: seconds on a clock that never goes back.
        system: tells the machine's memory.
        load_deadline: seconds that a thread waits for another's load; None waits for ever.
        monitor_interval: seconds between two looks at the machine's memory by a thread of the
            pool's own; None (and no ``RESOURCE_POOL_MONITOR``) starts no thread.
    """

    def __init__(
        self,
        *,
        hardware: Callable[[], Mapping[str, Any]] = detect,
        devices: Devices | None = None,
        estimate: Estimate = needed_bytes,
        clock: Clock = time.monotonic,
        system: System = _system,
        load_deadline: float | None = None,
        monitor_interval: float | None = None,
    ) -> None:
        self._hardware = Hardware(hardware)
        self._devices = devices or TorchDevices()
        self._system = system
        self._store = Store(clock, self._devices.parts)
        self._log = EventLog()
        self._mode = Mode()
        self._deadline = load_deadline
        self._loader = Loader(
            self._store,
            self._devices,
            self._hardware,
            self._log,
            estimate,
            self._mode,
            load_deadline,
        )
        self._evictor = self._loader.evictor
        # Requests without preferences -> key, so that a hit costs two look-ups. A row may be
        # stale, and then leads nowhere.
        self._known: dict[tuple[str, str, str | None, str | None], str] = {}
        self._maintenance = Maintenance(
            self._store, self._evictor, self._log, self._mode, self._system
        )
        self._mover = Mover(self._store, self._devices, self._loader, self._log)
        self._read_environment()
        interval = _monitor_interval() if monitor_interval is None else monitor_interval
        if interval is not None and not 0 < interval <= threading.TIMEOUT_MAX:
            raise ValueError(f"monitor_interval must be seconds above 0, not {interval!r}.")
        self._monitor = Monitor(self._maintenance, interval) if interval else None
        _pools.add(self)

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
        parts = [quoted(str(part)) for part in (resource_type, resource_id) if part is not None]
        key = ":".join(["resource", *parts])
        return self._store.get_or_load(key, "resource", constructor, self._deadline)

    def get_tokenizer(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor | None = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
    ) -> Any:
        """Return the tokenizer (or processor) of a model; errors as in :meth:`get_resource`.

        Args:
            variant: tells a tokenizer and a processor of one name apart.
        """
        model_name = os.fspath(model_name)
        family = family_facts(model_type, model_name).family
        identity = Identity(family, model_name, revision or "", variant or "")
        key = identity.tokenizer_key
        return self._store.get_or_load(key, "tokenizer", constructor, self._deadline)

    def get_model(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor | None = None,
        hardware_preferences: Preferencelike = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        needs: int | None = None,
        keep_alive: float | None = None,
    ) -> Any:
        """Return a model on the hardware that suits it, loading and placing it at most once.

        Args:
            model_type: a family ("embedding"), a model type ("bert") or anything; what is not
                a family is classified.
            model_name: the name under which the model is known.
            constructor: returns the model; called without arguments on a miss only, and again
                where memory ran out and there is something left to try.
            hardware_preferences: see docs/preferences.md for every key.
            revision: tells instances of two revisions apart.
            variant: tells instances of two classes of one name apart.
            needs: bytes that the model will take, where the caller knows.
            keep_alive: minutes after its last use for which cleanup leaves it alone.

        Returns:
            What the constructor returned, moved and cast. The same object for the same
            request, until it is dropped.

        Raises:
            PreferenceError: an unknown key or a wrong value in ``hardware_preferences``.
            DeviceUnavailableError: ``force_device`` is set and the device cannot be had.
            InsufficientMemoryError: it fits nowhere, even if every idle model goes.
            SharedObjectError: the constructor returned an object that is cached elsewhere.
            LoadTimeoutError: another thread's load passed the pool's ``load_deadline``.
            ValueError: ``keep_alive`` is negative or no number.
            Otherwise as in :meth:`get_resource`.
        """
        if keep_alive is not None and not keep_alive >= 0:
            raise ValueError(f"keep_alive must be 0 minutes or more, not {keep_alive!r}.")
        plain = (model_type, model_name, revision, variant)
        if hardware_preferences is None and keep_alive is None and not self._mode.low_memory:
            model = self._store.hit(self._known.get(plain, ""))
            if model is not None:
                return model
        identity, request = self._request(
            model_type, model_name, hardware_preferences, revision, variant, needs
        )
        entry, model = self._obtain(identity, request, constructor)
        if keep_alive is not None:
            entry.keep_alive = 60.0 * keep_alive
        elif hardware_preferences is None:
            self._known[plain] = entry.key
        return model

    def lease(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor | None = None,
        hardware_preferences: Preferencelike = None,
        *,
        revision: str | None = None,
        variant: str | None = None,
        needs: int | None = None,
    ) -> Lease:
        """Return a context that gives the model and protects it from eviction and moves.

        ``with`` or, in a coroutine, ``async with``, whose loading leaves the event loop free.

        Arguments and errors are those of :meth:`get_model`; nothing happens before the context
        is entered. A model that was changed inside (its training flags, hooks, parameters,
        dtype, device) is taken out of the pool at the end, and the log names the changes. If
        memory runs out inside, idle models are evicted, so that another try has room.
        """

        def acquire(thread: int) -> tuple[Entry, Any]:
            identity, request = self._request(
                model_type, model_name, hardware_preferences, revision, variant, needs
            )
            return self._obtain(identity, request, constructor, lessee=thread)

        return Lease(acquire, self._store, self._devices, self._evictor, self._log)

    async def aget_resource(self, *args: Any, **options: Any) -> Any:
        """Await :meth:`get_resource`, which runs in a thread; the event loop goes on.

        Who is cancelled leaves; the load ends all the same, for the next who asks.
        """
        return await _awaited(aside(self.get_resource, *args, **options))

    async def aget_tokenizer(self, *args: Any, **options: Any) -> Any:
        """Await :meth:`get_tokenizer` as :meth:`aget_resource` does."""
        return await _awaited(aside(self.get_tokenizer, *args, **options))

    async def aget_model(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor | None = None,
        hardware_preferences: Preferencelike = None,
        **options: Any,
    ) -> Any:
        """Await :meth:`get_model` as :meth:`aget_resource` does; a lease has ``async with``.

        A hit without preferences takes no thread.
        """
        if hardware_preferences is None and not options and not self._mode.low_memory:
            key = self._known.get((model_type, model_name, None, None), "")
            model = self._store.hit(key)
            if model is not None:
                return model
        arguments = (model_type, model_name, constructor, hardware_preferences)
        return await _awaited(aside(self.get_model, *arguments, **options))

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

    # -- looking -------------------------------------------------------------------------

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
            *self._request(model_type, model_name, hardware_preferences, revision, variant, needs)
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

    # -- moving and releasing ------------------------------------------------------------

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
            DeviceBusyError: it is leased, pinned, or cannot be moved as a whole; or there are
                several instances and ``from_device`` does not tell which.
            PreferenceError, DeviceUnavailableError, InsufficientMemoryError: the device.
        """
        model_name = os.fspath(model_name)
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
            ValueError: the age is negative or no number.
        """
        age = self._maintenance.max_age_minutes if max_age_minutes is None else max_age_minutes
        if not age >= 0:
            raise ValueError(f"max_age_minutes must be 0 or more, not {max_age_minutes!r}.")
        why = f"unused for {age:g} minutes"
        self._log.add(Event("cleanup", "", why))
        return self._told(self._maintenance.drop_older_than(60.0 * age, why))

    def clear(self) -> dict[str, Any]:
        """Drop everything that is not loading, leased or pinned; returns as the cleanup does."""
        return self._told(self._evictor.evict(lambda _: True, "the pool is cleared"))

    def _told(self, removed: list[Any]) -> dict[str, Any]:
        self._loader.forget_routes()
        self._known.clear()
        entries = self._store.entries()
        freed = [item for item in removed if item.alive() is False]
        held = [item for item in removed if item.alive()]
        return {
            "removed": len(removed),
            "freed_bytes": sum(item.facts.get("memory_usage", 0) for item in freed),
            "kept": {entry.key: _why_kept(entry) for entry in entries},
            "held": {item.key: "the caller still holds it" for item in held},
        }

    # -- modes ---------------------------------------------------------------------------

    def enable_low_memory_mode(self) -> None:
        """Turn on low-memory mode; docs/low-memory.md has its effects in numbers."""
        if not self._mode.low_memory:
            logger.info("Low-memory mode is on.")
        self._maintenance.enable_low_memory()

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

    # -- inside --------------------------------------------------------------------------

    def _request(
        self,
        model_type: str,
        model_name: str,
        hardware_preferences: Preferencelike,
        revision: str | None,
        variant: str | None,
        needs: int | None,
    ) -> tuple[Identity, Request]:
        model_name = os.fspath(model_name)  # a folder may come as a Path
        preferences = parse_preferences(hardware_preferences)
        facts = family_facts(preferences.model_family or model_type, model_name)
        identity = Identity(facts.family, model_name, revision or "", variant or "")
        request = Request(
            identity.label, preferences, facts.priority, facts.barred, facts.browsers or BROWSERS
        )
        if needs is not None and needs < 0:
            raise ValueError(f"needs must be 0 bytes or more, not {needs!r}.")
        return identity, request if needs is None else request.needing(needs)

    def _obtain(
        self,
        identity: Identity,
        request: Request,
        constructor: Constructor | None,
        *,
        lessee: int | None = None,
    ) -> tuple[Entry, Any]:
        preferences = request.preferences
        if preferences.force_low_memory:
            self.enable_low_memory_mode()
        # Whoever names devices has decided; an instance elsewhere would be a second one.
        if self._mode.low_memory and not (preferences.device or preferences.priority_list):
            self._mover.demote_idle(identity)

        def before_load() -> None:
            self._maintenance.look()
            self._ask_browsers(preferences)

        return self._loader.get(
            identity, request, constructor, before_load=before_load, lessee=lessee
        )

    def _ask_browsers(self, preferences: Preferences) -> None:
        """Start the browsers, whose answers are remembered, where the caller names one."""
        named = any(device.backend in BROWSERS for device in preferences.named)
        if named or (preferences.for_browsers and not preferences.named):
            self._hardware.ask_browsers()

    def _entry(self, key: str) -> Entry:
        entry = self._store.get(key)
        if entry is None or not entry.ready:
            known = [e.key for e in self._store.entries() if e.ready]
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.3)
            raise KeyError(f"{key!r} is not cached; nearest: {', '.join(near) or 'none'}")
        return entry

    def _after_fork(self) -> None:
        self._store.after_fork()
        self._loader.after_fork()
        self._log.after_fork()
        self._monitor = None  # its thread is in the parent


def _awaited(future: Any) -> Any:
    import asyncio

    return asyncio.wrap_future(future)


_pools: weakref.WeakSet[ResourcePool] = weakref.WeakSet()
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


def _after_fork() -> None:
    global _global_lock
    _global_lock = threading.Lock()
    for pool in _pools:
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _monitor_interval() -> float | None:
    text = os.environ.get("RESOURCE_POOL_MONITOR", "").strip()
    try:
        seconds = float(text) if text else 0.0
    except ValueError:
        logger.warning("RESOURCE_POOL_MONITOR is %r, which is no number of seconds.", text)
        return None
    if seconds <= 0:
        return None
    if not seconds <= threading.TIMEOUT_MAX:
        logger.warning("RESOURCE_POOL_MONITOR is %r, which no timer can wait for.", text)
        return None
    return seconds


def _why_kept(entry: Entry) -> str:
    if not entry.ready:
        return "it is being loaded"
    if entry.lessees:
        return "leased"
    if entry.pinned:
        return "pinned"
    return "used recently" if entry.keep_alive is None else "its keep_alive is not over"
