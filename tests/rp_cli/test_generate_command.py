"""`rp generate`: every option has its effect, every wrong input one sentence and no file."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from template_models import TEMPLATE_OF

from model_family_classifier import classify_model
from model_family_classifier.data import data_dir
from rp_cli.codegen.plan import GENERIC_TEMPLATE, TEMPLATES, make_plan
from rp_cli.codegen.render import render
from rp_cli.errors import ExitCode

KNOWN = classify_model("nobody/knows-this")


def constants(path: Path) -> dict[str, object]:
    """The module's constants that are literals, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_every_template_is_registered_and_has_a_model_here():
    files = {file.stem for file in data_dir("templates").glob("hf_*_template.py.j2")}
    for name in files - {"hf_base_template.py", *TEMPLATES}:
        pytest.fail(f"templates/{name}.j2 has no row in _KNOWN_CLASSES of rp_cli/codegen/plan.py")
    for name in TEMPLATES:
        assert name in files, f"templates/{name}.j2 is missing, and rp_cli/codegen/plan.py names it"
        assert name in TEMPLATE_OF.values(), f"add a model of {name} to tests/template_models.py"


@pytest.mark.parametrize("model", TEMPLATE_OF)
def test_the_generated_file_is_the_golden_one(model, request):
    plan = make_plan(classify_model(model))
    golden = Path(__file__).parents[1] / "golden" / plan.file_name
    if request.config.getoption("--update-golden"):
        golden.write_text(render(plan), encoding="utf-8")
    assert golden.is_file(), f"{golden.name} is missing: run `make golden`"
    assert render(plan) == golden.read_text(encoding="utf-8"), "run `make golden`"


@pytest.mark.parametrize("model", TEMPLATE_OF)
def test_the_template_follows_the_family(rp, tmp_path, model):
    (result,) = rp("generate", "--model", model, "--output-dir", tmp_path, "--json").json
    assert result["template"] == TEMPLATE_OF[model]
    assert Path(result["path"]).is_file()


def test_the_files_are_formatted_as_ruff_does(rp, tmp_path):
    models = [argument for model in TEMPLATE_OF for argument in ("--model", model)]
    rp("generate", *models, "--output-dir", tmp_path)
    assert len(list(tmp_path.iterdir())) == len(TEMPLATE_OF)
    for command in (["format", "--check"], ["check", "--select=E9,F"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--isolated",
            "--line-length=100",
            str(tmp_path),
        ]
        done = subprocess.run(ruff, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_person_is_told_what_was_written_and_why(rp, tmp_path):
    done = rp("generate", "--model", "bert-base-uncased", "--output-dir", tmp_path)
    assert done.code == 0
    assert "cpu here, of cuda > mps > cpu\n" in done.out  # torch is built for CUDA or for ROCm
    assert str(tmp_path / "test_hf_bert_base_uncased.py") in done.out
    for word in ("embedding/masked_lm", "hf_embedding_template.py", "cpu here", "Weights"):
        assert word in done.out


def test_device_is_forced_and_said(rp, tmp_path):
    (result,) = rp(
        "generate", "--model", "gpt2", "--device", "cuda:1", "--output-dir", tmp_path, "--json"
    ).json
    assert constants(Path(result["path"]))["HARDWARE_PREFERENCES"] == {
        "device": "cuda:1",
        "force_device": True,
    }
    assert result["device"] is None
    assert "cuda" in result["device_reason"]
    done = rp("generate", "--model", "gpt2", "--device", "cuda:1", "--output-dir", tmp_path)
    assert "Device:    cuda:1 (not here: " in done.out
    assert "; the test will be skipped on this machine)" in done.out
    done = rp("generate", "--model", "gpt2", "--device", "cpu", "--output-dir", tmp_path)
    assert "Device:    cpu and nothing else, which is cpu here" in done.out


@pytest.fixture
def described(tmp_path):
    """A machine with one GPU, as a file of --hardware."""
    file = tmp_path / "machine.json"
    gpus = [{"name": "GPU", "memory_total_mb": 80000}]
    file.write_text(json.dumps({"rp_machine": 1, "devices": {"cuda": gpus}}))
    return file


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ([], "cuda:0 there, of cuda > mps > cpu\n"),
        (["--device", "cuda"], "cuda and nothing else, which is cuda:0 there\n"),
        (["--device", "mps"], "; the test will be skipped on that machine)\n"),
    ],
)
def test_a_described_machine_is_there_and_not_here(rp, described, device, told):
    done = rp("--hardware", described, "generate", "--model", "gpt2", *device, "--dry-run")
    assert told in done.out
    assert "here" not in done.out.replace("there", "")


