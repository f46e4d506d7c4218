"""Models that have parts in common, in RAM of which a test says how much is free.

Imports torch.
"""

from __future__ import annotations

import gc

import torch

from resource_pool import ResourcePool
from resource_pool.devices import Memory
from resource_pool.devices.torch import TorchDevices
from resource_pool.testing import MIB


class Model(torch.nn.Module):
    """A body that several models can have in common, and a head."""

    def __init__(self, body=None, head: int = 256):
        super().__init__()
        self.body = body or torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False))
        self.head = torch.nn.Linear(256, head, bias=False)


BODY, HEAD = 256 * 256 * 4, 256 * 256 * 4  # bytes


class Crowded(TorchDevices):
    """Real modules in RAM that has so much room."""

    room = 0

    def memory(self, device: str) -> Memory:
        return Memory(64 * 2**30, self.room)


def evicted_for(pool: ResourcePool, devices: Crowded, room: int, needs: int):
    """Return what would go for a model that needs more than there is room."""
    devices.room = room
    gc.collect()
    return pool.explain("vision", "next", {"device": "cpu"}, needs=needs).evict


def used(pool: ResourcePool) -> float:
    """Return the bytes in RAM that the ledger has, which the statistics of models repeat."""
    stats = pool.get_stats()
    ledger = stats["devices"].get("cpu", {"used_mb": 0})["used_mb"] * MIB
    leaving = pool._store.ledger.total("cpu", "leaving")
    assert stats["memory_usage"] == ledger - leaving
    return ledger


def get(pool: ResourcePool, variant: str, load, **options):
    return pool.get_model("vision", "m", load, {"device": "cpu"}, variant=variant, **options)
