"""What once went wrong in the pool, one test each."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hardware_detection.testing import fake_report
from resource_pool import (
    InsufficientMemoryError,
    LoadTimeoutError,
    RecursiveLoadError,
    ResourcePool,
    _system,
)
from resource_pool.devices import Memory
from resource_pool.testing import MIB, FakeMachine, FakeModel

GPU = {"device": "cuda:0"}
WAIT = 10.0


def test_explain_does_not_turn_low_memory_mode_on():
    pool = FakeMachine({"cpu": 1000}).pool()
    pool.explain("vision", "m", {"force_low_memory": True})
    assert not pool.get_stats()["low_memory_mode"]


def test_a_lease_that_timed_out_while_waiting_is_not_counted():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, begun, go = machine.pool(load_deadline=0.05), threading.Event(), threading.Event()

    def stuck() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 10)

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_model, "vision", "m", stuck, GPU)
        assert begun.wait(WAIT)
        with pytest.raises(LoadTimeoutError), pool.lease("vision", "m", stuck, GPU):
            pass
        pool.get_model("vision", "m", machine.loader(10), GPU)
        go.set()
        owner.result(WAIT)
    assert pool.clear()["kept"] == {}


def test_a_lease_whose_wait_was_interrupted_is_not_counted(monkeypatch):
    machine = FakeMachine({"cpu": 1000})
    pool, begun, go = machine.pool(), threading.Event(), threading.Event()

    def slow() -> FakeModel:
        begun.set()
        assert go.wait(WAIT)
        return FakeModel(machine, 10)

    from concurrent.futures import Future

    class Interrupted(BaseException):
        pass

    real = Future.result

    def interrupted(self, timeout=None):
        raise Interrupted

    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(pool.get_model, "vision", "m", slow)
        assert begun.wait(WAIT)
        monkeypatch.setattr(Future, "result", interrupted)
        with pytest.raises(Interrupted), pool.lease("vision", "m", slow):
            pass
        monkeypatch.setattr(Future, "result", real)
        go.set()
        owner.result(WAIT)
    assert pool.clear()["kept"] == {}


def test_a_lease_refused_as_a_cycle_is_not_counted():
    pool = FakeMachine({"cpu": 1000}).pool()
    both = threading.Barrier(2, timeout=WAIT)

    def needs(other: str):
        def load() -> object:
            both.wait()
            try:
                with pool.lease("vision", other, object) as model:
                    return [model]
            except RecursiveLoadError:
                return ["alone"]

        return load

    with ThreadPoolExecutor(2) as threads:
        futures = [
            threads.submit(pool.get_model, "vision", a, needs(b))
            for a, b in (("a", "b"), ("b", "a"))
        ]
        [f.result(WAIT) for f in futures]
    assert pool.clear()["kept"] == {}


def test_a_constructor_that_fails_after_an_old_device_failure_is_called_once():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    machine.devices.broken["cuda:0"] = RuntimeError("CUDA error: launch failure")
    pool.get_model("vision", "m", machine.loader(10), GPU)
    pool.clear()
    machine.devices.broken.clear()
    machine.clock.now += 61
    calls = []

    class TooOftenError(BaseException):
        pass

    def fails() -> None:
        calls.append(1)
        if len(calls) > 20:
            raise TooOftenError
        raise ValueError("wrong config")

    with pytest.raises(ValueError, match="wrong config"):
        pool.get_model("vision", "m", fails, GPU)
    assert len(calls) == 1


def test_a_lease_cannot_be_given_back_twice():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    with pool.lease("vision", "m", machine.loader(10)):
        other = pool.lease("vision", "m")
        other.__enter__()
        other.__exit__(None, None, None)
        other.__exit__(None, None, None)
        assert list(pool.clear()["kept"].values()) == ["leased"]


def test_a_lease_that_has_ended_keeps_nothing_alive():
    machine = FakeMachine({"cpu": 300, "cuda:0": 80})
    pool = machine.pool()
    held = pool.get_model("vision", "m", machine.loader(60), GPU | {"precision": "fp16"})
    lease = pool.lease("vision", "m", machine.loader(60), GPU)
    with lease:  # memory runs out in float32: it joins the model in float16 that is here
        assert {*pool.models} == {"vision:m:cuda:0:float16"}
    del held
    pool.clear()
    gc.collect()
    assert machine.devices.memory("cuda:0").free == 80 * MIB


def test_a_lease_that_is_entered_twice_is_refused_or_given_back_twice():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    lease = pool.lease("vision", "m", machine.loader(10))
    with pytest.raises(RuntimeError, match="once"), lease, lease:
        pass
    assert pool.clear()["kept"] == {}


def test_the_advice_differs_by_subfamily():
    from resource_pool.reports import recommendations

    plain = recommendations("out_of_memory", "text_generation", "cuda")
    experts = recommendations("out_of_memory", "text_generation", "cuda", "mixture_of_experts")
    assert len(experts) == len(plain) + 1
    assert "experts" in experts[0]


def test_the_holders_of_a_gpu_are_not_those_of_another():
    machine = FakeMachine({"cpu": 1000, **{f"cuda:{i}": 100 for i in range(11)}})
    pool = machine.pool()
    pool.get_model("vision", "ten", machine.loader(10), {"device": "cuda:10"})
    assert pool.generate_error_report("m", "cuda:1", "out of memory")["memory"]["held_by"] == []


def test_the_holders_on_rocm_are_found():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    report = fake_report(rocm=[{"name": "AMD", "memory_total_mb": 100}])
    pool = machine.pool(hardware=lambda: report)
    pool.get_model("vision", "m", machine.loader(10), {"device": "rocm"})
    assert pool.generate_error_report("m", "rocm", "out of memory")["memory"]["held_by"]


def test_a_chosen_precision_survives_the_last_step_of_the_ladder():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    wish = {**GPU, "precision": "fp16"}
    model = pool.get_model("vision", "m", machine.loader(300), wish)
    assert (model.device, model.dtype) == ("cpu", "float16")


def test_what_does_not_suit_is_not_called_a_lack_of_memory():
    pool = FakeMachine({"cpu": 1000}).pool()
    with pytest.raises(Exception, match="too old") as failure:
        pool.get_model(
            "vision",
            "m",
            object,
            {"hw_compatibility": {"cpu": {"compatible": False, "reason": "too old"}}},
        )
    assert not isinstance(failure.value, InsufficientMemoryError)


def test_a_forced_gpu_is_not_demoted_and_then_refused():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    wish = {**GPU, "force_device": True}
    pool.get_model("vision", "m", machine.loader(85), wish)
    pool.enable_low_memory_mode()
    assert pool.get_model("vision", "m", machine.loader(85), wish).device == "cuda:0"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_lease_of_the_thread_that_forks_holds_in_the_child():
    script = """
