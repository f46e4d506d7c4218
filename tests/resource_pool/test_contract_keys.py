"""Which requests share an instance, what may be cached, and what a miss says."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hardware_detection.testing import fake_report
from resource_pool import (
    PoolError,
    ResourceNotFoundError,
    ResourcePool,
    _global,
    get_global_resource_pool,
)
from resource_pool.testing import MIB, FakeMachine, FakeModel

WAIT = 30.0


def fail() -> None:
    pytest.fail("the constructor was called on a hit")


def test_a_pool_of_ones_own_is_apart_from_the_global_one(monkeypatch):
    monkeypatch.setattr(_global, "_global_pool", None)
    own = ResourcePool()
    own.get_resource("data", constructor=list)
    assert get_global_resource_pool() is not own
    assert get_global_resource_pool().get_stats()["cached_resources"] == 0


def test_threads_that_ask_at_once_get_one_global_pool(monkeypatch):
    monkeypatch.setattr(_global, "_global_pool", None)
    together = threading.Barrier(16, timeout=WAIT)

    def ask(_: int) -> ResourcePool:
        together.wait()
        return get_global_resource_pool()

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(ask, range(16)))) == 1


def test_the_environment_counts_for_the_first_global_pool_too(monkeypatch):
    monkeypatch.setattr(_global, "_global_pool", None)
    monkeypatch.setenv("RESOURCE_POOL_LOW_MEMORY", "1")
    assert get_global_resource_pool().get_stats()["low_memory_mode"]


@pytest.mark.parametrize("word", ["bert", "roberta", "nothing-that-anybody-knows", ""])
def test_any_word_for_the_type_leads_to_the_family_of_the_name(pool, machine, word):
    model = pool.get_model("embedding", "bert-base-uncased", machine.loader(1))
    assert pool.get_model(word, "bert-base-uncased", fail) is model
    tokenizer = pool.get_tokenizer("embedding", "bert-base-uncased", object)
    assert pool.get_tokenizer(word, "bert-base-uncased", fail) is tokenizer


def test_a_type_and_a_name_that_nobody_knows_are_a_key_of_their_own(pool, machine):
    model = pool.get_model("ours", "made-in-house-v1", machine.loader(1))
    assert pool.get_model("ours", "made-in-house-v1", fail) is model
    assert pool.get_model("theirs", "made-in-house-v1", machine.loader(1)) is not model


def test_each_device_has_an_instance_of_its_own():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    for device in ("cpu", "cuda:0", "cuda:1", "cpu", "cuda:1"):
        model = pool.get_model("vision", "m", machine.loader(1), {"device": device})
        assert model.device == device
    assert len(pool.models) == len(machine.loads) == 3


def test_the_device_in_the_key_is_the_resolved_one(pool, machine):
    wishes = [None, {"device": "auto"}, {"device": "cuda"}, {"device": "cuda:0"}, {"device": "mps"}]
    models = [pool.get_model("vision", "m", machine.loader(1), wish) for wish in wishes[:4]]
    assert len({id(model) for model in models}) == 1
    assert pool.get_model("vision", "m", machine.loader(1), wishes[4]).device == "cpu"


def test_a_precision_that_is_the_models_own_is_no_other_instance(pool, machine):
    native = pool.get_model("vision", "m", machine.loader(1))
    assert pool.get_model("vision", "m", fail, {"precision": "fp32"}) is native
    assert pool.get_model("vision", "m", machine.loader(1), {"precision": "fp16"}) is not native


def test_a_quantised_model_is_left_as_it_is_and_its_key_says_so():
    class Quantised(torch.nn.Module):
        is_quantized = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(8, dtype=torch.int8), requires_grad=False)

    pool = ResourcePool(hardware=fake_report)
    model = pool.get_model("vision", "m", Quantised)
    assert model.weight.dtype == torch.int8
    assert list(pool.models) == ["vision:m:cpu:int8"]
    floating = pool.get_model("vision", "m", lambda: torch.nn.Linear(2, 2), {"precision": "fp16"})
    assert floating is not model


@pytest.mark.parametrize("value", [..., 0, "", False, [], (), {}, object(), len, torch])
def test_any_object_but_none_may_be_cached(pool, value):
    for get in (pool.get_model, pool.get_tokenizer, pool.get_resource):
        assert get("embedding", "m", lambda: value) is value
        assert get("embedding", "m", fail) is value
    assert pool.get_stats()["cached_resources"] == 3


def test_a_hit_calls_no_constructor_under_a_lease_either(pool, machine):
    model = pool.get_model("vision", "m", machine.loader(1))
    with pool.lease("vision", "m", fail) as leased:
        assert leased is model


def test_a_miss_without_constructor_names_the_key_and_what_is_cached(pool, machine):
    pool.get_model("vision", "there", machine.loader(1), {"device": "cpu"})
    pool.get_resource("data", "there", list)
    for get, key in (
        (pool.get_model, "vision:missing"),
        (pool.get_tokenizer, "tokenizer:vision:missing"),
        (pool.get_resource, "resource:vision:missing"),
    ):
        with pytest.raises(ResourceNotFoundError) as failure:
            get("vision", "missing")
        assert key in str(failure.value)
        assert "vision:there:cpu:float32" in str(failure.value)
        assert "resource:data:there" in str(failure.value)


def test_a_miss_without_constructor_evicts_nothing(pool, machine):
    pool.get_model("vision", "there", machine.loader(80), {"device": "cuda:0"})
    with pytest.raises(ResourceNotFoundError):
        pool.get_model("vision", "missing", None, {"device": "cuda:0"}, needs=80 * 2**20)
    assert list(pool.models) == ["vision:there:cuda:0:float32"]


PARTS = st.text(st.sampled_from("ab:@#%"), min_size=1, max_size=4)


@example([("a:b", None), ("a", "b")])
@example([("a%3Ab", None), ("a:b", None)])
@given(st.lists(st.tuples(PARTS, PARTS | st.none()), min_size=2, max_size=2, unique=True))
def test_resources_with_separators_in_their_names_are_told_apart(pairs):
    pool = FakeMachine({"cpu": 1000}).pool()
    first, second = (pool.get_resource(*pair, constructor=lambda: [0]) for pair in pairs)
    assert first is not second


@example([("a@b", None, None), ("a", "b", None)])
@example([("a#b", None, None), ("a", None, "b")])
@example([("a", "b#a", None), ("a", "b", "a")])
@example([("a%40b", None, None), ("a@b", None, None)])
@given(
    st.lists(
        st.tuples(PARTS, PARTS | st.none(), PARTS | st.none()), min_size=2, max_size=2, unique=True
    )
)
def test_names_revisions_and_variants_with_separators_are_told_apart(requests):
    machine = FakeMachine({"cpu": 1000})
    pool = machine.pool()
    models = [
        pool.get_model("vision", name, machine.loader(1), revision=revision, variant=variant)
        for name, revision, variant in requests
    ]
    assert models[0] is not models[1]
    assert len(pool.models) == 2


def test_a_folder_may_be_named_by_its_path(pool, machine, tmp_path):
    model = pool.get_model("vision", tmp_path, machine.loader(1))
    assert pool.get_model("vision", str(tmp_path)) is model
    tokenizer = pool.get_tokenizer("vision", tmp_path, object)
    assert pool.get_tokenizer("vision", str(tmp_path)) is tokenizer


def test_a_spread_model_is_recognised_in_other_words():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100, "cuda:1": 100})
    pool = machine.pool()
    wishes = [None, {"device": "auto"}, {"device": "cuda"}, {"device": "cuda", "precision": "fp32"}]
    for wish in wishes:
        pool.get_model("vision", "m", machine.loader(150), wish, needs=150 * MIB)
    assert machine.loads == [150]
    assert list(pool.models) == ["vision:m:cuda:0+cuda:1:float32"]


class FourBits(torch.nn.Module):
    """Quantized as transformers does it."""

    is_quantized = True

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(quantization_config={"quant_method": "bitsandbytes"})
        self.weight = torch.nn.Parameter(torch.zeros(8, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize("first", [None, {"precision": "fp16"}])
def test_a_quantised_model_is_recognised_in_other_words(first):
    pool = ResourcePool(hardware=fake_report)
    model = pool.get_model("vision", "m", FourBits, first)
    assert list(pool.models) == ["vision:m:cpu:int8/bitsandbytes"]
    for wish in (None, {"precision": "fp16"}, {"precision": "bf16"}, {"device": "cpu"}):
        assert pool.get_model("vision", "m", fail, wish) is model


def test_what_goes_between_the_plan_and_the_hit_is_planned_again():
    machine = FakeMachine({"cpu": 1000, "cuda:0": 100})
    pool = machine.pool()
    pool.get_model("vision", "m", machine.loader(60), {"device": "cuda"}, needs=60 * MIB)
    somebodys = FakeModel(machine, 70)
    decide, decisions = pool._loader._decide, []

    def decided(*args):
        decisions.append(decide(*args))
        if len(decisions) == 1:
            raise PoolError("so that no hit is looked for")
        if len(decisions) == 2:
            assert decisions[-1].cached
            pool.clear()
            machine.devices.put(somebodys, {"cuda:0": 70 * MIB})
        return decisions[-1]

    pool._loader._decide = decided
    model = pool.get_model(
        "vision", "m", machine.loader(60), {"device": "cuda", "precision": "fp32"}, needs=60 * MIB
    )
    assert model.device == "cpu"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("embedding", "", list), "model_name must not be empty"),
        (("embedding", None, list), "model_name must be a name or a path, not None"),
        (("embedding", 3, list), "model_name must be a name or a path, not 3"),
        (("embedding", b"m", list), "model_name must be a name or a path"),
        ((None, "m", list), "model_type must be text"),
        (("embedding", "m", 7), "must be callable"),
    ],
)
def test_wrong_arguments_are_told_in_a_sentence(pool, arguments, told):
    with pytest.raises((TypeError, ValueError), match=told):
        pool.get_model(*arguments)
    assert pool.get_stats()["cached_resources"] == 0


def test_wrong_arguments_of_the_others_too(pool):
    with pytest.raises(ValueError, match="model_name must not be empty"):
        pool.get_tokenizer("embedding", "", list)
    with pytest.raises(TypeError, match="must be callable"):
        pool.get_resource("data", "x", 5)
