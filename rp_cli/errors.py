"""Exit codes, and the one place where an exception becomes a message for the user.

========  ==============================================================
code      meaning
========  ==============================================================
0         done; tests that were all skipped, each with its reason, are too
1         a test or a check failed
2         the input is wrong: option, name, model folder, cache, database
3         weights, a browser or Ray were asked for and are not here; nothing else failed
4         the output cannot be written
129       ended by SIGHUP: the terminal was closed
130       interrupted with Ctrl-C
143       ended by SIGTERM
========  ==============================================================
"""

from __future__ import annotations

import enum

from rp_cli.text import one_line


class ExitCode(enum.IntEnum):
    """What the exit status of ``rp`` means."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_HERE = 3
    CANNOT_WRITE = 4
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class BadInputError(ValueError):
    """The user's input is wrong; the message says what to do instead."""


class OutputError(OSError):
    """A file or folder that the user asked for cannot be written."""


class NotHereError(RuntimeError):
    """An optional part that the user asked for is not installed; the message says how to get it."""


def exit_code_for(error: BaseException) -> ExitCode | None:
    """Return the exit code of a user's mistake, or None where the error is a bug of ours.

    The libraries' error types are imported here, after the fact, so that a command that
    succeeds never pays for them.
    """
    from hardware_detection.errors import (
        HardwareCacheError,
        HardwareDescriptionError,
        RequirementError,
        UnknownHardwareError,
    )
    from model_family_classifier.errors import ClassificationInputError
    from resource_pool.errors import (
        PredictionError,
        PreferenceError,
        WebSetupError,
        WeightsUnavailableError,
    )

    codes: list[tuple[tuple[type[BaseException], ...], ExitCode]] = [
        ((WebSetupError,), ExitCode.FAILED),
        ((OutputError,), ExitCode.CANNOT_WRITE),
        ((NotHereError, WeightsUnavailableError), ExitCode.NOT_HERE),
        (
            (
                BadInputError,
                ClassificationInputError,
                HardwareCacheError,
                HardwareDescriptionError,
                PredictionError,
                PreferenceError,
                RequirementError,
                UnknownHardwareError,
            ),
            ExitCode.BAD_INPUT,
        ),
    ]
    return next((code for types, code in codes if isinstance(error, types)), None)


def sentence(error: BaseException) -> str:
    """Return the error's message on one line."""
    return one_line(error)
