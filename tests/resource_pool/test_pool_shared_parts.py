"""Models of which somebody holds a part, and models that have parts in common."""

from __future__ import annotations

import gc

import pytest

from resource_pool import DeviceBusyError, InsufficientMemoryError
from resource_pool._holders import is_held
from resource_pool.testing import MIB, FakeMachine, FakeModel

torch = pytest.importorskip("torch")

from shared_models import BODY, HEAD, Model, evicted_for  # noqa: E402

GPU = {"device": "cuda:0"}


@pytest.mark.parametrize(
    "part",
    [
        lambda model: model,
        lambda model: model.body,
        lambda model: model.body[0],
        lambda model: model.head.weight,
        lambda model: list(model.parameters()),
        lambda model: torch.optim.SGD(model.parameters()),
        lambda model: model.head(torch.ones(1, 256)),
    ],
    ids=["all", "part", "part of a part", "parameter", "parameters", "optimizer", "graph"],
)
def test_a_model_of_which_somebody_holds_a_part_makes_no_room(torch_pool, devices, part):
    held = part(torch_pool.get_model("vision", "m", Model))
    with pytest.raises(InsufficientMemoryError):
        evicted_for(torch_pool, devices, room=0, needs=MIB // 4)
    del held
    assert len(evicted_for(torch_pool, devices, room=0, needs=MIB // 4)) == 1


class Wired(Model):
    """Has more references to its parts than its modules: an alias, a list, a closure, a hook."""

    def __init__(self):
        super().__init__()
        self.alias = self.head
        self.tied = torch.nn.Linear(256, 256, bias=False)
        self.tied.weight = self.head.weight
        self.everything = {"parts": [self.body, (self.head,)]}
        self.again = lambda: self.body
        self.body.register_forward_hook(lambda *_: self.head)
        self.normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 4))
        self.recurrent = torch.nn.LSTM(4, 4, 2)


def test_references_from_inside_are_nobodys(torch_pool, devices):
    torch_pool.get_model("vision", "m", Wired)
    gc.collect()
    assert len(evicted_for(torch_pool, devices, room=0, needs=MIB // 4)) == 1
    part = next(iter(torch_pool.models.values())).normed
    with pytest.raises(InsufficientMemoryError):
        evicted_for(torch_pool, devices, room=0, needs=MIB // 4)
    assert isinstance(part, torch.nn.Linear)


def test_a_model_that_leads_to_everything_is_looked_at_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr("resource_pool._holders._MOST", 10)
    model = FakeModel(FakeMachine({"cpu": 1000}), 1)
    model.notes = [[number] for number in range(100)]
    assert is_held([model], own=1)  # by this test


# -- what two models share -------------------------------------------------------------------


@pytest.fixture
def pair(torch_pool):
    """Two variants of one body in the pool, and nobody else who holds them."""
    torch_pool.get_model("vision", "m", Model, {"device": "cpu"}, variant="a")
    body = [next(iter(torch_pool.models.values())).body]
    load = lambda: Model(body.pop())  # noqa: E731
    torch_pool.get_model("vision", "m", load, {"device": "cpu"}, variant="b")
    return torch_pool


def test_shared_weights_are_charged_once(pair):
    stats = pair.get_stats()
    assert stats["memory_usage"] == BODY + 2 * HEAD
    assert stats["devices"]["cpu"]["used_mb"] * MIB == BODY + 2 * HEAD
    assert {row["memory_mb"] * MIB for row in stats["models"].values()} == {BODY + HEAD}
    assert pair.clear()["removed"] == 2
    assert pair.get_stats()["devices"] == {}


def test_models_that_share_weights_go_together(pair, devices):
    # One of them would free half a MiB at most, and both free three quarters.
    assert len(evicted_for(pair, devices, room=0, needs=BODY + 2 * HEAD)) == 2
    with pytest.raises(InsufficientMemoryError):
        evicted_for(pair, devices, room=0, needs=BODY + 2 * HEAD + 1)


def test_what_one_of_them_must_keep_keeps_both(pair, devices):
    pair.pin(next(iter(pair.models)))
    with pytest.raises(InsufficientMemoryError):
        evicted_for(pair, devices, room=0, needs=BODY)


def test_what_two_share_is_passed_on_when_the_first_leaves(pair):
    _, second = pair.models
    pair.pin(second)
    cleared = pair.clear()
    assert (cleared["removed"], cleared["freed_bytes"], cleared["held"]) == (1, HEAD, {})
    stats = pair.get_stats()
    assert stats["memory_usage"] == BODY + HEAD
    assert stats["devices"]["cpu"]["used_mb"] * MIB == BODY + HEAD
    pair.unpin(second)
    assert pair.clear()["freed_bytes"] == BODY + HEAD
    assert pair.get_stats()["devices"] == {}


def test_whoever_inherits_shared_weights_makes_the_room_that_it_takes(pair, devices):
    _, second = pair.models
    pair.pin(second)
    pair.clear()
    pair.unpin(second)
    assert len(evicted_for(pair, devices, room=0, needs=BODY + HEAD)) == 1
    with pytest.raises(InsufficientMemoryError):
        evicted_for(pair, devices, room=0, needs=BODY + HEAD + 1)


def test_of_several_heirs_each_byte_has_one(torch_pool):
    """The first has two bodies, of which each of the others shares one, and the last both."""
    one, two = Model().body, Model().body
    bodies = {"a": [one, two], "b": [one], "c": [two], "d": [one, two]}
    for variant, shared in bodies.items():
        make = lambda shared=tuple(shared): Model(torch.nn.Sequential(*shared))  # noqa: E731
        torch_pool.get_model("vision", "m", make, {"device": "cpu"}, variant=variant)
    del one, two, bodies, shared, make
    *_, last = keys = [*torch_pool.models]
    for left in range(len(keys), 1, -1):
        stats = torch_pool.get_stats()
        assert stats["memory_usage"] == 2 * BODY + left * HEAD
        assert stats["devices"]["cpu"]["used_mb"] * MIB == 2 * BODY + left * HEAD
        for key in keys[1 - left :]:
            torch_pool.pin(key)
        assert torch_pool.clear()["freed_bytes"] == HEAD
        for key in keys[1 - left :]:
            torch_pool.unpin(key)
    assert [*torch_pool.models] == [last]
    assert torch_pool.clear()["freed_bytes"] == 2 * BODY + HEAD
    assert torch_pool.get_stats()["devices"] == {}


def test_what_somebody_holds_of_the_dropped_one_stays_charged_for_it(pair):
    first, second = pair.models
    held = pair.models[first]
    pair.pin(second)
    assert pair.clear()["held"] == {first: "the caller still holds it"}
    assert pair.get_stats()["devices"]["cpu"]["used_mb"] * MIB == BODY + 2 * HEAD
    del held
    assert pair.get_stats()["devices"]["cpu"]["used_mb"] * MIB == BODY + HEAD


def test_what_is_the_same_object_under_two_keys_is_held_by_the_other():
    machine = FakeMachine({"cpu": 100})
    pool, only = machine.pool(), [FakeModel(machine, 10)]
    pool.get_model("vision", "m", lambda: only[0], CPU, variant="a")
    pool.get_model("vision", "m", lambda: only.pop(), CPU, variant="b")
    first, second = pool.models
    pool.pin(second)
    assert pool.clear()["held"] == {first: f"shared with {second}"}
    assert pool.get_stats()["devices"]["cpu"]["used_mb"] == 10


def test_a_model_that_shares_weights_is_not_moved_by_itself():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    model = pool.get_model("vision", "m", machine.loader(10), GPU, variant="a")
    assert pool.get_model("vision", "m", lambda: model, GPU, variant="b") is model
    assert pool.get_stats()["devices"]["cuda:0"]["used_mb"] == 10
    with pytest.raises(DeviceBusyError, match="shares weights"):
        pool.move_model_to_device("vision", "m", "cpu", variant="a")
    assert model.device == "cuda:0"


def test_a_model_that_was_moved_still_shares_with_those_that_come_later():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool, keeps = machine.pool(), []
    pool.get_model("vision", "m", machine.loader(10), {"device": "cpu"}, variant="a")
    keeps.append(next(iter(pool.models.values())))
    pool.get_model("vision", "m", lambda: keeps[0], {"device": "cpu"}, variant="b")
    _, second = pool.models
    pool.pin(second)
    keeps.clear()
    pool.clear()
    pool.unpin(second)
    moved = pool.move_model_to_device("vision", "m", "cuda:0", variant="b")
    same = {"device": "cuda:0"}
    lease = pool.lease("vision", "m", lambda: moved, same, variant="c")
    with lease, pytest.raises(DeviceBusyError, match="shares weights"):
        pool.move_model_to_device("vision", "m", "cpu", variant="b")
    assert moved.device == "cuda:0"


def test_a_lazy_model_leaves_no_charge(torch_pool):
    def load():
        model = Model()
        model.later = torch.nn.LazyLinear(4)
        return model

    torch_pool.get_model("vision", "m", load, {"device": "cpu"})
    assert torch_pool.clear()["removed"] == 1
    assert torch_pool.get_stats()["devices"] == {}


# -- what a load that failed, or that nobody waited for, leaves behind --------------------------

CPU = {"device": "cpu", "force_device": True}


def test_an_object_whose_load_failed_is_charged_when_it_loads_again():
    machine = FakeMachine({"cpu": 100})
    pool, only = machine.pool(), [FakeModel(machine, 60)]
    machine.devices.broken["cpu"] = RuntimeError("hiccup")
    with pytest.raises(RuntimeError, match="hiccup"):
        pool.get_model("vision", "m", lambda: only[0], CPU)
    machine.devices.broken.clear()
    gc.collect()  # the error's frames
    pool.get_model("vision", "m", lambda: only.pop(), CPU)
    assert pool.get_stats()["memory_usage_mb"] == 60
    pool.get_model("vision", "next", machine.loader(60), CPU, needs=60 * MIB)  # m makes room
    assert pool.get_stats()["memory_usage_mb"] == 60


def test_an_object_whose_load_failed_may_be_moved_when_it_loads_again():
    machine = FakeMachine({"cpu": 100, "cuda:0": 100})
    pool, model = machine.pool(), FakeModel(machine, 60)
    forced = {**GPU, "force_device": True}
    machine.devices.broken["cuda:0"] = RuntimeError("hiccup")
    with pytest.raises(RuntimeError, match="hiccup"):
        pool.get_model("vision", "m", lambda: model, forced)
    machine.devices.broken.clear()
    machine.clock.now += 120  # the device is tried again
    assert pool.get_model("vision", "m", lambda: model, forced).device == "cuda:0"


def test_a_load_that_fails_after_it_was_placed_leaves_no_claim_behind(monkeypatch):
    machine = FakeMachine({"cpu": 100})
    pool, model = machine.pool(), FakeModel(machine, 60)
    with monkeypatch.context() as patch:
        patch.setattr(machine.devices, "describe", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            pool.get_model("vision", "m", lambda: model, CPU)
    pool.get_model("vision", "m", lambda: model, CPU)
    assert pool.get_stats()["memory_usage_mb"] == 60


def test_an_object_that_another_took_the_place_of_is_charged_where_it_is_cached():
    machine = FakeMachine({"cpu": 1000})
    pool, model = machine.pool(), FakeModel(machine, 60)
    first = pool.get_model("vision", "m", machine.loader(60), {**CPU, "precision": "fp32"})
    # Only its load shows that float32 is its own dtype, and that such a one is here already.
    assert pool.get_model("vision", "m", lambda: model, CPU) is first
    pool.get_model("vision", "m", lambda: model, CPU, variant="b")
    assert pool.get_stats()["memory_usage_mb"] == 120


@pytest.mark.parametrize(
    "memory",
    [
        lambda model: model.state_dict(),
        lambda model: model.head.weight.detach(),
        lambda model: model.head.weight.data[:1],
        lambda model: model.head.weight.detach().numpy(),
    ],
    ids=["state_dict", "detached", "data", "numpy"],
)
def test_memory_that_somebody_keeps_without_the_model_is_not_freed(torch_pool, memory):
    kept = memory(torch_pool.get_model("vision", "m", Model))
    (key,) = torch_pool.models
    cleared = torch_pool.clear()
    assert (cleared["freed_bytes"], [*cleared["held"]]) == (0, [key])
    assert torch_pool.get_stats()["devices"]["cpu"]["used_mb"] * MIB == BODY + HEAD
    del kept
    stats = torch_pool.get_stats()
    assert (stats["devices"], stats["management"]["freed_mb"] * MIB) == ({}, BODY + HEAD)
