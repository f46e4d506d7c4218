"""Which file runs next: decided without processes."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from rp_cli.runner.history import past_of, read_history
from rp_cli.runner.learning import Facts, ModelPlan
from rp_cli.runner.scheduling import (
    Open,
    Run,
    State,
    Task,
    choose,
    home,
    share,
    unneeded,
)


def plan(name: str) -> ModelPlan:
    return ModelPlan("embedding", name, name, "AutoModel", False, {}, None, None, None, None, False)


def task(number: int, *models: str, needs: int = 1, **more) -> Task:
    facts = Facts(models=tuple(map(plan, models)))
    return Task(number, Path(f"test_{number}.py"), facts, needs=needs, **more)


FREE = State(2, 0, [()], [], set(), budget=100, used=0, idle=True)


def state(**changes) -> State:
    return State(**{**FREE.__dict__, **changes})


def test_files_of_a_model_stand_together_and_the_longest_comes_first():
    tasks = [task(0, "a"), task(1, "b"), task(2), task(3, "b", seconds=9.0), task(4, "b"),
             task(5, "a"), task(6, "only here")]  # fmt: skip
    ordered = share(tasks)
    assert [one.number for one in ordered if one.branch == (plan("b").key,)] == [3, 1, 4]
    assert [one.branch for one in ordered if one.number in (2, 6)] == [(), ()]
    numbers = [one.number for one in ordered]
    assert abs(numbers.index(0) - numbers.index(5)) == 1


def test_a_model_that_most_files_use_is_the_trunk():
    tasks = share([task(0, "a", "b"), task(1, "b"), task(2, "b", "a"), task(3, "b", "c")])
    a, b = plan("a").key, plan("b").key
    assert {one.number: one.branch for one in tasks} == {0: (b, a), 1: (b,), 2: (b, a), 3: (b,)}


def test_a_file_waits_for_its_models_one_after_the_other():
    (one, *_) = tasks = share([task(0, "a", "b"), task(1, "a", "b")])
    first, both = one.branch[:1], one.branch
    assert choose(tasks, state(), {}) == Open(first)
    assert choose(tasks, state(opening=[first]), {}) is None
    assert choose(tasks, state(ready=[(), first]), {}) == Open(both)
    assert choose(tasks, state(ready=[(), first, both]), {}) == Run(one)
    assert choose(tasks, state(failed={one.branch[1]}, ready=[(), first]), {}) == Run(one)
    assert home(one, {one.branch[0]}) == one.branch[1:]


def test_nothing_starts_before_the_zygote_is_ready_but_what_needs_none():
    alone = task(1, lane="alone")
    waiting = state(ready=[], opening=[()])
    assert choose([task(0)], waiting, {}) is None
    assert choose([task(0), alone], waiting, {}) == Run(alone)


def test_files_run_side_by_side_only_while_they_fit():
    big, small = task(0, needs=90), task(1, needs=5)
    assert choose([big], state(used=20, idle=False), {}) is None
    assert choose([big, small], state(used=20, idle=False), {}) == Run(small)
    assert choose([task(2, needs=900)], state(), {}) == Run(task(2, needs=900))
    assert choose([big], state(free_slots=0), {}) is None


def test_a_shared_model_needs_room_as_well():
    tasks = share([task(0, "a"), task(1, "a")])
    sizes = {plan("a").key: 60}
    assert choose(tasks, state(used=50, idle=False), sizes) is None
    assert choose(tasks, state(used=40, idle=False), sizes) == Open(tasks[0].branch)


def test_gpu_files_wait_for_a_gpu_and_not_for_a_slot():
    on_gpu = task(0, lane="gpu")
    assert choose([on_gpu], state(free_slots=0, free_gpus=1), {}) == Run(on_gpu)
    assert choose([on_gpu, task(1)], state(), {}) == Run(task(1))


def test_a_branch_goes_when_no_file_is_left_below_it():
    branches = [(), ("a",), ("a", "b"), ("c",)]
    assert unneeded(branches, [("a",)]) == [("a", "b"), ("c",)]
    assert unneeded(branches, []) == [("a", "b"), ("a",), ("c",)]


NAMES = st.lists(st.sampled_from("abcd"), max_size=3, unique=True)


@given(st.lists(NAMES, min_size=1, max_size=8), st.integers(1, 3))
def test_every_file_is_run_once_and_each_branch_loaded_once(uses, slots):
    tasks = share([task(number, *models) for number, models in enumerate(uses)])
    waiting, ready, ran, opened = list(tasks), [()], [], []
    while waiting:
        step = choose(waiting, state(free_slots=slots, ready=ready), {})
        assert step is not None
        if isinstance(step, Open):
            opened.append(step.branch)
            ready.append(step.branch)
            continue
        waiting.remove(step.task)
        ran.append(step.task.number)
        for branch in unneeded(ready, [one.branch for one in waiting]):
            ready.remove(branch)
    assert sorted(ran) == list(range(len(uses)))
    assert len(opened) == len(set(opened))


def test_the_newest_result_of_a_file_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old = {"path": "t/test_a.py", "status": "passed", "seconds": 3.0, "resources": None}
    new = {
        "path": "test_a.py", "status": "failed", "seconds": 5.0,
        "resources": {"peak_mb": 700.0, "shared_mb": 500.0},
    }  # fmt: skip
    runs = [
        {"folder": str(tmp_path / "t"), "files": [new]},
        {"folder": str(tmp_path), "files": [old, 7, {"path": 3}]},
        {"folder": None, "files": "odd"},
    ]
    history = read_history(runs)
    past = past_of(Path("t/test_a.py"), history)
    assert past is not None
    assert (past.failed, past.seconds, past.peak_bytes) == (True, 5.0, 200 << 20)
    assert past_of(Path("test_a.py"), history) is None


def test_a_file_none_of_whose_tests_were_meant_did_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"path": "test_a.py", "status": status} for status in ("deselected", "failed")]
    runs = [{"folder": str(tmp_path), "files": [row]} for row in rows]
    past = past_of(Path("test_a.py"), read_history(runs))
    assert past is not None
    assert past.failed
