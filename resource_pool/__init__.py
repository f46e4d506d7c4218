"""One shared pool of models, tokenizers and other resources for a whole process.

    from resource_pool import get_global_resource_pool

    pool = get_global_resource_pool()
    model = pool.get_model("embedding", "bert-base-uncased", constructor=load)

Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

# The guides' runner script says `import importlib` and then uses `importlib.util`.
import importlib.util as _importlib_util  # noqa: F401
from typing import TYPE_CHECKING

from resource_pool._events import Event
from resource_pool._planner import Decision, explain
from resource_pool._pool import ResourcePool, get_global_resource_pool
from resource_pool._preferences import DeviceName, parse_device, preferences_from_environment
from resource_pool.errors import (
    DeviceBusyError,
    DeviceUnavailableError,
    InsufficientMemoryError,
    LoadInterruptedError,
    LoadTimeoutError,
    NoneResourceError,
    PoolError,
    PreferenceError,
    RecursiveLoadError,
    ResourceNotFoundError,
    SharedObjectError,
    WeightsUnavailableError,
)

if TYPE_CHECKING:
    from resource_pool.prediction import predict
    from resource_pool.reports import saved_error_report

__all__ = [
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
    "PreferenceError",
    "RecursiveLoadError",
    "ResourceNotFoundError",
    "ResourcePool",
    "SharedObjectError",
    "WeightsUnavailableError",
    "explain",
    "get_global_resource_pool",
    "parse_device",
    "predict",
    "preferences_from_environment",
    "saved_error_report",
]


def __getattr__(name: str) -> object:
    """Import what few programs need when it is asked for."""
    if name == "saved_error_report":
        from resource_pool.reports import saved_error_report

        return saved_error_report
    if name == "predict":
        from resource_pool.prediction import predict

        return predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
