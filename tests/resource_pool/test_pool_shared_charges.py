"""Who answers for memory that models share is asked when a load is published."""

from __future__ import annotations

import gc
import threading

import pytest

from resource_pool import DeviceBusyError
from resource_pool._entries import Mark
from resource_pool._parts import Owner, Placed
from resource_pool._sharing import sharing
from resource_pool.testing import MIB, FakeMachine, FakeModel

torch = pytest.importorskip("torch")

from shared_models import BODY, HEAD, Model, evicted_for, get, used  # noqa: E402


class Buffered(torch.nn.Module):
    """Keeps its memory in a buffer, as a position table or a cache of masks."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)


def test_an_object_that_is_loaded_again_while_its_caller_holds_it_is_charged_again(torch_pool):
    held = [get(torch_pool, "a", Model)]
    assert [*torch_pool.clear()["held"]]
    assert get(torch_pool, "a", lambda: held[0]) is held[0]
    stats = torch_pool.get_stats()
    assert (stats["memory_usage"], used(torch_pool)) == (BODY + HEAD, BODY + HEAD)
    held.clear()
    assert torch_pool.clear()["freed_bytes"] == BODY + HEAD
    assert used(torch_pool) == 0
    assert torch_pool.get_stats()["management"]["freed_mb"] * MIB == BODY + HEAD


def test_an_object_that_was_loaded_again_makes_room(torch_pool, devices):
    held = [get(torch_pool, "a", Model)]
    torch_pool.clear()
    get(torch_pool, "a", held.pop)
    assert len(evicted_for(torch_pool, devices, room=0, needs=BODY + HEAD)) == 1


def test_a_body_that_its_dropped_model_leaves_is_charged_for_whoever_has_it_now(torch_pool):
    held = [get(torch_pool, "a", Model)]
    torch_pool.clear()
    get(torch_pool, "b", lambda: Model(held[0].body))
    stats = torch_pool.get_stats()
    assert (stats["memory_usage"], used(torch_pool)) == (BODY + HEAD, BODY + 2 * HEAD)
    held.clear()
    assert used(torch_pool) == BODY + HEAD
    assert torch_pool.clear()["freed_bytes"] == BODY + HEAD
    assert used(torch_pool) == 0


def test_what_two_have_of_a_dropped_model_is_charged_once(torch_pool):
    held = [get(torch_pool, "a", Model)]
    torch_pool.clear()
    get(torch_pool, "b", lambda: Model(held[0].body))
    get(torch_pool, "c", lambda: Model(held[0].body))
    held.clear()
    assert used(torch_pool) == BODY + 2 * HEAD
    torch_pool.clear()
    assert used(torch_pool) == 0


def begin(pool, variant: str, load):
    """Start a load that is placed and not published; return what publishes it, and its entry."""
    placed, go_on = threading.Event(), threading.Event()

    class Place(type(pool._loader._placer)):
        def place(self, *args):
            loaded = super().place(*args)
            if threading.current_thread() is thread:
                placed.set()
                assert go_on.wait(30)
                if thread.fails:
                    raise RuntimeError("hiccup")
            return loaded

    def run() -> None:
        try:
            get(pool, variant, load)
        except RuntimeError as error:
            thread.error = str(error)

    pool._loader._placer.__class__ = Place
    thread = threading.Thread(target=run, daemon=True)
    thread.fails, thread.error = False, ""
    thread.start()
    assert placed.wait(30)

    def finish(*, fails: bool = False) -> None:
        thread.fails = fails
        go_on.set()
        thread.join(30)
        assert not thread.is_alive()
        assert thread.error == ("hiccup" if fails else "")

    return finish


def test_a_sharer_whose_older_one_fails_answers_for_all_of_it(torch_pool):
    body = [Model().body]
    finish = begin(torch_pool, "a", lambda: Model(*body))
    get(torch_pool, "b", lambda: Model(*body))
    finish(fails=True)
    assert used(torch_pool) == BODY + HEAD
    get(torch_pool, "c", lambda: Model(*body))
    del finish
    gc.collect()
    assert used(torch_pool) == BODY + 2 * HEAD
    body.clear()
    assert torch_pool.clear()["freed_bytes"] == BODY + 2 * HEAD
    assert used(torch_pool) == 0


@pytest.mark.parametrize("older_first", [True, False])
def test_two_that_are_loaded_side_by_side_are_charged_once_for_what_they_share(
    torch_pool, older_first
):
    body = [Model().body]
    finish = [begin(torch_pool, variant, lambda: Model(*body)) for variant in "ab"]
    for publish in finish if older_first else reversed(finish):
        publish()
    assert used(torch_pool) == BODY + 2 * HEAD
    body.clear()
    del finish, publish
    gc.collect()
    assert torch_pool.clear()["freed_bytes"] == BODY + 2 * HEAD
    assert used(torch_pool) == 0


def test_one_of_two_that_are_loaded_side_by_side_may_leave_before_the_other_is_there(torch_pool):
    body = [Model().body]
    finish = begin(torch_pool, "b", lambda: Model(*body))
    get(torch_pool, "a", lambda: Model(*body))
    torch_pool.clear()
    finish()
    assert used(torch_pool) == BODY + HEAD
    body.clear()
    del finish
    gc.collect()
    assert torch_pool.clear()["freed_bytes"] == BODY + HEAD
    assert used(torch_pool) == 0


@pytest.mark.parametrize(
    "same",
    [lambda table: table, lambda table: table.view(-1), lambda table: torch.nn.Parameter(table)],
    ids=["buffer", "view", "parameter"],
)
def test_buffers_that_two_share_are_charged_once(torch_pool, same):
    table = torch.ones(256, 256)
    models = [Buffered(table), Buffered(None)]
    models[1].table = same(table)
    get(torch_pool, "b", models.pop)
    get(torch_pool, "a", models.pop)
    assert used(torch_pool) == BODY
    del table
    assert torch_pool.clear()["freed_bytes"] == BODY
    assert used(torch_pool) == 0


def test_a_model_that_is_a_resource_too_is_charged(torch_pool):
    only = [torch_pool.get_resource("module", "m", Model)]
    get(torch_pool, "a", only.pop)
    assert used(torch_pool) == BODY + HEAD


def test_a_part_that_two_have_placed_is_still_the_others_when_the_load_of_one_fails():
    placed, part = Placed(), FakeModel(FakeMachine({"cpu": 100}), 1)
    a, b, c = (Owner(Mark(), label) for label in "abc")
    assert placed.claim([part], a) == []
    assert placed.claim([part], b) == [a]
    placed.disclaim(a.mark)
    assert placed.claim([part], c) == [b]
    placed.disclaim(b.mark)
    placed.disclaim(c.mark)
    assert placed.claim([part], a) == []


def shares(machine, pool, body, variant):
    """Load a head on a body, and let nobody hold it."""

    def load():
        head = FakeModel(machine, 5, body())
        machine.devices.put(head, {"cuda:0": 5 * MIB})
        return head

    pool.get_model("vision", "b", load, {"device": "cuda:0"}, variant=variant)


@pytest.mark.parametrize("who", ["body", "head"])
def test_a_move_leaves_alone_what_somebody_has_of_a_model_that_has_left(who):
    machine = FakeMachine({"cpu": 300, "cuda:0": 100})
    pool = machine.pool()
    held = [pool.get_model("vision", "a", machine.loader(10), {"device": "cuda:0"})]
    if who == "head":  # under the same key as the one that is moved
        shares(machine, pool, lambda: held[0], "head")
        held[0] = pool.get_model("vision", "b", variant="head")
    pool.clear()
    shares(machine, pool, lambda: held[0].parts[-1], "head")
    with pytest.raises(DeviceBusyError, match="which has left the pool and is still in use"):
        pool.move_model_to_device("vision", "b", "cpu")
    assert held[0].device == "cuda:0"
    held.clear()
    assert pool.move_model_to_device("vision", "b", "cpu").device == "cpu"


def test_an_object_that_was_changed_is_taken_out_under_each_of_its_keys(torch_pool):
    held = [get(torch_pool, "a", Model)]
    get(torch_pool, "b", lambda: held[0])
    assert torch_pool.get_stats()["cached_models"] == 2
    with torch_pool.lease("vision", "m", variant="a") as model:
        model.train(not model.training)
    assert torch_pool.models == {}
    told = [event.key for event in torch_pool.events() if event.what == "mutated"]
    assert len({*told}) == 2


def test_models_with_empty_tensors_share_nothing(torch_pool):
    for variant in "ab":
        get(torch_pool, variant, lambda: Buffered(torch.empty(0)))
        get(torch_pool, variant + "2", lambda: Model(Buffered(torch.empty(0))))
    assert all(len(group) == 1 for group in sharing(torch_pool._store.entries()))
