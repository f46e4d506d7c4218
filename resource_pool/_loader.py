"""Brings models in: planned one at a time, loaded side by side, smaller when memory is short."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from resource_pool._entries import Entry
from resource_pool._events import Event, EventLog
from resource_pool._evicting import Evictor
from resource_pool._eviction import Candidate, choose
from resource_pool._hardware import CPU
from resource_pool._parts import Placed
from resource_pool._planner import (
    Decision,
    Request,
    Snapshot,
    decide,
    readable,
    torch_devices,
)
from resource_pool._store import Joined, Store, checked, quoted
from resource_pool.devices import Devices, Memory
from resource_pool.errors import (
    InsufficientMemoryError,
    LoadTimeoutError,
    ResourceNotFoundError,
    SharedObjectError,
)

logger = logging.getLogger("resource_pool")

Constructor = Callable[[], Any]
# (model name, revision, torch's name of the dtype or None) -> bytes, or None where unknown.
Estimate = Callable[[str, str, str | None], int | None]

# How long a device is passed over for a model that failed there for another reason than memory.
FAILURE_SECONDS = 60.0
# How often garbage is collected for the sake of evicted models that may be part of it.
COLLECT_EVERY_SECONDS = 1.0
# In low-memory mode, models stay in RAM while a GPU is fuller than this.
LOW_MEMORY_GPU_SHARE = 0.8


@dataclass(frozen=True)
class Identity:
    """What makes models differ, besides where they are and in which precision."""

    family: str
    name: str
    revision: str = ""
    variant: str = ""

    @property
    def label(self) -> str:
        """Return "family:name", as messages and the log say it."""
        return f"{self.family}:{self.name}"

    @property
    def tokenizer_key(self) -> str:
        """Return the key of the tokenizer."""
        return f"tokenizer:{self._stem}"

    def key(self, device: str, dtype: str | None) -> str:
        """Return the key of the instance on a device, in a dtype."""
        return f"{self._stem}:{device}:{dtype or 'native'}"

    @property
    def _stem(self) -> str:
        extra = f"@{quoted(self.revision)}" if self.revision else ""
        extra += f"#{quoted(self.variant)}" if self.variant else ""
        return f"{self.family}:{quoted(self.name)}{extra}"


@dataclass(frozen=True)
class _Route:
    """Where a request led. The same request leads there again while the model is cached."""

    key: str
    explicit: bool  # whether the caller named devices


@dataclass(frozen=True)
class _Loaded:
    value: Any
    facts: dict[str, Any]
    fingerprint: Any


class Loader:
    """Loads models into a store.

    ``_planning`` is held while one load is planned and what must go for it is going, so that two
    loads do not count on the same room. It is not held while a model loads, and no hit takes it.
    The store's lock guards ``_routes``, ``_failed``, ``_measured`` and ``_native``.
    """

    def __init__(
        self,
        store: Store,
        devices: Devices,
        hardware: Callable[[], Mapping[str, Any]],
        log: EventLog,
        estimate: Estimate,
        load_deadline: float | None = None,
    ) -> None:
        self.low_memory = False
        self.evictor = Evictor(store, devices, log)
        self._store, self._devices, self._log = store, devices, log
        self._hardware, self._estimate = hardware, estimate
        self._deadline = load_deadline
        self._planning = threading.Lock()
        self._placed = Placed()
        self._routes: dict[tuple[Any, ...], _Route] = {}
        self._failed: dict[tuple[Identity, str], tuple[float, str]] = {}
        self._collected_at = float("-inf")
        self._measured: dict[tuple[Identity, str | None], int] = {}
        self._native: dict[Identity, str] = {}  # the dtype that the constructor gives

    # -- the way in ----------------------------------------------------------------------

    def get(
        self,
        identity: Identity,
        request: Request,
        constructor: Constructor | None,
        *,
        before_load: Callable[[], None] = lambda: None,
        lease: bool = False,
    ) -> tuple[Entry, Any]:
        """Return the entry and the model of a request, loading it where it is not here."""
        signature = (identity, repr(request.preferences))
        joined = self._join(signature, lease=lease)
        if joined is not None:
            return joined.entry, self._wait(joined)
        before_load()
        with self._store.failing() as mine:
            with self._planning:
                # Whoever waited here may find that another thread has begun the load.
                found: Joined | Decision | None = self._join(signature, lease=lease)
                found = found or self._admit(
                    identity, request, signature, None if constructor is None else mine, lease=lease
                )
            if isinstance(found, Joined):
                return found.entry, self._wait(found)
            if constructor is None or found is None:
                raise ResourceNotFoundError(self._store.not_found(identity.label))
            return self._load(mine[0], found, identity, request, constructor)

    def plan(self, identity: Identity, request: Request) -> Decision:
        """Return what would be decided now, without doing it."""
        return decide(self._with_estimate(identity, request), self._snapshot(identity))

    def reroute(self, old: str, new: str) -> None:
        """Let requests that named no device follow a model that has moved."""
        with self._store.lock:
            for signature, route in self._routes.items():
                if route.key == old and not route.explicit:
                    self._routes[signature] = _Route(new, explicit=False)

    def forget_routes(self) -> None:
        """Drop the routes to models that are gone, and failures that are over."""
        with self._store.lock:
            live = {entry.key for entry in self._store.entries()}
            self._routes = {s: r for s, r in self._routes.items() if r.key in live}
            now = self._store.clock()
            self._failed = {k: f for k, f in self._failed.items() if f[0] > now}

    def after_fork(self) -> None:
        """In a forked child, where no other thread is left."""
        self._planning = threading.Lock()

    def _join(self, signature: tuple[Any, ...], *, lease: bool) -> Joined | None:
        with self._store.lock:
            route = self._routes.get(signature)
            return None if route is None else self._store.join(route.key, lease=lease)

    def _wait(self, joined: Joined) -> Any:
        try:
            return self._store.wait(joined, self._deadline)
        except LoadTimeoutError:
            self._store.abandon(joined.entry)
            raise

    # -- planning ------------------------------------------------------------------------

    def _admit(
        self,
        identity: Identity,
        request: Request,
        signature: tuple[Any, ...],
        mine: list[Entry] | None,
        *,
        lease: bool,
    ) -> Joined | Decision | None:
        """Plan, and join what is there under the same key by now; else make room and reserve.

        The new entry goes into ``mine``; with None, nothing is reserved. It ends, because each
        round evicts models that no later round can count on.
        """
        request = self._with_estimate(identity, request)
        while True:
            decision = decide(request, self._snapshot(identity))
            key = self._key(identity, decision)
            with self._store.lock:
                joined = self._store.join(key, lease=lease)
                if joined is None and mine is None:
                    self._store.misses += 1
                    return None
                if joined is not None or not decision.evict:
                    explicit = bool(request.preferences.device or request.preferences.priority_list)
                    self._routes[signature] = _Route(key, explicit)
                    if joined is None and mine is not None:
                        self._reserve(key, decision, mine, lease=lease)
                    return joined or decision
            why = f"room for {key}, which needs {readable(decision.needed or 0)}"
            self.evictor.evict(_among(decision.evict), why)

    def _reserve(self, key: str, decision: Decision, mine: list[Entry], *, lease: bool) -> None:
        self._store.misses += 1
        entry = self._store.reserve(key, "model", mine, lease=lease)
        sizes = decision.spread or {decision.device: decision.needed or 0}
        entry.charges = self._store.ledger.charge(key, sizes, "reserved")

    def _with_estimate(self, identity: Identity, request: Request) -> Request:
        if request.needed is not None:
            return request

        def needed(dtype: str | None) -> int | None:
            known = self._measured.get((identity, dtype))
            return known or self._estimate(identity.name, identity.revision, dtype)

        return replace(request, needed=needed)

    def _snapshot(self, identity: Identity) -> Snapshot:
        """Look at the machine first, then, under the lock, at the pool."""
        report = self._hardware()
        names = torch_devices(report)
        memory = {name: self._devices.memory(name) or known for name, known in names.items()}
        self._settle()
        with self._store.lock:
            ledger, now = self._store.ledger, self._store.clock()
            free = {
                name: _free(m, ledger.total(name), ledger.total(name, "reserved"))
                for name, m in memory.items()
                if m is not None
            }
            idle = {name: tuple(self._candidates(name)) for name in memory}
            held = {name: _held(ledger.holders(name)) for name in memory}
            failed = {
                device: reason
                for (who, device), (until, reason) in self._failed.items()
                if who == identity and until > now
            }
        if self.low_memory:
            failed |= _kept_in_ram(memory)
        return Snapshot(report, free, idle, held, failed)

    def _settle(self) -> None:
        """Strike out what has gone; what is leaving may only wait for the garbage collector."""
        with self._store.lock:
            self._store.settle()
            now = self._store.clock()
            due = now - self._collected_at >= COLLECT_EVERY_SECONDS
            collect = due and self._store.ledger.has("leaving")
            if collect:
                self._collected_at = now
        if collect:
            gc.collect()
            self._store.settle()

    def _candidates(self, device: str) -> list[Candidate]:
        return [
            Candidate(
                entry.key,
                entry.facts.get("sizes", {}).get(device, 0),
                entry.hits,
                entry.load_seconds,
                entry.floor,
                entry.seems_held(),
            )
            for entry in self._store.entries()
            if entry.kind == "model" and entry.movable
        ]

    # -- loading -------------------------------------------------------------------------

    def _load(
        self,
        entry: Entry,
        decision: Decision,
        identity: Identity,
        request: Request,
        constructor: Constructor,
    ) -> tuple[Entry, Any]:
        """Load with all the means against a lack of memory, one after the other."""
        means = self._means(identity, request, decision)
        while True:
            loaded = self._attempt(entry, decision, identity, constructor)
            if isinstance(loaded, _Loaded):
                break
            # Here the except block is left, and with it the traceback that pins tensors.
            self._devices.release([*_names(decision)])
            step = next(means, None)
            if step is None:
                raise loaded
            self._log.add(Event("oom_recovery", entry.key, f"{step[0]} after: {loaded}"))
            logger.warning("%s: out of memory; %s", identity.label, step[0])
            decision = step[1]
            other = self._store.rekey(entry, self._key(identity, decision))
            if other is not None:
                return self._follow(entry, other)
        other = self._learn(entry, identity, decision, loaded.facts)
        if other is not None:
            return self._follow(entry, other)
        self._store.publish(entry, loaded.value, loaded.facts, loaded.fingerprint)
        return entry, loaded.value

    def _key(self, identity: Identity, decision: Decision) -> str:
        """Return the key, in which a model's own dtype has its name once it is known."""
        return identity.key(decision.device, decision.dtype or self._native.get(identity))

    def _learn(
        self, entry: Entry, identity: Identity, decision: Decision, facts: Mapping[str, Any]
    ) -> Entry | None:
        """Note what a load showed: the bytes, and the dtype that is the model's own.

        Returns:
            The instance in that very dtype which is cached already, if there is one.
        """
        with self._store.lock:
            self._measured[identity, decision.dtype] = facts["memory_usage"]
            if decision.dtype is not None or not facts["sizes"]:
                return None
            self._native[identity] = facts["dtype"]
            old, new = entry.key, self._key(identity, decision)
            for signature, route in self._routes.items():
                if route.key == old:
                    self._routes[signature] = replace(route, key=new)
            return self._store.rekey(entry, new)

    def _follow(self, entry: Entry, other: Entry) -> tuple[Entry, Any]:
        """Hand out the instance that is there already in place of the one that had no room."""
        joined = self._store.join(other.key)
        if joined is None:
            raise InsufficientMemoryError(f"{entry.key} had no room, and {other.key} has gone.")
        value = self._wait(joined)
        self._store.publish(entry, value, {})
        return other, value

    def _attempt(
        self, entry: Entry, decision: Decision, identity: Identity, constructor: Constructor
    ) -> _Loaded | Exception:
        """Construct and place once; return the error, without its frames, if memory ran out."""
        try:
            value = checked(entry.key, constructor)
            return self._place(entry, value, decision, identity)
        except SharedObjectError:
            raise
        except Exception as error:
            if not self._devices.is_out_of_memory(error):
                raise
            logger.debug("%s: out of memory", entry.key, exc_info=True)
            error.__context__ = error.__cause__ = None
            return error.with_traceback(None)

    def _place(self, entry: Entry, value: Any, decision: Decision, identity: Identity) -> _Loaded:
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
            self._remember_failure(identity, decision.device, error)
            raise
        if left:
            logger.info("%s is left where it is: %s.", identity.label, left)
        else:
            logger.info("Selected optimal device for %s: %s", identity.label, decision.device)
        facts = self._devices.describe(value)
        facts["backend"] = "unknown" if left else decision.backend
        facts["weights"] = provenance(value)
        facts |= {"needed": decision.needed, "identity": identity}
        numbers = {name: facts[name] for name in ("device", "dtype", "memory_usage", "weights")}
        numbers |= {"backend": facts["backend"], "predicted": decision.needed}
        self._log.add(Event("place", entry.key, "; ".join(decision.notes), numbers))
        return _Loaded(value, facts, self._devices.fingerprint(value))

    def _remember_failure(self, identity: Identity, device: str, error: Exception) -> None:
        """Pass a device over for a while where a model failed for good; a lack of memory passes."""
        if device == CPU or self._devices.is_out_of_memory(error):
            return
        reason = f"it failed there a short while ago ({type(error).__name__}: {error})"
        with self._store.lock:
            until = self._store.clock() + FAILURE_SECONDS
            self._failed[identity, device] = (until, reason)

    def _refuse_shared(self, entry: Entry, value: Any, decision: Decision) -> None:
        """Placing what was handed out before would move it behind its holder's back."""
        parts = self._devices.parts(value)
        owner = self._placed.claim(parts, entry.created_for, entry.key)
        if owner and self._devices.would_change(value, decision.device, decision.dtype):
            raise SharedObjectError(
                f"The constructor of {entry.key} returned an object that shares parameters with "
                f"{owner}; it must load an instance of its own."
            )

    # -- when memory is short ------------------------------------------------------------

    def _means(
        self, identity: Identity, request: Request, first: Decision
    ) -> Iterator[tuple[str, Decision]]:
        """Yield what to try next, each at most once: (what was done, the decision to load by).

        Least harm first: the idle models that are enough, all idle models, a smaller dtype,
        another GPU, the CPU.
        """
        yield from self._by_evicting(first)
        smaller = self._smaller_dtype(request, first)
        if smaller is not None:
            yield f"loading it in {smaller}", replace(first, dtype=smaller)
        if request.preferences.force_device:
            return
        snapshot = self._snapshot(identity)
        for name in sorted(snapshot.free, key=lambda n: -snapshot.free[n]):
            if name not in (CPU, *_names(first)) and name.startswith(first.device.split(":")[0]):
                yield f"trying {name}", replace(first, device=name, evict=(), spread=None)
        if first.device != CPU:
            yield "trying the CPU", Decision(CPU, CPU, None, needed=first.needed)

    def _by_evicting(self, decision: Decision) -> Iterator[tuple[str, Decision]]:
        for name in _names(decision):
            with self._store.lock:
                idle = [c for c in self._candidates(name) if not c.held]
            enough = choose(idle, decision.needed or 1)
            for some, told in ((enough, "what frees enough"), (idle, "everything idle")):
                keys = {candidate.key for candidate in some or ()}
                why = "memory ran out"
                if keys and self.evictor.evict(_among(keys), why):
                    yield f"evicted {told} on {name}", decision

    def _smaller_dtype(self, request: Request, decision: Decision) -> str | None:
        """Return the half type that the device proved, unless the caller chose a precision."""
        if request.preferences.precision or decision.backend == CPU:
            return None
        devices = self._hardware().get("details", {}).get(decision.backend, {}).get("devices", ())
        proved = {dtype for device in devices for dtype in device.get("dtypes", ())}
        names = {"bf16": "bfloat16", "fp16": "float16"}
        return next((names[short] for short in names if short in proved), None)


def _among(keys: Collection[str]) -> Callable[[Entry], bool]:
    return lambda entry: entry.key in keys


def _free(memory: Memory, charged: int, reserved: int) -> int:
    """Return what a new model may take: by the driver's word and by the ledger's, the smaller.

    What is reserved may not be allocated yet, and then the driver still counts it as free.
    """
    return max(0, min(memory.free - reserved, memory.total - charged))


def _kept_in_ram(memory: Mapping[str, Memory | None]) -> dict[str, str]:
    share = f"{LOW_MEMORY_GPU_SHARE:.0%}"
    return {
        name: f"low-memory mode keeps models in RAM while it is more than {share} full"
        for name, m in memory.items()
        if name != CPU and m is not None and m.free < (1 - LOW_MEMORY_GPU_SHARE) * m.total
    }


def _held(charges: list[Any]) -> str:
    shown = [
        f"{readable(charge.size)} held by {charge.owner}" for charge in charges[:3] if charge.size
    ]
    return ", ".join(shown)


def _names(decision: Decision) -> tuple[str, ...]:
    return tuple(decision.spread or (decision.device,))
