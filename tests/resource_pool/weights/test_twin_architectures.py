"""Each common architecture has a twin that runs from its folder, with inputs of its own making."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resource_pool.weights import locate_weights, provenance

TEXTS = ["Two cats sleep on a sofa.", "No."]

# model type, Auto class, what goes in, whether it generates
ARCHITECTURES = [
    ("bert", "AutoModel", "text", False),
    ("bert", "AutoModelForMaskedLM", "text", False),
    ("roberta", "AutoModel", "text", False),
    ("distilbert", "AutoModel", "text", False),
    ("albert", "AutoModel", "text", False),
    ("gpt2", "AutoModelForCausalLM", "text", True),
    ("llama", "AutoModelForCausalLM", "text", True),
    ("mistral", "AutoModelForCausalLM", "text", True),
    ("mixtral", "AutoModelForCausalLM", "text", True),
    ("qwen2", "AutoModelForCausalLM", "text", True),
    ("gemma", "AutoModelForCausalLM", "text", True),
    ("opt", "AutoModelForCausalLM", "text", True),
    ("t5", "AutoModelForSeq2SeqLM", "text", True),
    ("t5", "AutoModel", "text", False),
    ("bart", "AutoModelForSeq2SeqLM", "text", True),
    ("marian", "AutoModelForSeq2SeqLM", "text", True),
    ("vit", "AutoModelForImageClassification", "image", False),
    ("resnet", "AutoModelForImageClassification", "image", False),
    ("detr", "AutoModelForObjectDetection", "image", False),
    ("whisper", "AutoModelForSpeechSeq2Seq", "audio", True),
    ("wav2vec2", "AutoModelForCTC", "audio", False),
    ("wav2vec2", "AutoModel", "audio", False),
    ("hubert", "AutoModelForCTC", "audio", False),
    ("clip", "AutoModel", "image+text", False),
    ("blip", "AutoModelForImageTextToText", "image+text", True),
    ("llava", "AutoModelForImageTextToText", "image+text", True),
]


def _image(shade: int) -> Any:
    from PIL import Image

    image = Image.linear_gradient("L").rotate(shade).convert("RGB")
    return image.resize((96, 80))


def _sine(hertz: float) -> Any:
    return torch.sin(2 * torch.pi * hertz * torch.arange(16_000) / 16_000).numpy()


def _inputs(kind: str, path: Path) -> dict[str, Any]:
    """Return a batch of two different examples, made by the twin's own processor."""
    from transformers import (
        AutoFeatureExtractor,
        AutoImageProcessor,
        AutoProcessor,
        AutoTokenizer,
    )

    images = [_image(0), _image(90)]
    if kind == "text":
        return dict(AutoTokenizer.from_pretrained(path)(TEXTS, padding=True, return_tensors="pt"))
    if kind == "image":
        return dict(AutoImageProcessor.from_pretrained(path)(images, return_tensors="pt"))
    if kind == "audio":
        extractor = AutoFeatureExtractor.from_pretrained(path)
        sounds = [_sine(220.0), _sine(880.0)]
        return dict(extractor(sounds, sampling_rate=16_000, return_tensors="pt"))
    processor = AutoProcessor.from_pretrained(path)
    placeholder = getattr(processor, "image_token", "")
    texts = [f"{placeholder}{text}" for text in TEXTS]
    return dict(processor(images=images, text=texts, padding=True, return_tensors="pt"))


