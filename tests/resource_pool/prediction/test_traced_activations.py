"""A trace sees what a real forward allocates: activations, the attention cache, one more token."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from resource_pool.prediction.answers import FakeAnswers
from resource_pool.prediction.inputs import Shape, example_inputs
from resource_pool.prediction.live import LiveMemory, watching
from resource_pool.prediction.trace import TraceRequest, cache_bytes, trace

LLAMA = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip
VIT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
BERT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 100,
}  # fmt: skip
MIXTRAL = {**LLAMA, "num_local_experts": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}


def traced(
    model_type: str, auto_class: str, config: dict[str, Any], batch: int = 1, seq: int = 8
) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for more in trace(
        TraceRequest(model_type, auto_class, json.dumps(config), "float32", batch, seq)
    ):
        known |= more
    assert "problem" not in known, known["problem"]
    return known


def measured(
    model_type: str, auto_class: str, config: dict[str, Any], batch: int, seq: int
) -> tuple[int, int]:
    """Run the real model; return the peak beside its weights, and its cache, in bytes."""
    import transformers

    real = transformers.AutoConfig.for_model(model_type, **config)
    model = getattr(transformers, auto_class).from_config(real).eval()
    memory = LiveMemory()
    memory.add((*model.parameters(), *model.buffers()))
    weights = memory.current
    inputs = example_inputs(model, Shape(batch, seq))
    memory.add(inputs.values())
    with torch.no_grad(), watching(memory, lambda op, args: None):
        output = model(**inputs)
    return memory.peak - weights, cache_bytes(output)


@pytest.mark.parametrize(
    ("model_type", "auto_class", "config"),
    [
        ("bert", "AutoModel", BERT),
        ("llama", "AutoModelForCausalLM", LLAMA),
        ("mixtral", "AutoModelForCausalLM", MIXTRAL),
        ("t5", "AutoModelForSeq2SeqLM", T5),
        ("vit", "AutoModelForImageClassification", VIT),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_trace_keeps_alive_what_a_real_forward_keeps(
    model_type: str, auto_class: str, config: dict[str, Any]
) -> None:
    known = traced(model_type, auto_class, config, batch=2, seq=16)
    peak, cache = measured(model_type, auto_class, config, batch=2, seq=16)
    assert known["peak_bytes"] == pytest.approx(peak, rel=0.02)
    assert known["kv_cache_bytes"] == cache


@settings(max_examples=8)
@given(
    layers=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([8, 16]),
    batch=st.integers(1, 3),
    seq=st.integers(1, 40),
)
def test_the_cache_of_grouped_queries_has_two_tensors_per_layer(
    layers: int, kv_heads: int, head_dim: int, batch: int, seq: int
) -> None:
    config = LLAMA | {
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }
    known = traced("llama", "AutoModelForCausalLM", config, batch, seq)
    per_token = 2 * layers * batch * kv_heads * head_dim * 4
    assert known["kv_cache_bytes"] == per_token * seq
    assert known["kv_bytes_per_token"] == per_token


@pytest.mark.parametrize("seq", [8, 15, 16, 17, 40])
def test_a_token_beyond_the_window_adds_nothing(seq: int) -> None:
    """Half of the layers see all tokens, the others the last 16, the new one included."""
    kinds = ["sliding_attention", "full_attention"]
    config = {**LLAMA, "head_dim": 8, "sliding_window": 16, "layer_types": kinds}
    known = traced("gemma2", "AutoModelForCausalLM", config, seq=seq)
    per_layer = 2 * LLAMA["num_key_value_heads"] * 8 * 4
    assert known["kv_bytes_per_token"] == (2 if seq < 15 else 1) * per_layer


@settings(max_examples=8)
@given(batch=st.integers(1, 4), seq=st.integers(2, 60), more=st.integers(1, 40))
def test_more_rows_or_tokens_never_need_less(batch: int, seq: int, more: int) -> None:
    def peak(rows: int, tokens: int) -> int:
        return int(traced("bert", "AutoModel", BERT, rows, tokens)["peak_bytes"])

    assert peak(batch, seq) <= peak(batch + 1, seq)
    assert peak(batch, seq) <= peak(batch, seq + more)


def test_encoders_have_no_cache() -> None:
    known = traced("bert", "AutoModel", BERT)
    assert known["kv_cache_bytes"] == 0
    assert "kv_bytes_per_token" not in known


def test_seq_is_what_the_positions_allow_unless_it_was_asked_for() -> None:
    short = {**BERT, "max_position_embeddings": 32}
    asked = TraceRequest("bert", "AutoModel", json.dumps(short), "float32", 1, None)
    assert list(trace(asked))[-1]["seq"] == 32
    too_long = TraceRequest("bert", "AutoModel", json.dumps(short), "float32", 1, 33)
    assert list(trace(too_long))[-1] == {"too_long": "it has 32 positions, and seq is 33"}


def test_images_alone_have_no_seq() -> None:
    assert traced("vit", "AutoModelForImageClassification", VIT)["seq"] is None


def test_rotary_positions_have_no_limit() -> None:
    short = {**LLAMA, "max_position_embeddings": 8}
    assert traced("llama", "AutoModelForCausalLM", short, seq=16)["seq"] == 16


def test_images_that_cannot_be_made_are_left_out_and_a_note_says_so() -> None:
    small = {**LLAMA, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}}
    config = {"text_config": small, "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 2}}
    known = traced("qwen2_vl", "AutoModelForImageTextToText", config)
    assert "pixel_values" not in known["inputs"]
    assert known["left_out"][0].startswith("images are left out")


# Live memory -------------------------------------------------------------------------------------


def test_a_storage_lives_until_nobody_holds_it() -> None:
    memory = LiveMemory()
    with watching(memory, lambda op, args: None):
        one = torch.zeros(256)
        same = one.view(16, 16)
        assert memory.current == 1024
        del one
        assert memory.current == 1024
        del same
    gc.collect()
    assert (memory.current, memory.peak) == (0, 1024)


@given(st.lists(st.integers(0, 500), max_size=10))
def test_blocks_are_rounded_up_to_the_allocators_alignment(sizes: list[int]) -> None:
    memory = LiveMemory()
    held = [torch.zeros(size, dtype=torch.uint8) for size in sizes]
    memory.add(held)
    assert memory.current == sum(-(-size // 64) * 64 for size in sizes)


def test_a_peak_can_be_restarted() -> None:
    memory = LiveMemory()
    kept = torch.zeros(16)
    memory.add([kept, torch.zeros(1024)])
    memory.restart_peak()
    assert memory.peak == memory.current == kept.nbytes


# Answers -----------------------------------------------------------------------------------------


@pytest.fixture
def fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), watching(None, FakeAnswers()):
        yield


@pytest.mark.parametrize("wanted", [True, False])
def test_a_loop_that_waits_for_either_truth_ends(fake: Any, wanted: bool) -> None:
    rounds = 0
    while bool(torch.ones(3).bool().any()) is not wanted:
        rounds += 1
    assert rounds <= 1000


def test_a_loop_that_counts_ends(fake: Any) -> None:
    steps = torch.zeros(3)
    while int(steps.sum().long()) < 1:
        steps = steps + 1


def test_constants_are_answered_with_their_value(fake: Any) -> None:
    assert torch.tensor(7).item() == 7


def test_sizes_that_depend_on_values_are_the_largest(fake: Any) -> None:
    rows = torch.zeros(4, 3)
    mask = torch.zeros(4, 3).bool()
    assert rows.nonzero().shape == (12, 2)
    assert rows[mask].shape == (12,)
    assert rows[torch.zeros(4).bool()].shape == (4, 3)
    assert rows.masked_select(mask).shape == (12,)


def test_checks_of_values_pass_and_checks_of_shapes_are_made(fake: Any) -> None:
    torch._check_tensor_all(torch.zeros(3) > 1)
    assert torch.equal(torch.zeros(3), torch.ones(3))
    assert not torch.equal(torch.zeros(3), torch.ones(4))
