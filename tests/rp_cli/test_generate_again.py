"""`rp generate` on files that are there, for many models, and with templates of the user's."""

from __future__ import annotations

import dataclasses
import re
import shlex

import pytest

import hardware_detection
from hardware_detection.testing import fake_report
from model_family_classifier import classify_model
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.render import is_unedited, render
from rp_cli.codegen.write import draft_tests, refuse_clashes, write_drafts
from rp_cli.errors import BadInputError, ExitCode, OutputError

FILE = "test_hf_gpt2.py"


@pytest.fixture
def edited(rp, tmp_path):
    """A generated file in which somebody has changed something."""
    rp("generate", "--model", "gpt2", "--output-dir", tmp_path)
    path = tmp_path / FILE
    path.write_text(path.read_text().replace("NEW_TOKENS = 5", "NEW_TOKENS = 7"))
    return path


def test_an_edited_file_is_left_alone(rp, tmp_path, edited):
    before = edited.read_text()
    done = rp("generate", "--model", "gpt2", "--model", "t5-small", "--output-dir", tmp_path)
    assert done.code == ExitCode.BAD_INPUT
    assert "was edited since rp wrote it" in done.err
    assert "--force" in done.err
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert edited.read_text() == before


def test_force_overwrites_an_edited_file(rp, tmp_path, edited):
    assert rp("generate", "--model", "gpt2", "--force", "--output-dir", tmp_path).code == 0
    assert "NEW_TOKENS = 5" in edited.read_text()


def test_force_does_not_overwrite_what_rp_never_wrote(rp, tmp_path):
    (tmp_path / FILE).write_text("print('mine')\n")
    done = rp("generate", "--model", "gpt2", "--force", "--output-dir", tmp_path)
    assert done.code == ExitCode.BAD_INPUT
    assert (tmp_path / FILE).read_text() == "print('mine')\n"


def test_a_file_that_no_longer_parses_is_still_rps_and_counts_as_edited(rp, tmp_path, edited):
    edited.write_text(edited.read_text() + "def (\n")
    arguments = ("generate", "--model", "gpt2", "--output-dir", tmp_path)
    refused = rp(*arguments)
    assert refused.code == ExitCode.BAD_INPUT
    assert "was edited since rp wrote it" in refused.err
    assert rp(*arguments, "--force").code == 0
    assert is_unedited(edited.read_text())


@pytest.mark.parametrize("name", ["a/it's", 'a/"b"', "a/" + "long" * 20, "a\\b", "é"])
def test_of_a_file_that_no_longer_parses_the_model_is_known(tmp_path, name):
    plan = dataclasses.replace(make_plan(classify_model("gpt2")), model_name=name)
    (path := tmp_path / plan.file_name).write_text(render(plan) + "def (\n", "utf-8")
    refuse_clashes([plan], [path], [path.read_text("utf-8")])
    other = dataclasses.replace(plan, model_name="other")
    with pytest.raises(BadInputError, match="is the test of"):
        refuse_clashes([other], [path], [path.read_text("utf-8")])


def test_a_file_that_nobody_edited_is_replaced_without_force(rp, tmp_path):
    rp("generate", "--model", "gpt2", "--timeout", "9", "--output-dir", tmp_path)
    (result,) = rp("generate", "--model", "gpt2", "--output-dir", tmp_path, "--json").json
    assert result["status"] == "replaced"
    assert "CLEANUP_MINUTES = 0.1" in (tmp_path / FILE).read_text()


@pytest.mark.parametrize("minutes", ["60", "1234567", "0.05000001", "1e-7", "1e22"])
def test_the_command_in_the_header_makes_the_same_file(rp, tmp_path, minutes):
    rp("generate", "--model", "gpt2", "--timeout", minutes, "--output-dir", tmp_path)
    (command,) = re.findall("^Made by: rp (.+)$", (tmp_path / FILE).read_text(), re.MULTILINE)
    done = rp(*shlex.split(command), "--diff", "--output-dir", tmp_path)
    assert (done.code, done.out) == (0, "")


def test_an_unchanged_file_is_not_written_again(rp, tmp_path):
    rp("generate", "--model", "gpt2", "--output-dir", tmp_path)
    before = (tmp_path / FILE).stat().st_mtime_ns
    done = rp("generate", "--model", "gpt2", "--output-dir", tmp_path)
    assert done.out.startswith("Unchanged: ")
    assert (tmp_path / FILE).stat().st_mtime_ns == before


def test_every_edit_is_noticed():
    source = render(make_plan(classify_model("gpt2")))
    assert is_unedited(source)
    assert not is_unedited(source.replace("NEW_TOKENS = 5", "NEW_TOKENS = 6"))
    assert not is_unedited(source + "\n")
    assert not is_unedited(source.replace("Digest", "digest"))


