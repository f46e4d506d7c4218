"""The package's logger, imported late: `import hardware_detection` must cost next to nothing."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` would cost more than all that is imported with it
if TYPE_CHECKING:
    import logging


def log() -> logging.Logger:
    """Return the logger "hardware_detection"."""
    import logging

    return logging.getLogger("hardware_detection")