import os
from resource_pool.testing import FakeMachine
machine = FakeMachine({"cpu": 1000})
pool = machine.pool()
with pool.lease("vision", "m", machine.loader(10)) as model:
    child = os.fork()
    if child == 0:
        os._exit(list(pool.clear()["kept"].values()) != ["leased"])
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0


def test_a_key_of_a_tokenizer_is_never_that_of_a_model():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    model = pool.get_model("tokenizer", "qqq", machine.loader(1))
    (key,) = pool.models
    _, name, device, dtype = key.split(":")
    assert pool.get_tokenizer(f"{name}:{device}", dtype, lambda: "a tokenizer") is not model


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
def test_a_monitor_interval_without_end_is_no_traceback(seconds):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource_pool as r; p = r.ResourcePool(); t = p._monitor; t and t.stop()",
        ],
        env={**os.environ, "RESOURCE_POOL_MONITOR": seconds},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr


def test_a_negative_monitor_interval_is_refused():
    machine = FakeMachine({"cpu": 1000})
    with pytest.raises(ValueError, match="must be"):
        machine.pool(monitor_interval=-1.0)


def test_keep_alive_that_is_no_number_is_refused():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    with pytest.raises(ValueError, match="must be"):
        pool.get_model("vision", "m", machine.loader(1), keep_alive=float("nan"))
    gc.collect()


def test_an_explicit_gpu_in_low_memory_mode_costs_no_second_instance():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(85), GPU)
    pool.enable_low_memory_mode()
    pool.get_model("vision", "m", machine.loader(85), GPU)
    assert len(pool.models) == 1
    assert len(machine.loads) == 1


def test_the_event_of_a_first_load_names_the_key_that_the_model_has():
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1))
    assert pool.events()[0].key in pool.models


def test_a_fake_machine_has_the_memory_that_the_test_says(monkeypatch):
    # A small or busy machine runs the test.
    monkeypatch.setattr(_system, "memory", lambda: Memory(8 * 2**30, 2**30))
    machine = FakeMachine({"cpu": 100_000})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1))
    assert not pool.get_stats()["low_memory_mode"]


def torch_pool() -> ResourcePool:
    return ResourcePool(hardware=fake_report)


