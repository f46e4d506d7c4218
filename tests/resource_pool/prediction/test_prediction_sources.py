"""What is taken from a config and from the files beside it, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from resource_pool.prediction.files import stored_dtype
from resource_pool.prediction.source import Source, find_source
from resource_pool.prediction.trace import TraceRequest, trace

LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def source_of(config: Mapping[str, Any]) -> Source:
    return find_source(config, None, None, None)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_an_attention_that_is_not_pytorchs_own_is_left_out_with_a_note(key: str) -> None:
    source = source_of({**LLAMA, key: "flash_attention_2"})
    assert source.notes == ("its attn_implementation is ignored: this is PyTorch's own attention",)
    asked = TraceRequest("llama", source.auto_class, source.config, "float32", 1, 8)
    assert "problem" not in dict(fact for facts in trace(asked) for fact in facts.items())


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_an_attention_of_pytorch_is_kept(name: str) -> None:
    source = source_of({**LLAMA, "attn_implementation": name})
    assert source.notes == ()
    assert json.loads(str(source.config))["attn_implementation"] == name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_whose_config_names_no_dtype_load_in_their_own(tmp_path: Path, dtype: str) -> None:
    config = transformers.AutoConfig.for_model(**LLAMA)
    made = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    made.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    asked = (tmp_path, None, None, None)
    assert find_source(*asked).dtype == str(loaded.dtype).removeprefix("torch.") == dtype
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "torch_dtype": "float64"}))
    assert find_source(*asked).dtype == "float64"


def test_the_first_floating_tensor_by_name_tells_and_no_weights_mean_float32(
    tmp_path: Path,
) -> None:
    assert stored_dtype(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert find_source(tmp_path, None, None, None).dtype == "float32"
    one = {"c": torch.zeros(2), "a": torch.zeros(2, dtype=torch.int8), "b": torch.zeros(2).half()}
    save_file(one, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) == "float16"
    save_file({"a": one["a"]}, tmp_path / "model.safetensors")
    assert stored_dtype(tmp_path) is None
