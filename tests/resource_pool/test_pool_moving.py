"""Moving a cached model, and the guard on models that are shared."""

from __future__ import annotations

import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import (
    DeviceBusyError,
    DeviceUnavailableError,
    InsufficientMemoryError,
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


class Meanwhile:
    """Lets something happen after the first plan, in a thread of its own, before it is acted on.

    Whoever plans and reserves in one go keeps it waiting: then the first goes on by itself.
    """

    def __init__(self, pool: ResourcePool, call) -> None:
        self._plan, self._call = pool._loader.plan, call
        self._thread: threading.Thread | None = None
        self.error: Exception | None = None
        pool._loader.plan = self.plan

    def plan(self, *args):
        decision = self._plan(*args)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run)
            self._thread.start()
            self._thread.join(0.2)
        return decision

    def _run(self) -> None:
        try:
            self._call()
        except Exception as error:
            self.error = error

    def ended(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_a_move_finds_other_room_where_its_victim_was_leased_meanwhile(pool, machine):
    for name in "ab":
        load(pool, machine, name, 40)
    load(pool, machine, "m", 40, hardware_preferences={"device": "cpu"})
    evict, leased = pool._loader.evictor.evict, []

    with contextlib.ExitStack() as leases:

        def leased_first(doomed, why):
            if not leased:
                victim = next(e for e in pool._store.entries() if doomed(e))
                leased.append(victim.facts["identity"].name)
                lease = pool.lease("embedding", leased[0], machine.loader(40), GPU)
                leases.enter_context(lease)
            return evict(doomed, why)

        pool._loader.evictor.evict = leased_first
        pool.move_model_to_device("embedding", "m", "cuda:0")
    assert places(pool) == {leased[0]: "cuda:0", "m": "cuda:0"}
    assert machine.loads == [40, 40, 40]


@pytest.mark.parametrize("how", ["leased", "pinned"])
def test_a_move_that_is_refused_costs_nobody_a_model(how):
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    load(pool, machine, "bystander", 90, hardware_preferences={"device": "cuda:1"})
    load(pool, machine, "m", 50)
    with contextlib.ExitStack() as leases:
        if how == "leased":
            leases.enter_context(pool.lease("embedding", "m", None, GPU))
        else:
            pool.pin("embedding:m:cuda:0:float32")
        with pytest.raises(DeviceBusyError, match="leased or pinned"):
            pool.move_model_to_device("embedding", "m", "cuda:1")
    assert places(pool) == {"bystander": "cuda:1", "m": "cuda:0"}


def test_a_move_of_what_has_just_left_says_so_and_costs_nobody_a_model():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    load(pool, machine, "bystander", 90, hardware_preferences={"device": "cuda:1"})
    load(pool, machine, "m", 50)
    find = pool._mover._find

    def find_and_lose(*arguments):
        entry = find(*arguments)
        pool._store.remove(lambda one: one is entry)
        return entry

    pool._mover._find = find_and_lose
    with pytest.raises(ResourceNotFoundError, match="has just left the pool"):
        pool.move_model_to_device("embedding", "m", "cuda:1")
    assert places(pool) == {"bystander": "cuda:1"}


@pytest.mark.parametrize("fails", [False, True])
def test_whoever_asks_during_a_move_waits_for_its_end(pool, machine, fails):
    """Also where the move fails, and the model is put back."""
    first = load(pool, machine, "m", 10, hardware_preferences=None)
    place, begin = machine.devices.place, pool._store._waits.begin
    waiting, asked = threading.Semaphore(0), []

    def begun(entry) -> None:
        begin(entry)
        waiting.release()

    def while_it_moves(model, device, *more):
        if device == "cpu":
            for constructor in (None, machine.loader(10)):
                asked.append(threads.submit(pool.get_model, "embedding", "m", constructor))
                assert waiting.acquire(timeout=10)
            if fails:
                raise RuntimeError("no way")
        return place(model, device, *more)

    machine.devices.place, pool._store._waits.begin = while_it_moves, begun
    no_way = pytest.raises(RuntimeError, match="no way") if fails else contextlib.nullcontext()
    with ThreadPoolExecutor(2) as threads, no_way:
        pool.move_model_to_device("embedding", "m", "cpu")
    assert [one.result() for one in asked] == [first, first]
    assert places(pool) == {"m": "cuda:0" if fails else "cpu"}
    assert pool.get_model("embedding", "m") is first
    assert machine.loads == [10]


def test_a_model_that_nothing_can_tell_of_after_a_move_is_put_back(pool, machine):
    model = load(pool, machine, "m", 50)
    describe = machine.devices.describe

    def unknown_in_ram(one, *more):
        if one is model and "cpu" in one.sizes:
            raise RuntimeError("the driver said no")
        return describe(one, *more)

    machine.devices.describe = unknown_in_ram
    with pytest.raises(RuntimeError, match="said no"):
        pool.move_model_to_device("embedding", "m", "cpu")
    assert places(pool) == {"m": "cuda:0"}
    assert pool.get_stats()["devices"]["cuda:0"]["used_mb"] == 50
    assert load(pool, machine, "m", 50) is model


def test_two_moves_at_once_do_not_count_on_the_same_room(pool, machine):
    ram = {"device": "cpu"}
    held = [load(pool, machine, name, 60, hardware_preferences=ram) for name in "ab"]
    other = Meanwhile(pool, lambda: pool.move_model_to_device("embedding", "b", "cuda:0"))
    pool.move_model_to_device("embedding", "a", "cuda:0")
    other.ended()
    assert places(pool) == {"a": "cuda:0", "b": "cpu"}
    assert isinstance(other.error, InsufficientMemoryError)  # planned, and not run into
    assert len(held) == 2


def test_a_load_that_goes_elsewhere_and_a_move_do_not_count_on_the_same_room():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    held = [load(pool, machine, "a", 60, hardware_preferences={"device": "cpu"})]
    machine.devices.broken["cuda:0"] = RuntimeError("illegal instruction")
    other = Meanwhile(pool, lambda: pool.move_model_to_device("embedding", "a", "cuda:1"))
    held.append(load(pool, machine, "b", 60, hardware_preferences={"device": "cuda"}))
    other.ended()
    assert places(pool) == {"a": "cpu", "b": "cuda:1"}
    assert isinstance(other.error, InsufficientMemoryError)


def test_a_load_that_ends_while_a_plan_looks_at_the_machine_is_not_missed():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    report = machine.report()  # asks for the memory as well
    pool = machine.pool(hardware=lambda: report)
    reserved, end = threading.Event(), threading.Event()

    def slow() -> FakeModel:
        reserved.set()
        assert end.wait(10)
        return machine.loader(60)()

    options = {"hardware_preferences": GPU, "needs": 60 * MIB}
    loading = threading.Thread(target=lambda: held.append(
        pool.get_model("embedding", "a", constructor=slow, **options)
    ))  # fmt: skip
    held: list[FakeModel] = []
    loading.start()
    assert reserved.wait(10)
    # Somebody else has 30 of the 100 MiB: the ledger does not know, and the driver does.
    somebodys = FakeModel(machine, 30)
    machine.devices.put(somebodys, {"cuda:0": 30 * MIB})
    real = machine.devices.memory

    def memory(device: str):
        told = real(device)
        if device == "cuda:0" and not end.is_set():
            end.set()
            loading.join(10)
        return told

    machine.devices.memory = memory
    told = pool.explain("embedding", "b", {"device": "cuda:0"}, needs=40 * MIB)
    assert held
    assert "cuda:0 is not used" in str(told)


def test_low_memory_mode_brings_nothing_to_ram_that_has_no_room(caplog):
    machine = FakeMachine({"cpu": 100, "cuda:0": 100})
    pool = machine.pool()
    load(pool, machine, "a", 90)
    load(pool, machine, "b", 20, hardware_preferences={"device": "cpu"})
    pool.enable_low_memory_mode()
    assert load(pool, machine, "a", 90, hardware_preferences=None).device == "cuda:0"
    assert places(pool) == {"a": "cuda:0", "b": "cpu"}
    assert "out of memory" not in caplog.text


def test_what_can_go_neither_on_nor_back_is_charged_until_it_has_gone(pool, machine):
    held = load(pool, machine, "m", 40)
    machine.devices.broken = dict.fromkeys(("cpu", "cuda:0"), RuntimeError("device lost"))
    with pytest.raises(RuntimeError, match="device lost"):
        pool.move_model_to_device("embedding", "m", "cpu")
    assert not pool.models
    assert pool.get_stats()["devices"]["cuda:0"]["used_mb"] == 40
    machine.devices.broken.clear()  # the error's frames hold the model as well
    del held
    gc.collect()
    pool.cleanup_unused_resources()
    assert not pool.get_stats()["devices"]
    assert load(pool, machine, "m", 40).device == "cuda:0"
