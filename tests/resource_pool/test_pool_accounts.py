"""What the pool counts, records and reserves, and of what it keeps no trace."""

from __future__ import annotations

import gc

import pytest

from resource_pool import InsufficientMemoryError, _system
from resource_pool.devices import Memory
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

GPU = {"device": "cuda:0"}


def test_one_request_is_counted_once():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1), {"precision": "fp32"})
    pool.get_model("vision", "m", machine.loader(1))
    assert pool.get_stats()["total_requests"] == 2


def test_a_recovery_is_counted_where_one_recovered():
    machine = FakeMachine({"cpu": 10, "cuda:0": 10})
    pool = machine.pool()
    with pytest.raises(OutOfFakeMemoryError):
        pool.get_model("vision", "m", machine.loader(100))
    assert pool.get_stats()["management"]["oom_recoveries"] == 0


def test_a_failed_load_is_in_the_record():
    machine = FakeMachine({"cpu": 10})
    pool = machine.pool()
    with pytest.raises(ZeroDivisionError):
        pool.get_model("vision", "m", lambda: 1 / 0)
    assert pool.events()


def test_what_outlived_its_age_by_keep_alive_is_not_used_recently():
    machine = FakeMachine({"cpu": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1), keep_alive=600)
    machine.clock.now += 7200
    assert "used recently" not in pool.cleanup_unused_resources()["kept"].values()


def test_a_cleanup_under_pressure_is_a_cleanup():
    machine = FakeMachine({"cpu": 10_000})
    pool = machine.pool()
    pool.get_model("vision", "idle", machine.loader(1))
    machine.clock.now += 3600
    machine.system.ram = Memory(100_000 * MIB, 5000 * MIB)
    pool.get_model("vision", "other", machine.loader(1))
    assert pool.get_stats()["management"]["cleanups"] == 1


def test_repr_does_not_sample_the_cpu(monkeypatch):
    calls = []
    monkeypatch.setattr(_system, "cpu", lambda: calls.append(1) or {})
    repr(FakeMachine({"cpu": 1}).pool())
    assert calls == []


def test_a_dropped_pool_ends_its_monitor():
    pool = FakeMachine({"cpu": 1}).pool(monitor_interval=3600)
    thread = pool._monitor._thread
    del pool
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_routes_do_not_grow_with_what_has_no_effect():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    for number in range(100):
        pool.get_model("vision", "m", machine.loader(1), {"description": f"request {number}"})
    assert len(pool._loader._routes) == 1


def test_the_arithmetic_is_told_once():
    machine = FakeMachine({"cpu": 10})
    with pytest.raises(InsufficientMemoryError) as caught:
        machine.pool().get_model("vision", "m", machine.loader(1), needs=100 * MIB)
    assert str(caught.value).count("cpu is not used") == 1


def test_a_spread_model_reserves_what_it_needs():
    machine = FakeMachine({"cpu": 1000, **{f"cuda:{i}": 100 for i in range(4)}})
    pool, seen = machine.pool(), {}

    def load():
        seen.update(pool.get_stats()["devices"])
        return FakeModel(machine, 110)

    pool.get_model("vision", "m", load, {"device": "cuda"}, needs=110 * MIB)
    assert sum(row["reserved_mb"] for row in seen.values()) <= 120