@pytest.mark.parametrize("option", [["--clear-cache"], ["--hw-cache", "hw.json"]])
def test_what_is_about_this_machine_is_refused_with_another(
    rp, tmp_path, isolated_home, described, option
):
    (isolated_home / "hardware.json").write_text("{}")
    asked = ("generate", "--model", "gpt2", "--output-dir", tmp_path / "out", *option)
    done = rp("--hardware", described, *asked)
    assert (done.code, done.out) == (ExitCode.BAD_INPUT, "")
    assert "is about this machine, and --hardware describes another one" in done.err
    assert (isolated_home / "hardware.json").exists()
    assert not (tmp_path / "out").exists()


def test_timeout_is_the_age_that_the_test_passes_to_cleanup(rp, tmp_path):
    rp("generate", "--model", "gpt2", "--timeout", "60", "--output-dir", tmp_path)
    assert constants(tmp_path / "test_hf_gpt2.py")["CLEANUP_MINUTES"] == 60.0


def test_without_model_family_the_generic_template_and_the_bare_model_are_taken(rp, tmp_path):
    (result,) = rp(
        "generate", "--model", "gpt2", "--no-use-model-family", "--output-dir", tmp_path, "--json"
    ).json
    assert result["template"] == "hf_generic_template.py"
    assert result["auto_class"] == "AutoModel"


def test_a_model_database_decides(rp, tmp_path):
    database = tmp_path / "models.json"
    database.write_text(json.dumps({"my/own": {"family": "vision"}}))
    (result,) = rp(
        "generate", "--model", "my/own", "--model-db", database, "--output-dir", tmp_path, "--json"
    ).json
    assert result["family"] == "vision"


def test_names_come_from_standard_input(rp, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("gpt2  # small\n\nbert-base-uncased\n"))
    found = rp("generate", "--all-from", "-", "--output-dir", tmp_path, "--json").json
    assert [one["model_name"] for one in found] == ["gpt2", "bert-base-uncased"]


def test_clear_cache_removes_twins_and_the_hardware_cache(rp, tmp_path, isolated_home):
    twin = isolated_home / "twins" / "old"
    twin.mkdir(parents=True)
    (isolated_home / "hardware.json").write_text("{}")
    done = rp("generate", "--model", "gpt2", "--clear-cache", "--output-dir", tmp_path)
    assert not twin.exists()
    assert not (isolated_home / "hardware.json").exists()
    assert f"Cleared {isolated_home / 'hardware.json'} and {isolated_home / 'twins'}." in done.err
    done = rp("generate", "--model", "gpt2", "--clear-cache", "--output-dir", tmp_path)
    assert "The caches were empty." in done.err


def test_clear_cache_follows_no_link_and_says_so(rp, tmp_path, isolated_home):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (isolated_home / "twins").symlink_to(elsewhere)
    done = rp("generate", "--model", "gpt2", "--clear-cache", "--output-dir", tmp_path / "out")
    assert done.code == ExitCode.CANNOT_WRITE
    assert "is a link" in done.err
    assert (elsewhere / "kept").exists()
    assert not (tmp_path / "out").exists()


def test_clear_cache_says_what_it_cannot_clear(rp, tmp_path, isolated_home, monkeypatch):
    (isolated_home / "twins").mkdir()

    def busy(_: Path) -> None:
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", busy)
        done = rp("generate", "--model", "gpt2", "--clear-cache", "--output-dir", tmp_path / "out")
    assert done.code == ExitCode.CANNOT_WRITE
    assert "twins: Device or resource busy" in done.err


