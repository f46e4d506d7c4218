"""Provenance: what can be proven of a loaded model, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resource_pool.weights import locate_weights, provenance


@pytest.fixture
def twin() -> Path:
    return locate_weights("a/bert", model_type="bert", mode="tiny").path


@pytest.fixture
def trained(twin: Path, tmp_path: Path) -> Path:
    """A folder that nobody marked as a twin."""
    model = load(twin)
    del model.config.rp_twin
    model.save_pretrained(tmp_path / "trained")
    return tmp_path / "trained"


def load(path: Path, **options: Any) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(path, **options)


def test_loaded_weights_are_told_apart(twin: Path, trained: Path) -> None:
    assert provenance(load(twin)) == "tiny"
    assert provenance(load(trained)) == "pretrained"


def test_a_copy_of_a_twin_is_still_tiny(twin: Path, tmp_path: Path) -> None:
    load(twin).save_pretrained(tmp_path)
    assert not (tmp_path / "rp_twin.json").exists()
    assert provenance(load(tmp_path)) == "tiny"


@pytest.mark.parametrize("folder", ["twin", "trained"])
def test_a_config_alone_proves_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    from transformers import AutoConfig, AutoModel

    path = request.getfixturevalue(folder)
    model = AutoModel.from_config(AutoConfig.from_pretrained(path))
    assert model.name_or_path == str(path)
    assert provenance(model) == "random"


def test_random_parameters_without_constants_are_unknown(trained: Path) -> None:
    from transformers import AutoConfig, AutoModel

    model = AutoModel.from_config(AutoConfig.from_pretrained(trained))
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    assert provenance(model) == "unknown"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_does_not_hide_the_origin(dtype: torch.dtype, trained: Path) -> None:
    assert provenance(load(trained, dtype=dtype)) == "pretrained"
    assert provenance(load(trained).to(dtype)) == "pretrained"
    assert provenance(load(trained).to(torch.bfloat16).float()) == "pretrained"


def test_a_body_from_a_head_and_a_head_on_a_body_are_recognised(trained: Path) -> None:
    from transformers import AutoModelForMaskedLM

    headed = AutoModelForMaskedLM.from_pretrained(trained)
    assert provenance(headed) == "partial"  # the head is not in the file
    headed.save_pretrained(trained / "headed")
    assert provenance(load(trained / "headed")) == "pretrained"


def test_a_head_of_another_name_in_the_file_is_known_by_its_numbers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    twin = locate_weights(
        "a/neox", model_type="gpt_neox", auto_class="AutoModelForCausalLM", mode="tiny"
    ).path
    model = AutoModelForCausalLM.from_pretrained(twin)  # its file says embed_out, not lm_head
    assert provenance(model) == "tiny"
    model.base_model.save_pretrained(tmp_path)
    assert provenance(AutoModelForCausalLM.from_pretrained(tmp_path)) == "partial"


def test_shards_are_read(trained: Path) -> None:
    load(trained).save_pretrained(trained / "shards", max_shard_size="200KB")
    assert len(list((trained / "shards").glob("*.safetensors"))) > 1
    assert provenance(load(trained / "shards")) == "pretrained"


def test_weights_that_were_changed_are_unknown(trained: Path) -> None:
    model = load(trained)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    assert provenance(model) == "unknown"


def test_a_folder_that_is_gone_or_lies_is_unknown(trained: Path) -> None:
    model = load(trained)
    # Not overwritten in place: the model has the file mapped into its memory.
    (trained / "model.safetensors").unlink()
    assert provenance(model) == "unknown"
    (trained / "model.safetensors").write_text("nothing")
    assert provenance(model) == "unknown"


@pytest.mark.parametrize(
    "thing",
    [None, object(), 3, torch.nn.Linear(8, 8), SimpleNamespace(config=SimpleNamespace())],
)
def test_what_is_no_transformers_model_is_unknown(thing: Any) -> None:
    assert provenance(thing) == "unknown"


def test_a_model_on_the_meta_device_is_unknown(trained: Path) -> None:
    assert provenance(load(trained).to("meta")) == "unknown"


def test_a_model_without_a_name_is_random_or_unknown() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    model = BertModel(config)
    assert provenance(model) == "random"
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    assert provenance(model) == "unknown"


@pytest.mark.parametrize("name", ["../../etc", "a\0b", "not/cached", "no hub/name's", ""])
def test_a_strange_name_is_unknown(name: str, trained: Path) -> None:
    model = load(trained)
    model.name_or_path = name
    model.config._name_or_path = name
    assert provenance(model) == "unknown"


def test_the_mark_alone_proves_nothing(trained: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, "rp_twin": "seed 0"}))
    model = load(trained)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    assert provenance(model) == "unknown"
