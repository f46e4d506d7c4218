"""Twins on disk: the same every time, whole or not there at all, built once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resource_pool.errors import WeightsUnavailableError
from resource_pool.weights import Weights, locate_weights
from resource_pool.weights import twins as twins_module

REPOSITORY = Path(__file__).parents[3]


def bert(name: str = "a/bert", **options: Any) -> Weights:
    return locate_weights(name, model_type="bert", mode="tiny", **options)


def twin_folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "twins").iterdir() if path.is_dir())


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count what is built."""
    built: list[str] = []
    build = twins_module._build

    def counting(folder: Path, recipe: twins_module.TwinRecipe) -> None:
        built.append(recipe.model_name)
        build(folder, recipe)

    monkeypatch.setattr(twins_module, "_build", counting)
    return built


# What a twin is ----------------------------------------------------------------------------------


def test_the_marker_says_what_it_is_a_twin_of() -> None:
    marker = json.loads((bert().path / "rp_twin.json").read_text())
    assert marker["twin_of"] == "a/bert"
    assert (marker["model_type"], marker["auto_class"], marker["seed"]) == ("bert", "AutoModel", 0)
    assert marker["versions"]["transformers"]
    assert marker["parameters"] > 1000
    assert marker["original_parameters"] == 109_482_240
    assert "model.safetensors" in marker["files"]


def test_a_twin_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = load_file(bert().path / "model.safetensors")
    torch.rand(7)
    monkeypatch.setenv("RP_HOME", str(tmp_path))
    second = load_file(bert().path / "model.safetensors")

    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {tensor.dtype for tensor in first.values()} == {torch.float32}


def test_twins_built_in_threads_are_the_same_as_built_alone() -> None:
    names = [f"a/{index}" for index in range(4)]
    threads = [threading.Thread(target=bert, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    alone = load_file(bert("a/alone").path / "model.safetensors")
    for name in names:
        twin = load_file(bert(name).path / "model.safetensors")
        assert all(torch.equal(alone[key], twin[key]) for key in alone), name


def test_building_leaves_the_random_numbers_of_the_process_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    bert()
    assert torch.equal(torch.rand(2), expected)


def test_building_ignores_the_defaults_of_the_process() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        tensors = load_file(bert().path / "model.safetensors")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_no_parameter_keeps_a_value_that_would_hide_a_fault() -> None:
    tensors = load_file(bert().path / "model.safetensors")
    assert all(tensor.std() > 1e-3 for tensor in tensors.values() if tensor.numel() > 1)


def test_whatever_differs_has_a_twin_of_its_own(isolated_home: Path) -> None:
    bert()
    bert("b/bert")
    bert(auto_class="AutoModelForMaskedLM")
    locate_weights("a/bert", model_type="roberta", mode="tiny")
    assert len(twin_folders(isolated_home)) == 4


@pytest.mark.parametrize("name", ["../../escape", "a/../../b", "x" * 5000, "ü ' \" $(rm) \n", ".."])
def test_a_hostile_name_stays_inside_the_home(name: str, isolated_home: Path) -> None:
    if name.startswith("."):
        with pytest.raises(WeightsUnavailableError):
            bert(name)
        return
    path = bert(name).path
    assert path.parent == isolated_home / "twins"
    assert json.loads((path / "rp_twin.json").read_text())["twin_of"] == name


def test_a_config_cannot_bring_code_or_quantisation(tmp_path: Path) -> None:
    config = {
        "model_type": "bert",
        "auto_map": {"AutoModel": "evil.Evil"},
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True},
        "torch_dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    path = locate_weights(str(tmp_path)).path
    tiny = json.loads((path / "config.json").read_text())
    assert not tiny.keys() & {"auto_map", "quantization_config", "torch_dtype"}
    assert tiny["dtype"] == "float32"


# Faults ------------------------------------------------------------------------------------------


def test_a_twin_is_built_once(builds: list[str]) -> None:
    assert bert() == bert()
    assert builds == ["a/bert"]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "rp_twin.json"]
)
def test_a_torn_twin_is_built_again(file: str, builds: list[str]) -> None:
    torn = bert().path / file
    content = torn.read_bytes()
    torn.write_bytes(content[:-10])
    bert()
    assert builds == ["a/bert"] * 2
    assert torn.read_bytes() == content
    torn.unlink()
    bert()
    assert builds == ["a/bert"] * 3


def test_a_full_disk_is_an_error_that_leaves_nothing(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(twins_module, "_write_marker", full)
    with pytest.raises(WeightsUnavailableError, match=r"No space left on device.*RP_HOME"):
        bert()
    assert twin_folders(isolated_home) == []


def test_a_home_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RP_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(WeightsUnavailableError, match=r"cannot be written.*RP_HOME"):
        bert()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_an_error(isolated_home: Path) -> None:
    isolated_home.chmod(0o500)
    try:
        with pytest.raises(WeightsUnavailableError, match=r"cannot be written.*RP_HOME"):
            bert()
    finally:
        isolated_home.chmod(0o700)


# Processes ---------------------------------------------------------------------------------------

ASK = """
from resource_pool.weights import locate_weights, twins
build = twins._build
def counted(folder, recipe):
    print("BUILD", flush=True)
    build(folder, recipe)
twins._build = counted
{setup}
print(locate_weights("a/bert", model_type="bert", mode="tiny").path)
"""
DIE_BEFORE_MARKER = """
import os, signal
twins._write_marker = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
"""


def ask(setup: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASK.format(setup=setup)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_build_one_twin(isolated_home: Path) -> None:
    both = [ask(), ask()]
    lines = [process.communicate(timeout=120)[0].split() for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert lines[0][-1] == lines[1][-1]
    assert sum(words.count("BUILD") for words in lines) == 1
    assert len(twin_folders(isolated_home)) == 1


def test_a_builder_that_is_killed_leaves_no_twin_and_no_lock(isolated_home: Path) -> None:
    killed = ask(DIE_BEFORE_MARKER)
    killed.communicate(timeout=120)

    assert killed.returncode == -9
    (remains,) = twin_folders(isolated_home)
    assert remains.endswith(".tmp")
    assert (isolated_home / "twins" / remains / "model.safetensors").is_file()
    path = bert().path
    assert twin_folders(isolated_home) == [path.name]


def test_importing_weights_imports_nothing_heavy() -> None:
    code = (
        "import sys, resource_pool.weights\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'safetensors', 'filelock'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
