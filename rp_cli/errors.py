"""Exit codes, and the one place where an exception becomes a message for the user.

========  ==============================================================
code      meaning
========  ==============================================================
0         done
1         a test or a check failed
2         the input is wrong: option, name, model folder, cache, database
3         something that was asked for is not here: weights, a package
4         the output cannot be written
130       interrupted with Ctrl-C
========  ==============================================================
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What the exit status of ``rp`` means."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_HERE = 3
    CANNOT_WRITE = 4
    INTERRUPTED = 130


class BadInputError(ValueError):
    """The user's input is wrong; the message says what to do instead."""


class OutputError(OSError):
    """A file or folder that the user asked for cannot be written."""


def exit_code_for(error: BaseException) -> ExitCode | None:
    """Return the exit code of a user's mistake, or None where the error is a bug of ours.

    The libraries' error types are imported here, after the fact, so that a command that
    succeeds never pays for them.
    """
    from hardware_detection.errors import HardwareCacheError, UnknownHardwareError
    from model_family_classifier.errors import ClassificationInputError
    from resource_pool.errors import PreferenceError, WeightsUnavailableError

    codes: list[tuple[tuple[type[BaseException], ...], ExitCode]] = [
        ((OutputError,), ExitCode.CANNOT_WRITE),
        ((WeightsUnavailableError,), ExitCode.NOT_HERE),
        (
            (
                BadInputError,
                ClassificationInputError,
                HardwareCacheError,
                PreferenceError,
                UnknownHardwareError,
            ),
            ExitCode.BAD_INPUT,
        ),
    ]
    return next((code for types, code in codes if isinstance(error, types)), None)


def sentence(error: BaseException) -> str:
    """Return the error's message on one line."""
    return " ".join(str(error).split())
