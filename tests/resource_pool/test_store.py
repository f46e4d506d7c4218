"""One load per key, failures to everybody, no lock while loading."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resource_pool._store import Store
from resource_pool.errors import (
    LoadInterruptedError,
    NoneResourceError,
    RecursiveLoadError,
    ResourceNotFoundError,
)

WAIT = 30.0  # seconds; a bound for a broken run, never waited for in a good one


class Gate:
    """A constructor that says when it has begun and goes on when it is told to."""

    def __init__(self, result: Callable[[], Any] = object) -> None:
        self.begun, self.go, self.calls = threading.Event(), threading.Event(), 0
        self._result = result

    def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(WAIT)
        return self._result()


def wait_until_hits(store: Store, count: int) -> None:
    """Return when ``count`` callers have joined a load; each counts as a hit when it joins."""
    deadline = threading.Event()
    for _ in range(int(WAIT * 1000)):
        if store.hits >= count:
            return
        deadline.wait(0.001)
    raise AssertionError("the callers did not join the load")


def test_a_key_is_loaded_once_for_all_threads_that_ask():
    store, gate = Store(), Gate()
    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(store.get_or_load, "k", "model", gate) for _ in range(16)]
        assert gate.begun.wait(WAIT)
        wait_until_hits(store, 15)
        gate.go.set()
        results = [future.result(WAIT) for future in asked]
    assert gate.calls == 1
    assert all(result is results[0] for result in results)
    assert (store.hits, store.misses) == (15, 1)


def test_different_keys_load_side_by_side():
    store = Store()
    both = threading.Barrier(2, timeout=WAIT)  # passes only when both loads are under way

    def load() -> object:
        both.wait()
        return object()

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(store.get_or_load, key, "model", load) for key in "ab"]
        assert all(future.result(WAIT) for future in futures)


def test_a_hit_does_not_wait_for_a_load():
    store, gate = Store(), Gate()
    store.get_or_load("ready", "model", object)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(store.get_or_load, "slow", "model", gate)
        assert gate.begun.wait(WAIT)
        assert store.get_or_load("ready", "model", None) is not None
        assert not slow.done()
        gate.go.set()
        slow.result(WAIT)


def test_a_failed_load_raises_its_own_error_to_every_waiter_and_is_not_cached():
    def fail() -> None:
        raise OSError("disk on fire")

    store, gate = Store(), Gate(fail)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(store.get_or_load, "k", "model", gate) for _ in range(4)]
        assert gate.begun.wait(WAIT)
        wait_until_hits(store, 3)
        gate.go.set()
        for future in asked:
            with pytest.raises(OSError, match="disk on fire"):
                future.result(WAIT)
    assert gate.calls == 1
    assert store.get_or_load("k", "model", lambda: "second try") == "second try"


def test_an_interrupt_belongs_to_the_thread_that_got_it():
    def interrupt() -> None:
        raise KeyboardInterrupt

    store, gate = Store(), Gate(interrupt)
    with ThreadPoolExecutor(2) as threads:
        owner = threads.submit(store.get_or_load, "k", "model", gate)
        assert gate.begun.wait(WAIT)
        waiter = threads.submit(store.get_or_load, "k", "model", gate)
        wait_until_hits(store, 1)
        gate.go.set()
        with pytest.raises(LoadInterruptedError, match="interrupted"):
            waiter.result(WAIT)
        assert isinstance(owner.exception(WAIT), KeyboardInterrupt)
    assert store.get("k") is None


def test_none_is_refused_and_other_false_values_are_kept():
    store = Store()
    with pytest.raises(NoneResourceError, match=r"constructor of k returned None"):
        store.get_or_load("k", "resource", lambda: None)
    assert store.get_or_load("k", "resource", lambda: ...) is ...
    assert store.get_or_load("zero", "resource", lambda: 0) == 0
    assert store.get_or_load("zero", "resource", None) == 0


def test_a_miss_without_constructor_names_the_key_and_what_is_cached():
    store = Store()
    store.get_or_load("model:bert", "model", object)
    with pytest.raises(ResourceNotFoundError, match=r"model:gpt2 .*cached: model:bert"):
        store.get_or_load("model:gpt2", "model", None)


def test_a_constructor_that_asks_for_its_own_key_is_told_instead_of_hanging():
    store = Store()
    with pytest.raises(RecursiveLoadError, match="asks the pool for k itself"):
        store.get_or_load("k", "model", lambda: store.get_or_load("k", "model", object))


def test_an_entry_that_is_loading_is_not_removed():
    store, gate = Store(), Gate()
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(store.get_or_load, "k", "model", gate)
        assert gate.begun.wait(WAIT)
        assert store.remove(lambda _: True) == []
        gate.go.set()
        assert store.get_or_load("k", "model", None) is loading.result(WAIT)


def test_a_removed_object_is_released_unless_somebody_holds_it():
    class Model:
        pass

    store = Store()
    held = store.get_or_load("held", "model", Model)
    store.get_or_load("free", "model", Model)
    alive = {item.key: item.alive() for item in store.remove(lambda _: True)}
    assert alive == {"held": True, "free": False}
    assert held is not None


KEYS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.tuples(st.sampled_from(["get", "fail", "remove"]), KEYS), max_size=40)


@given(STEPS)
def test_counters_and_content_follow_a_plain_dict(steps: list[tuple[str, str]]):
    store, model = Store(), dict[str, object]()
    hits = misses = 0
    for action, key in steps:
        if action == "remove":
            store.remove(lambda entry, key=key: entry.key == key)
            model.pop(key, None)
            continue
        hits, misses = (hits + 1, misses) if key in model else (hits, misses + 1)
        if action == "get":
            value = store.get_or_load(key, "model", object)
            assert model.setdefault(key, value) is value
        elif key in model:
            assert store.get_or_load(key, "model", _raise) is model[key]
        else:
            with pytest.raises(ZeroDivisionError):
                store.get_or_load(key, "model", _raise)
    assert (store.hits, store.misses) == (hits, misses)
    assert {entry.key for entry in store.entries()} == set(model)


def _raise() -> None:
    raise ZeroDivisionError
