"""The commands of README, CONTRIBUTING and docs: each is one that rp has, and marked ones are run.

`<!-- run -->` before a block means that its commands are run here, in the order of the page, in a
folder of its own; `<!-- run: 1 -->` that they end with 1; `<!-- shell -->` that bash runs the block
as it stands; `<!-- file: NAME -->` that the block is a file.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.testing import fake_report, use_report
from resource_pool import _global
from rp_cli import app

TOP = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(TOP) for path in (*TOP.glob("*.md"), *(TOP / "docs").rglob("*.md"))
)  # fmt: skip
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>run|shell|file)(?:: (?P<word>[^ ]+))? -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OPERATORS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "<("}
ALL = {name: app._build(name) for name in app.COMMANDS}


@dataclass(frozen=True)
class Fenced:
    language: str
    text: str
    mark: str = ""
    word: str = ""


def fenced(page: Path) -> Iterator[Fenced]:
    text = (TOP / page).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        yield Fenced(found["language"], found["text"], found["mark"] or "", found["word"] or "")


def shell_lines(block: Fenced) -> list[str]:
    """Return the commands of a block, one a line."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return text.splitlines() if block.language in ("bash", "sh", "shell") else []


def commands(line: str) -> Iterator[list[str]]:
    """Return the words of each call of rp in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in _OPERATORS:
            while words and re.fullmatch(r"[A-Z_]+=.*|if|then|!", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "rp":
                yield words[1:]
            words = []
        else:
            words.append(word)


def parse(words: list[str]) -> None:
    """Let the command line parse the words as if they had been typed, and do nothing."""
    while words and words[0] == "--hardware":
        words = words[2:]
    if not words or words[0] in ("--help", "--version", "--install-completion"):
        return
    assert words[0] in ALL, f"rp has no command {words[0]!r}"
    command, rest = ALL[words[0]], words[1:]
    parts = getattr(command, "commands", {})
    if rest and rest[0] in parts:
        command, rest = parts[rest[0]], rest[1:]
    if "--help" not in rest:
        command.make_context("rp", list(rest))


TYPED = [
    pytest.param(words, id=f"{page}: rp {' '.join(words)}"[:90])
    for page in PAGES
    for block in fenced(page)
    for line in shell_lines(block)
    for words in commands(line)
]


@pytest.mark.parametrize("words", TYPED)
def test_a_command_of_the_docs_is_one_that_rp_understands(words):
    parse(words)


def test_a_command_that_rp_does_not_understand_is_found():
    with pytest.raises(AssertionError, match="no command"):
        parse(["detekt"])
    with pytest.raises(Exception, match="No such option"):
        parse(["detect", "--nothing-like-this"])
    assert list(commands("A=1 rp detect --json > x; cat x | rp classify - # rp no")) == [
        ["detect", "--json"], ["classify", "-"],
    ]  # fmt: skip


def options(command: Any) -> set[str]:
    """Return every option of a command and of its parts."""
    own = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return own.union(
        {"--help"}, *(options(one) for one in getattr(command, "commands", {}).values())
    )


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_options_in_a_sentence_exist(page):
    text = _BLOCK.sub("", (TOP / page).read_text(encoding="utf-8"))
    for span in re.findall(r"`rp ([^`]+)`", text):
        name = span.split()[0].strip(".,;")
        if name in ("COMMAND", "--hardware", "--version", "--help"):
            continue
        assert name in ALL, f"`rp {span}`"
        unknown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)) - options(ALL[name])
        assert not unknown, f"`rp {span}`: {unknown}"


def leaves() -> Iterator[tuple[str, Any]]:
    for name, command in ALL.items():
        parts = getattr(command, "commands", None)
        yield from ((f"{name} {part}", one) for part, one in (parts or {"": command}).items())


def test_an_option_is_of_one_kind_in_every_command():
    kinds: dict[str, dict[str, bool]] = {}
    for name, command in leaves():
        for one in command.params:
            for option in one.opts:
                if option.startswith("-"):
                    kinds.setdefault(option, {})[name] = bool(one.is_flag)
    assert {option: found for option, found in kinds.items() if len(set(found.values())) > 1} == {}


def test_a_file_that_commands_share_goes_by_the_same_names_everywhere():
    for wanted in ({"--hw-cache", "--cache"}, {"--model-db"}):
        for name, command in leaves():
            for one in command.params:
                assert not wanted & set(one.opts) or wanted <= set(one.opts), name


RUN = [page for page in PAGES if any(block.mark in ("run", "file") for block in fenced(page))]


NAMES = "bert-base-uncased\ngpt2\n"


def prepare(folder: Path) -> None:
    """Make what pages speak of as the reader's own: lists of names, a model, written tests."""
    import transformers

    for name in ("models.txt", "names.txt"):
        (folder / name).write_text(NAMES, encoding="utf-8")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder / "my-model")


def bash(text: str, **more: str) -> tuple[int, str]:
    """Run a block as it stands; return what it ended with and what it said."""
    folder = Path(sys.executable).parent
    environment = {**os.environ, **more, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env=environment, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


SHELL = [page for page in PAGES if any(block.mark == "shell" for block in fenced(page))]


@pytest.mark.parametrize("page", SHELL, ids=str)
def test_bash_runs_the_shell_blocks_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    assert bash("rp generate --model bert-base-uncased")[0] == 0
    for block in fenced(page):
        if block.mark == "shell":
            text = "\n".join(shell_lines(block))
            code, said = bash(text, RP_WEIGHTS="tiny")
            assert code == int(block.word or 0), f"{text}\n{said}"


def test_a_command_that_fails_in_a_shell_block_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, said = bash("rp detect --require 'cores<1'\necho on")
    assert code == 1
    assert "cores" in said
    assert "on\n" not in said


@pytest.mark.parametrize("page", RUN, ids=str)
def test_the_marked_blocks_of_a_page_run(rp_says, page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RP_WEIGHTS", "tiny")
    monkeypatch.setattr(_global, "_global_pool", None)  # what a page loads is gone after it
    for block in fenced(page):
        if block.mark == "file":
            (tmp_path / block.word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.word).write_text(block.text, encoding="utf-8")
        elif block.mark == "run" and block.language == "python":
            with use_report(fake_report()):
                exec(compile(block.text, str(page), "exec"), {})
        elif block.mark == "run":
            for line in shell_lines(block):
                (words,) = commands(line)
                code, out, err = rp_says(*words)
                assert code == int(block.word or 0), f"{line}\n{out}{err}"


def test_enough_is_run():
    assert Path("docs/tutorial.md") in RUN
    assert len(RUN) >= 6
    assert len(SHELL) >= 6


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_in_a_page_is_python(page):
    for block in fenced(page):
        if block.language == "python":
            compile(block.text, str(page), "exec")
