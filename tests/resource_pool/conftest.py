"""What every test of the pool starts from: a fake machine, and RAM that other programs spare."""

from __future__ import annotations

import pytest

from resource_pool import ResourcePool, _system
from resource_pool.devices import Memory
from resource_pool.testing import FakeMachine

GIB = 2**30


@pytest.fixture(autouse=True)
def plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep low-memory mode off however busy the machine is that runs the tests."""
    monkeypatch.setattr(_system, "memory", lambda: Memory(64 * GIB, 48 * GIB))


@pytest.fixture
def machine() -> FakeMachine:
    """RAM for everything, and one GPU of 100 MiB."""
    return FakeMachine({"cpu": 10_000, "cuda:0": 100})


@pytest.fixture
def pool(machine: FakeMachine) -> ResourcePool:
    return machine.pool()
