"""The asynchronous twins: the event loop goes on while a model loads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from resource_pool import RecursiveLoadError, ResourceNotFoundError
from resource_pool.testing import FakeMachine


@pytest.fixture
def machine():
    return FakeMachine({"cpu": 1000})


def test_the_twins_return_what_their_namesakes_return(machine):
    pool = machine.pool()

    async def ask():
        return (
            await pool.aget_model("embedding", "m", machine.loader(1)),
            await pool.aget_tokenizer("embedding", "m", object),
            await pool.aget_resource("data", "d", constructor=object),
        )

    model, tokenizer, resource = asyncio.run(ask())
    assert model is pool.get_model("embedding", "m")
    assert tokenizer is pool.get_tokenizer("embedding", "m")
    assert resource is pool.get_resource("data", "d")


def test_a_load_leaves_the_event_loop_free(machine):
    pool, may_load = machine.pool(), threading.Event()

    def load():
        assert may_load.wait(30)
        return machine.loader(1)()

    async def ask():
        loading = asyncio.gather(*(pool.aget_model("embedding", "m", load) for _ in range(4)))
        await asyncio.sleep(0)  # the loop turns while the load waits for it
        may_load.set()
        return await loading

    assert len(set(map(id, asyncio.run(ask())))) == 1
    assert pool.get_stats()["misses"] == 1


def test_errors_arrive_as_they_are(machine):
    with pytest.raises(ResourceNotFoundError):
        asyncio.run(machine.pool().aget_model("embedding", "m"))


def test_an_asynchronous_lease_protects_for_its_extent(machine):
    pool = machine.pool()

    async def use():
        async with pool.lease("embedding", "m", machine.loader(1)) as model:
            assert [*pool.clear()["kept"].values()] == ["leased"]
            return model.device

    assert asyncio.run(use()) == "cpu"
    assert pool.clear()["removed"] == 1


def test_a_cancelled_entry_into_a_lease_leaves_no_lease_behind(machine):
    pool, loading, may_load = machine.pool(), threading.Event(), threading.Event()

    def load():
        loading.set()
        assert may_load.wait(30)
        return machine.loader(1)()

    async def use():
        async with pool.lease("embedding", "m", load):
            pytest.fail("it was cancelled before")

    async def cancel():
        task = asyncio.create_task(use())
        await asyncio.to_thread(loading.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_load.set()
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(cancel())
    assert pool.get_model("embedding", "m") is not None  # the load was not in vain
    assert pool.clear()["kept"] == {}


def test_a_coroutine_in_a_constructor_that_awaits_its_own_key_is_told(machine):
    pool = machine.pool()

    def load():
        return asyncio.run(pool.aget_model("embedding", "m", machine.loader(1)))

    with pytest.raises(RecursiveLoadError, match="asks the pool for"):
        pool.get_model("embedding", "m", load)
    with pytest.raises(RecursiveLoadError, match="asks the pool for"):
        asyncio.run(pool.aget_model("embedding", "m", load))
    assert pool.get_model("embedding", "m", machine.loader(1)) is not None


def test_a_coroutine_on_the_loop_that_awaits_the_load_it_serves_is_told(machine):
    pool = machine.pool()

    async def serve():
        loop = asyncio.get_running_loop()

        def load():
            own = pool.aget_resource("data", "d", object)
            return asyncio.run_coroutine_threadsafe(own, loop).result(30)

        return await pool.aget_resource("data", "d", load)

    with pytest.raises(RecursiveLoadError):
        asyncio.run(serve())


def test_constructors_that_await_each_others_keys_are_told(machine):
    pool, both = machine.pool(), threading.Barrier(2)

    def load_for(other):
        def load():
            both.wait(30)
            return asyncio.run(pool.aget_resource("data", other, object))

        return load

    async def ask():
        return await asyncio.gather(
            pool.aget_resource("data", "a", load_for("b")),
            pool.aget_resource("data", "b", load_for("a")),
            return_exceptions=True,
        )

    assert any(isinstance(found, RecursiveLoadError) for found in asyncio.run(ask()))


def test_a_constructor_may_await_another_key(machine):
    pool = machine.pool()

    def load():
        return [asyncio.run(pool.aget_resource("data", "part", object))]

    assert pool.get_resource("data", "whole", load) == [pool.get_resource("data", "part")]


def test_memory_that_runs_out_in_a_lease_leaves_the_coroutine_as_it_was(machine):
    """The frames of the failed forward are cleared; the one that awaits the end is its own."""
    pool, suspended = machine.pool(), threading.Event()
    fingerprint = machine.devices.fingerprint

    def when_suspended(model):
        assert suspended.wait(30)
        return fingerprint(model)

    async def use() -> str:
        try:
            async with pool.lease("embedding", "m", machine.loader(1)):
                asyncio.get_running_loop().call_soon(suspended.set)
                machine.devices.fingerprint = when_suspended
                raise MemoryError("out of memory")
        except MemoryError as error:
            return f"caught {error} in {threading.current_thread().name}"

    async def outer() -> str:
        return await use()

    assert asyncio.run(outer()) == f"caught out of memory in {threading.main_thread().name}"


def test_an_asynchronous_hit_starts_no_thread(monkeypatch):
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(1))
    started = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda t: (started.append(t), start(t))[1])
    asyncio.run(pool.aget_model("vision", "m"))
    assert started == []


def test_a_constructor_that_raises_stop_iteration_does_not_hang_the_loop():
    pool = FakeMachine({"cpu": 1000}).pool()

    async def ask():
        # next(model.parameters()) of a module without any, for instance
        return await asyncio.wait_for(
            pool.aget_resource("r", "x", constructor=lambda: next(iter(()))), 2
        )

    with pytest.raises((RuntimeError, StopIteration)):
        asyncio.run(ask())
