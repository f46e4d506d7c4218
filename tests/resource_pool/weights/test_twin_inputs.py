"""Example inputs: what a forward takes, rows that keep to themselves, and nothing tried out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from resource_pool.weights import example_inputs, locate_weights

# One of each way in which a model takes its inputs.
TYPES = [
    ("bert", "AutoModel"),
    ("t5", "AutoModelForSeq2SeqLM"),
    ("vit", "AutoModelForImageClassification"),
    ("whisper", "AutoModelForSpeechSeq2Seq"),
    ("wav2vec2", "AutoModelForCTC"),
    ("llava", "AutoModelForImageTextToText"),
    ("qwen2_vl", "AutoModelForImageTextToText"),
    ("patchtst", "AutoModel"),
]


def twin(model_type: str, auto_class: str) -> Any:
    import transformers

    weights = locate_weights(
        f"an/{model_type}", model_type=model_type, auto_class=auto_class, mode="tiny"
    )
    return getattr(transformers, auto_class).from_pretrained(weights.path)


@pytest.mark.parametrize(("model_type", "auto_class"), TYPES)
def test_a_row_is_the_same_whatever_the_batch_and_rows_differ(
    model_type: str, auto_class: str
) -> None:
    model = twin(model_type, auto_class)
    one, three = example_inputs(model, batch=1), example_inputs(model, batch=3)

    assert one.keys() == three.keys()
    for name, rows in three.items():
        size = one[name].shape[0]
        assert rows.shape[0] == 3 * size, name
        assert torch.equal(rows[:size], one[name]), name
    values = three[model.main_input_name]
    size = one[model.main_input_name].shape[0]
    assert not torch.equal(values[:size], values[size : 2 * size])


@pytest.mark.parametrize(("model_type", "auto_class"), TYPES)
def test_the_forward_takes_them(model_type: str, auto_class: str) -> None:
    model = twin(model_type, auto_class)
    with torch.no_grad():
        output = model(**example_inputs(model))
    tensors = [value for value in output.values() if torch.is_tensor(value)]
    assert tensors
    assert all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_the_same_seed_gives_the_same_values_and_leaves_the_process_alone() -> None:
    model = twin("bert", "AutoModel")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = example_inputs(model), example_inputs(model)

    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert not torch.equal(first["input_ids"], example_inputs(model, seed=1)["input_ids"])


def test_texts_hold_as_many_placeholders_as_images_have_features() -> None:
    model = twin("llava", "AutoModelForImageTextToText")
    inputs = example_inputs(model)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output

    marked = inputs["input_ids"] == model.config.image_token_id
    assert marked.sum(1).tolist() == [len(rows) for rows in features]


def test_ordinary_tokens_are_no_special_ones() -> None:
    model = twin("bert", "AutoModel")
    special = {model.config.pad_token_id, 0, 1, 2}
    assert not special & set(example_inputs(model, batch=50)["input_ids"].flatten().tolist())


class Stranger(torch.nn.Module):
    """A forward that insists on something that nobody knows."""

    main_input_name = "input_ids"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, input_ids: Any, riddle: Any) -> None:
        """Take a riddle."""


def test_an_argument_that_nobody_knows_is_named() -> None:
    from transformers import BertConfig

    with pytest.raises(ValueError, match=r"Stranger takes riddle.*twins\.yaml"):
        example_inputs(Stranger(BertConfig()))


def test_a_type_without_a_forward_is_refused_with_its_cause() -> None:
    from transformers import BarkConfig

    with pytest.raises(ValueError, match="only generates"):
        example_inputs(Stranger(BarkConfig()))
