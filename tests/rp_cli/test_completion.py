"""Completion in the shells: what `rp --show-completion` prints is run by the shell itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rp_cli.app
from rp_cli.app import COMMANDS

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")


@pytest.fixture
def complete(rp_command) -> Callable[..., list[str]]:
    """Ask as bash does: words up to the cursor; return what is offered."""

    def call(*words: str) -> list[str]:
        environment = {
            "COMP_WORDS": " ".join(("rp", *words)),
            "COMP_CWORD": str(len(words)),
            "_RP_COMPLETE": "complete_bash",
        }
        first = "import sys; sys.argv[0] = 'rp';"
        done = subprocess.run(
            rp_command(first=first),
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    return call


def test_all_commands_are_offered_though_none_is_imported_before(complete):
    assert complete("") == list(COMMANDS)
    assert complete("re") == ["report"]


def test_options_and_subcommands_are_those_of_the_command(complete):
    assert complete("run", "--eng") == ["--engine"]
    assert {"list", "show", "add"} <= set(complete("models", ""))
    assert "errors" in complete("report", "")
    assert complete("--hard") == ["--hardware"]


def test_the_values_of_an_option_are_offered(complete):
    assert complete("run", "--weights", "") == ["auto", "pretrained", "tiny"]
    assert complete("run", "--engine", "r") == ["ray"]
    assert complete("run", "--device", "cu") == ["cuda"]
    assert complete("generate", "--device", "a") == ["auto"]
    assert complete("check", "--test", "cl") == ["classification"]
    assert complete("predict", "--dtype", "f") == ["fp32", "fp16"]
    assert complete("models", "add", "--family", "vi") == ["vision", "video"]


def test_completion_imports_no_heavy_package(rp_command):
    first = (
        "import sys, os, atexit; sys.argv[0] = 'rp';"
        "os.environ.update(COMP_WORDS='rp ', COMP_CWORD='1', _RP_COMPLETE='complete_bash');"
        "atexit.register(lambda: print({'torch', 'transformers', 'ray'} & set(sys.modules)));"
    )
    done = subprocess.run(rp_command(first=first), capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("set()\n"), done


@pytest.fixture
def shell(tmp_path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run lines in a bash that finds ``rp`` and has a home of its own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "rp"
    top = Path(rp_cli.app.__file__).parents[1]
    starts = f"import sys; sys.path[0] = {str(top)!r}; from rp_cli.app import main; main()"
    script.write_text(f"#!{sys.executable}\n{starts}\n")
    script.chmod(0o755)

    def call(lines: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        return subprocess.run(
            [str(BASH), "--norc", "-c", lines],
            env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return call


@needs_bash
def test_what_is_shown_makes_bash_complete(shell):
    done = shell(
        'eval "$(rp --show-completion)"; COMP_WORDS=(rp repo); COMP_CWORD=1;'
        ' _rp_completion rp; echo "${COMPREPLY[@]}"'
    )
    assert done.stdout == "report\n", done.stderr


@needs_bash
def test_installing_writes_what_the_shell_reads(shell, tmp_path: Path):
    done = shell("rp --install-completion; exit $?")
    assert done.returncode == 0, done.stderr
    assert "bash" in done.stdout
    assert (tmp_path / ".bashrc").exists()
    script = next((tmp_path / ".bash_completions").glob("*.sh"))
    assert "_RP_COMPLETE=complete_bash" in script.read_text()
