"""Random sequences of calls against a model of what must always hold."""

from __future__ import annotations

import gc
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from resource_pool import (
    DeviceBusyError,
    InsufficientMemoryError,
    ResourceNotFoundError,
    SharedObjectError,
)
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
SIZES = {"a": 10, "b": 25, "c": 40, "d": 60, "e": 90}
WISHES = st.sampled_from(
    [None, {"device": "cuda"}, {"device": "cuda:1"}, {"device": "cpu"}, {"precision": "fp16"}]
)
TELL = st.booleans()  # whether the caller tells how many bytes the model takes


class PoolMachine(RuleBasedStateMachine):
    """A pool on a machine with little memory, and what its callers hold."""

    def __init__(self) -> None:
        super().__init__()
        gc.freeze()  # what other tests have loaded makes each collection take half a second
        self.machine = FakeMachine({"cpu": 300, "cuda:0": 100, "cuda:1": 80})
        self.pool = self.machine.pool()
        self.leases: list[tuple[Any, FakeModel, str, str]] = []
        self.held: list[tuple[FakeModel, str, str]] = []

    def options(self, name: str, tell: bool) -> dict[str, Any]:
        return {"needs": SIZES[name] * MIB} if tell else {}

    @rule(name=NAMES, wish=WISHES, tell=TELL, keep=st.booleans())
    def get(self, name: str, wish: Any, tell: bool, keep: bool) -> None:
        load = self.machine.loader(SIZES[name])
        try:
            model = self.pool.get_model("vision", name, load, wish, **self.options(name, tell))
        except (InsufficientMemoryError, OutOfFakeMemoryError):
            return
        if keep:
            self.held.append((model, model.device, model.dtype))

    @precondition(lambda self: self.held)
    @rule(name=NAMES, index=st.integers(0, 100))
    def get_again(self, name: str, index: int) -> None:
        """The constructor returns an object that was loaded before, cached by now or not."""
        model, device, _ = self.held[index % len(self.held)]
        self.get_of(name, device, lambda: model, variant="again")

    @precondition(lambda self: self.held)
    @rule(name=NAMES, index=st.integers(0, 100), keep=st.booleans())
    def get_sharing(self, name: str, index: int, keep: bool) -> None:
        """The constructor returns a head on the body of one that was loaded before."""
        body, device, _ = self.held[index % len(self.held)]
        body = body.parts[-1]

        def load() -> FakeModel:
            head = FakeModel(self.machine, 5, body)
            head.dtype = body.dtype
            self.machine.devices.put(head, {device: 5 * MIB})
            return head

        model = self.get_of(name, device, load, variant=f"head {index % 3}")
        if keep and model is not None:
            self.held.append((model, model.device, model.dtype))

    def get_of(self, name: str, device: str, load: Any, variant: str) -> FakeModel | None:
        if "+" in device:
            return None
        try:
            return self.pool.get_model("vision", name, load, {"device": device}, variant=variant)
        except (InsufficientMemoryError, SharedObjectError, OutOfFakeMemoryError):
            return None

    @rule(name=NAMES, wish=WISHES, tell=TELL)
    def lease(self, name: str, wish: Any, tell: bool) -> None:
        load = self.machine.loader(SIZES[name])
        lease = self.pool.lease("vision", name, load, wish, **self.options(name, tell))
        try:
            model = lease.__enter__()
        except (InsufficientMemoryError, OutOfFakeMemoryError):
            return
        self.leases.append((lease, model, model.device, model.dtype))

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(0, 100), change=st.booleans())
    def release(self, index: int, change: bool) -> None:
        lease, model, _, _ = self.leases.pop(index % len(self.leases))
        alone = all(model is not other for _, other, _, _ in self.leases)
        if change and alone:
            model.training = not model.training
        lease.__exit__(None, None, None)
        if change and alone:
            assert all(model is not cached for cached in self.pool.models.values())

    @rule(name=NAMES, device=st.sampled_from(["cpu", "cuda:0", "cuda:1"]))
    def move(self, name: str, device: str) -> None:
        try:
            model = self.pool.move_model_to_device("vision", name, device)
        except (DeviceBusyError, ResourceNotFoundError, InsufficientMemoryError):
            return
        except OutOfFakeMemoryError:
            return
        assert model.device == device
        # A move is the caller's consent for whoever holds the model.
        self.held = [row for row in self.held if row[0] is not model]

    @rule()
    def drop_what_is_held(self) -> None:
        self.held.clear()

    @rule(minutes=st.sampled_from([0.0, 1.0]))
    def cleanup(self, minutes: float) -> None:
        self.pool.cleanup_unused_resources(max_age_minutes=minutes)

    @rule()
    def clear(self) -> None:
        self.pool.clear()
        leased = {id(model) for _, model, _, _ in self.leases}
        assert {id(model) for model in self.pool.models.values()} <= leased

    @rule(seconds=st.sampled_from([1.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.machine.clock.now += seconds

    @invariant()
    def no_device_is_overbooked(self) -> None:
        for name, facts in self.pool.get_stats()["devices"].items():
            assert facts["used_mb"] + facts["reserved_mb"] <= facts["budget_mb"] + 1e-6, name

    @invariant()
    def nothing_stays_reserved(self) -> None:
        devices = self.pool.get_stats()["devices"].values()
        assert sum(facts["reserved_mb"] for facts in devices) == 0

    @invariant()
    def what_is_leased_or_held_is_where_it_was(self) -> None:
        rows = [(m, d, t) for _, m, d, t in self.leases] + self.held
        for model, device, dtype in rows:
            assert (model.device, model.dtype) == (device, dtype)

    @invariant()
    def what_is_leased_and_unchanged_is_cached(self) -> None:
        cached = {id(model) for model in self.pool.models.values()}
        assert all(id(m) in cached for _, m, _, _ in self.leases if not m.training)

    @invariant()
    def the_statistics_are_true(self) -> None:
        for key, model in self.pool.models.items():
            facts = self.pool._stats[key]
            assert (facts["device"], facts["dtype"]) == (model.device, model.dtype)
            assert facts["sizes"] == self.machine.devices.describe(model)["sizes"]

    @invariant()
    def what_lives_is_charged_once(self) -> None:
        """What is cached, exactly; what is leaving, until all of it has gone: part of it may be."""
        gc.collect()
        self.pool.get_stats()  # counts what has gone
        ledger = self.pool._store.ledger
        for name, total in self.machine.devices.totals.items():
            used, leaving = ledger.total(name, "used"), ledger.total(name, "leaving")
            lives = total - self.machine.devices.memory(name).free
            parts = {part for model in self.pool.models.values() for part in model.parts}
            assert used == sum(part.sizes.get(name, 0) for part in parts), name
            assert lives <= used + leaving, name

    def teardown(self) -> None:
        """After all leases and holders are gone, clear leaves nothing behind."""
        for lease, _, _, _ in self.leases:
            lease.__exit__(None, None, None)
        self.leases.clear()
        self.held.clear()
        self.pool.clear()
        gc.collect()
        gc.unfreeze()
        assert self.pool.get_stats()["devices"] == {}
        for name, total in self.machine.devices.totals.items():
            assert self.machine.devices.memory(name).free == total


TestPool = PoolMachine.TestCase
# A sequence is worth several plain examples: 25 in the suite, 500 in `make search`.
TestPool.settings = settings(
    max_examples=settings.default.max_examples // 4, stateful_step_count=30, deadline=None
)
