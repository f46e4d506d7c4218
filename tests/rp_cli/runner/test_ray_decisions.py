"""What is decided about files for a Ray cluster: Ray, and who speaks to it, is a fake."""

from __future__ import annotations

import importlib.util
import json
import queue
import socket
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rp_cli.errors import BadInputError, ExitCode
from rp_cli.reporting.store import Store
from rp_cli.runner.learning import Facts, ModelPlan
from rp_cli.runner.on_ray import engine
from rp_cli.runner.on_ray.assigning import (
    MOST_LOSSES,
    Assigning,
    Node,
    Request,
    Retire,
    Start,
    threads_per_file,
    within,
)
from rp_cli.runner.on_ray.driver import Driver
from rp_cli.runner.on_ray.orders import Orders
from rp_cli.runner.on_ray.planning import plan as plan_run
from rp_cli.runner.on_ray.planning import requests_of
from rp_cli.runner.on_ray.reaching import cluster_address
from rp_cli.runner.results import Watcher
from rp_cli.runner.run import new_record
from rp_cli.runner.scheduling import Task
from rp_cli.runner.wishes import Wishes

PASSES = "import unittest\nclass T(unittest.TestCase):\n    def test_a(self): pass\n"
GIB = 1 << 30
REQUEST = Request(1, GIB)


@given(st.data())
@settings(max_examples=200)
def test_every_file_has_one_end_whatever_is_lost(data):
    """Ray may run, lose or finish what it was asked for in any order."""
    count = data.draw(st.integers(1, 12))
    groups = {
        number: group
        for number in range(count)
        if (group := data.draw(st.sampled_from(["", "a", "b"])))
    }
    tasks = [Task(number, Path(f"test_{number}.py")) for number in range(count)]
    jobs = data.draw(st.sampled_from([None, 1, 3]))
    requests = dict.fromkeys(range(count), REQUEST)
    book = Assigning(tasks, groups, requests, slots=data.draw(st.integers(1, 8)), jobs=jobs)
    at_ray: dict[int, str | None] = {}
    actors: dict[str, str] = {}
    ends: Counter[int] = Counter()
    losses: Counter[int] = Counter()
    while book.left:
        for step in book.next_steps():
            if isinstance(step, Retire):
                assert step.host not in at_ray.values()
                del actors[step.host]
                continue
            assert isinstance(step, Start)
            number = step.task.number
            assert number not in at_ray
            assert (step.host is None) == (number not in groups)
            if step.host is not None:
                assert step.host not in at_ray.values(), "an actor runs one file at a time"
                assert actors.setdefault(step.host, groups[number]) == groups[number]
            at_ray[number] = step.host
        assert at_ray, "files are left and nothing was asked for"
        assert len(at_ray) <= (jobs or count)
        number = data.draw(st.sampled_from(sorted(at_ray)))
        host = at_ray.pop(number)
        if losses[number] < MOST_LOSSES and data.draw(st.booleans()):
            losses[number] += 1
            actors.pop(host or "", None)
            if not book.lost(number):
                ends[number] += 1
        else:
            book.ended(number)
            ends[number] += 1
    assert ends == dict.fromkeys(range(count), 1)
    assert {step.host for step in book.next_steps()} == set(actors), "an actor is left"


def test_files_of_a_model_go_to_the_actor_that_has_it_and_it_goes_with_the_last():
    tasks = [Task(number, Path(f"test_{number}.py")) for number in range(3)]
    requests = dict.fromkeys(range(3), REQUEST)
    book = Assigning(tasks, {0: "m", 1: "m"}, requests, slots=1, jobs=None)
    first, single = book.next_steps()
    assert (single.task.number, single.host) == (2, None)
    assert [task.number for task in book.later(first.task)] == [1]
    book.ended(0)
    (second,) = book.next_steps()
    assert second.host == first.host
    book.ended(1)
    assert book.next_steps() == [Retire(first.host)]


def test_a_large_cluster_has_several_actors_of_a_model():
    tasks = [Task(number, Path(f"test_{number}.py")) for number in range(8)]
    groups = dict.fromkeys(range(8), "m")
    book = Assigning(tasks, groups, dict.fromkeys(range(8), REQUEST), slots=3, jobs=None)
    assert len({step.host for step in book.next_steps()}) == 3


