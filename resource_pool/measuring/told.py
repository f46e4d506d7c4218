"""What the pool tells of a model, and what it is told for the next time."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resource_pool.measuring.states import loaded_dtype

if TYPE_CHECKING:
    from resource_pool.measuring.forwards import Forward
    from resource_pool.weights import Weights


def told_of(model: Any) -> dict[str, Any]:
    """Return what the pool's statistics say of a model: device, dtype, weights, memory_mb, ...

    Raises:
        LookupError: it is not the pool's.
    """
    from resource_pool import get_global_resource_pool

    pool = get_global_resource_pool()
    key = next((key for key, cached in pool.models.items() if cached is model), None)
    if key is None:
        raise LookupError("this model is not in the pool; it may have been evicted")
    return dict(pool.get_stats()["models"][key])


def wanted_dtype(
    family: str, model_name: str, preferences: Mapping[str, Any], weights: Weights
) -> str:
    """Return the dtype that a model is to have: as the pool decides, or else as it is loaded.

    Raises:
        unittest.SkipTest: the pool leaves the dtype as it is, and the weights are quantised.
    """
    from resource_pool import get_global_resource_pool

    decision = get_global_resource_pool().explain(family, model_name, preferences)
    wanted = decision.dtype or loaded_dtype(weights.path)
    if wanted is None:
        raise unittest.SkipTest("quantised weights say nothing of the model's dtype")
    return wanted


def record_use(model: Any, weights: Weights, forward: Forward) -> None:
    """Remember the peak of a forward for later plans; see ``resource_pool.prediction``.

    Nothing is remembered of a twin, whose size says nothing of the model whose name it bears, nor
    of a model that computes in another engine or on several devices, all of whose memory is not
    seen here.
    """
    from resource_pool.devices.forwards import placement
    from resource_pool.prediction import record_use as record

    told = told_of(model)
    if weights.kind != "pretrained" or placement(model) is not None or "+" in told["device"]:
        return
    dtype = str(model.dtype).removeprefix("torch.")
    as_loaded = loaded_dtype(weights.path) in (dtype, None)
    record(
        weights.model_name,
        forward.peak_bytes,
        revision="",
        dtype=None if as_loaded else dtype,
        backend=str(told["backend"]),
    )
