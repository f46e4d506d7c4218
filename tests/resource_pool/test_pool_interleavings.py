"""What once went wrong between threads, moves, leases and plans; one test each."""

from __future__ import annotations

import gc
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hardware_detection.testing import fake_report
from resource_pool import (
    ResourceNotFoundError,
    ResourcePool,
    _system,
)
from resource_pool.devices import Memory
from resource_pool.testing import MIB, FakeMachine, FakeModel

GIB = 2**30
GPU = {"device": "cuda:0"}


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    monkeypatch.setattr(_system, "memory", lambda: Memory(64 * GIB, 48 * GIB))


class HookLock:
    """The store's lock; calls ``hook`` in the moment after its outermost release."""

    def __init__(self, lock, hook):
        self.lock, self.hook, self.local = lock, hook, threading.local()

    def __enter__(self):
        self.lock.__enter__()
        self.local.depth = getattr(self.local, "depth", 0) + 1

    def __exit__(self, *args):
        self.local.depth -= 1
        self.lock.__exit__(*args)
        if self.local.depth == 0:
            self.hook()


def test_a_cached_model_under_lease_is_found_whatever_the_wording():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    with pool.lease("vision", "m", machine.loader(60), GPU) as model:
        wish = {**GPU, "force_device": True}
        assert pool.get_model("vision", "m", machine.loader(60), wish) is model


def test_a_cached_model_that_is_held_is_not_loaded_a_second_time():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    model = pool.get_model("vision", "m", machine.loader(60))
    again = pool.get_model("vision", "m", machine.loader(60), {"priority_list": ["cuda", "cpu"]})
    assert again is model
    assert machine.loads == [60]


def test_the_same_on_two_gpus():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    model = pool.get_model("vision", "m", machine.loader(60))
    assert pool.get_model("vision", "m", machine.loader(60), {"device": "cuda"}) is model


def test_explain_of_what_is_cached_evicts_nothing():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(60), GPU)
    assert pool.explain("vision", "m", GPU).evict == ()  # says: evict the model for itself


def test_a_hit_in_low_memory_mode_does_not_fail_because_ram_is_full():
    machine = FakeMachine({"cpu": 100, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(85))
    ram = FakeModel(machine, 50)  # somebody else's
    pool.enable_low_memory_mode()
    assert pool.get_model("vision", "m", machine.loader(85)) is not None
    del ram


def test_a_failed_move_leaves_the_model_cached_where_it_was():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    model = pool.get_model("vision", "m", machine.loader(10), {"device": "cpu"})
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error")
    with pytest.raises(RuntimeError):
        pool.move_model_to_device("vision", "m", "cuda:0")
    assert pool.get_model("vision", "m", None, {"device": "cpu"}) is model
    assert pool.get_stats()["devices"]["cpu"]["used_mb"] == 10


def test_a_move_books_its_target_before_it_moves():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, seen = machine.pool(), {}
    pool.get_model("vision", "m", machine.loader(60), {"device": "cpu"})
    place = machine.devices.place

    def looking(model, device, dtype, *_):
        seen.update(pool.get_stats()["devices"])
        return place(model, device, dtype)

    machine.devices.place = looking
    pool.move_model_to_device("vision", "m", "cuda:0")
    assert seen["cuda:0"]["reserved_mb"] == 60


def test_an_idle_dispatched_model_can_make_room():
    import torch
    from accelerate import dispatch_model

    pool = ResourcePool(hardware=fake_report)

    def load():
        return dispatch_model(
            torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)),
            device_map={"0": "cpu", "1": "cpu"},
            force_hooks=True,
        )

    pool.get_model("vision", "m", load)
    (entry,) = pool._store.entries()
    gc.collect()
    assert not entry.seems_held()  # nobody outside refers to it


def test_an_idle_model_with_a_cycle_makes_room():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()

    def load():
        model = FakeModel(machine, 60)
        model.me = model  # what accelerate's hooks do to a root module
        return model

    pool.get_model("vision", "idle", load, GPU)
    gc.collect()
    assert pool.get_model("vision", "m", machine.loader(60), GPU, needs=60 * MIB).device == "cuda:0"


