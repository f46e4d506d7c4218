"""64 threads with thousands of random operations: loads that fail, dawdle or are cancelled.

What must hold at every moment: a key has at most one load in flight, a leased model is cached
and stays where it is, every call is answered, and in the end nothing is charged to anybody.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from resource_pool import (
    InsufficientMemoryError,
    LoadInterruptedError,
    ResourceNotFoundError,
    ResourcePool,
)
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

THREADS, OPERATIONS = 64, 100
DEVICES = ("cpu", "cuda:0", "cuda:1")
SIZES = {name: 5.0 + 7.0 * number for number, name in enumerate("abcdefgh")}


class CancelledError(BaseException):
    """What cancels a load: like a KeyboardInterrupt, no Exception."""


EXPECTED = (InsufficientMemoryError, OutOfFakeMemoryError, ZeroDivisionError, LoadInterruptedError,
            ResourceNotFoundError, CancelledError)  # fmt: skip


class Loads:
    """Constructors that know how many loads of their key are under way."""

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine
        self.lock = threading.Lock()
        self.in_flight: Counter[str] = Counter()
        self.overlapping: list[str] = []

    @contextmanager
    def counted(self, key: str) -> Iterator[None]:
        with self.lock:
            self.in_flight[key] += 1
            if self.in_flight[key] > 1:
                self.overlapping.append(key)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight[key] -= 1

    def model(self, key: str, mib: float, fate: float) -> Callable[[], FakeModel]:
        def load() -> FakeModel:
            with self.counted(key):
                for _ in range(20 if fate < 0.2 else 0):  # a slow one: the others go on meanwhile
                    os.sched_yield()
                if 0.2 <= fate < 0.25:
                    raise ZeroDivisionError
                if 0.25 <= fate < 0.3:
                    raise CancelledError
                return FakeModel(self.machine, mib)

        return load


def act(pool: ResourcePool, loads: Loads, rng: random.Random) -> None:
    """Do one random thing, and look whether the answer is what was asked for."""
    name, device, action = rng.choice("abcdefgh"), rng.choice(DEVICES), rng.random()
    key, needs = f"{name} on {device}", int(SIZES[name] * MIB)
    # Forced: then the key of the load is known, and the pool cannot go elsewhere.
    wish = {"device": device, "force_device": True, "precision": "fp32"}
    load = loads.model(key, SIZES[name], rng.random())
    if action < 0.5:
        assert pool.get_model("vision", name, load, wish, needs=needs).device == device
    elif action < 0.6:  # a request that may be served elsewhere, without a word on its size
        roams = loads.model(f"{threading.get_ident()}", SIZES[name], rng.random())
        assert isinstance(pool.get_model("audio", name, roams, {"device": device}), FakeModel)
    elif action < 0.8:
        with pool.lease("vision", name, load, wish, needs=needs) as model:
            os.sched_yield()
            assert model.device == device
            assert any(model is cached for cached in pool.models.values())
    elif action < 0.9:
        pool.get_resource("data", name, lambda: [name])
    elif action < 0.94:
        pool.cleanup_unused_resources(max_age_minutes=0)
    elif action < 0.97:
        pool.get_stats()
    else:
        pool.explain("vision", name, wish, needs=needs)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_collections")
def test_64_threads_with_failing_slow_and_cancelled_loads():
    machine = FakeMachine({"cpu": 400, "cuda:0": 100, "cuda:1": 60})
    pool, loads = machine.pool(), Loads(machine)
    failures: Counter[str] = Counter()

    def worker(seed: int) -> int:
        rng = random.Random(seed)
        answered = 0
        while answered < OPERATIONS:
            try:
                act(pool, loads, rng)
            except EXPECTED as error:
                failures[type(error).__name__] += 1
            answered += 1
        return answered

    with ThreadPoolExecutor(THREADS) as threads:
        answered = sum(threads.map(worker, range(THREADS)))
    assert answered == THREADS * OPERATIONS
    assert loads.overlapping == []
    assert {"ZeroDivisionError", "CancelledError"} <= failures.keys()
    assert pool.clear()["kept"] == {}
    gc.collect()  # what the failed operations' frames held
    assert pool.get_stats()["devices"] == {}
    assert all(machine.devices.memory(d).free == machine.devices.totals[d] for d in DEVICES)