@pytest.mark.parametrize(
    ("request_", "nodes", "found"),
    [
        (Request(1, GIB), [Node(4, 2 * GIB)], Request(1, GIB)),
        (Request(4, 9 * GIB), [Node(2, 8 * GIB), Node(8, 4 * GIB)], Request(2, 8 * GIB)),
        (Request(1, GIB, 1), [Node(2, 8 * GIB)], Request(1, GIB, 0)),
        (Request(1, 9 * GIB, 1), [Node(2, 8 * GIB), Node(2, GIB, 1)], Request(1, GIB, 1)),
        (Request(1, 9 * GIB), [Node(0, 8 * GIB), Node(2, GIB)], Request(1, GIB)),
        (Request(1, GIB), [], Request(1, GIB)),
    ],
)
def test_nobody_waits_for_more_than_the_largest_node_has(request_, nodes, found):
    assert within(request_, nodes) == found


@pytest.mark.parametrize(
    ("cpus", "at_once", "threads"),
    [([8, 8], 2, 8), ([8, 8], 4, 4), ([8, 2], 2, 2), ([2], 9, 1), ([0, 4], 1, 4), ([], 3, 1)],
)
def test_each_file_has_its_share_of_the_clusters_cores(cpus, at_once, threads):
    assert threads_per_file([Node(count, GIB) for count in cpus], at_once) == threads


def test_what_waits_for_a_node_that_is_gone_is_asked_for_again():
    tasks = [Task(0, Path("test_0.py")), Task(1, Path("test_1.py"))]
    requests = {0: Request(1, 8 * GIB), 1: Request(1, GIB)}
    book = Assigning(tasks, {}, requests, slots=2, jobs=None)
    book.next_steps()
    assert book.shrink([Node(1, GIB)], [0, 1]) == [0]
    book.put_back(0)
    (again,) = book.next_steps()
    assert (again.task.number, again.request) == (0, Request(1, GIB))


class FakeLink:
    """Answers as the process that speaks to Ray, from a script: number -> the next answers."""

    def __init__(self, script=None) -> None:
        self.script = {number: list(answers) for number, answers in (script or {}).items()}
        self.sent: list[dict] = []
        self._answers: list[dict] = []
        self._late: list[dict] = []

    def send(self, message):
        self.sent.append(message)
        if message["do"] != "run":
            return
        number = message["number"]
        of = {"number": number, "attempt": message["attempt"]}
        answer = (self.script.get(number) or ["ended"]).pop(0)
        self._answers += self._late
        self._late = []
        if answer == "nodes":  # the cluster shrinks, and what was said before is heard late
            nodes = [{"cpus": 1.0, "memory": float(GIB), "gpus": 0.0}]
            self._answers.append({"event": "nodes", "nodes": nodes})
            self._late.append({**of, "event": "lost", "why": "it was the first attempt"})
            return
        self._answers.append({**of, "event": "started", "node": "n"})
        if answer == "ended":
            output = f"in {message['order']['folder']}test_{number}.py"
            result = {"path": "/scratch", "status": "passed", "output": output, "node": "n"}
            self._answers.append(
                {**of, "event": "ended", "result": result, "loaded": 0,
                 "notes": [], "error_reports": [{"path": "x.json"}]}
            )  # fmt: skip
        elif answer != "silent":
            self._answers.append({**of, "event": answer, "why": f"{answer} because"})

    def receive(self, seconds):
        answers, self._answers = self._answers, []
        return answers


@pytest.fixture
def play(tmp_path):
    """Run files against a script; return the record and what was sent."""

    def call(count=2, script=None, *, stop=lambda: False, **wanted):
        files = [tmp_path / f"test_{number}.py" for number in range(count)]
        for file in files:
            file.write_text(PASSES)
        wishes = Wishes(tmp_path, {"RP_WEIGHTS": "tiny", "HF_TOKEN": "secret"}, 60.0, **wanted)
        record, link = new_record(files), FakeLink(script)
        watcher = Watcher()
        watcher.finished = record["files"].append
        planned = plan_run(files, wishes, [Node(2, 8 * GIB)], record)
        engine.Engine(*planned, wishes, record, link, watcher).run(stop)
        return record, link

    return call


