"""Many threads, and each interleaving that has broken a pool of this kind before."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import InsufficientMemoryError, RecursiveLoadError, get_global_resource_pool
from resource_pool._entries import Mark
from resource_pool._parts import Owner, Placed
from resource_pool.testing import MIB, FakeMachine, FakeModel

GPU = {"device": "cuda:0"}
WAIT = 30.0


def test_two_loads_that_wait_for_each_other_are_told():
    pool = FakeMachine({"cpu": 1000}).pool()
    both = threading.Barrier(2, timeout=WAIT)

    def needs(other: str):
        def load() -> object:
            both.wait()
            return [pool.get_resource("r", other, constructor=object)]

        return load

    def ask(mine: str, other: str) -> object:
        try:
            return pool.get_resource("r", mine, constructor=needs(other))
        except RecursiveLoadError as error:
            return error

    with ThreadPoolExecutor(2) as threads:
        results = [
            f.result(WAIT) for f in (threads.submit(ask, "a", "b"), threads.submit(ask, "b", "a"))
        ]
    assert any(isinstance(result, RecursiveLoadError) for result in results)


class Cyclic:
    """Goes only with the garbage collector, and calls back then."""

    def __init__(self, call):
        self.call, self.me = call, self

    def __del__(self):
        self.call()


def within_time(call):
    """Return the result of a call that may hang; a thread that does is left behind."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    thread.join(WAIT)
    assert results, "it hangs"
    return results[0]


def test_a_finalizer_that_asks_the_pool_while_its_thread_plans_is_told():
    machine = FakeMachine({"cpu": 100})
    pool, answers = machine.pool(), []
    here = pool.get_model("vision", "here", machine.loader(60))

    def ask_again() -> None:
        answers.append(pool.get_model("vision", "here", machine.loader(60)))  # a hit plans nothing
        try:
            pool.get_model("vision", "other", machine.loader(1))
        except RecursiveLoadError as error:
            answers.append(error)

    def ask() -> str:
        Cyclic(ask_again)
        try:
            pool.get_model("vision", "next", machine.loader(90), needs=90 * MIB)
        except InsufficientMemoryError:
            return "no room"
        return "room"

    gc.disable()  # it is collected where the plan finds no room, and not before
    try:
        assert within_time(ask) == "no room"
    finally:
        gc.enable()
    assert answers[0] is here
    assert isinstance(answers[1], RecursiveLoadError)
    assert pool.get_model("vision", "other", machine.loader(1)).device == "cpu"


def test_a_finalizer_that_places_a_model_while_its_thread_notes_parts_does_not_hang():
    placed, parts = Placed(), [FakeModel(FakeMachine({"cpu": 100}), 1) for _ in range(2)]

    class Parts(list):
        def __iter__(self):
            placed.claim(parts[1:], Owner(Mark(), "finalizer"))
            return super().__iter__()

    assert within_time(lambda: placed.claim(Parts(parts[:1]), Owner(Mark(), "load"))) == []


def test_a_finalizer_that_asks_for_the_global_pool_gets_the_one_that_is_being_made(monkeypatch):
    from resource_pool import _global

    made = []

    class Pool:
        def __init__(self):
            made.append(self)
            self.inner = get_global_resource_pool() if len(made) == 1 else None

        def _read_environment(self):
            pass

    monkeypatch.setattr(_global, "ResourcePool", Pool)
    monkeypatch.setattr(_global, "_global_pool", None)
    assert within_time(get_global_resource_pool) is made[0].inner is get_global_resource_pool()


def test_a_thread_that_waits_for_a_load_that_has_just_ended_is_no_cycle():
    """One thread loads F, whose constructor waits for E; the other loads E, then asks for F."""
    for _ in range(50):
        pool = FakeMachine({"cpu": 1000}).pool()
        begun = threading.Event()

        def load_f(pool=pool, begun=begun) -> object:
            begun.set()
            return [pool.get_resource("r", "E", constructor=object)]

        def load_e(begun=begun) -> object:
            assert begun.wait(WAIT)
            return object()

        with ThreadPoolExecutor(2) as threads:
            second = threads.submit(pool.get_resource, "r", "E", load_e)
            first = threads.submit(pool.get_resource, "r", "F", load_f)
            second.result(WAIT)
            assert pool.get_resource("r", "F") is first.result(WAIT)


def test_a_victim_is_not_resurrected():
    """Whoever asks for a model that is being evicted starts a load and gets the new one."""
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    evicting, go = threading.Event(), threading.Event()
    release = machine.devices.release

    def slow_release(devices):
        evicting.set()
        assert go.wait(WAIT)
        release(devices)

    old = pool.get_model("vision", "v", machine.loader(10), GPU)
    number = id(old)
    machine.devices.release = slow_release
    with ThreadPoolExecutor(2) as threads:
        clearing = threads.submit(pool.clear)
        assert evicting.wait(WAIT)
        new = threads.submit(pool.get_model, "vision", "v", machine.loader(10), GPU).result(WAIT)
        go.set()
        clearing.result(WAIT)
    assert id(new) != number
    assert pool.get_model("vision", "v", None, GPU) is new


