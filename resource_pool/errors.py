"""What can go wrong in the pool, by name. Each message says what to do."""

from __future__ import annotations


class PoolError(Exception):
    """Base of the pool's own errors; a constructor's error is raised as it is."""


class ResourceNotFoundError(PoolError, LookupError):
    """Nothing is cached under the key and no constructor was given."""


class NoneResourceError(PoolError, TypeError):
    """A constructor returned None, which cannot be told from a resource that is missing."""


class RecursiveLoadError(PoolError, RuntimeError):
    """A load would wait for itself: its constructor asks for it, or two ask for each other.

    So would a coroutine that awaits its own load, and a finalizer that asks for what is not cached
    while the pool plans.
    """


class LoadInterruptedError(PoolError, RuntimeError):
    """Another thread's load, which this one waited for, was interrupted."""


class LoadTimeoutError(PoolError, TimeoutError):
    """A load that this thread waited for did not end within the pool's deadline."""


class PreferenceError(PoolError, ValueError):
    """A hardware preference has an unknown key or a value of the wrong kind."""


class DeviceUnavailableError(PoolError, RuntimeError):
    """A device or precision was forced and is not there."""


class InsufficientMemoryError(PoolError, MemoryError):
    """A model fits nowhere, even if every idle model goes; the message has the arithmetic."""


class DeviceBusyError(PoolError, RuntimeError):
    """A model cannot be moved: it is in use, spread, quantized, or one of several that are meant.

    In use is what is leased or pinned, shares weights with another cached model, or is cached at
    the goal already. A spread model has a device map of its own. Of several instances,
    ``from_device``, ``revision`` or ``variant`` says which is meant.
    """


class SharedObjectError(PoolError, RuntimeError):
    """A constructor returned an object that the pool already keeps on another device."""


class WeightsUnavailableError(PoolError, RuntimeError):
    """The weights that were asked for are not on this machine and cannot be fetched."""


class OriginalTracebackError(PoolError):
    """The text of a traceback, as the cause of an error whose frames would pin its tensors."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class UnsupportedOperationError(PoolError, RuntimeError):
    """A backend cannot compute a model; the message says what it cannot."""


class WrongResultError(UnsupportedOperationError):
    """A backend computes something else than torch; the message says by how much."""


class ComputationTimeoutError(PoolError, TimeoutError):
    """A backend gave no answer in time; what computed there was ended."""


class WebSetupError(PoolError, RuntimeError):
    """What runs models in browsers could not be fetched or written; nothing is half installed."""


class PredictionError(PoolError, ValueError):
    """Memory cannot be predicted: an unknown architecture, an impossible config or shape."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error, for the end of a sentence; its type if it says nothing."""
    return _first_line(error).rstrip(".") or type(error).__name__


def type_and_first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, at most 200 characters of it."""
    return f"{type(error).__name__}: {_first_line(error)[:200]}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    head = next(iter(lines), "")
    return " ".join(lines[:2]) if head.endswith(":") else head  # which says nothing by itself
