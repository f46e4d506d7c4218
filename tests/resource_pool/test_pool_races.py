"""Between two steps of the pool, somebody else asks it: nothing is lost, and nothing hangs."""

from __future__ import annotations

import logging
import threading

import pytest

from resource_pool import ResourceNotFoundError
from resource_pool.testing import MIB, FakeMachine

WAIT = 30.0


class StopsAThread:
    """A resource whose thread looks at the pool before it ends, and which waits for that end."""

    def __init__(self, pool) -> None:
        self.told: list[bool] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(pool, self.stopped), daemon=True)
        self.thread.start()

    @staticmethod
    def _run(pool, stopped) -> None:
        stopped.wait(WAIT)
        pool.get_stats()

    def __del__(self) -> None:
        self.stopped.set()
        self.thread.join(WAIT)
        self.told.append(not self.thread.is_alive())


@pytest.mark.parametrize("leaves", ["cleared", "discarded"])
def test_a_finalizer_may_wait_for_a_thread_that_looks_at_the_pool(pool, monkeypatch, leaves):
    monkeypatch.setattr(f"{__name__}.WAIT", 5.0)
    told = pool.get_resource("worker", "w", lambda: StopsAThread(pool)).told
    if leaves == "cleared":
        pool.clear()
    else:
        pool._store.discard(pool._store.get("resource:worker:w"))
    assert told == [True]


def test_a_model_that_was_changed_in_a_lease_is_handed_to_nobody(pool, machine):
    """Whoever asks while the change is told gets a model of its own."""
    got = []

    class AsksMeanwhile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "was changed" in record.getMessage():
                ask = lambda: got.append(pool.get_model("embedding", "m", machine.loader(5)))  # noqa: E731
                thread = threading.Thread(target=ask)
                thread.start()
                thread.join(WAIT)

    handler = AsksMeanwhile()
    logging.getLogger("resource_pool").addHandler(handler)
    try:
        with pool.lease("embedding", "m", machine.loader(5)) as model:
            model.training = True
    finally:
        logging.getLogger("resource_pool").removeHandler(handler)
    assert got != [model]
    assert pool.get_model("embedding", "m") is got[0]


def test_a_victim_that_somebody_gets_between_plan_and_eviction_stays():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, got = machine.pool(), []
    pool.get_model("embedding", "a", machine.loader(50))
    evict = pool._evictor.evict

    def got_first(*arguments, **options):
        if not got:
            got.append(pool.get_model("embedding", "a"))
        return evict(*arguments, **options)

    pool._evictor.evict = got_first
    model = pool.get_model("embedding", "b", machine.loader(80), needs=80 * MIB)
    assert model.device == "cpu"
    assert pool.get_model("embedding", "a") is got[0]
    assert machine.loads == [50, 80]


def test_a_victim_that_somebody_gets_and_gives_back_while_it_is_chosen_stays(pool, machine):
    """It is asked for again just now: that was the wrong one to choose."""
    pool.get_model("embedding", "a", machine.loader(50))

    def asked_for(entry) -> bool:
        pool.get_model("embedding", "a")
        return True

    assert pool._evictor.evict(asked_for, "a test") == []
    assert [*pool.models] == ["embedding:a:cuda:0:float32"]


def test_nobody_waits_while_the_pool_looks_whether_a_model_is_held(pool, machine):
    """The walk over a large model takes long; no lock is held meanwhile."""
    pool.get_model("embedding", "a", machine.loader(50))
    free = []

    def looks_long(entry) -> bool:
        thread = threading.Thread(target=lambda: free.append(pool.get_stats()))
        thread.start()
        thread.join(WAIT)
        return True

    assert len(pool._evictor.evict(looks_long, "a test")) == 1
    assert len(free) == 1


def test_a_request_that_cannot_be_planned_is_a_miss():
    machine = FakeMachine({"cpu": 10})
    pool = machine.pool(estimate=lambda *_: 50 * MIB)
    with pytest.raises(ResourceNotFoundError):
        pool.get_model("embedding", "m")
    stats = pool.get_stats()
    assert (stats["hits"], stats["misses"], stats["total_requests"]) == (0, 1, 1)
