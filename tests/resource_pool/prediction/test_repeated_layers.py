"""What a few identical layers take tells what all take, to the byte; or all are traced."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from resource_pool.prediction import repeated, trace

LENGTH = 33
DECODER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": LENGTH,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 40,
}  # fmt: skip
BERT = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
GPT2 = {"n_embd": 32, "n_layer": LENGTH, "n_head": 4, "vocab_size": 40}
GEMMA = {**DECODER, "head_dim": 8, "sliding_window": 4}


def traced(model_type: str, auto_class: str, config: dict[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    request = trace.TraceRequest(model_type, auto_class, json.dumps(config), "float32", 2, 6)
    for more in trace.trace(request):
        known |= more
    assert "problem" not in known, known
    return known


@pytest.fixture
def lengths(monkeypatch):
    """Note how long the rows are that are traced."""
    found: list[int] = []
    shortened = repeated._shortened

    def noted(row, count):
        found.append(count)
        return shortened(row, count)

    monkeypatch.setattr(repeated, "_shortened", noted)
    return found


@pytest.mark.parametrize(
    ("model_type", "auto_class", "config"),
    [
        ("llama", "AutoModelForCausalLM", DECODER),
        ("qwen2", "AutoModelForCausalLM", DECODER),
        ("mixtral", "AutoModelForCausalLM", {**DECODER, "num_local_experts": 2}),
        ("gpt2", "AutoModelForCausalLM", GPT2),
        ("bert", "AutoModel", BERT),
    ],
)
def test_a_few_layers_tell_what_all_take_to_the_byte(
    model_type, auto_class, config, lengths, monkeypatch
):
    measured = trace._measured
    monkeypatch.setattr(trace, "_measured", lambda *args: measured(*args) if args[3:] else None)
    short = traced(model_type, auto_class, config)  # which would fail where all were traced
    monkeypatch.setattr(trace, "_measured", measured)
    assert lengths == [2, 3, 13]
    monkeypatch.setattr(repeated, "WORTH_IT", LENGTH + 1)
    assert traced(model_type, auto_class, config) == short
    assert len(lengths) == 3


def test_layers_of_two_kinds_are_all_traced(lengths):
    """Every sixth layer of a Gemma 3 looks back at all tokens, the others at a few."""
    traced("gemma3_text", "AutoModelForCausalLM", GEMMA)
    assert lengths == []


class Layer(torch.nn.Linear):
    def __init__(self, index: int, **settings: Any):
        super().__init__(4, 4)
        self.number = index
        vars(self).update(settings)


class Stack(torch.nn.Module):
    def __init__(self, *layers: Layer):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)


def stack(change=lambda _: {}) -> Stack:
    return Stack(*(Layer(index, **change(index)) for index in range(LENGTH)))


def test_a_layer_may_know_its_number_and_nothing_else_that_others_do_not():
    assert repeated.row_of(stack()) is not None
    assert repeated.row_of(stack(lambda index: {"window": index == 20})) is None
    assert repeated.row_of(stack(lambda index: {"number": index + 1})) is None
    assert repeated.row_of(stack(lambda _: {"act": lambda x: x})) is None
    assert repeated.row_of(stack(lambda _: {"act": torch.nn.functional.relu})) is not None


def test_a_layer_with_other_tensors_or_of_another_class_is_seen():
    wide, other, frozen = stack(), stack(), stack()
    wide.layers[20].weight = torch.nn.Parameter(torch.ones(4, 5))
    other.layers[20] = torch.nn.Linear(4, 4)
    frozen.layers[20].register_buffer("mask", torch.ones(1))
    assert [repeated.row_of(one) for one in (wide, other, frozen)] == [None] * 3


def test_a_config_with_an_entry_for_each_layer_is_believed(monkeypatch):
    from transformers import PretrainedConfig

    model = stack()
    model.config = PretrainedConfig(kinds=["all"] * LENGTH)
    assert repeated.row_of(model) is not None
    model.config = PretrainedConfig(kinds=["all"] * (LENGTH - 1) + ["few"])
    assert repeated.row_of(model) is None


def test_two_rows_are_traced_whole():
    model = stack()
    model.more = stack().layers
    assert repeated.row_of(model) is None


def facts(n: int, peak: int, growth: int = 0, **more: Any) -> dict[str, Any]:
    return {"peak_bytes": peak, "start": 0, "growth": growth, **more}


@pytest.mark.parametrize(
    ("sizes", "whole"),
    [
        (lambda n: facts(n, 100 + 7 * n, 7, cache=7 * n), 100 + 7 * LENGTH),
        (lambda n: facts(n, 100), 100),
        (lambda n: facts(n, 9 * n, 2, start=7 * n), 9 * LENGTH),
        # What is alive grows, and will outgrow the peak that does not.
        (lambda n: facts(n, max(100, 7 * n), 7), None),
        (lambda n: facts(n, n // 2), None),
        (lambda n: facts(n, n * n), None),
        (lambda n: facts(n, 1, **({"more": 1} if n > 3 else {})), None),
        (lambda n: facts(n, 1, shape=[n]), None),
    ],
)
def test_only_what_lies_on_a_line_that_goes_on_is_continued(sizes, whole):
    row = repeated.row_of(stack())
    found = repeated.by_a_few(row, lambda: iter([sizes(len(row.parent.layers))]))
    assert (None if found is None else found[0]["peak_bytes"]) == whole
    assert len(row.parent.layers) == LENGTH
