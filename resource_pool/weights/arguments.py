"""Which arguments a forward is given, and the specification of each, by its signature."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from resource_pool.weights.cases import Case
from resource_pool.weights.configs import nested_configs, value_of

MASKS_OF_TEXT = ("attention_mask", "token_type_ids", "mm_token_type_ids")
# Given whenever a forward takes them.
_SPECIFICATIONS: Mapping[str, str] = {
    "input_ids": "tokens 1 tokens",
    "decoder_input_ids": "tokens 1 tokens",
    "pixel_values": "noise 1 channels height width",
    "pixel_values_videos": "noise 1 frames channels height width",
    "input_features": "noise 1 mel_frames mels",
    "input_values": "noise 1 samples",
    "audio_values": "noise 1 audio_channels samples",
    "flattened_patches": "addressed 1 grid grid vision_config.patch_embed_hidden_size",
    "bbox": "boxes 1 tokens 4",
    "past_values": "noise 1 context+lags series",
    "past_time_features": "noise 1 context+lags num_time_features",
    "past_observed_mask": "ones 1 context+lags series",
    "future_values": "noise 1 horizon series",
    "future_time_features": "noise 1 horizon num_time_features",
    "visual_feats": "noise 1 4 visual_feat_dim",
    "visual_pos": "unit 1 4 4",
    "protein_input_ids": "tokens 1 tokens",
    "protein_attention_mask": "ones 1 tokens",
    "input_features_mask": "ones 1 mel_frames",
    "feature_attention_mask": "ones 1 mel_frames",
    "qformer_input_ids": "tokens 1 tokens",
    "image_sizes": "values height width",
    "image_position_ids": "places 1 grid grid",
    "pixel_position_ids": "places 1 grid grid",
}
# Given when a forward insists on them, or reads them first of all.
_ON_DEMAND: Mapping[str, str] = {
    "attention_mask": "ones 1 tokens",
    "hidden_states": "noise 1 tokens hidden",
    "inputs_embeds": "noise 1 tokens hidden",
    "encoder_hidden_states": "noise 1 tokens hidden",
    "query_embeds": "noise 1 tokens hidden",
    "pixel_mask": "ones 1 height width",
    "audio_codes": "zeros 1 codebooks tokens",
    "waveform": "noise 1 samples",
    "spectrogram": "noise 1 mel_frames mels",
}
# Images of all sizes, as the patches of all of them end to end.
_PACKED: Mapping[str, str] = {
    "pixel_values": "noise grid*grid channels*temporal_patch*patch*patch",
    "hidden_states": "noise grid*grid channels*temporal_patch*patch*patch",
    "pixel_values_videos": "noise grid*grid channels*temporal_patch*patch*patch",
    "image_grid_thw": "values 1 grid grid",
    "video_grid_thw": "values 1 grid grid",
    "grid_thw": "values 1 grid grid",
}
# Images of all sizes, each padded to as many patches.
_PADDED: Mapping[str, str] = {
    "pixel_values": "noise 1 grid*grid channels*patch*patch",
    "spatial_shapes": "values grid grid",
    "pixel_attention_mask": "ones 1 grid*grid",
}
# Encoders with learned positions, as Whisper's, begin with a convolution over time.
_CHANNELS_FIRST: Mapping[str, str] = {"input_features": "noise 1 mels mel_frames"}


def specifications(model: Any, case: Case) -> dict[str, Any]:
    """Return argument -> specification, in the order of the forward's signature."""
    parameters = _parameters(model)
    shapes = _shape_rules(parameters, model.config)
    always = {**_SPECIFICATIONS, **shapes}
    rules = {**_SPECIFICATIONS, **_ON_DEMAND, **shapes}
    main = getattr(model, "main_input_name", "input_ids")
    chosen: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in case.inputs:
            chosen[name] = case.inputs[name]
        elif name in always or name == main or parameter.default is parameter.empty:
            chosen[name] = rules.get(name, parameter)
    chosen |= {n: s for n, s in case.inputs.items() if n.startswith("use_")}
    _choose_one_of_images_and_videos(chosen, case)
    if value_of(model.config, "use_decoder_only_language_model"):
        chosen.pop("decoder_input_ids", None)  # for those of its kind that have a decoder beside
    for name in MASKS_OF_TEXT:
        if name in parameters and "input_ids" in chosen and _reads(name, model.config):
            chosen.setdefault(name, "zeros 1 tokens")
    chosen = {name: value for name, value in chosen.items() if value is not None}
    _refuse_unknown(chosen, model)
    return chosen


def _reads(name: str, config: Any) -> bool:
    """Decoders that take the types of tokens have none."""
    return name != "token_type_ids" or any(
        value_of(part, "type_vocab_size") for part in nested_configs(config)
    )


def _parameters(model: Any) -> dict[str, inspect.Parameter]:
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(model.forward).parameters
    return {name: p for name, p in parameters.items() if p.kind not in variadic}


def _shape_rules(parameters: Mapping[str, Any], config: Any) -> dict[str, str]:
    if any(name.endswith("grid_thw") for name in parameters):
        return {
            k: v for k, v in _PACKED.items() if k != "hidden_states" or "grid_thw" in parameters
        }
    if hasattr(config, "audio_channels"):
        return {"input_values": "noise 1 audio_channels samples"}
    if any(value_of(part, "max_source_positions") for part in nested_configs(config)):
        return dict(_CHANNELS_FIRST)
    return dict(_PADDED) if "spatial_shapes" in parameters else {}


def _choose_one_of_images_and_videos(chosen: dict[str, Any], case: Case) -> None:
    """Leave videos out where images are given: a test shows one of them."""
    if chosen.get("pixel_values") is None:
        return
    for name in [n for n in chosen if "video" in n and n not in case.inputs]:
        del chosen[name]


def _refuse_unknown(chosen: Mapping[str, Any], model: Any) -> None:
    unknown = [name for name, value in chosen.items() if isinstance(value, inspect.Parameter)]
    if unknown:
        raise ValueError(
            f"{type(model).__name__} takes {', '.join(unknown)}, and what these are is not known; "
            "name them under inputs in model_db/twins.yaml"
        )
