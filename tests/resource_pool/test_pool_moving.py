"""Moving a cached model, and the guard on models that are shared."""

from __future__ import annotations

import pytest

from resource_pool import (
    DeviceBusyError,
    DeviceUnavailableError,
    ResourceNotFoundError,
    ResourcePool,
)
from resource_pool.testing import MIB, FakeMachine, FakeModel

GPU = {"device": "cuda:0"}


def load(pool: ResourcePool, machine: FakeMachine, name: str, mib: float, **options) -> FakeModel:
    options = {"hardware_preferences": GPU, "needs": int(mib * MIB), **options}
    return pool.get_model("embedding", name, constructor=machine.loader(mib), **options)


def places(pool: ResourcePool) -> dict[str, str]:
    """Name -> device of what is cached."""
    return {f["identity"].name: f["device"] for f in pool._stats.values()}


def test_a_move_updates_key_ledger_and_statistics_and_returns_the_model(pool, machine):
    model = load(pool, machine, "m", 40, hardware_preferences=None)
    assert model.device == "cuda:0"
    assert pool.move_model_to_device("embedding", "m", "cpu") is model
    assert places(pool) == {"m": "cpu"}
    assert pool.get_stats()["devices"].keys() == {"cpu"}
    assert list(pool.models) == ["embedding:m:cpu:float32"]
    assert load(pool, machine, "m", 40, hardware_preferences=None) is model
    assert machine.loads == [40]


def test_a_move_is_no_load_and_leaves_the_seconds_of_the_load_alone(pool, machine):
    load(pool, machine, "m", 40)
    machine.clock.now += 1000
    pool.move_model_to_device("embedding", "m", "cpu")
    (facts,) = pool.get_stats()["models"].values()
    assert facts["load_seconds"] == 1.0
    assert facts["age_seconds"] == 1001.0


def test_a_move_is_refused_while_somebody_leases_the_model(pool, machine):
    with (
        pool.lease("embedding", "m", machine.loader(10), GPU),
        pytest.raises(DeviceBusyError, match="leased or pinned"),
    ):
        pool.move_model_to_device("embedding", "m", "cpu")


def test_of_several_instances_from_device_tells_which(pool, machine):
    load(pool, machine, "m", 10)
    load(pool, machine, "m", 10, hardware_preferences={"device": "cpu", "precision": "fp16"})
    with pytest.raises(DeviceBusyError, match="say which by from_device"):
        pool.move_model_to_device("embedding", "m", "cpu")
    assert pool.move_model_to_device("embedding", "m", "cpu", from_device="cuda:0").device == "cpu"


def test_a_move_to_what_is_not_there_or_of_what_is_not_cached(pool, machine):
    with pytest.raises(ResourceNotFoundError, match="not cached"):
        pool.move_model_to_device("embedding", "m", "cpu")
    load(pool, machine, "m", 10)
    with pytest.raises(DeviceUnavailableError):
        pool.move_model_to_device("embedding", "m", "cuda:7")
    assert places(pool) == {"m": "cuda:0"}


def test_a_model_that_was_changed_under_lease_is_named_and_loaded_again(pool, machine, caplog):
    with pool.lease("embedding", "m", machine.loader(10), GPU) as model:
        model.training = True
    assert any("was changed" in m and "training" in m for m in caplog.messages)
    assert load(pool, machine, "m", 10) is not model
    assert pool.get_stats()["management"]["mutations"] == 1


def test_a_model_that_was_not_changed_stays(pool, machine):
    with pool.lease("embedding", "m", machine.loader(10), GPU) as model:
        pass
    assert load(pool, machine, "m", 10) is model