def test_memory_pressure_does_not_drop_what_a_caller_holds():
    machine = FakeMachine({"cpu": 10_000})
    pool = machine.pool()
    held = pool.get_model("vision", "m", machine.loader(10))
    machine.clock.now += 3600
    machine.system.ram = Memory(100_000 * MIB, 5000 * MIB)
    pool.get_model("vision", "other", machine.loader(1))  # looks at the pressure
    assert pool.get_model("vision", "m", machine.loader(10)) is held
    assert machine.loads.count(10) == 1


def test_a_cleanup_leaves_what_somebody_got_while_it_chose():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    for name in "ab":
        pool.get_model("vision", name, machine.loader(10), GPU)
    machine.clock.now += 3600
    got, free = [], pool._evictor._free

    def chosen(devices):  # what to drop is chosen, and nothing is dropped yet
        if not got:
            got.append(pool.get_model("vision", "a", machine.loader(10), GPU))
        return free(devices)

    pool._evictor._free = chosen
    pool.cleanup_unused_resources(max_age_minutes=30)
    assert got == [*pool.models.values()]
    assert machine.loads == [10, 10]


def test_no_memory_in_a_lease_does_not_drop_what_a_caller_holds():
    machine = FakeMachine({"cpu": 10_000, "cuda:0": 100})
    pool = machine.pool()
    held = pool.get_model("vision", "held", machine.loader(30), GPU)
    with pytest.raises(MemoryError), pool.lease("vision", "m", machine.loader(10), GPU):
        raise MemoryError
    assert pool.get_model("vision", "held", machine.loader(30), GPU) is held


def test_after_a_device_failed_the_next_one_gets_its_room():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 110, "cuda:1": 100}, dtypes=["fp32"])
    pool = machine.pool()
    pool.get_model("vision", "idle", machine.loader(60), {"device": "cuda:1"})
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: launch failure")
    # cuda:0 fails; the plan then says cuda:1 after evicting "idle", which nobody evicts.
    wish = {"priority_list": ["cuda:0", "cuda:1"]}
    model = pool.get_model("vision", "m", machine.loader(80), wish, needs=80 * MIB)
    assert model.device == "cuda:1"
    assert machine.loads.count(80) == 2


def test_a_gpu_without_room_costs_the_idle_models_of_that_gpu_only():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100}, dtypes=["fp32"])
    pool = machine.pool()
    pool.get_model("vision", "in ram", machine.loader(5), {"device": "cpu"})
    pool.get_model("vision", "elsewhere", machine.loader(5), {"device": "cuda:1"})
    pool.get_model("vision", "large", machine.loader(150), GPU)  # docs: "on that device"
    names = {key.split(":")[1] for key in pool.models}
    assert {"in ram", "elsewhere"} <= names


def test_an_error_while_the_guard_looks_still_ends_the_lease():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    fingerprint = machine.devices.fingerprint

    def broken(_):
        raise RuntimeError("dictionary changed size during iteration")

    lease = pool.lease("vision", "m", machine.loader(1))
    lease.__enter__()
    machine.devices.fingerprint = broken
    with pytest.raises(RuntimeError, match="changed size"):
        lease.__exit__(None, None, None)
    machine.devices.fingerprint = fingerprint
    assert pool.clear()["kept"] == {}


def test_a_hit_in_new_words_does_not_wait_for_an_eviction():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, begun, go = machine.pool(), threading.Event(), threading.Event()
    ready = pool.get_model("vision", "ready", machine.loader(10), {"device": "cpu"})
    pool.get_model("vision", "idle", machine.loader(60), GPU, needs=60 * MIB)

    def slow_release(_):
        begun.set()
        assert go.wait(60)

    machine.devices.release = slow_release
    with ThreadPoolExecutor(2) as threads:
        threads.submit(pool.get_model, "vision", "new", machine.loader(60), GPU, needs=60 * MIB)
        assert begun.wait(30)
        hit = threads.submit(pool.get_model, "vision", "ready", None, {"priority_list": ["cpu"]})
        try:
            assert hit.result(30) is ready
        finally:
            go.set()


