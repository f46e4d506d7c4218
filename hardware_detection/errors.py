"""What a user can get wrong about hardware, by name. Each message says what to do."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` would cost more than all that is imported with it
if TYPE_CHECKING:
    from collections.abc import Iterable


# Like "xpu" by its letters, and meant for any of several.
_ANY_GPU = "gpu"


class HardwareCacheError(ValueError):
    """A hardware cache file that the user named cannot be read, understood or written."""


class SettingError(HardwareCacheError):
    """An environment variable names no place for what rp keeps, the hardware cache among it."""


class HardwareDescriptionError(ValueError):
    """A file that should describe a machine cannot be read, or describes none."""


class RequirementError(ValueError):
    """A requirement such as ``cuda>=1`` cannot be read."""


class UnknownHardwareError(ValueError):
    """A device name that no backend has.

    Attributes:
        name: the name as it was given.
        nearest: the known name most like it, or None.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = tuple(known)
        self.name = name
        self.nearest = None if name.lower() == _ANY_GPU else nearest(name.lower(), known)
        super().__init__(
            f"unknown device {name!r}{device_hint(name, known)}; use one of {', '.join(known)},"
            " with an index where there are several, such as cuda:1"
        )

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException would call __init__ with the finished message alone.
        return _rebuild, (self.name, self.nearest, str(self))


def _rebuild(name: str, nearest: str | None, message: str) -> UnknownHardwareError:
    error = UnknownHardwareError.__new__(UnknownHardwareError)
    ValueError.__init__(error, message)
    error.name, error.nearest = name, nearest
    return error


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name most like this one; None where none is alike.

    Args:
        cutoff: how alike they must be, of 1.
    """
    import difflib  # needed only for what is misspelt

    return next(iter(difflib.get_close_matches(name, tuple(known), n=1, cutoff=cutoff)), None)


def hint_at(near: str | None) -> str:
    """Return what a message adds after a name that is not known."""
    return f" (did you mean {near!r}?)" if near else ""


def device_hint(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return what a message adds after a device or a like name that is not known."""
    if name.lower() == _ANY_GPU:
        return " (a device is named by its kind, such as cuda)"
    return hint_at(nearest(name.lower(), known, cutoff))
