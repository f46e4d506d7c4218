"""Numbers and batches: what counts as equal, and what a changed batch must do to outputs."""

from __future__ import annotations

import unittest

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resource_pool import measuring
from resource_pool.devices import forwards
from resource_pool.devices.flat import difference as flat_difference


class TakesMask:
    def forward(self, input_ids, attention_mask=None):
        raise NotImplementedError


class TakesNoMask:
    def forward(self, input_ids):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("actual", "expected", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.0, 1e-3], [0.0, 0.0], float("inf")),
        ([float("inf"), 1.0], [float("inf"), 1.0], 0.0),
        ([float("inf"), 1.5], [float("inf"), 1.0], 0.5),
        ([1, 2], [1, 2], 0.0),
        ([1, 2], [1, 3], float("inf")),
        ([1.0], [1.0, 2.0], float("inf")),
    ],
)
def test_the_difference_is_a_share_of_the_largest_expected_value(actual, expected, apart):
    found = measuring.difference(torch.tensor(actual), torch.tensor(expected))
    assert found == apart or (apart == float("inf") and found > 1e6)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [([float("nan")], [1.0]), ([1.0], [float("nan")]), ([1.0], [float("inf")])],
)
def test_what_is_no_number_is_within_no_limit(actual, expected):
    found = measuring.difference(torch.tensor(actual), torch.tensor(expected))
    assert not found <= 1e9


LOWEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize(
    ("actual", "expected", "apart"),
    [
        ([LOWEST, 1.5], [LOWEST, 1.0], 0.5),
        ([LOWEST + 1e32, 1.5], [LOWEST, 1.0], 0.5),
        ([LOWEST], [LOWEST + 1e32], 0.0),
        ([0.0, 1.0], [LOWEST, 1.0], 1.0),
        ([-LOWEST, 1.0], [LOWEST, 1.0], 2.0),
    ],
)
def test_scores_that_are_masked_out_hide_no_difference(actual, expected, apart):
    actual, expected = torch.tensor(actual), torch.tensor(expected)
    assert measuring.difference(actual, expected) == pytest.approx(apart)
    assert flat_difference({"logits": expected}, {"logits": actual}) == pytest.approx(apart)


def test_the_lowest_number_of_one_dtype_stands_for_that_of_another():
    half = torch.tensor([torch.finfo(torch.float16).min, 1.0], dtype=torch.float16)
    assert measuring.difference(half, torch.tensor([LOWEST, 1.0])) == 0.0
    assert not measuring.difference(half, torch.tensor([float("-inf"), 1.0])) <= 1e9


def test_the_same_computation_has_a_narrower_limit_than_another_one():
    for dtype in (torch.float32, torch.float16, "bfloat16"):
        assert measuring.tolerance(dtype, repeated=True) < measuring.tolerance(dtype)


def test_the_precision_of_a_model_is_that_of_the_engine_it_computes_in():
    model = torch.nn.Linear(2, 2)
    model.dtype = torch.bfloat16
    assert measuring.precision_of(model) == "bfloat16"
    model._rp_forward = forwards.Forward(model, "webgpu:0", "int8")
    assert measuring.precision_of(model) == "int8"
    assert measuring.tolerance("int8") > measuring.tolerance("bfloat16")


def test_what_differs_is_named_with_how_far_it_is_apart():
    expected = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(1), "c": torch.zeros(1)}
    found = {"a": torch.tensor([1.0, 2.5]), "b": torch.zeros(1), "d": torch.zeros(1)}
    wrong = measuring.differing(found, expected, torch.float32)
    assert wrong.keys() == {"a", "c", "d"}
    assert wrong["a"] == "differs by 0.25 of the largest value, 0.002 is allowed"
    assert (wrong["c"], wrong["d"]) == ("missing", "not expected")
    nan = {**expected, "a": torch.tensor([1.0, float("nan")])}
    assert measuring.differing(nan, expected, torch.float32).keys() == {"a"}
    assert measuring.differing(nan["a"], expected["a"], torch.float32).keys() == {"tensor"}
    assert measuring.differing(expected, expected, "bfloat16", repeated=True) == {}


