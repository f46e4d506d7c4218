"""How much memory a model needs, from its config alone: no weights, no downloads.

    from resource_pool.prediction import Fit, described_device, predict

    needed = predict("meta-llama/Llama-2-7b-hf", dtype="fp16", seq=4096, backend="cuda")
    print(needed.total_bytes, Fit(described_device("a10:24GiB"), needed))

What was measured is remembered, and is the best prediction from then on:

    record_peak(needed, torch.cuda.max_memory_allocated())
    recorded_bytes("meta-llama/Llama-2-7b-hf", revision="", dtype="float16")

Nothing here imports torch or transformers into this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resource_pool._lazy import lazily
from resource_pool.errors import PredictionError

if TYPE_CHECKING:
    from resource_pool.prediction.devices import Device, Fit, described_device, devices_of
    from resource_pool.prediction.ladder import predict
    from resource_pool.prediction.records import record_peak, record_use, recorded_bytes
    from resource_pool.prediction.result import Prediction

__all__ = [
    "Device",
    "Fit",
    "Prediction",
    "PredictionError",
    "described_device",
    "devices_of",
    "predict",
    "record_peak",
    "record_use",
    "recorded_bytes",
]

# name -> its module, imported on first use: the pool asks for records only, and the process that
# traces for none of these.
_LAZY = {
    "Device": "devices",
    "Fit": "devices",
    "Prediction": "result",
    "described_device": "devices",
    "devices_of": "devices",
    "predict": "ladder",
    "record_peak": "records",
    "record_use": "records",
    "recorded_bytes": "records",
}
__getattr__ = lazily(__name__, _LAZY)
