"""Low-memory mode, memory pressure and the monitor: what the pool does unasked."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import (
    ResourcePool,
    _system,
)
from resource_pool._maintenance import Maintenance
from resource_pool.devices import Memory
from resource_pool.testing import MIB, FakeMachine, FakeModel

REAL_MEMORY = _system.memory  # which every test here has replaced
GPU = {"device": "cuda:0"}
WAIT = 30.0
GIB = 2**30


def load(pool: ResourcePool, machine: FakeMachine, name: str, mib: float, **options) -> FakeModel:
    options = {"hardware_preferences": GPU, "needs": int(mib * MIB), **options}
    return pool.get_model("embedding", name, constructor=machine.loader(mib), **options)


def places(pool: ResourcePool) -> dict[str, str]:
    """Name -> device of what is cached."""
    return {f["identity"].name: f["device"] for f in pool._stats.values()}


def test_low_memory_keeps_models_in_ram_while_the_gpu_is_full(pool, machine):
    load(pool, machine, "a", 85)
    pool.enable_low_memory_mode()
    assert load(pool, machine, "b", 10).device == "cpu"


def test_low_memory_demotes_an_idle_gpu_model_before_it_is_handed_out_again(pool, machine):
    load(pool, machine, "m", 85, hardware_preferences=None)
    pool.enable_low_memory_mode()
    model = load(pool, machine, "m", 85, hardware_preferences=None)
    assert model.device == "cpu"
    assert machine.loads == [85]


def test_a_model_that_somebody_holds_is_not_demoted(pool, machine):
    held = load(pool, machine, "m", 85, hardware_preferences=None)
    pool.enable_low_memory_mode()
    assert load(pool, machine, "m", 85, hardware_preferences=None) is held
    assert held.device == "cuda:0"


def test_low_memory_empties_the_caches_of_every_device_after_an_eviction(pool, machine):
    with pool.lease("embedding", "busy", machine.loader(10), {"device": "cpu"}):
        load(pool, machine, "a", 10)
        pool.clear()
        assert machine.devices.released[-1] == ("cuda:0",)
        load(pool, machine, "b", 10)
        pool.enable_low_memory_mode()
        pool.clear()
        assert machine.devices.released[-1] == ("cpu", "cuda:0")


def test_low_memory_keeps_fewer_events(pool, machine):
    for number in range(150):
        load(pool, machine, f"m{number}", 0.01, hardware_preferences={"device": "cpu"})
    assert len(pool.events()) == 150
    pool.enable_low_memory_mode()
    assert len(pool.events()) == 100


@pytest.mark.parametrize(("available_mb", "low"), [(4200.5, True), (4700.0, False)])
def test_low_memory_mode_turns_itself_on(pool, machine, caplog, available_mb, low):
    machine.system.ram = Memory(16_000 * MIB, int(available_mb * MIB))
    pool.get_model("embedding", "m", constructor=lambda: ...)
    assert pool.get_stats()["low_memory_mode"] is low
    message = "Low memory detected (4200.5 MB). Enabling low memory mode."
    assert (message in caplog.messages) is low


@pytest.mark.parametrize(("low_memory", "seconds"), [(False, 300), (True, 30)])
def test_pressure_is_warned_of_more_often_in_low_memory_mode(
    pool, machine, caplog, low_memory, seconds
):
    machine.system.ram = Memory(100_000 * MIB, 5000 * MIB)
    maintenance: Maintenance = pool._maintenance
    if low_memory:
        pool.enable_low_memory_mode()
    for _ in range(2):
        maintenance.look()
        machine.clock.now += seconds - 1
        maintenance.look()
        machine.clock.now += 1
    assert sum("under memory pressure" in message for message in caplog.messages) == 2


def test_pressure_drops_what_is_idle(pool, machine):
    load(pool, machine, "idle", 10)
    machine.clock.now += 3600
    machine.system.ram = Memory(100_000 * MIB, 5000 * MIB)
    load(pool, machine, "new", 10)
    assert set(places(pool)) == {"new"}


def test_the_monitor_looks_by_itself_and_can_be_stopped(machine, monkeypatch):
    looked = threading.Event()
    monkeypatch.setattr(Maintenance, "look", lambda _: looked.set())
    pool = machine.pool(monitor_interval=0.001)
    assert looked.wait(WAIT)
    pool._monitor.stop()
    assert not pool._monitor._thread.is_alive()
    assert machine.pool()._monitor is None


def test_a_containers_limit_is_the_memory_that_there_is(monkeypatch):
    files = {
        "/proc/self/mountinfo": "1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": f"{200 * MIB}\n",
        "/sys/fs/cgroup/memory.current": f"{70 * MIB}\n",
        "/sys/fs/cgroup/memory.stat": f"anon 1\ninactive_file {30 * MIB}\n",
    }
    monkeypatch.setattr(_system, "_read", files.get)
    _system._own_groups.cache_clear()
    _system.forget_memory()
    monkeypatch.setattr(_system, "memory", REAL_MEMORY)
    try:
        assert _system.container_memory() == Memory(200 * MIB, 160 * MIB)
        assert _system.memory() == Memory(200 * MIB, 160 * MIB)
        files["/sys/fs/cgroup/memory.max"] = "max\n"
        assert _system.container_memory() is None
    finally:
        _system._own_groups.cache_clear()
        _system.forget_memory()


def test_memory_is_read_once_in_one_admission_and_anew_after_it_was_given_back(monkeypatch):
    read = []
    monkeypatch.setattr(_system, "_memory_now", lambda: read.append(1) or Memory(2, len(read)))
    monkeypatch.setattr(_system, "memory", REAL_MEMORY)
    now = [10.0]
    monkeypatch.setattr(_system.time, "monotonic", lambda: now[0])
    _system.forget_memory()
    assert [_system.memory().free, _system.memory().free] == [1, 1]
    _system.trim_heap()
    assert _system.memory().free == 2
    now[0] += 0.006
    assert _system.memory().free == 3
    _system.forget_memory()


def test_a_pool_with_a_monitor_can_go(machine):
    pool = machine.pool(monitor_interval=0.001)
    thread = pool._monitor._thread
    model = weakref.ref(load(pool, machine, "m", 10))
    del pool
    gc.collect()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert model() is None


def test_keep_alive_outlives_the_cleanup(pool, machine):
    load(pool, machine, "short", 10)
    load(pool, machine, "long", 10, keep_alive=120)
    machine.clock.now += 3600
    assert pool.cleanup_unused_resources()["removed"] == 1
    assert set(places(pool)) == {"long"}
    machine.clock.now += 3601
    assert pool.cleanup_unused_resources()["removed"] == 1


def test_keep_alive_counts_on_a_hit_as_well(pool, machine):
    constructor = machine.loader(10)
    pool.get_model("embedding", "m", constructor)
    pool.get_model("embedding", "m", constructor, keep_alive=60)
    machine.clock.now += 120
    assert pool.cleanup_unused_resources(max_age_minutes=1)["removed"] == 0


@pytest.mark.parametrize(
    ("limit_gib", "available_gib", "low"),
    [(8, 1.5, True), (8, 1.7, False), (64, 4.4, True), (64, 4.6, False)],
)
def test_in_a_container_a_fifth_of_its_limit_is_low_where_that_is_less(
    pool, machine, limit_gib, available_gib, low
):
    machine.system.container = Memory(int(limit_gib * GIB), int(available_gib * GIB))
    load(pool, machine, "m", 1)
    assert pool.get_stats()["low_memory_mode"] is low


@pytest.mark.parametrize("value", ["1", "true", "yes", " 1 "])
def test_the_environment_turns_it_on(machine, monkeypatch, value):
    monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", value)
    assert machine.pool().get_stats()["low_memory_mode"]


def test_the_preference_turns_it_on_for_the_whole_pool(pool, machine):
    load(pool, machine, "m", 1, hardware_preferences={"force_low_memory": False})
    assert not pool.get_stats()["low_memory_mode"]
    load(pool, machine, "m", 1, hardware_preferences={"force_low_memory": True})
    assert pool.get_stats()["low_memory_mode"]


def test_a_pinned_or_leased_gpu_model_is_not_demoted(pool, machine):
    with pool.lease("embedding", "m", machine.loader(85), None) as model:
        pool.enable_low_memory_mode()
        with pool.lease("embedding", "m", machine.loader(85), None) as again:
            assert again is model
        assert model.device == "cuda:0"


def test_there_is_no_monitor_unless_one_is_asked_for(machine):
    before = threading.active_count()
    machine.pool()
    ResourcePool()
    assert threading.active_count() == before


@pytest.mark.parametrize("value", ["0", "", "often", "-3"])
def test_a_monitor_interval_that_is_no_positive_number_starts_none(machine, monkeypatch, value):
    monkeypatch.setenv("RESOURCE_POOL_MONITOR", value)
    before = threading.active_count()
    machine.pool()
    assert threading.active_count() == before


def test_the_monitor_warns_and_drops_what_is_idle_without_being_called(
    machine, monkeypatch, caplog
):
    monkeypatch.setenv("RESOURCE_POOL_MONITOR", "0.001")
    pool = machine.pool()
    gone = weakref.ref(load(pool, machine, "idle", 10))
    dropped = threading.Event()
    weakref.finalize(gone(), dropped.set)
    machine.clock.now += 3600
    machine.system.ram = Memory(64 * GIB, 2 * GIB)
    assert dropped.wait(WAIT)
    pool._monitor.stop()
    assert pool.models == {}
    assert any("under memory pressure" in message for message in caplog.messages)


def test_a_monitor_whose_look_fails_goes_on(machine, monkeypatch, caplog):
    looks = threading.Semaphore(0)

    def broken(_) -> None:
        looks.release()
        raise OSError("no /proc")

    monkeypatch.setattr(Maintenance, "look", broken)
    pool = machine.pool(monitor_interval=0.001)
    assert looks.acquire(timeout=WAIT)
    assert looks.acquire(timeout=WAIT)
    pool._monitor.stop()
    assert "The pool's monitor failed; it goes on." in caplog.messages


def available(machine: FakeMachine, mib: float) -> None:
    machine.system.ram = Memory(64 * GIB, int(mib * MIB))


def test_automatic_low_memory_mode_ends_when_memory_is_back_and_not_before(pool, machine, caplog):
    caplog.set_level("INFO", "resource_pool")
    modes = []
    for number, mib in enumerate((4200.5, 4700, 5700, 5800, 4700, 4500)):
        available(machine, mib)
        load(pool, machine, f"m{number}", 0.01, hardware_preferences={"device": "cpu"})
        modes.append(pool.get_stats()["low_memory_mode"])
    # On below 4608 MiB, off above a quarter more; in between it stays as it is.
    assert modes == [True, True, True, False, False, True]
    assert "Low memory is over (5800.0 MB). Leaving low memory mode." in caplog.text
    switched = [event.reason for event in pool.events() if event.what == "low_memory"]
    assert switched == ["on", "off", "on"]


def test_after_low_memory_the_effects_are_over(pool, machine):
    available(machine, 1000)
    load(pool, machine, "a", 1, hardware_preferences={"device": "cpu"})
    assert pool._maintenance.max_age_minutes == 10
    available(machine, 48 * 1024)
    for number in range(150):
        load(pool, machine, f"m{number}", 0.01, hardware_preferences={"device": "cpu"})
    assert pool._maintenance.max_age_minutes == 30
    assert len(pool.events()) > 150


def test_in_a_container_it_ends_by_the_containers_own_measure(pool, machine):
    modes = []
    for number, gib in enumerate((1.5, 1.9, 2.1)):
        machine.system.container = Memory(8 * GIB, int(gib * GIB))
        load(pool, machine, f"m{number}", 0.01, hardware_preferences={"device": "cpu"})
        modes.append(pool.get_stats()["low_memory_mode"])
    assert modes == [True, True, False]


@pytest.mark.parametrize("asked", ["call", "environment", "preference", "call, once it is on"])
def test_low_memory_mode_that_was_asked_for_never_ends_by_itself(machine, monkeypatch, asked):
    if asked == "environment":
        monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", "1")
    pool = machine.pool()
    if asked == "call, once it is on":
        available(machine, 1000)
        load(pool, machine, "first", 0.01, hardware_preferences={"device": "cpu"})
        assert pool.get_stats()["low_memory_mode"]
    if "call" in asked:
        pool.enable_low_memory_mode()
    preferences = {"device": "cpu", "force_low_memory": asked == "preference"}
    available(machine, 48 * 1024)
    for name in "ab":
        load(pool, machine, name, 0.01, hardware_preferences=preferences)
        assert pool.get_stats()["low_memory_mode"]


def test_a_wish_for_low_memory_mode_at_the_moment_of_leaving_it_counts(pool, machine, caplog):
    caplog.set_level("INFO", "resource_pool")
    available(machine, 1000)
    pool._maintenance.look()

    class Wish(logging.Handler):
        def handle(self, record: logging.LogRecord) -> None:
            if "Leaving" in record.getMessage():
                wishes.submit(pool.enable_low_memory_mode).result(WAIT)

    handler = Wish()
    logging.getLogger("resource_pool").addHandler(handler)
    available(machine, 48 * 1024)
    try:
        with ThreadPoolExecutor(1) as wishes:
            pool._maintenance.look()
    finally:
        logging.getLogger("resource_pool").removeHandler(handler)
    assert pool.get_stats()["low_memory_mode"]
    pool._maintenance.look()
    assert pool.get_stats()["low_memory_mode"]


def test_hits_end_low_memory_mode_where_memory_is_back(pool, machine):
    load(pool, machine, "a", 1)
    available(machine, 1000)
    load(pool, machine, "b", 1)
    assert pool.get_stats()["low_memory_mode"]
    available(machine, 48 * 1024)
    pool.get_model("embedding", "a", None, GPU)
    assert not pool.get_stats()["low_memory_mode"]


@pytest.fixture
def demoted(pool, machine) -> ResourcePool:
    """A pool with a model of 85 MiB that low-memory mode, now over, has brought to RAM."""
    load(pool, machine, "m", 85, hardware_preferences=None)
    available(machine, 1000)
    pool._maintenance.look()
    assert pool.get_model("embedding", "m").device == "cpu"
    available(machine, 48 * 1024)
    pool._maintenance.look()
    return pool


def test_after_low_memory_mode_a_model_goes_back_to_its_gpu(demoted, machine):
    model = demoted.get_model("embedding", "m")
    assert (model.device, len(demoted.models), machine.loads) == ("cuda:0", 1, [85])
    assert demoted.get_model("embedding", "m") is model


def test_what_somebody_holds_goes_back_when_nobody_does(demoted):
    (held,) = demoted.models.values()
    for _ in range(2):
        assert demoted.get_model("embedding", "m").device == "cpu"
    del held
    assert demoted.get_model("embedding", "m").device == "cuda:0"


def test_what_has_no_room_on_its_gpu_any_longer_stays_in_ram(demoted, machine):
    other = load(demoted, machine, "other", 50)
    assert demoted.get_model("embedding", "m").device == "cpu"
    assert other.device == "cuda:0"


def test_in_other_words_what_was_brought_to_ram_is_handed_out_and_no_second_copy(pool, machine):
    load(pool, machine, "m", 90)
    pool.enable_low_memory_mode()
    for wish in (None, {"precision": "fp32"}, {"model_family": "embedding"}):
        assert load(pool, machine, "m", 90, hardware_preferences=wish).device == "cpu"
    assert machine.loads == [90]
