"""Faults: loads that never end, are interrupted, or find no memory; devices that go."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from hardware_detection.testing import fake_report
from resource_pool import LoadTimeoutError, ResourcePool
from resource_pool.testing import MIB, FakeMachine, FakeModel, OutOfFakeMemoryError

GPU = {"device": "cuda:0"}
WAIT = 30.0


def load(pool: ResourcePool, machine: FakeMachine, name: str, mib: float, **options) -> FakeModel:
    options = {"hardware_preferences": GPU, "needs": int(mib * MIB), **options}
    return pool.get_model("embedding", name, constructor=machine.loader(mib), **options)


def test_a_constructor_that_never_returns_does_not_hold_the_others_for_ever(machine):
    pool, begun, go = machine.pool(load_deadline=0.05), threading.Event(), threading.Event()

    def stuck() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 10)

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_model, "embedding", "m", stuck, GPU)
        assert begun.wait(WAIT)
        with pytest.raises(LoadTimeoutError, match="did not end within"):
            load(pool, machine, "m", 10)
        fresh = load(pool, machine, "m", 10)
        go.set()
        assert owner.result(WAIT) is fresh  # its own came too late, and goes
    assert list(pool.models.values()) == [fresh]


def test_the_deadline_is_for_tokenizers_and_resources_too(machine):
    pool, begun, go = machine.pool(load_deadline=0.05), threading.Event(), threading.Event()

    def stuck() -> list[int]:
        begun.set()
        assert go.wait(WAIT)
        return [1]

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_resource, "data", None, stuck)
        assert begun.wait(WAIT)
        with pytest.raises(LoadTimeoutError):
            pool.get_resource("data")
        go.set()
        assert owner.result(WAIT) == [1]


def test_an_interrupted_load_leaves_no_reservation(pool):
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.get_model("embedding", "m", interrupted, GPU, needs=50 * MIB)
    assert pool.get_stats()["devices"] == {}


def test_an_interrupt_in_a_load_leaves_the_key_free_for_the_next_request(pool, machine):
    def interrupted() -> None:
        raise KeyboardInterrupt

    for get in (pool.get_model, pool.get_tokenizer, pool.get_resource):
        with pytest.raises(KeyboardInterrupt):
            get("vision", "m", interrupted)
        assert get("vision", "m", lambda: ...) is ...


def test_a_failed_or_interrupted_load_under_a_lease_leaves_no_lease(pool, machine):
    for failure in (ZeroDivisionError, KeyboardInterrupt, MemoryError):

        def fails(failure=failure) -> None:
            raise failure

        with pytest.raises(failure), pool.lease("vision", "m", fails, GPU):
            pytest.fail("there is no model to lease")
    pool.get_model("vision", "m", machine.loader(1), GPU)
    assert pool.clear()["kept"] == {}


def test_an_error_inside_a_lease_ends_the_lease(pool, machine):
    with pytest.raises(ZeroDivisionError), pool.lease("vision", "m", machine.loader(1), GPU):
        raise ZeroDivisionError
    assert pool.clear()["kept"] == {}


def test_no_memory_in_one_load_is_not_held_against_the_next(pool, machine):
    """A lack of memory passes; only what fails for good is remembered."""
    wish = {**GPU, "force_device": True}
    with (
        pool.lease("vision", "busy", machine.loader(80), GPU),
        pytest.raises(OutOfFakeMemoryError),
    ):
        pool.get_model("vision", "m", machine.loader(60), {**wish, "precision": "fp32"})
    pool.clear()
    assert pool.get_model("vision", "m", machine.loader(60), wish).device == "cuda:0"


def test_a_permanent_failure_of_one_model_is_not_held_against_another(pool, machine):
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: unspecified launch failure")
    pool.get_model("vision", "m", machine.loader(1), GPU)
    machine.devices.broken.clear()
    pool.clear()
    assert pool.get_model("vision", "other", machine.loader(1), GPU).device == "cuda:0"
    assert pool.get_model("vision", "m", machine.loader(1), GPU).device == "cpu"


def test_the_ladder_goes_from_the_least_harm_to_the_most_and_each_step_is_told(caplog):
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100, "cuda:1": 90})
    pool = machine.pool()
    pool.get_model("vision", "idle", machine.loader(20), GPU)
    assert pool.get_model("vision", "large", machine.loader(300), GPU).device == "cpu"
    steps = [event.reason for event in pool.events() if event.what == "oom_retry"]
    assert [e.reason for e in pool.events() if e.what == "oom_recovery"] == ["trying the CPU"]
    told = ["evicted", "float16", "trying cuda:1", "trying the CPU"]
    assert len(steps) == len(told)
    assert all(word in step for word, step in zip(told, steps, strict=True))
    assert sum("out of memory;" in message for message in caplog.messages) == len(told)


def test_each_try_of_the_ladder_starts_with_nothing_of_the_last(machine):
    """Tensors of a failed try are gone before the next: its traceback must not pin them."""
    pool = machine.pool()
    alive: list[weakref.ref[FakeModel]] = []
    seen: list[int] = []

    def load() -> FakeModel:
        seen.append(sum(ref() is not None for ref in alive))
        model = FakeModel(machine, 300)
        alive.append(weakref.ref(model))
        return model

    pool.get_model("vision", "m", load, GPU)
    assert len(seen) > 1
    assert set(seen) == {0}


def test_a_real_lack_of_memory_in_the_constructor_is_tried_again_without_idle_models():
    """torch's CPU allocator says no; what is idle goes, and the second try has room."""
    pool = ResourcePool(hardware=fake_report)
    pool.get_model("vision", "idle", lambda: torch.nn.Linear(64, 64))
    tries: list[int] = []

    def load() -> torch.nn.Module:
        tries.append(len(pool.models))
        if len(tries) == 1:
            torch.empty(2**60, dtype=torch.uint8)
        return torch.nn.Linear(4, 4)

    assert pool.get_model("vision", "m", load).weight.shape == (4, 4)
    assert tries == [1, 0]
    assert pool.get_stats()["management"]["oom_recoveries"] == 1


