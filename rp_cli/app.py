"""The entry point of ``rp``: knows the commands by name and imports one when it is called."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rp_cli import __version__
from rp_cli.errors import BadInputError, ExitCode, exit_code_for, sentence
from rp_cli.paths import given_path
from rp_cli.streams import ReaderGoneError, guarded_streams

# name -> (module, one line of help). The module's `command` is a function, or a Typer of its own.
COMMANDS: dict[str, tuple[str, str]] = {
    "detect": ("rp_cli.commands.detect", "Show what this machine can compute on."),
    "classify": ("rp_cli.commands.classify", "Tell a model's family and the hardware it suits."),
    "models": ("rp_cli.commands.models", "See and edit your model database and rp's index."),
    "generate": ("rp_cli.commands.generate", "Write hardware-aware test files for models."),
    "predict": ("rp_cli.commands.predict", "Tell a model's memory, and where it fits."),
    "run": ("rp_cli.commands.run", "Run generated test files and record the results."),
    "web": ("rp_cli.commands.web", "Set up browsers for models, and try a model there."),
    "check": ("rp_cli.commands.check", "Check that all parts of rp work together here."),
    "check-integration": ("rp_cli.commands.check", "The same as `rp check`."),
    "report": ("rp_cli.commands.report", "Print what the last runs, checks and errors say."),
}


# Those that plan from a description of hardware alone, and so for a machine that is not here.
PLANNING = ("detect", "classify", "generate", "predict")
_PLANNING_LISTED = f"{', '.join(PLANNING[:-1])} and {PLANNING[-1]}"

# How Typer tells a wrong value -> how rp does.
_PYDANTIC = (
    (r"^Value error, ", ""),
    (r"^Input should be a valid integer\b.*", "it must be a whole number"),
    (r"^Input should be a valid number\b.*", "it must be a number"),
    (r"^Input should be greater than or equal to (\S+)$", r"it must be \1 or more"),
)


class LazyGroup(TyperGroup):
    """A command group whose commands are imported on use; the help text comes from the table."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the command names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Import and build one command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _build(cmd_name)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        """Call the command; a wrong value is told in rp's words, not in those of pydantic."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            for pattern, words in _PYDANTIC:
                error.message = re.sub(pattern, words, error.message)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import all commands for a mistyped one, so that the nearest names can be offered."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _build(name: str) -> Any:
    module, help_text = COMMANDS[name]
    command = importlib.import_module(module).command
    if isinstance(command, typer.Typer):
        return typer.main.get_command(command)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, short_help=help_text)(command)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    name="rp",
    # Drawing the help with rich would double the time of `rp --help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rp {__version__}")
        raise typer.Exit


@app.callback()
def _rp(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - eager: it has been answered already
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    hardware: Annotated[
        Path | None,
        typer.Option(
            "--hardware",
            metavar="FILE",
            help="Plan for the machine that this file describes (see `rp detect --export`), in "
            f"{_PLANNING_LISTED}.",
            parser=given_path,
        ),
    ] = None,
) -> None:
    """Test Hugging Face models on whatever hardware you have."""
    if hardware is not None:
        _plan_for(hardware, context)


def _plan_for(hardware: Path, context: typer.Context) -> None:
    """Let the command see the described machine in place of this one, and say so."""
    from hardware_detection import use_described_hardware

    if context.invoked_subcommand not in PLANNING:
        raise BadInputError(
            f"--hardware plans for another machine, which only {_PLANNING_LISTED} do; leave it "
            f"out for `rp {context.invoked_subcommand}`."
        )
    context.with_resource(use_described_hardware(hardware))
    typer.echo(f"Planned for the machine described in {hardware}, not for this one.", err=True)


def main() -> None:
    """Run ``rp``. A user's mistake becomes one sentence on stderr; a bug keeps its traceback."""
    with guarded_streams():
        _run()


def _run() -> None:
    if not sys.stderr.isatty():  # transformers draws a bar for each model that it loads
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk is told: not when Python ends
    except ReaderGoneError:
        sys.exit(ExitCode.READER_GONE)
    except Exception as error:
        code = exit_code_for(error)
        if code is None:
            raise
        typer.echo(f"rp: {sentence(error)}", err=True)
        sys.exit(code)
