"""How much memory a model needs, from its config alone: no weights, no downloads.

    from resource_pool.prediction import Fit, described_device, predict

    needed = predict("meta-llama/Llama-2-7b-hf", dtype="fp16", seq=4096, backend="cuda")
    print(needed.total_bytes, Fit(described_device("a10:24GiB"), needed))

Nothing here imports torch or transformers into this process.
"""

from __future__ import annotations

from resource_pool.prediction.devices import Device, Fit, described_device, devices_of
from resource_pool.prediction.ladder import predict
from resource_pool.prediction.records import record_peak
from resource_pool.prediction.result import Prediction

__all__ = [
    "Device",
    "Fit",
    "Prediction",
    "described_device",
    "devices_of",
    "predict",
    "record_peak",
]
