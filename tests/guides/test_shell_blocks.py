"""Every shell command of both guides through rp's own command, and what the guides show of it."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from guide_blocks import block, blocks

from resource_pool.testing import FakeMachine

# The guides' scripts, and the command that does their work; docs/guide-map.md says the same.
COMMANDS = {
    "test_generator_with_resource_pool.py": ("generate",),
    "run_integrated_hardware_model_test.py": ("check",),
    "test_comprehensive_hardware.py": ("check",),
}
SHELL = ("A99", "A113", "A401", "B74", "B88", "B346", "B1015", "B1041", "B1046", "B1067")
BERT = Path("skills/test_hf_bert_base_uncased.py")


def commands(name: str) -> list[list[str]]:
    """Return the commands of a block as ``rp`` takes them: the words after "python"."""
    lines = [shlex.split(line, comments=True) for line in block(name).text.splitlines()]
    assert all(words[0] == "python" for words in lines if words)
    return [_ours(*words[1:]) for words in lines if words]


def _ours(script: str, *options: str) -> list[str]:
    name = script.rpartition("/")[2]
    return [*COMMANDS[name], *options] if name in COMMANDS else ["run", script, *options]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("guide", ["A", "B"])
def test_no_command_is_left_out(guide):
    shell = {found.name for found in blocks(guide) if found.language == "bash"}
    assert shell == {name for name in SHELL if name[0] == guide}


@pytest.mark.parametrize("name", ["A99", "B74", "B1041"])
def test_a_test_is_generated(rp, name):
    (command,) = commands(name)
    done = rp(*command)
    assert done.code == 0, done.err
    assert f"Wrote {BERT}" in done.out
    text = BERT.read_text(encoding="utf-8")
    ast.parse(text)
    assert "get_global_resource_pool" in text


@pytest.mark.parametrize("name", ["A113", "B88"])
def test_the_options_of_the_generator(rp, name):
    Path("model_database.json").write_text(
        json.dumps({"bert-base-uncased": {"family": "vision", "subfamily": "image_encoder"}})
    )
    by_option = {command[3]: command for command in commands(name)}
    assert list(by_option) == [
        "--debug", "--clear-cache", "--timeout", "--use-model-family", "--device", "--hw-cache",
        "--model-db",
    ]  # fmt: skip
    done = {}
    for option, command in by_option.items():
        done[option] = rp(*command, "--force")
        assert done[option].code == 0, done[option].err
        if option == "--timeout":
            assert "60" in BERT.read_text(encoding="utf-8")
        if option == "--device":
            assert "cuda and nothing else" not in done[option].out
            assert "cuda (not here" in done[option].out
    assert "plan: " in done["--debug"].err
    assert "hf_embedding_template.py" in done["--use-model-family"].out
    assert "Family:    vision/image_encoder" in done["--model-db"].out


@pytest.mark.parametrize("name", ["A401", "B346"])
def test_the_comprehensive_check(rp, request, name):
    (command,) = commands(name)
    assert command == ["check", "--test", "all"]
    if name == "B346":  # the same command: it is run once
        assert commands("A401") == commands("B346")
        return
    done = rp(*command)
    assert done.code == 0, done.out + done.err
    for sample in ("A407", "B352"):
        labels = [line.partition(":")[0] for line in block(sample).text.splitlines()]
        shown = done.out.partition("\nModel: bert-base-uncased\n")[2].partition("\n\n")[0]
        printed = [line.partition(":")[0] for line in shown.splitlines()]
        assert [label for label in labels[1:] if label not in printed] == []


def test_the_integration_check(rp):
    only, full, debug = commands("B1015")
    assert (full, debug) == (["check"], ["check", "--debug"])  # run by test_check_command.py
    done = rp(*only)
    assert done.code == 0
    assert "ok      resource_pool: present" in done.out


def test_a_generated_file_is_run_by_python(rp, hub_of_twins):
    assert rp(*commands("B1041")[0]).code == 0
    words = shlex.split(block("B1046").text)
    done = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Resource pool stats: {'hits'" in done.stdout + done.stderr


def test_the_statistics_have_what_the_guide_shows():
    shown = ast.literal_eval(block("B1052").text.partition(": ")[2])
    stats = FakeMachine({"cpu": 1000}).pool().get_stats()
    assert set(shown) <= set(stats)
    assert set(shown["system_memory"]) <= set(stats["system_memory"])


def test_several_models_share_what_they_load(rp):
    given = commands("B1067")
    files = [words[1] for words in given if words[0] == "run"]
    for command in given[:3]:
        assert rp(*command).code == 0
    done = rp("run", *files)  # three commands of the guide: what one process shares is rp's
    assert done.code == 0, done.err
    assert len(files) == done.err.count("PASSED skills/test_hf_") == 3


def test_the_runner_script(rp, hub_of_twins):
    assert rp(*commands("B1041")[0]).code == 0
    Path("skills/test_hf_without_main.py").write_text("x = 1\n", encoding="utf-8")
    Path("run_tests.py").write_text(block("B1141").text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "run_tests.py"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nOK") == 1, done.stderr
    assert "Using hardware preferences for bert_base_uncased: {'priority_list'" in done.stdout
    assert "No main function found in ./skills/test_hf_without_main.py" in done.stdout
    assert "ResourcePool stats: {'hits'" in done.stdout
