"""A trace weighs a model exactly: all parameters and buffers, in every dtype, tied ones once."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from resource_pool.prediction.trace import TraceRequest, trace, weights_bytes

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
LLAMA = {**TEXT, "num_key_value_heads": 2}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 100}
VIT = {**TEXT, "image_size": 32, "patch_size": 8}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 100,
    "max_source_positions": 50, "num_mel_bins": 16, "pad_token_id": 1,
    "decoder_start_token_id": 2, "bos_token_id": 2, "eos_token_id": 2,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 100,
}  # fmt: skip
CLIP = {
    "text_config": {**TEXT, "eos_token_id": 99},
    "vision_config": {**VIT},
    "projection_dim": 16,
}
LLAVA = {
    "text_config": {"model_type": "llama", **LLAMA},
    "vision_config": {"model_type": "clip_vision_model", **VIT},
    "image_token_index": 99,
    "image_seq_length": 16,
}
WAV2VEC2 = {
    **TEXT, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3],
    "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
DETR = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "num_queries": 5,
    "backbone_config": {"model_type": "resnet", **RESNET, "out_features": ["stage2"]},
}  # fmt: skip

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "AutoModel", TEXT),
    "bert for masked words (tied)": ("bert", "AutoModelForMaskedLM", TEXT),
    "gpt2 (tied)": ("gpt2", "AutoModelForCausalLM", GPT2),
    "llama": ("llama", "AutoModelForCausalLM", LLAMA),
    "llama (tied)": ("llama", "AutoModelForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    "mixtral": ("mixtral", "AutoModelForCausalLM", {**LLAMA, "num_local_experts": 4}),
    "t5": ("t5", "AutoModelForSeq2SeqLM", T5),
    "bart": ("bart", "AutoModelForSeq2SeqLM", BART),
    "vit": ("vit", "AutoModelForImageClassification", VIT),
    "deit (several classes)": ("deit", "AutoModelForImageClassification", VIT),
    "resnet": ("resnet", "AutoModelForImageClassification", RESNET),
    "detr": ("detr", "AutoModelForObjectDetection", DETR),
    "whisper": ("whisper", "AutoModelForSpeechSeq2Seq", WHISPER),
    "wav2vec2": ("wav2vec2", "AutoModelForCTC", WAV2VEC2),
    "clip": ("clip", "AutoModel", CLIP),
    "llava": ("llava", "AutoModelForImageTextToText", LLAVA),
}


def request(
    name: str, *, dtype: str = "float32", batch: int = 1, seq: int | None = 8
) -> TraceRequest:
    model_type, auto_class, config = MODELS[name]
    return TraceRequest(model_type, auto_class, json.dumps(config), dtype, batch, seq)


def traced(asked: TraceRequest) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for more in trace(asked):
        known |= more
    return known


def real_model(name: str, dtype: str = "float32") -> Any:
    model_type, auto_class, config = MODELS[name]
    real = transformers.AutoConfig.for_model(model_type, architectures=[], **config)
    return getattr(transformers, auto_class).from_config(real, dtype=getattr(torch, dtype))


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_the_real_model(name: str) -> None:
    known = traced(request(name))
    assert "problem" not in known, known["problem"]
    assert known["weights_bytes"] == weights_bytes(real_model(name))
    assert known["architecture"] == type(real_model(name)).__name__


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_bits_are_half_the_parameters_bytes(name: str, dtype: str) -> None:
    assert traced(request(name, dtype=dtype))["weights_bytes"] == weights_bytes(
        real_model(name, dtype)
    )


def test_tied_weights_count_once() -> None:
    tied = traced(request("llama (tied)"))["weights_bytes"]
    assert traced(request("llama"))["weights_bytes"] - tied == 100 * 32 * 4


def test_weights_of_a_loaded_model_with_layers_that_stay_in_float32(tmp_path: Any) -> None:
    real_model("t5").save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float16)
    kept = {str(parameter.dtype) for parameter in loaded.parameters()}
    assert kept == {"torch.float16", "torch.float32"}
    assert traced(request("t5", dtype="float16"))["weights_bytes"] == weights_bytes(loaded)


def test_a_weight_is_counted_by_its_storage() -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    model.register_buffer("view", model.weight.data[:2])
    assert weights_bytes(model) == 4 * 4 * 4


def test_what_transformers_does_not_know_is_a_problem_in_a_sentence() -> None:
    assert traced(TraceRequest("nonsense", "AutoModel", None, "float32", 1, None)) == {
        "problem": "ValueError: transformers has no model type 'nonsense'"
    }


def test_a_timm_backbone_is_replaced_by_the_same_network_and_a_note_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.utils.is_timm_available", lambda: False)
    asked = TraceRequest("detr", "AutoModelForObjectDetection", None, "float32", 1, None)
    known = next(trace(asked))
    parameters = 41_500_000  # DETR-R50's, by its paper
    assert known["weights_bytes"] == pytest.approx(parameters * 4, rel=0.01)
    assert known["notes"] == [
        "timm is not installed: its resnet50 was traced as transformers' ResNet"
    ]