def test_a_model_that_was_built_in_inference_mode_can_be_leased():
    import torch

    pool = torch_pool()
    with torch.inference_mode(), pool.lease("vision", "m", lambda: torch.nn.Linear(4, 4)) as model:
        assert model(torch.ones(1, 4)).shape == (1, 4)
    assert pool.get_stats()["management"]["mutations"] == 0


def test_modules_with_unusual_parameters_are_cached_as_they_are():
    import torch

    class Sparse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.eye(4).to_sparse())

    failed = []
    for name, make in {
        "lazy": lambda: torch.nn.LazyLinear(4),
        "sparse": Sparse,
        "meta": lambda: torch.nn.Linear(4, 4, device="meta"),
    }.items():
        try:
            torch_pool().get_model("vision", name, make, {"device": "cpu"})
        except Exception as error:
            failed.append((name, type(error).__name__))
    assert failed == []


def test_an_asynchronous_hit_does_not_wait_for_loads():
    import asyncio

    machine = FakeMachine({"cpu": 1000})
    pool, go = machine.pool(), threading.Event()
    pool.get_model("vision", "ready", machine.loader(1))

    def slow() -> FakeModel:
        assert go.wait(2 * WAIT)
        return FakeModel(machine, 1)

    async def ask() -> bool:
        loads = [asyncio.create_task(pool.aget_model("vision", "slow", slow)) for _ in range(64)]
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(pool.aget_model("vision", "ready"), WAIT)
            return True
        finally:
            go.set()
            await asyncio.gather(*loads)

    assert asyncio.run(ask())


def test_a_context_that_outlives_a_constructor_may_wait_for_the_models_move(monkeypatch):
    """As a task has that the constructor began."""
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, contexts, joined = machine.pool(), [], []

    def load() -> FakeModel:
        contexts.append(contextvars.copy_context())
        return FakeModel(machine, 10)

    pool.get_model("vision", "m", load, {"device": "cpu"})
    place = machine.devices.place

    def moving(*arguments) -> str:
        with ThreadPoolExecutor(1) as threads:
            (key,) = (entry.key for entry in pool._store.entries())
            joined.append(threads.submit(contexts[0].run, pool._store.join, key).result(WAIT))
        return place(*arguments)

    monkeypatch.setattr(machine.devices, "place", moving)
    model = pool.move_model_to_device("vision", "m", "cuda:0")
    assert joined[0].result(WAIT) is model


def in_a_cycle(pool: ResourcePool, machine: FakeMachine, preferences: dict) -> None:
    """Load a model of 60 MiB and leave it to the garbage collector, as a forward may do."""
    cycle = [pool.get_model("vision", "m", machine.loader(60), preferences)]
    cycle.append(cycle)


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_what_only_garbage_holds_makes_room():
    machine = FakeMachine({"cpu": 100})
    pool = machine.pool()
    for name in "ab":  # at one moment of the clock
        in_a_cycle(pool, machine, {"device": "cpu"})
        pool.get_model("vision", name, machine.loader(60, seconds=0), None, needs=60 * MIB)
        assert len(pool.models) == 1
        pool.clear()


@pytest.mark.usefixtures("no_collector")
def test_what_only_garbage_holds_makes_room_where_there_is_another_device():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    in_a_cycle(pool, machine, GPU)
    model = pool.get_model("vision", "next", machine.loader(60), None, needs=60 * MIB)
    assert model.device == "cuda:0"


@pytest.mark.usefixtures("no_collector")
def test_what_only_garbage_holds_goes_where_memory_runs_out():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    in_a_cycle(pool, machine, GPU)
    pool._loader.observer._collected_at = machine.clock.now
    model = pool.get_model("vision", "next", machine.loader(60, 0), GPU)
    assert (model.device, model.dtype) == ("cuda:0", "float32")


def test_what_loads_showed_of_a_folder_is_forgotten_when_it_changes(tmp_path):
    machine = FakeMachine({"cpu": 1000})
    pool, config = machine.pool(), tmp_path / "config.json"
    config.write_text("{}")
    pool.get_model("vision", tmp_path, machine.loader(60))
    pool.clear()
    assert pool.explain("vision", tmp_path).needed == 60 * MIB
    config.write_text('{"hidden_size": 32}')
    assert pool.explain("vision", tmp_path).needed is None
    pool.get_model("vision", tmp_path, machine.loader(10))
    assert pool.explain("vision", tmp_path).needed == 10 * MIB


def test_what_loads_showed_is_kept_of_so_many_models(monkeypatch):
    monkeypatch.setattr("resource_pool._experience._MOST", 2)
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    for name in "abc":
        pool.get_model("vision", name, machine.loader(1))
    assert [pool.explain("vision", name).needed for name in "abc"] == [None, MIB, MIB]