def test_a_hardware_cache_is_made_believed_and_with_clear_cache_made_anew(rp_process, tmp_path):
    cache = tmp_path / "hw.json"
    arguments = ("--model", "gpt2", "--hw-cache", cache, "--output-dir", tmp_path)
    done = rp_process("generate", *arguments)
    assert done.code == 0, done.err
    first = cache.read_text()
    assert json.loads(first)["schema_version"] == 1
    rp_process("generate", *arguments)
    assert cache.read_text() == first
    rp_process("generate", *arguments, "--clear-cache")
    assert cache.read_text() != first


def test_debug_says_more_on_stderr(rp, tmp_path):
    arguments = ("generate", "--model", "gpt2", "--dry-run", "--output-dir", tmp_path)
    quiet = rp(*arguments)
    loud = rp(*arguments, "--debug")
    assert loud.out == quiet.out
    assert "gpt2" in loud.err
    assert "evidence" in loud.err
    assert quiet.err == ""


def test_the_same_model_twice_is_written_once(rp, tmp_path):
    results = rp(
        "generate", "--model", "gpt2", "--model", "gpt2", "--output-dir", tmp_path, "--json"
    ).json
    assert len(results) == 1


def test_generating_again_overwrites_its_own_file(rp, tmp_path):
    for _ in range(2):
        assert rp("generate", "--model", "gpt2", "--output-dir", tmp_path).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--model", "gpt2", "--device", "cdua"], ExitCode.BAD_INPUT, "did you mean 'cuda'"),
        (["--model", "gpt2", "--device", "cuda:" + "9" * 5000], ExitCode.BAD_INPUT, "Device"),
        (["--model", "gpt2", "--timeout", "-1"], ExitCode.BAD_INPUT, "--timeout"),
        (["--model", "gpt2", "--timeout", "nan"], ExitCode.BAD_INPUT, "--timeout"),
        (["--model", ""], ExitCode.BAD_INPUT, "not a model name"),
        (["--model", "../evil"], ExitCode.BAD_INPUT, "neither a model folder nor a hub name"),
        (["--model", "a'b"], ExitCode.BAD_INPUT, "neither a model folder nor a hub name"),
        (["--model", "{tmp}/empty"], ExitCode.BAD_INPUT, "config.json"),
        (["--model", "gpt2", "--output-dir", ""], ExitCode.BAD_INPUT, "--output-dir is empty"),
        (["--model", "gpt2", "--hw-cache", ""], ExitCode.BAD_INPUT, "--hw-cache is empty"),
        (["--model", "gpt2", "--model-db", " "], ExitCode.BAD_INPUT, "--model-db is empty"),
        (["--model", "gpt2", "--model-db", "{tmp}/absent.json"], ExitCode.BAD_INPUT, "absent.json"),
        (["--model", "gpt2", "--model-db", "{tmp}/broken.json"], ExitCode.BAD_INPUT, "broken.json"),
        (["--model", "gpt2", "--output-dir", "{tmp}/broken.json"], ExitCode.CANNOT_WRITE,
         "--output-dir"),
        (["--model", "a/b", "--model", "a-b"], ExitCode.BAD_INPUT, "is the test of 'a/b'"),
        ([], ExitCode.BAD_INPUT, "--model"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_no_file(rp, tmp_path, monkeypatch, arguments, code, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    (tmp_path / "broken.json").write_text("{")
    output = tmp_path / "out"
    given_ = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    done = rp("generate", "--output-dir", output, *given_)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not output.exists()


def test_a_malformed_hardware_cache_is_named(rp_process, tmp_path):
    (tmp_path / "hw.json").write_text("not json")
    done = rp_process(
        "generate", "--model", "gpt2", "--hw-cache", tmp_path / "hw.json",
        "--output-dir", tmp_path / "out",
    )  # fmt: skip
    assert done.code == ExitCode.BAD_INPUT
    assert "hw.json" in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_another_models_test_is_not_overwritten(rp, tmp_path):
    rp("generate", "--model", "a/b", "--output-dir", tmp_path)
    before = (tmp_path / "test_hf_a_b.py").read_text()
    done = rp("generate", "--model", "a-b", "--output-dir", tmp_path)
    assert done.code == ExitCode.BAD_INPUT
    assert (tmp_path / "test_hf_a_b.py").read_text() == before


@pytest.mark.parametrize("text", ["print('mine')\n", "not python (\n", "MODEL_NAME = 'gpt2'\n"])
def test_a_file_that_rp_did_not_write_is_not_overwritten(rp, tmp_path, text):
    path = tmp_path / "test_hf_gpt2.py"
    path.write_text(text)
    done = rp("generate", "--model", "gpt2", "--output-dir", tmp_path)
    assert done.code == ExitCode.BAD_INPUT
    assert "was not written by rp" in done.err
    assert path.read_text() == text


def test_a_person_is_warned_of_a_model_that_nobody_knows(rp, tmp_path):
    done = rp("generate", "--model", "nobody/knows-this", "--output-dir", tmp_path)
    assert "rp: nothing is known of nobody/knows-this" in done.err


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("stabilityai/sdxl-turbo", "the architecture of stabilityai/sdxl-turbo is unknown, so no"),
        (
            "roberta-large-mnli",
            "the head of roberta-large-mnli (AutoModelForSequenceClassification)",
        ),
        ("bert-base-uncased", ""),
        ("sentence-transformers/all-MiniLM-L6-v2", ""),
    ],
)
def test_a_person_is_warned_of_what_the_test_cannot_do(rp, model, told):
    done = rp("generate", "--model", model, "--dry-run")
    assert done.err.startswith(f"rp: {told}") if told else done.err == ""


