"""How a run is planned on what the machine has and what earlier runs took."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hardware_detection.testing import fake_report, use_report
from rp_cli.runner import planning
from rp_cli.runner.channel import Channel
from rp_cli.runner.history import Past
from rp_cli.runner.learning import Facts
from rp_cli.runner.planning import BESIDE_MODELS, UNKNOWN_MODEL, plan
from rp_cli.runner.scheduling import Run, State, Task, choose
from rp_cli.runner.wishes import Wishes

MB = 1 << 20
GPU = {"name": "X", "memory_total_mb": 1000}
USES = Facts(uses_models=True)


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(planning, "_available_bytes", lambda: 1000 * MB)
    monkeypatch.setattr(planning, "_cores", lambda: 4)


def wishes(**changes) -> Wishes:
    return Wishes(Path(), changes.pop("environment", {}), 60.0, **changes)


def task(number: int, facts: Facts = USES) -> Task:
    return Task(number, Path(f"/t/test_{number}.py"), facts)


def test_a_measured_peak_counts_more_than_a_guess(machine):
    history = {"/t/test_0.py": Past(failed=False, seconds=7.0, peak_bytes=100 * MB)}
    (first, second, third), settings = plan(
        [task(0), task(1), task(2, Facts())], wishes(history=history), ()
    )
    assert (first.number, first.needs, first.seconds) == (0, int(110 * MB), 7.0)
    assert second.needs == BESIDE_MODELS + UNKNOWN_MODEL
    assert third.needs == BESIDE_MODELS
    assert settings.budget == int(900 * MB)
    assert (settings.jobs, settings.threads) == (3, 1)


def test_two_files_that_do_not_fit_together_never_run_together(machine):
    history = {f"/t/test_{n}.py": Past(False, 1.0, 600 * MB) for n in range(2)}
    tasks, settings = plan([task(0), task(1)], wishes(history=history), ())
    beside = State(1, 0, [()], [], set(), settings.budget, tasks[0].needs, idle=False)
    assert choose(tasks[1:], beside, {}) is None
    alone = State(2, 0, [()], [], set(), settings.budget, 0, idle=True)
    assert choose(tasks[1:], alone, {}) == Run(tasks[1])


@pytest.mark.parametrize(
    ("environment", "jobs", "threads"),
    [({}, 1, 4), ({}, 2, 2), ({}, None, 1), ({"OMP_NUM_THREADS": "3"}, 2, 3)],
)
def test_each_file_has_its_share_of_the_cores(machine, environment, jobs, threads):
    tasks = [task(number) for number in range(9)]
    _, settings = plan(tasks, wishes(environment=environment, jobs=jobs), ())
    assert settings.threads == threads


@pytest.mark.parametrize(
    ("environment", "visible"),
    [
        ({}, ["0", "1"]),
        ({"CUDA_VISIBLE_DEVICES": "2,5"}, ["2", "5"]),
        ({"TEST_HARDWARE_PREFERENCES": "{'device': 'cuda:1'}"}, [None]),
        ({"TEST_HARDWARE_PREFERENCES": "{'device': 'cuda'}"}, ["0", "1"]),
    ],
)
def test_each_gpu_has_a_worker_that_sees_no_other(environment, visible):
    with use_report(fake_report(cuda=[GPU, GPU])):
        found = planning._gpus(environment)
    assert [one.get("CUDA_VISIBLE_DEVICES") for one in found] == visible
    assert "TEST_HARDWARE_PREFERENCES" not in os.environ


@pytest.mark.parametrize(
    ("named", "in_file", "lane"),
    [
        ("", None, "gpu"),
        ("", {"priority_list": ["tpu", "cpu", "cuda"]}, "fork"),
        ("", {"priority_list": ["mps", "cuda", "cpu"]}, "gpu"),
        ("", {"device": "cpu"}, "fork"),
        ("{'device': 'cpu'}", {"device": "cuda"}, "fork"),
        ("{'device': 'cuda:0'}", {"device": "cpu"}, "gpu"),
    ],
)
def test_preferences_lead_to_a_gpu_or_not(named, in_file, lane):
    facts = Facts(uses_models=True, preferences=in_file)
    with use_report(fake_report(cuda=[GPU])):
        found = planning._lane(facts, True, {"TEST_HARDWARE_PREFERENCES": named})
        assert planning._lane(Facts(), True, {}) == "fork"
    assert found == lane


def test_messages_arrive_whole_with_their_files(tmp_path):
    ours, other = Channel.pair()
    theirs = Channel(other)
    reader, writer = os.pipe()
    ours.send({"n": 1, "long": "x" * 150_000})
    ours.send({"n": 2}, [reader])
    ours.send({"n": 3})
    os.close(reader)
    found = []
    while len(found) < 3:
        found += theirs.receive() or ()
    assert [message["n"] for message, _ in found] == [1, 2, 3]
    assert [len(fds) for _, fds in found] == [0, 1, 0]
    (fd,) = found[1][1]
    os.write(writer, b"through")
    assert os.read(fd, 100) == b"through"
    for one in (fd, writer):
        os.close(one)
    ours.close()
    assert theirs.receive() is None
    theirs.close()
