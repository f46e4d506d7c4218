"""One shared pool of models, tokenizers and other resources for a whole process.

    from resource_pool import get_global_resource_pool

    pool = get_global_resource_pool()
    model = pool.get_model("embedding", "bert-base-uncased", constructor=load)

Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

# The guides' runner script says `import importlib` and then uses `importlib.util`.
import importlib.util  # noqa: F401
from typing import TYPE_CHECKING

from resource_pool._lazy import lazily
from resource_pool.errors import (
    ComputationTimeoutError,
    DeviceBusyError,
    DeviceUnavailableError,
    InsufficientMemoryError,
    LoadInterruptedError,
    LoadTimeoutError,
    NoneResourceError,
    PoolError,
    PredictionError,
    PreferenceError,
    RecursiveLoadError,
    ResourceNotFoundError,
    SharedObjectError,
    UnsupportedOperationError,
    WebSetupError,
    WeightsUnavailableError,
    WrongResultError,
)

if TYPE_CHECKING:
    from resource_pool._events import Event
    from resource_pool._global import get_global_resource_pool
    from resource_pool._planner import explain
    from resource_pool._plans import Decision
    from resource_pool._pool import ResourcePool
    from resource_pool._preferences import DeviceName, parse_device, preferences_from_environment
    from resource_pool.prediction import predict
    from resource_pool.reports import saved_error_report

__all__ = [
    "ComputationTimeoutError",
    "Decision",
    "DeviceBusyError",
    "DeviceName",
    "DeviceUnavailableError",
    "Event",
    "InsufficientMemoryError",
    "LoadInterruptedError",
    "LoadTimeoutError",
    "NoneResourceError",
    "PoolError",
    "PredictionError",
    "PreferenceError",
    "RecursiveLoadError",
    "ResourceNotFoundError",
    "ResourcePool",
    "SharedObjectError",
    "UnsupportedOperationError",
    "WebSetupError",
    "WeightsUnavailableError",
    "WrongResultError",
    "explain",
    "get_global_resource_pool",
    "parse_device",
    "predict",
    "preferences_from_environment",
    "saved_error_report",
]


# name -> the module that has it, imported when the name is asked for: a program that only might
# use the pool pays nothing for it.
_LAZY = {
    "Decision": "_plans",
    "DeviceName": "_preferences",
    "Event": "_events",
    "ResourcePool": "_pool",
    "explain": "_planner",
    "get_global_resource_pool": "_global",
    "parse_device": "_preferences",
    "predict": "prediction",
    "preferences_from_environment": "_preferences",
    "saved_error_report": "reports",
}
__getattr__ = lazily(__name__, _LAZY)