def _main_output(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    decodes = model.config.is_encoder_decoder and "decoder_input_ids" in _parameters(model)
    if decodes:
        start = model.config.decoder_start_token_id
        inputs = {**inputs, "decoder_input_ids": torch.full((2, 2), start)}
    with torch.no_grad():
        output = model(**inputs)
    names = ("logits", "logits_per_image", "last_hidden_state")
    return next(getattr(output, name) for name in names if hasattr(output, name))


def _parameters(model: Any) -> set[str]:
    import inspect

    return set(inspect.signature(model.forward).parameters)


@pytest.mark.parametrize(
    ("model_type", "auto_class", "kind", "generates"),
    ARCHITECTURES,
    ids=[f"{row[0]}-{row[1]}" for row in ARCHITECTURES],
)
def test_twin_runs_from_its_folder(
    model_type: str, auto_class: str, kind: str, generates: bool
) -> None:
    import transformers

    weights = locate_weights(f"an/{model_type}", model_type=model_type, auto_class=auto_class)
    model = getattr(transformers, auto_class).from_pretrained(weights.path)
    inputs = _inputs(kind, weights.path)

    output = _main_output(model, inputs)

    assert model.config.model_type == model_type
    assert output.shape[0] == 2
    assert torch.isfinite(output).all()
    assert output.std() > 1e-3
    assert not torch.allclose(output[0], output[1], atol=1e-3)
    assert torch.equal(output, _main_output(model, inputs))
    assert provenance(model) == "tiny"
    assert weights.size_bytes < 16 * 2**20
    if generates:
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        assert tokens.shape[0] == 2


TEXT_TYPES = sorted({row[0] for row in ARCHITECTURES if "text" in row[2]} | {"whisper", "wav2vec2"})


@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_tokenizer_and_config_agree_on_special_tokens(model_type: str) -> None:
    from transformers import AutoConfig, AutoTokenizer

    path = locate_weights(f"an/{model_type}", model_type=model_type).path
    config = AutoConfig.from_pretrained(path)
    text, tokenizer = config.get_text_config(decoder=True), AutoTokenizer.from_pretrained(path)

    for role in ("pad", "bos", "eos", "sep", "cls", "mask", "unk"):
        known, wanted = (
            getattr(tokenizer, f"{role}_token_id"),
            getattr(text, f"{role}_token_id", None),
        )
        if known is not None:
            assert 0 <= known < text.vocab_size, role
        if wanted is not None:
            assert known == wanted, role
    assert tokenizer.pad_token_id is not None
    assert len(tokenizer) == text.vocab_size
    assert len(set(tokenizer.get_vocab().values())) == text.vocab_size


@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_tokenizer_pads_masks_and_gives_the_text_back(model_type: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        locate_weights(f"an/{model_type}", model_type=model_type).path
    )
    batch = tokenizer(["a b", "a b a b a b"], padding=True, return_tensors="pt")

    assert batch["attention_mask"].shape == batch["input_ids"].shape
    assert batch["attention_mask"].sum(1).tolist()[0] < batch["input_ids"].shape[1]
    padded = batch["input_ids"][0][batch["attention_mask"][0] == 0]
    assert set(padded.tolist()) == {tokenizer.pad_token_id}
    assert tokenizer.decode(batch["input_ids"][1], skip_special_tokens=True).strip() == (
        "a b a b a b"
    )


@pytest.mark.parametrize(
    ("model_type", "side"),
    [("llama", "left"), ("gpt2", "left"), ("bert", "right"), ("t5", "right")],
)
def test_decoders_are_padded_where_they_do_not_generate(model_type: str, side: str) -> None:
    from transformers import AutoTokenizer

    path = locate_weights(f"an/{model_type}", model_type=model_type).path
    assert AutoTokenizer.from_pretrained(path).padding_side == side


@pytest.mark.parametrize("model_type", ["vit", "clip", "blip", "llava"])
def test_image_processor_makes_images_of_the_configs_size(model_type: str) -> None:
    from transformers import AutoConfig, AutoImageProcessor

    path = locate_weights(f"an/{model_type}", model_type=model_type).path
    config = AutoConfig.from_pretrained(path)
    side = getattr(config, "vision_config", config).image_size
    pixels = AutoImageProcessor.from_pretrained(path)(_image(0), return_tensors="pt")

    assert pixels["pixel_values"].shape == (1, 3, side, side)
    assert side <= 128


def test_every_special_token_of_a_config_has_an_id_of_its_own() -> None:
    from transformers import AutoConfig, AutoTokenizer

    path = locate_weights("a/whisper", model_type="whisper").path
    config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    # In the real config these differ; the end of text and the padding are one token.
    assert config.decoder_start_token_id not in {config.eos_token_id, tokenizer.unk_token_id}
    assert config.eos_token_id == config.pad_token_id == tokenizer.pad_token_id
    assert config.eos_token_id in config.begin_suppress_tokens


def test_the_prefix_of_layers_covers_every_kind() -> None:
    from transformers import AutoConfig

    path = locate_weights("a/gemma3", model_type="gemma3_text").path
    config = AutoConfig.from_pretrained(path)
    assert set(config.layer_types) == {"sliding_attention", "full_attention"}
    assert len(config.layer_types) == config.num_hidden_layers


def test_grouped_heads_stay_grouped_and_heads_keep_their_size(tmp_path: Path) -> None:
    import json

    from transformers import AutoConfig

    real = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128009],
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    (tmp_path / "config.json").write_text(json.dumps(real))
    config = AutoConfig.from_pretrained(locate_weights(str(tmp_path)).path)

    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, 128)
    assert config.rope_parameters["factor"] == 8.0
    ids = [config.bos_token_id, *config.eos_token_id, config.pad_token_id]
    assert len(set(ids)) == 4
    assert max(ids) < config.vocab_size == 512
