"""Placing before publishing, clear and cleanup: what goes, what stays, and what is said of it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resource_pool import ResourcePool
from resource_pool.testing import MIB, FakeMachine

GPU = {"device": "cuda:0"}
WAIT = 30.0


def test_an_object_is_placed_before_anybody_sees_it(pool, machine):
    placing, go = threading.Event(), threading.Event()
    place = machine.devices.place

    def slow_place(model, device, dtype, *_):
        placing.set()
        assert go.wait(WAIT)
        return place(model, device, dtype)

    machine.devices.place = slow_place
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(pool.get_model, "vision", "m", machine.loader(1), GPU)]
        assert placing.wait(WAIT)
        assert pool.models == {}
        asked.append(threads.submit(pool.get_model, "vision", "m", machine.loader(1), GPU))
        go.set()
        assert [future.result(WAIT).device for future in asked] == ["cuda:0", "cuda:0"]
    assert len(machine.loads) == 1


def test_clear_and_cleanup_keep_what_is_leased_or_pinned_and_say_why(pool, machine):
    pool.get_model("vision", "pinned", machine.loader(1))
    (pinned,) = pool.models
    pool.pin(pinned)
    with pool.lease("vision", "leased", machine.loader(1)):
        for done in (pool.cleanup_unused_resources(max_age_minutes=0), pool.clear()):
            assert done["removed"] == 0
            assert sorted(done["kept"].values()) == ["leased", "pinned"]
    pool.unpin(pinned)
    done = pool.clear()
    assert (done["removed"], done["freed_bytes"], done["kept"]) == (2, 2 * MIB, {})


def test_clear_and_cleanup_return_counts_bytes_and_reasons_as_plain_values(pool, machine):
    pool.get_model("vision", "gone", machine.loader(3))
    held = pool.get_model("vision", "held", machine.loader(5))
    pool.get_tokenizer("vision", "gone", constructor=dict)
    done = pool.cleanup_unused_resources(max_age_minutes=0)
    assert done.keys() == {"removed", "freed_bytes", "kept", "held"}
    assert (done["removed"], done["freed_bytes"]) == (3, 3 * MIB)
    assert list(done["held"]) == [f"vision:held:{held.device}:float32"]
    json.dumps(done)


def test_what_is_being_loaded_stays_and_is_named(pool, machine):
    begun, go = threading.Event(), threading.Event()

    def slow() -> list[int]:
        begun.set()
        assert go.wait(WAIT)
        return [1]

    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(pool.get_resource, "data", None, slow)
        assert begun.wait(WAIT)
        assert pool.clear()["kept"] == {"resource:data": "it is being loaded"}
        go.set()
        assert pool.get_resource("data") is loading.result(WAIT)


@pytest.mark.parametrize("release", ["clear", "cleanup"])
def test_no_deadline_is_waited_out_for_memory_that_a_live_reference_keeps(pool, machine, release):
    class TestCase:
        model = pool.get_model("vision", "m", machine.loader(60), GPU)

    before = machine.clock.now
    done = pool.clear() if release == "clear" else pool.cleanup_unused_resources(max_age_minutes=0)
    assert machine.clock.now == before
    assert done["freed_bytes"] == 0
    assert list(done["held"].values()) == ["the caller still holds it"]
    assert TestCase.model.device == "cuda:0"


def test_one_held_model_does_not_hide_the_memory_of_another(pool, machine):
    held = pool.get_model("vision", "held", machine.loader(30), GPU)
    pool.get_model("vision", "free", machine.loader(30), GPU)
    before = machine.clock.now
    done = pool.clear()
    assert machine.clock.now == before
    assert done["freed_bytes"] == 30 * MIB
    assert machine.devices.memory("cuda:0").free == 70 * MIB
    assert held.device == "cuda:0"


def test_an_unused_age_is_a_fraction_of_a_minute_where_it_is_asked_so(pool, machine):
    pool.get_model("vision", "m", machine.loader(1))
    machine.clock.now += 5
    assert pool.cleanup_unused_resources(max_age_minutes=0.1)["removed"] == 0
    machine.clock.now += 2
    assert pool.cleanup_unused_resources(max_age_minutes=0.1)["removed"] == 1


def test_the_age_counts_from_the_last_use_and_not_from_the_load(pool, machine):
    pool.get_model("vision", "m", machine.loader(1))
    machine.clock.now += 1000
    pool.get_model("vision", "m")
    machine.clock.now += 1000
    assert pool.cleanup_unused_resources()["removed"] == 0


def test_pinning_what_is_not_there_names_the_nearest_keys(pool, machine):
    pool.get_model("vision", "resnet", machine.loader(1), {"device": "cpu"})
    for change in (pool.pin, pool.unpin):
        with pytest.raises(KeyError, match="vision:resnet:cpu:float32"):
            change("vision:resnet:cpu:float16")


def test_a_pool_that_goes_takes_its_models_with_it():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool: ResourcePool | None = machine.pool()
    pool.get_model("vision", "m", machine.loader(60), GPU)
    pool = None
    import gc

    gc.collect()
    assert machine.devices.memory("cuda:0").free == 100 * MIB