def test_a_file_that_is_lost_runs_again_and_the_note_says_so(play):
    record, _ = play(2, {0: ["lost", "ended"]})
    assert [result["status"] for result in record["files"]] == ["passed", "passed"]
    assert record["notes"] == ["test_0.py was run again: lost because"]
    assert record["not_run"] == []
    assert len(record["error_reports"]) == 2


def test_what_is_said_of_an_earlier_attempt_is_not_the_next_ones(play):
    record, link = play(1, {0: ["nodes", "ended"]})
    assert [result["status"] for result in record["files"]] == ["passed"]
    assert record["notes"] == []
    ran = [message["attempt"] for message in link.sent if message["do"] == "run"]
    assert len(set(ran)) == len(ran) == 2
    (cancelled,) = (message for message in link.sent if message["do"] == "cancel")
    assert cancelled["attempt"] == ran[0]


def test_a_file_that_takes_its_node_along_each_time_ends_with_the_reason(play):
    record, _ = play(2, {1: ["lost"] * MOST_LOSSES})
    (lost,) = (result for result in record["files"] if result["status"] != "passed")
    assert lost["status"] == "crashed"
    assert f"lost {MOST_LOSSES} times" in lost["error"]
    assert "lost because" in lost["error"]
    assert len(record["files"]) == 2


def test_a_node_that_falls_silent_costs_the_file_its_deadline(play, monkeypatch):
    monkeypatch.setattr(engine, "_SILENCE_SECONDS", -61.0)
    record, link = play(2, {0: ["silent"]})
    (late,) = (result for result in record["files"] if result["status"] != "passed")
    assert late["status"] == "timeout"
    attempt = link.sent[0]["attempt"]
    assert {"do": "cancel", "number": 0, "attempt": attempt} in link.sent


def test_a_node_without_our_version_ends_the_run_with_what_to_do(play):
    with pytest.raises(BadInputError, match=r"refused because.*same version"):
        play(1, {0: ["refused"]})


class RayError(Exception):
    pass


