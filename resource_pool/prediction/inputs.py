"""Inputs for one forward of a model, made from its config: token ids, images, sounds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

DEFAULT_SEQ = 128

# Images that their processors scale to the shorter side: a 640 x 480 photo.
_PHOTO = (800, 1066)
_IMAGE_SIZES = {
    "conditional_detr": _PHOTO,
    "d_fine": (640, 640),
    "deformable_detr": _PHOTO,
    "detr": _PHOTO,
    "maskformer": _PHOTO,
    "mask2former": _PHOTO,
    "rt_detr": (640, 640),
    "table-transformer": _PHOTO,
}
_DEFAULT_IMAGE_SIZE = (224, 224)
# Any token but the special ones, which stand at both ends of a vocabulary.
_ORDINARY_TOKEN = 5
_FEATURE_DIMS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim")
_CONV_FRAME = 400  # samples that the first frame of a raw-sound encoder takes in all


class TooLongError(ValueError):
    """More tokens than the model has positions for."""


class Shape(NamedTuple):
    """How much goes into a forward: rows, and tokens per row."""

    batch: int
    seq: int


def fitting_seq(config: Any, asked: int | None) -> int:
    """Return the tokens per row: what was asked for, or a default that the model can take.

    Raises:
        TooLongError: more than its position embeddings have rows; rotary ones have no limit.
    """
    text = config.get_text_config(decoder=True)
    limits = [getattr(text, n, None) for n in ("max_position_embeddings", "max_target_positions")]
    known = [value for value in limits if isinstance(value, int) and value > 0]
    if not known or getattr(text, "rope_parameters", None):
        return asked or DEFAULT_SEQ
    if asked is not None and asked > min(known):
        raise TooLongError(f"it has {min(known)} positions, and seq is {asked}")
    return min(asked or DEFAULT_SEQ, min(known))


def example_inputs(model: Any, shape: Shape) -> dict[str, Any]:
    """Return the arguments of one forward: tensors on torch's current default device.

    Raises:
        ValueError: the model takes something that nobody here can make.
    """
    accepted = set(inspect.signature(model.forward).parameters)
    made = {
        name: make(model.config, shape)
        for name, make in _MAKERS.items()
        if name in accepted and _is_for(name, model, accepted)
    }
    if not made:
        raise ValueError(f"{type(model).__name__} takes {', '.join(sorted(accepted))}")
    if "input_ids" in made and "attention_mask" in accepted:
        made["attention_mask"] = made["input_ids"].new_ones(made["input_ids"].shape)
    return {name: _as_parameters(tensor, model) for name, tensor in made.items()}


def left_out(model: Any, inputs: Mapping[str, Any]) -> list[str]:
    """Return a note where a model takes images too and ``inputs`` has none of them."""
    takes = "pixel_values" in inspect.signature(model.forward).parameters
    if not takes or "pixel_values" in inputs:
        return []
    return ["images are left out: how many patches they have does not follow from the config"]


def _is_for(name: str, model: Any, accepted: set[str]) -> bool:
    if name == "decoder_input_ids":
        return bool(model.config.is_encoder_decoder)
    if name == "input_ids":
        # Speech models may take ids for their decoder only.
        return model.main_input_name in ("input_ids", "pixel_values")
    # Patches of images of all sizes, laid end to end, do not follow from a config.
    return not (name == "pixel_values" and "image_grid_thw" in accepted)


def _as_parameters(tensor: Any, model: Any) -> Any:
    return tensor.to(model.dtype) if tensor.is_floating_point() else tensor


# Text --------------------------------------------------------------------------------------------


def _token_ids(config: Any, shape: Shape) -> Any:
    """Return ids, those of the images' placeholders first."""
    import torch

    count = image_tokens(config)
    ids = torch.full((shape.batch, count + shape.seq), _ORDINARY_TOKEN)
    if count:
        ids[:, :count] = _image_token(config)
    return ids


def _decoder_ids(config: Any, shape: Shape) -> Any:  # noqa: ARG001
    import torch

    return torch.full(shape, _ORDINARY_TOKEN)


def _boxes(config: Any, shape: Shape) -> Any:  # noqa: ARG001
    import torch

    return torch.zeros((*shape, 4), dtype=torch.int64)


def _image_token(config: Any) -> int | None:
    for name in ("image_token_id", "image_token_index"):
        if isinstance(getattr(config, name, None), int):
            return int(getattr(config, name))
    return None


def image_tokens(config: Any) -> int:
    """Return how many placeholder tokens an image takes among the text; 0 where it takes none."""
    if _image_token(config) is None or not hasattr(config, "vision_config"):
        return 0
    length = getattr(config, "image_seq_length", None) or getattr(config, "image_seq_len", None)
    if isinstance(length, int):
        return length
    height, width = _image_size(config)
    patch = getattr(config.vision_config, "patch_size", None)
    return height // patch * (width // patch) if isinstance(patch, int) and patch > 0 else 0


# Images ------------------------------------------------------------------------------------------


def _images(config: Any, shape: Shape) -> Any:
    import torch

    vision = _part_with(config, "image_size") or _part_with(config, "num_channels") or config
    channels = getattr(vision, "num_channels", None) or 3
    frames = getattr(vision, "num_frames", None)
    many = (frames,) if isinstance(frames, int) else ()
    return torch.zeros((shape.batch, *many, channels, *_image_size(config)))


def _image_size(config: Any) -> tuple[int, int]:
    if config.model_type in _IMAGE_SIZES:
        return _IMAGE_SIZES[config.model_type]
    size = getattr(_part_with(config, "image_size"), "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return _DEFAULT_IMAGE_SIZE


def _part_with(config: Any, field: str) -> Any | None:
    from resource_pool.weights.shrink import nested_configs

    return next((one for one in nested_configs(config) if getattr(one, field, None)), None)


# Sounds ------------------------------------------------------------------------------------------


def _features(config: Any, shape: Shape) -> Any:
    """Return a spectrogram: a whole clip where the encoder's positions are fixed."""
    import torch

    part = next((p for p in (_part_with(config, n) for n in _FEATURE_DIMS) if p), None)
    dim = next((getattr(part, n) for n in _FEATURE_DIMS if getattr(part, n, None)), None)
    if dim is None:
        raise ValueError("the size of its sound features is not in its config")
    positions = getattr(part, "max_source_positions", None)
    # Whisper's two convolutions halve the frames, and its encoder takes whole clips only.
    if positions and config.model_type == "whisper":
        return torch.zeros((shape.batch, dim, 2 * positions))
    return torch.zeros((shape.batch, shape.seq, dim))


def _samples(config: Any, shape: Shape) -> Any:
    """Return raw sound as long as ``seq`` frames of the encoder, or a whole spectrogram."""
    import math

    import torch

    strides = getattr(config, "conv_stride", None)
    if strides:
        stride = math.prod(strides)
        return torch.zeros((shape.batch, max(shape.seq - 1, 0) * stride + _CONV_FRAME))
    if getattr(config, "num_mel_bins", None) and getattr(config, "max_length", None):
        return torch.zeros((shape.batch, config.max_length, config.num_mel_bins))
    raise ValueError("the length of its sounds is not in its config")


_MAKERS: Mapping[str, Callable[[Any, Shape], Any]] = {
    "input_ids": _token_ids,
    "bbox": _boxes,
    "pixel_values": _images,
    "input_features": _features,
    "input_values": _samples,
    "decoder_input_ids": _decoder_ids,
}