def test_one_of_two_variants_can_be_moved():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    for variant in ("a", "b"):
        pool.get_model("vision", "m", machine.loader(1), {"device": "cpu"}, variant=variant)
    pool.move_model_to_device("vision", "m", "cuda:0", from_device="cpu", variant="a")


def test_moving_what_has_just_gone_is_an_error_and_not_none():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1), GPU)
    plan = pool._loader.plan
    pool._loader.plan = lambda *a: (plan(*a), pool.clear())[0]  # another thread clears here
    with pytest.raises(ResourceNotFoundError):
        assert pool.move_model_to_device("vision", "m", "cuda:0") is None


def test_clear_goes_on_when_a_device_cannot_empty_its_cache():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1), GPU)

    def broken(_):
        raise RuntimeError("CUDA error: device-side assert triggered")

    machine.devices.release = broken
    assert pool.clear()["removed"] == 1


def test_the_error_of_a_constructor_keeps_its_frames():
    pool = FakeMachine({"cpu": 1000}).pool()

    def my_constructor():
        raise MemoryError("too large")

    with pytest.raises(MemoryError) as caught:
        pool.get_model("vision", "m", my_constructor)
    told = "".join(traceback.format_exception(caught.value))
    assert "in my_constructor" in told


def test_a_load_that_ends_with_the_deadline_is_no_bare_timeout(monkeypatch):
    from resource_pool._entries import Entry
    from resource_pool._waiting import Joined

    class Late(Future):
        def result(self, timeout=None):
            if not self.done():
                self.set_result("model")
                from concurrent.futures import TimeoutError as Bare

                raise Bare
            return super().result(timeout)

    entry = Entry("k", "model", 0.0, 0.0, 1, future=Late())
    assert Joined(entry, None, entry.future).result(0.1) == "model"


def test_a_lease_is_not_blamed_for_what_was_done_before_it(caplog):
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    with pool.lease("vision", "m", machine.loader(1)):
        pass
    pool.get_model("vision", "m").training = True  # a holder without a lease
    with pool.lease("vision", "m"):
        pass  # changes nothing
    assert not any("while it was leased" in m for m in caplog.messages)


def test_a_miss_without_constructor_is_not_found_even_where_there_is_no_room():
    machine = FakeMachine({"cpu": 10})
    pool = machine.pool()
    with pytest.raises(ResourceNotFoundError):
        pool.get_model("vision", "m", needs=100 * MIB)


def test_a_forced_gpu_full_of_idle_models_is_emptied_in_low_memory_mode_too():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "idle", machine.loader(90), GPU)
    pool.enable_low_memory_mode()
    wish = {**GPU, "force_device": True}
    model = pool.get_model("vision", "m", machine.loader(60), wish, needs=60 * MIB)
    assert model.device == "cuda:0"


def test_only_what_is_asked_for_is_demoted():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(85), variant="other")
    pool.enable_low_memory_mode()
    pool.get_model("vision", "m", machine.loader(1), variant="mine")
    assert {f["device"] for f in pool._stats.values() if f["identity"].variant == "other"} == {
        "cuda:0"
    }


def test_a_hit_of_a_cpu_model_asks_for_no_memory_in_low_memory_mode():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1))
    pool.enable_low_memory_mode()
    asked = []
    memory = machine.devices.memory
    machine.devices.memory = lambda d: (asked.append(d), memory(d))[1]
    pool.get_model("vision", "m")
    assert asked == []


def test_a_device_that_fails_is_not_tried_again_when_memory_runs_out_on_another():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 90})
    pool = machine.pool()
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: device lost")
    calls = []

    class TooOftenError(BaseException):
        pass

    def load():
        calls.append(1)
        if len(calls) > 20:
            raise TooOftenError
        return machine.loader(300)()

    assert pool.get_model("vision", "m", load).device == "cpu"