def test_a_real_lack_of_memory_in_a_forward_evicts_what_is_idle_and_goes_on_to_the_caller():
    pool = ResourcePool(hardware=fake_report)
    pool.get_model("vision", "idle", lambda: torch.nn.Linear(64, 64))

    class Greedy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.empty(2**60, dtype=torch.uint8)

    with (
        pytest.raises(RuntimeError, match="memory"),
        pool.lease("vision", "greedy", Greedy) as model,
    ):
        model(torch.ones(1))
    assert [key.split(":")[1] for key in pool.models] == ["greedy"]
    assert pool.get_stats()["management"]["oom_recoveries"] == 1


def test_a_gpu_that_disappears_while_a_model_moves_to_it_is_an_error_and_books_nothing(
    pool, machine
):
    pool.get_model("vision", "m", machine.loader(10), {"device": "cpu"})
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: device lost")
    with pytest.raises(RuntimeError, match="device lost"):
        pool.move_model_to_device("vision", "m", "cuda:0")
    assert [*pool.models] == ["vision:m:cpu:float32"]  # where it was
    machine.devices.broken.clear()  # and with the error the frames that hold the model
    pool.clear()
    gc.collect()
    assert pool.get_stats()["devices"] == {}
    machine.devices.broken.clear()
    assert pool.get_model("vision", "m", machine.loader(10), GPU).device == "cuda:0"


def test_memory_that_never_comes_back_is_charged_no_longer_than_the_model_lives(pool, machine):
    """The driver says how much is free; the ledger does not count the leak a second time."""
    pool.get_model("vision", "m", machine.loader(60), GPU)
    machine.devices.leaks.add("cuda:0")
    pool.clear()
    assert pool.get_stats()["devices"] == {}
    assert pool.get_stats()["management"]["not_freed"] == 1
    small = pool.get_model("vision", "small", machine.loader(30), GPU, needs=30 * MIB)
    large = pool.get_model("vision", "large", machine.loader(50), GPU, needs=50 * MIB)
    assert (small.device, large.device) == ("cuda:0", "cpu")