class RayTaskError(RayError):
    """As Ray's: the text is a traceback, whose last line is the cause."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Traceback\n{type(cause).__name__}: {cause}")
        self.cause = cause


@pytest.fixture
def fake_ray(monkeypatch):
    """Ray as far as the driver needs it: what a stream yields is raised or returned."""

    def get(value):
        if isinstance(value, Exception):
            raise value
        return value

    ray = ModuleType("ray")
    ray.get, ray.remote, ray.cancel, ray.nodes = get, Remote, lambda *_, **__: None, list
    ray.wait = lambda streams, **_: (streams[:1], streams[1:])
    ray.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    monkeypatch.setitem(sys.modules, "ray", ray)
    return ray


class Remote:
    """A remote function; ``answers`` has a stream for each call."""

    answers: ClassVar[list] = []

    def __init__(self, what: object) -> None:
        self.what = what

    def options(self, **_: object) -> Remote:
        return self

    def remote(self, order: str):
        return iter(self.answers.pop(0))


class Told(list):
    """A channel that keeps what was told."""

    send = list.append


@pytest.mark.parametrize(
    ("cause", "event"),
    [
        (FileNotFoundError("No usable temporary directory"), "lost"),
        (OSError("No space left on device"), "lost"),
        (ModuleNotFoundError("No module named 'torch'"), "refused"),
        (RuntimeError("The remote function failed to import on the worker. This may"), "refused"),
    ],
)
def test_a_node_in_trouble_loses_a_file_and_only_one_without_rp_ends_the_run(
    fake_ray, cause, event
):
    driver = Driver(Told(), queue.SimpleQueue())
    said = driver._next(iter([RayTaskError(cause)]))
    assert said["event"] == event
    assert str(cause) in said["why"]


def test_only_the_attempt_that_is_meant_is_cancelled(fake_ray):
    ended: list[object] = []
    fake_ray.cancel = lambda stream, **_: ended.append(stream)
    first, second = Remote.answers = [iter(['{"event": "started"}']) for _ in range(2)]
    driver = Driver(told := Told(), queue.SimpleQueue())
    for attempt in range(2):
        driver._run(
            {"number": 0, "attempt": attempt, "host": None, "order": {},
             "request": {"cpus": 1, "memory": 1, "gpus": 0}}
        )  # fmt: skip
    driver._cancel({"number": 0, "attempt": 0})
    driver._listen()
    assert ended == [first]
    assert list(driver._streams) == [second]
    assert [(one["event"], one["attempt"]) for one in told] == [("started", 1)]


def test_fail_fast_and_ctrl_c_leave_the_rest(play):
    record, _ = play(3, {0: ["lost"] * MOST_LOSSES}, jobs=1, fail_fast=True)
    assert record["stopped_early"]
    assert len(record["not_run"]) == 2
    with pytest.raises(KeyboardInterrupt):
        play(1, stop=lambda: True)


def test_a_file_that_is_gone_meanwhile_costs_itself_only(play, monkeypatch):
    def order_of(self, task, later, real=Orders.order_of):
        task.file.unlink()
        return real(self, task, later)

    monkeypatch.setattr(Orders, "order_of", order_of)
    record, _ = play(1)
    assert record["files"][0]["status"] == "error"
    assert "cannot be read" in record["files"][0]["error"]


def test_a_node_gets_the_text_and_no_secret_of_this_machine(play, tmp_path):
    _, link = play(1)
    assert str(tmp_path) not in json.dumps(link.sent)
    order = link.sent[0]["order"]
    assert order["text"] == PASSES
    assert order["environment"] == {"RP_WEIGHTS": "tiny"}
    assert link.sent[0]["request"]["memory"] > 0


def test_what_a_node_tells_of_a_file_names_it_as_the_caller_does(play, tmp_path):
    record, _ = play(2)
    for number, result in enumerate(record["files"]):
        assert result["output"] == f"in {tmp_path / f'test_{number}.py'}"


def plan(name: str) -> ModelPlan:
    return ModelPlan("text", name, name, "AutoModel", True, {}, None, None, None, None, True)


def test_a_group_asks_for_its_models_and_its_largest_file():
    facts = Facts(models=(plan("m"),), uses_models=True)
    key = plan("m").key
    tasks = [
        Task(0, Path("a"), facts, "fork", (key,), needs=3),
        Task(1, Path("b"), facts, "gpu", (key,), needs=5),
        Task(2, Path("c"), needs=7),
    ]
    found = requests_of(tasks, {0: key, 1: key}, {key: 100}, threads=2)
    assert found == {0: Request(2, 105, 1), 1: Request(2, 105, 1), 2: Request(2, 7, 0)}


def test_without_ray_it_is_one_sentence(rp, tmp_path, monkeypatch):
    (tmp_path / "test_a.py").write_text(PASSES)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "ray" else real(n))
    done = rp("run", tmp_path, "--engine", "ray")
    assert done.code == ExitCode.NOT_HERE
    assert "pip install 'rp-toolchain[ray]'" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--engine", "dask"], "local or ray"),
        (["--address", "auto"], "--engine ray"),
        (["--engine", "ray", "--address", "ray://host:10001"], "--address auto"),
        (["--engine", "ray", "--address", "nonsense"], "HOST:PORT"),
        (["--engine", "ray", "--address", "127.0.0.1:99999"], "HOST:PORT"),
        (["--engine", "ray", "--address", ""], "HOST:PORT"),
    ],
)
def test_wrong_options_are_one_sentence(rp, tmp_path, monkeypatch, options, word):
    (tmp_path / "test_a.py").write_text(PASSES)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    done = rp("run", tmp_path, *options)
    assert done.code == ExitCode.BAD_INPUT
    assert word in done.err
    assert len(done.err.splitlines()) == 1
    assert Store().last("run", 1) == []


def test_where_no_cluster_answers_it_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        with pytest.raises(BadInputError, match="No Ray cluster answers"):
            cluster_address(f"127.0.0.1:{taken.getsockname()[1]}")
