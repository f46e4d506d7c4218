"""The pool: the public methods, each a thin line from a request to the parts that serve it."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from resource_pool import _checks, _system
from resource_pool._aside import awaited
from resource_pool._entries import Entry, Lessee
from resource_pool._estimate import needed_bytes
from resource_pool._events import EventLog
from resource_pool._experience import Estimate
from resource_pool._families import family_facts
from resource_pool._hardware import Hardware, detect
from resource_pool._identity import Identity
from resource_pool._lease import Lease
from resource_pool._loader import Loader
from resource_pool._maintenance import Maintenance, Monitor, interval_from_environment
from resource_pool._management import Management
from resource_pool._mode import Mode
from resource_pool._mover import Mover
from resource_pool._plans import BROWSERS, Request
from resource_pool._preferences import Preferences
from resource_pool._requests import Preferencelike, checked_name, requested
from resource_pool._shelf import Clock
from resource_pool._store import Store, quoted
from resource_pool.devices import Devices, System
from resource_pool.devices.torch import TorchDevices

Constructor = Callable[[], Any]


class ResourcePool(Management):
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
        _checks.waiting_time("load_deadline", load_deadline)
        self._hardware = Hardware(hardware)
        self._devices = devices or TorchDevices()
        self._system = system
        self._store = Store(clock, self._devices)
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
        self._known = {}
        self._maintenance = Maintenance(
            self._store, self._evictor, self._log, self._mode, self._system
        )
        self._mover = Mover(self._store, self._devices, self._loader, self._log)
        self._read_environment()
        interval = interval_from_environment() if monitor_interval is None else monitor_interval
        _checks.waiting_time("monitor_interval", interval)
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
        model_name = checked_name(model_type, model_name, revision, variant)
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
            TypeError, ValueError: an argument is not what it is said to be here.
            Otherwise as in :meth:`get_resource`.
        """
        if keep_alive is not None:
            _checks.at_least_zero("keep_alive", keep_alive, "minutes")
        plain = (model_type, model_name, revision, variant)
        if hardware_preferences is None and keep_alive is None and not self._mode.low_memory:
            try:
                key = self._known.get(plain, "")
            except TypeError:  # of what is no text; told below
                key = ""
            model = self._store.hit(key)
            if model is not None:
                return model
        identity, request = requested(
            model_type, model_name, hardware_preferences, revision, variant, needs
        )
        entry, model = self._obtain(identity, request, constructor)
        if keep_alive is not None:
            self._store.current(entry).keep_alive = 60.0 * keep_alive
        elif hardware_preferences is None and identity not in self._mover.demoted:
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

        def acquire(lessee: Lessee) -> tuple[Entry, Any]:
            identity, request = requested(
                model_type, model_name, hardware_preferences, revision, variant, needs
            )
            return self._obtain(identity, request, constructor, lessee=lessee)

        return Lease(acquire, self._store, self._devices, self._evictor, self._log)

    async def aget_resource(self, *args: Any, **options: Any) -> Any:
        """Await :meth:`get_resource`, which runs in a thread; the event loop goes on.

        Who is cancelled leaves; the load ends all the same, for the next who asks.
        """
        return await awaited(self.get_resource, *args, **options)

    async def aget_tokenizer(self, *args: Any, **options: Any) -> Any:
        """Await :meth:`get_tokenizer` as :meth:`aget_resource` does."""
        return await awaited(self.get_tokenizer, *args, **options)

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
            try:
                key = self._known.get((model_type, model_name, None, None), "")
            except TypeError:  # told by get_model
                key = ""
            model = self._store.hit(key)
            if model is not None:
                return model
        arguments = (model_type, model_name, constructor, hardware_preferences)
        return await awaited(self.get_model, *arguments, **options)

    def _obtain(
        self,
        identity: Identity,
        request: Request,
        constructor: Constructor | None,
        *,
        lessee: Lessee | None = None,
    ) -> tuple[Entry, Any]:
        preferences = request.preferences
        if preferences.force_low_memory:
            self.enable_low_memory_mode()
        if self._mode.low_memory:
            self._maintenance.look_at_mode()
        # Whoever names devices has decided; an instance elsewhere would be a second one.
        if not (preferences.device or preferences.priority_list):
            if self._mode.low_memory:
                self._mover.demote_idle(identity)
            elif identity in self._mover.demoted:
                self._mover.bring_back(identity, request)
            request = self._mover.in_ram(identity, request)

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

    def _after_fork(self) -> None:
        self._store.after_fork()
        self._loader.after_fork()
        self._log.after_fork()
        self._monitor = None  # its thread is in the parent


_pools: weakref.WeakSet[ResourcePool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