def test_a_person_is_warned_of_a_model_with_code_of_its_own(rp, tmp_path):
    (tmp_path / "config.json").write_text(
        '{"model_type": "my-own", "auto_map": {"AutoModel": "x.Y"}}'
    )
    done = rp("generate", "--model", tmp_path, "--dry-run")
    assert done.err.startswith(f"rp: my-own, the model type of {tmp_path}, is none that rp knows")


def test_a_class_that_the_template_does_not_know_gets_the_generic_one(rp, tmp_path):
    done = rp("generate", "--model", "facebook/sam-vit-base", "--output-dir", tmp_path, "--json")
    assert done.json[0]["template"] == GENERIC_TEMPLATE
    assert "does not know AutoModelForMaskGeneration" in done.err


def test_why_a_type_takes_the_generic_template_is_told(rp, tmp_path):
    (tmp_path / "canine").mkdir()
    (tmp_path / "canine" / "config.json").write_text('{"model_type": "canine"}')
    arguments = ("generate", "--model", tmp_path / "canine", "--dry-run")
    done = rp(*arguments)
    assert done.err == (
        f"rp: the template of embedding does not fit {tmp_path / 'canine'}, and the generic one "
        "is taken (canine: its convolutions over text see padding).\n"
    )
    assert rp(*arguments, "--no-use-model-family").err == ""


@pytest.mark.parametrize(
    ("family", "subfamily", "auto_class", "template"),
    [
        ("vision", None, "AutoModelForObjectDetection", "hf_vision_template.py"),
        ("vision", None, "AutoBackbone", GENERIC_TEMPLATE),
        ("audio", None, "AutoModelForTextToWaveform", GENERIC_TEMPLATE),
        ("multimodal", "image_text_encoder", "AutoModel", "hf_multimodal_template.py"),
        ("multimodal", "audio_language", "AutoModel", GENERIC_TEMPLATE),
        ("embedding", "reranker", "AutoModelForSequenceClassification",
         "hf_embedding_template.py"),
        ("unknown", None, "AutoModel", GENERIC_TEMPLATE),
    ],
)  # fmt: skip
def test_the_template_follows_the_class(family, subfamily, auto_class, template):
    said = {"family": family, "subfamily": subfamily, "auto_class": auto_class}
    assert make_plan({**KNOWN, **said}).template == template


def test_a_planted_ruff_is_not_run(rp_process, tmp_path):
    for name in ("ruff", "jinja2", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')\n")
    done = rp_process("generate", "--model", "gpt2", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "skills" / "test_hf_gpt2.py").is_file()


def test_a_full_disk_leaves_no_half_written_file(rp, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = rp("generate", "--model", "gpt2", "--output-dir", tmp_path)
    assert done.code == ExitCode.CANNOT_WRITE
    assert "No space left" in done.err
    assert list(tmp_path.iterdir()) == []