def test_a_model_is_leased_before_anybody_can_evict_it():
    """Between the end of a load and the start of its lease there is no moment to evict in."""
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    stop = threading.Event()

    def evict_all_the_time() -> None:
        while not stop.is_set():
            pool.clear()

    with ThreadPoolExecutor(1) as threads:
        evicting = threads.submit(evict_all_the_time)
        try:
            for _ in range(200):
                with pool.lease("vision", "m", machine.loader(10), GPU) as model:
                    assert any(model is cached for cached in pool.models.values())
        finally:
            stop.set()
        evicting.result(WAIT)


def test_a_failed_load_costs_no_victim_that_was_not_needed():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    kept = pool.get_model("vision", "kept", machine.loader(30), GPU)
    with pytest.raises(ZeroDivisionError):
        pool.get_model("vision", "m", lambda: 1 / 0, GPU, needs=50 * MIB)
    assert pool.get_model("vision", "kept", None, GPU) is kept
    assert pool.get_stats()["devices"]["cuda:0"]["reserved_mb"] == 0


def test_a_hit_is_not_blocked_behind_a_load_or_an_eviction():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, begun, go = machine.pool(), threading.Event(), threading.Event()
    ready = pool.get_model("vision", "ready", machine.loader(10), {"device": "cpu"})
    pool.get_model("vision", "idle", machine.loader(60), GPU, needs=60 * MIB)

    def slow_release(_) -> None:
        begun.set()
        assert go.wait(WAIT)

    machine.devices.release = slow_release
    with ThreadPoolExecutor(1) as threads:
        new = threads.submit(
            pool.get_model, "vision", "new", machine.loader(60), GPU, needs=60 * MIB
        )
        assert begun.wait(WAIT)
        assert pool.get_model("vision", "ready", None, {"device": "cpu"}) is ready
        assert not new.done()
        go.set()
        new.result(WAIT)


def test_one_request_worded_in_two_ways_is_loaded_once():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool, begun, go = machine.pool(), threading.Event(), threading.Event()

    def slow() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 10)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pool.get_model, "vision", "m", slow, GPU)
        assert begun.wait(WAIT)
        wish = {"priority_list": ["cuda:0"]}
        second = threads.submit(pool.get_model, "vision", "m", machine.loader(10), wish)
        go.set()
        assert first.result(WAIT) is second.result(WAIT)
    assert machine.loads == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_pool_survives_a_fork_in_the_middle_of_a_load():
    """In the child: no lock is stuck, half a load is forgotten, and what was there is there."""
    script = """
import os, threading
from resource_pool.testing import FakeMachine, FakeModel
machine = FakeMachine({"cpu": 1000})
pool = machine.pool()
begun, go = threading.Event(), threading.Event()
def slow():
    begun.set(); go.wait(30)
    return FakeModel(machine, 10)
ready = pool.get_model("vision", "ready", machine.loader(10))
thread = threading.Thread(target=pool.get_model, args=("vision", "half", slow), daemon=True)
thread.start()
begun.wait(30)
with pool._store.lock:
    child = os.fork()
if child == 0:
    assert pool.get_model("vision", "ready") is ready
    pool.get_model("vision", "half", machine.loader(10))
    assert pool.get_stats()["cached_models"] == 2
    pool.clear()
    os._exit(0)
go.set()
thread.join(30)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
raise SystemExit(status or (pool.get_stats()["cached_models"] != 2))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False)
    assert done.returncode == 0


def test_the_interpreter_ends_with_a_monitor_and_a_load_under_way():
    script = """
import threading
from resource_pool.testing import FakeMachine
pool = FakeMachine({"cpu": 1000}).pool(monitor_interval=0.01)
begun = threading.Event()
def stuck():
    begun.set(); threading.Event().wait()
threading.Thread(target=pool.get_model, args=("vision", "m", stuck), daemon=True).start()
begun.wait(30)
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # an interrupt between open and close
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_an_interrupt_at_any_moment_of_a_load_leaves_no_key_stuck():
    """A signal handler that raises at a random moment must not leave a load that never ends."""
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()

    class InterruptError(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00001 * (number % 50 + 1))
                pool.get_model("vision", "m", machine.loader(1))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except InterruptError:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            with ThreadPoolExecutor(1) as threads:
                asked = threads.submit(pool.get_model, "vision", "m", machine.loader(1))
                assert asked.result(WAIT) is not None
            pool.clear()
    finally:
        signal.signal(signal.SIGALRM, before)
