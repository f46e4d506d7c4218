"""Tests on a real CUDA GPU. Without one, all of them are skipped, with what detection says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hardware_detection import detect_available_hardware
from hardware_detection.machine import Machine
from hardware_detection.probes import cuda
from resource_pool import ResourcePool

MIB = 2**20
GIB = 2**30


@pytest.fixture(scope="session")
def problem() -> str:
    """Return why there is no GPU to test on; empty where there is one."""
    found = cuda.probe(Machine())  # this probe alone: most machines have no GPU
    return "" if found.status == "available" else f"no CUDA GPU: {found.reason}"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what is here, proved."""
    return detect_available_hardware(
        cache_file=tmp_path_factory.mktemp("hardware") / "hardware.json"
    )


@pytest.fixture(autouse=True)
def _needs_cuda(problem: str) -> None:
    if problem:
        pytest.skip(problem)


@pytest.fixture
def gpu() -> dict[str, Any]:
    """Return preferences for the first GPU and nothing else."""
    return {"device": "cuda:0"}


@pytest.fixture
def make_pool(report: dict[str, Any]) -> Iterator[Callable[..., ResourcePool]]:
    """Return a way to make pools that have gone, with their memory, when the test ends."""
    pools: list[ResourcePool] = []

    def make(**options: Any) -> ResourcePool:
        pools.append(ResourcePool(hardware=lambda: report, **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.clear()


@pytest.fixture
def pool(make_pool: Callable[..., ResourcePool]) -> ResourcePool:
    return make_pool()


@pytest.fixture
def free() -> Callable[[], int]:
    """Return a way to ask the driver for the free bytes of the first GPU."""
    import torch

    torch.cuda.init()

    def ask() -> int:
        return int(torch.cuda.mem_get_info(0)[0])

    return ask


@pytest.fixture
def leave(free: Callable[[], int]) -> Iterator[Callable[[int], None]]:
    """Return a way to take all of the first GPU's memory but some bytes."""
    import torch

    taken: list[Any] = []

    def leave(size: int) -> None:
        torch.cuda.empty_cache()
        taken.append(torch.empty(free() - size, dtype=torch.uint8, device="cuda:0"))

    yield leave
    taken.clear()
    torch.cuda.empty_cache()


@pytest.fixture
def block() -> Callable[[int], Callable[[], Any]]:
    """Return a way to make constructors of modules of so many bytes in float32."""
    import torch

    class Block(torch.nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(size // 4), requires_grad=False)

        def forward(self, copies: int) -> Any:
            return [self.weight + number for number in range(copies)]

    return lambda size: lambda: Block(size).eval()
