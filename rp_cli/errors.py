"""Exit codes, and the one place where an exception becomes a message for the user."""

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
    READER_GONE = 141
    TERMINATED = 143


#: The words of the reference (docs/reference.md).
MEANINGS = {
    ExitCode.OK: "done; tests that were all skipped, each with its reason, are no failure",
    ExitCode.FAILED: (
        "a test or a check failed, a requirement is not met, or a set-up could not be done"
    ),
    ExitCode.BAD_INPUT: (
        "the input is wrong: an option, a preference, a requirement, a model name or folder, a "
        "template, a hardware cache, a model database, a damaged file of records; nothing is left "
        "to run; a file would be overwritten that was edited or is not rp's; `rp models index` "
        "lacks transformers"
    ),
    ExitCode.NOT_HERE: (
        "weights, a browser or Ray were asked for and are not here, and nothing else failed; the "
        "output names them"
    ),
    ExitCode.CANNOT_WRITE: "the output cannot be written",
    ExitCode.HUNG_UP: "ended by SIGHUP: the terminal was closed",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
    ExitCode.READER_GONE: "nobody reads the output any more, as after `| head`",
    ExitCode.TERMINATED: "ended by SIGTERM",
}


class BadInputError(ValueError):
    """The user's input is wrong; the message says what to do instead."""


class OutputError(OSError):
    """A file or folder that the user asked for cannot be written."""


class NotHereError(RuntimeError):
    """An optional part that the user asked for is not installed; the message says how to get it."""


def error_codes() -> list[tuple[tuple[type[BaseException], ...], ExitCode]]:
    """Return the errors that are a user's mistake, with the exit code of each.

    The libraries' error types are imported here, after the fact, so that a command that
    succeeds never pays for them.
    """
    from hardware_detection.errors import (
        HardwareCacheError,
        HardwareDescriptionError,
        RequirementError,
        SettingError,
        UnknownHardwareError,
    )
    from model_family_classifier.errors import ClassificationInputError
    from resource_pool.errors import (
        PredictionError,
        PreferenceError,
        WebSetupError,
        WeightsUnavailableError,
    )

    return [
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
                SettingError,
                UnknownHardwareError,
            ),
            ExitCode.BAD_INPUT,
        ),
    ]


def exit_code_for(error: BaseException) -> ExitCode | None:
    """Return the exit code of a user's mistake, or None where the error is a bug of ours."""
    return next((code for types, code in error_codes() if isinstance(error, types)), None)


def sentence(error: BaseException) -> str:
    """Return the error's message on one line."""
    return one_line(error)
