"""What is taken from a config and from the files beside it, and what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

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