def test_tensors_are_named_and_caches_left_out():
    outputs = {
        "logits": torch.zeros(2, 3),
        "attentions": (torch.zeros(1), torch.ones(1)),
        "past_key_values": ((torch.zeros(1),),),
        "note": "text",
    }
    assert list(measuring.tensors(outputs)) == ["logits", "attentions.0", "attentions.1"]
    assert measuring.layout(outputs)["logits"] == ((2, 3), "float32")
    assert measuring.not_finite({**outputs, "bad": torch.tensor([float("nan")])}) == ["bad"]


@given(st.integers(1, 4), st.integers(1, 6))
def test_reversing_twice_gives_the_same_batch(width, length):
    inputs = {"input_ids": torch.rand(2, length, width), "use_cache": False}
    twice = measuring.reversed_rows(measuring.reversed_rows(inputs))
    assert twice["input_ids"].equal(inputs["input_ids"])
    assert twice["use_cache"] is False


def test_packed_rows_are_skipped_with_the_reason():
    with pytest.raises(unittest.SkipTest, match="packed"):
        measuring.reversed_rows({"pixel_values": torch.zeros(8, 3)})


def test_inputs_are_exchanged_whole_and_at_their_end_where_they_differ():
    inputs = {
        "input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 3, 4]]),
        "pixel_values": torch.ones(2, 3),
        "attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "future_values": torch.rand(2, 3),
    }
    changed = measuring.exchanged(inputs)
    assert [what for what, _ in changed] == ["input_ids"]
    ((_, others),) = changed
    assert others["input_ids"].tolist() == [[5, 6, 3, 4], [1, 2, 3, 4]]
    assert others["attention_mask"] is inputs["attention_mask"]


def test_first_rows_are_cut_to_what_they_have_alone():
    batch = {"hidden": torch.arange(12.0).view(2, 3, 2), "routed": torch.zeros(6, 2)}
    alone = {"hidden": torch.arange(4.0).view(1, 2, 2), "routed": torch.zeros(3, 2)}
    row, expected = measuring.first_rows(batch, alone)
    assert row.keys() == expected.keys() == {"hidden"}
    assert row["hidden"].equal(expected["hidden"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_covered_by_the_mask(side):
    inputs = {"input_ids": torch.tensor([[1, 2]]), "token_type_ids": torch.tensor([[1, 1]])}
    padded = measuring.padded(inputs, 3, TakesMask(), side)
    mask, ids = padded["attention_mask"][0], padded["input_ids"][0]
    assert ids[mask.bool()].tolist() == [1, 2]
    assert mask.tolist() == ([0, 0, 0, 1, 1] if side == "left" else [1, 1, 0, 0, 0])
    assert padded["token_type_ids"].shape == ids[None].shape


def test_tokens_in_channels_are_padded_too():
    inputs = {"input_ids": torch.tensor([[[1, 2, 3], [4, 5, 6]]])}
    padded = measuring.padded(inputs, 3, TakesMask())
    assert padded["input_ids"].shape == (1, 5, 3)
    assert padded["input_ids"][:, :2].equal(inputs["input_ids"])
    assert padded["attention_mask"].tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("inputs", "model"),
    [
        ({"pixel_values": torch.zeros(1, 3)}, TakesMask()),
        ({"input_ids": torch.zeros(1, 3)}, TakesNoMask()),
    ],
)
def test_padding_that_no_mask_can_cover_is_skipped(inputs, model):
    with pytest.raises(unittest.SkipTest, match="no mask"):
        measuring.padded(inputs, 3, model)


def test_a_generated_text_continues_with_all_of_it_seen():
    inputs = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.tensor([[0, 1]])}
    whole = measuring.continued(inputs, torch.tensor([[1, 2, 9, 8]]))
    assert whole["input_ids"].tolist() == [[1, 2, 9, 8]]
    assert whole["attention_mask"].tolist() == [[0, 1, 1, 1]]
    decoder = {**inputs, "decoder_input_ids": torch.tensor([[0]])}
    assert measuring.continued(decoder, torch.tensor([[0, 7]]))["decoder_input_ids"].tolist() == [
        [0, 7]
    ]


