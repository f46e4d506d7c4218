"""Ctrl-C at awkward moments: no bytes stay charged, nobody waits for ever, no lease is left."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path

import pytest

import resource_pool
from resource_pool.testing import MIB, FakeMachine

# What is interrupted as it closes, a generator, goes on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

WAIT = 30.0
# Where the interpreter looks for signals: as a function begins, and after a call of one in C.
MAY_STOP = ("call", "c_return")
OURS = str(Path(resource_pool.__file__).with_name("_"))


class InterruptAt:
    """Raises KeyboardInterrupt at the nth step of this thread through the pool's functions."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, frame, event, _argument) -> None:
        if event in MAY_STOP and OURS in frame.f_code.co_filename:
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    def during(self, call) -> bool:
        """Return whether the call came to its end before that step."""
        sys.setprofile(self)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        return self.left > 0


def loaded() -> tuple[FakeMachine, object]:
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    pool.get_model("embedding", "m", machine.loader(10))
    return machine, pool


def test_a_clear_that_is_interrupted_anywhere_leaves_no_bytes_charged_for_ever():
    for step in range(1, 1000):
        _, pool = loaded()
        ended = InterruptAt(step).during(pool.clear)
        pool.clear()
        assert (dict(pool.models), pool.get_stats()["devices"]) == ({}, {}), step
        if ended:
            assert step > 20
            return
    pytest.fail("the call did not end")


def test_a_load_that_is_interrupted_anywhere_leaves_nothing_and_can_be_asked_for_again():
    for step in range(1, 2000):
        machine = FakeMachine({"cpu": 1000, "cuda:0": 15})
        pool = machine.pool(estimate=lambda *_: 10 * MIB)
        pool.get_model("embedding", "a", machine.loader(10))  # which must go for it
        load = functools.partial(pool.get_model, "embedding", "m", machine.loader(10))
        ended = InterruptAt(step).during(load)
        assert load().device == "cuda:0"
        pool.clear()
        assert (dict(pool.models), pool.get_stats()["devices"]) == ({}, {}), step
        if ended:
            assert step > 100
            return
    pytest.fail("the call did not end")


def test_a_move_that_is_interrupted_anywhere_leaves_no_bytes_charged_for_ever():
    for step in range(1, 2000):
        machine = FakeMachine({"cpu": 1000, "cuda:0": 15})
        pool = machine.pool()
        pool.get_model("embedding", "m", machine.loader(10))
        move = functools.partial(pool.move_model_to_device, "embedding", "m", "cpu")
        ended = InterruptAt(step).during(move)
        pool.clear()
        assert (dict(pool.models), pool.get_stats()["devices"]) == ({}, {}), step
        if ended:
            assert step > 50
            return
    pytest.fail("the call did not end")


def test_the_start_of_a_lease_that_is_interrupted_anywhere_leaves_no_lease():
    for step in range(1, 1000):
        machine, pool = loaded()
        lease = pool.lease("embedding", "m", machine.loader(10))
        ended = InterruptAt(step).during(lease.__enter__)
        if ended:
            assert pool.clear()["kept"]
            assert step > 10
            return
        assert pool.clear()["kept"] == {}, step
    pytest.fail("the call did not end")


def test_a_second_interrupt_while_the_first_ends_a_load_leaves_nobody_waiting(machine):
    pool, began, waits, told = machine.pool(), threading.Event(), threading.Event(), []
    begin = pool._store._waits.begin

    def load() -> object:
        began.set()
        assert waits.wait(WAIT)
        raise KeyboardInterrupt

    def noted(entry) -> None:
        begin(entry)
        waits.set()

    def wait() -> None:
        began.wait(WAIT)
        try:
            pool.get_resource("r", "m", load)
        except Exception as error:
            told.append(type(error).__name__)

    def interrupted(*_: object) -> None:
        del pool._store.ledger.settle
        raise KeyboardInterrupt

    pool._store._waits.begin = noted
    pool._store.ledger.settle = interrupted
    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    with pytest.raises(KeyboardInterrupt):
        pool.get_resource("r", "m", load)
    waiter.join(WAIT)
    assert told == ["LoadInterruptedError"]