@pytest.mark.parametrize("option", ["--dry-run", "--diff"])
def test_looking_writes_nothing(rp, tmp_path, isolated_home, option):
    (isolated_home / "twins").mkdir()
    output = tmp_path / "out"
    done = rp("generate", "--model", "gpt2", option, "--clear-cache", "--output-dir", output)
    assert done.code == 0
    assert not output.exists()
    assert (isolated_home / "twins").exists()
    assert ("Would write" if option == "--dry-run" else "+++ ") in done.out


def test_a_dry_run_says_what_needs_force(rp, tmp_path, edited):
    done = rp("generate", "--model", "gpt2", "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0
    assert f"Edited, needs --force: {edited}" in done.out


def test_a_dry_run_with_force_says_what_would_be_overwritten(rp, tmp_path, edited):
    before = edited.read_text()
    done = rp("generate", "--model", "gpt2", "--dry-run", "--force", "--output-dir", tmp_path)
    assert done.code == 0
    assert f"Would overwrite what was edited: {edited}" in done.out
    assert "needs --force" not in done.out
    assert edited.read_text() == before


@pytest.mark.parametrize(
    ("option", "stored"), [("--dry-run", False), ("--diff", False), ("--force", True)]
)
def test_only_looking_stores_no_detection(rp, tmp_path, monkeypatch, option, stored):
    """Neither in a cache that was named nor in the default one."""
    asked = []

    def detected(_cache, **options):
        asked.append(options["store"])
        return fake_report()

    monkeypatch.setattr(hardware_detection, "detect_available_hardware", detected)
    arguments = ("generate", "--model", "gpt2", option, "--output-dir", tmp_path)
    assert rp(*arguments, "--hw-cache", tmp_path / "hw.json").code == rp(*arguments).code == 0
    assert asked == [stored, stored]


def test_a_diff_is_no_json(rp, tmp_path):
    options = ("--diff", "--json", "--output-dir", tmp_path / "out")
    done = rp("generate", "--model", "gpt2", *options)
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert "--dry-run" in done.err


def test_diff_shows_what_would_be_lost(rp, tmp_path, edited):
    done = rp("generate", "--model", "gpt2", "--diff", "--output-dir", tmp_path)
    changed = [line for line in done.out.splitlines() if line[:1] in "+-" and line[:3] != "+++"]
    assert changed[1:] == ["-NEW_TOKENS = 7", "+NEW_TOKENS = 5"]
    assert "NEW_TOKENS = 7" in edited.read_text()


def test_many_models_from_a_file_are_a_line_each_and_no_bar_without_a_terminal(rp, tmp_path):
    names = tmp_path / "models.txt"
    names.write_text("# mine\n" + "".join(f"org/model-{n}\n" for n in range(25)))
    done = rp("generate", "--all-from", names, "--output-dir", tmp_path / "out")
    assert done.code == 0
    assert len(done.out.splitlines()) == 25
    assert len(list((tmp_path / "out").iterdir())) == 25
    assert "Classifying" not in done.err
    assert "\x1b" not in done.err


def test_a_wrong_name_in_a_list_writes_nothing(rp, tmp_path):
    (tmp_path / "models.txt").write_text("gpt2\n../evil\n")
    done = rp("generate", "--all-from", tmp_path / "models.txt", "--output-dir", tmp_path / "out")
    assert done.code == ExitCode.BAD_INPUT
    assert "../evil" in done.err
    assert not (tmp_path / "out").exists()


def test_style_is_said_and_written(rp, tmp_path):
    arguments = ("--model", "gpt2", "--style", "pytest", "--output-dir", tmp_path, "--json")
    (result,) = rp("generate", *arguments).json
    assert result["style"] == "pytest"
    assert "import pytest\n" in (tmp_path / FILE).read_text()


def test_many_files_are_written_side_by_side_and_counted(tmp_path):
    plans = [make_plan(classify_model(f"some/model-{number}")) for number in range(9)]
    counted = []

    def progress(written, count):
        for one in written:
            counted.append(count)
            yield one

    write_drafts(draft_tests(plans, tmp_path), progress=progress)
    assert counted == [9] * 9
    assert sorted(file.name for file in tmp_path.iterdir()) == [plan.file_name for plan in plans]
    write_drafts(draft_tests(plans, tmp_path), progress=progress)
    assert len(counted) == 9  # nothing had changed


def test_where_one_of_many_cannot_be_written_none_is_half_written(tmp_path, monkeypatch):
    plans = [make_plan(classify_model(f"some/model-{number}")) for number in range(9)]

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_drafts(draft_tests(plans, tmp_path))
    assert list(tmp_path.iterdir()) == []