def test_what_a_generated_token_goes_along_with_has_what_the_last_one_had():
    inputs = {
        "input_ids": torch.tensor([[1, 2]]),
        "attention_mask": torch.tensor([[0, 1]]),
        "image_attention_mask": torch.tensor([[[1, 0], [0, 1]]]),
        "pixel_attention_mask": torch.tensor([[1, 1]]),  # as long as the text by chance
    }
    whole = measuring.continued(inputs, torch.tensor([[1, 2, 9]]))
    assert whole["attention_mask"].tolist() == [[0, 1, 1]]
    assert whole["image_attention_mask"].tolist() == [[[1, 0], [0, 1], [0, 1]]]
    assert whole["pixel_attention_mask"] is inputs["pixel_attention_mask"]


def test_padding_is_the_models_own_token():
    from transformers import BertConfig

    model = TakesMask()
    model.config = BertConfig(pad_token_id=7)
    padded = measuring.padded({"input_ids": torch.tensor([[1, 2]])}, 2, model)
    assert padded["input_ids"].tolist() == [[1, 2, 7, 7]]


def test_a_token_of_padding_that_the_text_has_no_embedding_for_is_not_taken():
    from transformers import BertConfig

    model = TakesMask()
    model.config = BertConfig(pad_token_id=7, vocab_size=7)
    padded = measuring.padded({"input_ids": torch.tensor([[1, 2]])}, 2, model)
    assert padded["input_ids"].tolist() == [[1, 2, 2, 2]]


def test_layers_on_the_first_dimension_are_told_from_rows():
    rows = torch.arange(8.0).view(2, 2, 2)  # two layers, then two rows
    found, expected = measuring.mirrored({"layers": rows.flip(1)}, {"layers": rows})
    assert found["layers"].equal(expected["layers"])
    found, expected = measuring.mirrored({"layers": rows}, {"layers": rows})
    assert not found["layers"].equal(expected["layers"])


def test_a_comparison_of_nothing_is_a_skip_that_says_so():
    alike = {"input_ids": torch.ones(2, 3), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
    packed = {"routed": torch.zeros(6, 2), "loss": torch.zeros(2)}
    for compare in (
        lambda: measuring.exchanged(alike),
        lambda: measuring.mirrored(packed, packed),
        lambda: measuring.first_rows(packed, packed),
        lambda: measuring.first_rows(packed, {}, per_token=True),
    ):
        with pytest.raises(unittest.SkipTest, match="nothing to compare"):
            compare()


@pytest.mark.parametrize(
    "name", ["states", "actions", "inputs", "inputs_embeds", "encoder_hidden_states"]
)
def test_what_carries_content_under_another_name_is_exchanged(name):
    changed = measuring.exchanged({name: torch.rand(2, 3)})
    assert [what for what, _ in changed] == [name, f"the end of {name}"]


def test_what_is_pooled_is_compared_where_nothing_is_per_token():
    alone = {"pooled": torch.ones(1, 2), "hidden": torch.ones(1, 3, 2)}
    padded = {"pooled": torch.zeros(1, 2), "hidden": torch.ones(1, 6, 2)}
    assert [*measuring.first_rows(padded, alone, per_token=True)[1]] == ["hidden"]
    pooled = {"pooled": alone["pooled"]}
    row, expected = measuring.first_rows(padded, pooled, per_token=True)
    assert not row["pooled"].equal(expected["pooled"])


def test_losses_are_no_rows():
    outputs = {"loss": torch.zeros(2), "aux_loss": torch.zeros(2), "logits": torch.zeros(2, 1)}
    assert [*measuring.mirrored(outputs, outputs)[1]] == ["logits"]
    alone = {"loss": torch.zeros(1), "logits": torch.zeros(1, 1)}
    assert [*measuring.first_rows(outputs, alone)[1]] == ["logits"]
