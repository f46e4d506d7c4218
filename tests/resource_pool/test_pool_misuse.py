"""What a caller gives by mistake is one sentence, and nothing is loaded."""

from __future__ import annotations

import asyncio

import pytest

from resource_pool import PreferenceError

LIST, CLASS = ["x"], dict

MISTAKES = {
    "a list as name": lambda pool: pool.get_model("bert", LIST, object),
    "a list as name, awaited": lambda pool: asyncio.run(pool.aget_model("bert", LIST, object)),
    "a list as name, leased": lambda pool: pool.lease("bert", LIST, object).__enter__(),
    "a list as type": lambda pool: pool.get_model(LIST, "x", object),
    "no type": lambda pool: pool.get_model(None, "x", object),
    "a number as revision": lambda pool: pool.get_model("bert", "x", object, revision=5),
    "a class as variant": lambda pool: pool.get_model("bert", "x", object, variant=CLASS),
    "a list as variant": lambda pool: pool.get_model("bert", "x", object, variant=LIST),
    "a size in words": lambda pool: pool.get_model("bert", "x", object, needs="1GB"),
    "a time in words": lambda pool: pool.get_model("bert", "x", object, keep_alive="5"),
    "a tokenizer of a list": lambda pool: pool.get_tokenizer(LIST, "x", object),
    "a tokenizer of no type": lambda pool: pool.get_tokenizer(None, "x", object),
    "a tokenizer's revision": lambda pool: pool.get_tokenizer("bert", "x", object, revision=5),
    "a number to move": lambda pool: pool.move_model_to_device("bert", 5, "cpu"),
    "a move of no type": lambda pool: pool.move_model_to_device(None, "m", "cpu"),
    "an age in words": lambda pool: pool.cleanup_unused_resources("5"),
    "a list as key": lambda pool: pool.pin(LIST),
    "no key": lambda pool: pool.get_resource_details(None),
    "a report of no hardware": lambda pool: pool.generate_error_report("m", None, "no"),
}


@pytest.mark.parametrize("mistake", [*MISTAKES.values()], ids=MISTAKES)
def test_what_is_of_the_wrong_kind_is_named(pool, mistake):
    pool.get_model("bert", "m", object)
    with pytest.raises(TypeError, match=r"^\w+ must be (text|a name|a number).*, not ") as raised:
        mistake(pool)
    assert len(str(raised.value).splitlines()) == 1
    assert len(pool.models) == 1


@pytest.mark.parametrize("number", [-1, float("nan")])
def test_numbers_below_zero_and_no_numbers_are_refused(pool, number):
    for call in (
        lambda: pool.get_model("bert", "m", object, {"device": "cuda:0"}, needs=number),
        lambda: pool.get_model("bert", "m", object, keep_alive=number),
        lambda: pool.cleanup_unused_resources(number),
    ):
        with pytest.raises(ValueError, match=r"must be 0 .* or more"):
            call()


@pytest.mark.parametrize("name", ["load_deadline", "monitor_interval"])
@pytest.mark.parametrize("seconds", [-1, 0, float("inf"), float("nan")])
def test_a_time_that_no_thread_can_wait_for_is_refused_before_any_load(machine, name, seconds):
    with pytest.raises(ValueError, match=f"{name} must be seconds above 0"):
        machine.pool(**{name: seconds})


@pytest.mark.parametrize("device", ["cudda", 5])
def test_a_device_to_move_from_that_does_not_exist_is_no_model_that_is_not_cached(pool, device):
    pool.get_model("bert", "m", object)
    with pytest.raises(PreferenceError, match="Unknown device"):
        pool.move_model_to_device("bert", "m", "cpu", from_device=device)


def test_more_memory_than_there_can_be_is_no_peak(pool):
    cell = {"memory_usage": {"peak": 1e305}}
    with pytest.raises(PreferenceError, match="peak must be a number of MB"):
        pool.get_model("bert", "m", object, {"hw_compatibility": {"cpu": cell}})


def test_a_report_takes_any_object_as_its_message(pool):
    assert pool.generate_error_report("m", "cuda", 5)["error_message"] == "5"


@pytest.mark.parametrize(
    "wish",
    [
        {"hw_compatibility": {"cpu": {"memory_usage": {"peak": float("inf")}}}},
        {"priority_list": None},
        {"compatible_devices": None},
    ],
)
def test_wrong_or_empty_values_are_preference_errors_or_legal(pool, wish):
    if "hw_compatibility" in wish:
        with pytest.raises(PreferenceError):
            pool.explain("vision", "m", wish)
    else:
        pool.explain("vision", "m", wish)
