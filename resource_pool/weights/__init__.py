"""Where a model's parameters come from, and what can be proven about them.

Nothing here imports torch, transformers or the hub's client before it is called.
"""

from __future__ import annotations

from resource_pool.weights.cases import twin_case
from resource_pool.weights.evidence import provenance
from resource_pool.weights.hub import Hub, RemoteFile
from resource_pool.weights.inputs import example_inputs
from resource_pool.weights.locate import Weights, locate_weights

__all__ = [
    "Hub",
    "RemoteFile",
    "Weights",
    "example_inputs",
    "locate_weights",
    "provenance",
    "twin_case",
]
