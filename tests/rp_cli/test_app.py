"""The command line as a whole: help, lazy commands, exit codes, the error boundary."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rp_cli import __version__, app
from rp_cli.app import COMMANDS, PLANNING
from rp_cli.errors import ExitCode, OutputError, exit_code_for


def test_help_lists_every_command_with_its_line(rp):
    done = rp("--help")
    assert done.code == 0
    for name, (_, text) in COMMANDS.items():
        assert name in done.out
        assert text in done.out


def test_the_readme_tells_of_every_command():
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`rp ([a-z-]+)", text))
    for name in COMMANDS:
        assert name in told, f"README's table of commands has no row for `rp {name}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(rp, name):
    done = rp(name, "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_version(rp):
    assert rp("--version").out == f"rp {__version__}\n"


def test_a_mistyped_command_is_told_the_nearest(rp):
    done = rp("detct")
    assert done.code == ExitCode.BAD_INPUT
    assert "detect" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["generate", "--style", "nose"], "'--style': 'nose' is not one of 'unittest', 'pytest'."),
        (["report", "--compare", "a", "b"], "'--compare': it must be a whole number"),
        (["report", "--last", "0"], "'--last': it must be 1 or more"),
        (["detect", "--interval", "x"], "'--interval': it must be a number"),
        (["classify"], "give a hub name, a model folder, or - for names on standard input."),
    ],
)
def test_a_wrong_value_is_told_in_words_of_rp(rp, arguments, told):
    done = rp(*arguments)
    assert done.code == ExitCode.BAD_INPUT
    assert done.err.endswith(f"{told}\n")


@pytest.mark.parametrize(("name", "one"), [("run", "PATH"), ("classify", "MODEL")])
def test_the_line_of_usage_names_what_to_give(rp, name, one):
    usage = rp(name, "--help").out.splitlines()[0]
    assert re.search(rf"\[OPTIONS\] [{{[]?{one}[}}\]]?\.\.\.$", usage), usage


def test_a_users_mistake_is_one_sentence_and_a_bug_keeps_its_traceback(rp, monkeypatch):
    done = rp("classify", "")
    assert done.code == ExitCode.BAD_INPUT
    assert done.err.startswith("rp: ")
    assert len(done.err.splitlines()) == 1
    assert done.out == ""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(ZeroDivisionError):
        app.main()


def test_exit_codes_of_errors():
    assert exit_code_for(OutputError("full")) == ExitCode.CANNOT_WRITE
    assert exit_code_for(RuntimeError("bug")) is None


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["classify", "bert-base-uncased"]]
)
def test_commands_that_run_no_model_import_neither_torch_nor_transformers(arguments):
    code = (
        "import atexit, os, sys; from rp_cli.app import main\n"
        "def check():\n"
        "    if {'torch', 'transformers'} & set(sys.modules): os._exit(99)\n"
        "atexit.register(check)\n"
        f"sys.argv = ['rp', *{arguments!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_described_machine_is_planned_for(rp_process, tmp_path):
    described = tmp_path / "machine.json"
    machine = {"rp_machine": 1, "memory_total_mb": 262144}
    gpus = [{"name": "GPU", "memory_total_mb": 80000}]
    described.write_text(json.dumps({**machine, "devices": {"cuda": gpus}}))
    planned = rp_process("--hardware", described, "classify", "gpt2")
    assert planned.code == 0, planned.err
    assert "PyTorch Device: cuda:0" in planned.out
    assert "not for this one" in planned.err


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in PLANNING])
def test_a_command_that_plans_nothing_refuses_a_described_machine(rp, tmp_path, name):
    described = tmp_path / "machine.json"
    described.write_text('{"rp_machine": 1, "devices": {}}')
    done = rp("--hardware", described, name, "--help")
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert done.err == (
        "rp: --hardware plans for another machine, which only detect, classify, generate and "
        f"predict do; leave it out for `rp {name}`.\n"
    )


PRINTING = pytest.mark.parametrize(
    "arguments", [["--help"], ["detect"], ["detect", "--json"]], ids=" ".join
)


@PRINTING
@pytest.mark.parametrize("place", ["a full disk", "a closed stdout"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_sentence(rp_command, arguments, place):
    closed = place == "a closed stdout"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            rp_command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            preexec_fn=(lambda: os.close(1)) if closed else None,
        )  # fmt: skip
    assert done.returncode == ExitCode.CANNOT_WRITE, done.stderr
    assert done.stderr.startswith("rp: standard output cannot be written: ")
    assert len(done.stderr.splitlines()) == 1


@PRINTING
def test_a_pipe_that_nobody_reads_ends_rp_quietly(rp_command, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            rp_command(*arguments), stdout=pipe, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (ExitCode.READER_GONE, "")


def test_a_closed_stderr_takes_nothing_away(rp_command):
    command = rp_command("--version")
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=lambda: os.close(2)
    )
    assert (done.returncode, done.stdout) == (0, f"rp {__version__}\n")


def test_the_streams_are_as_before_once_rp_is_done(rp):
    before = sys.stdout, sys.stderr
    rp("--version")
    assert (sys.stdout, sys.stderr) == before


def test_ctrl_c_is_quiet_in_the_middle_of_the_imports():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    module, name = re.search(r'^rp = "(.*):(.*)"$', project, re.MULTILINE).groups()
    code = (
        # A parent that runs in the background may have handed down that it is ignored.
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"from {module} import {name}; {name}()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, b"")
