"""The one error that a user of the classifier can cause."""

from __future__ import annotations


class ClassificationInputError(ValueError):
    """A name, folder, database or argument is wrong; the message says which and what to do."""
