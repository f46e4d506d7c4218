"""What of a tiny config follows from the rest of it: layers, outputs of backbones, image sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeGuard

from resource_pool.weights.configs import is_count, is_counts, text_config, value_of
from resource_pool.weights.widths import CHANNELS

LAYERS = 2
IS_STAGES = re.compile(r"^(depths|layer_depths|num_blocks|layers_per_stage)$")
_PATCHES_PER_SIDE = 4
_OUTPUT_WIDTHS = (
    "out_hidden_size",
    "output_dim",
    "output_proj_dims",
    "projection_dim",
    "text_hidden_size",
)


def layers_to_keep(config: Any) -> int:
    """Return the length of the shortest prefix of layers in which every kind of layer occurs."""
    keep = max(LAYERS, len(value_of(config, "_out_indices") or ()))
    for name in {*vars(config), "layer_types", "layers_block_type"}:
        kinds = value_of(config, name)
        if is_per_layer(kinds, config) and all(isinstance(kind, str) for kind in kinds):
            keep = max(keep, max(kinds.index(kind) for kind in kinds) + 1)
        elif name.endswith("layer_offset") and is_count(kinds):
            keep = max(keep, kinds + 1)
    return keep


def is_per_layer(value: Any, config: Any) -> TypeGuard[Sequence[Any]]:
    """Tell whether ``value`` is a list with an item for each layer."""
    layers = value_of(config, "num_hidden_layers")
    has_stages = any(IS_STAGES.search(name) for name in vars(config))
    is_long = isinstance(value, (list, tuple)) and is_count(layers) and layers > LAYERS
    return is_long and not has_stages and len(value) == layers


def backbone_fields(config: Any, layers: int) -> dict[str, Any]:
    """Return as many outputs as the original backbone has: its stages, or its last layers."""
    indices = value_of(config, "_out_indices")
    names = value_of(config, "stage_names")
    if not indices or not names:
        return {}
    if not has_layers(config):
        return {"out_indices": list(indices)}
    return {"out_indices": list(range(layers - len(indices) + 1, layers + 1))}


def has_layers(config: Any) -> bool:
    """Tell whether a backbone's stages are the layers of a transformer."""
    layers = value_of(config, "num_hidden_layers")
    return is_count(layers) and len(value_of(config, "stage_names")) == layers + 1 > 5


def small_backbone(timm: Any) -> Any:
    """Return a small ResNet that stands for one of timm's, with as many outputs."""
    from transformers import ResNetConfig

    stages = [f"stage{index}" for index in timm.out_indices or (4,) if 1 <= index <= 4]
    sizes = [CHANNELS, 2 * CHANNELS, 4 * CHANNELS, 8 * CHANNELS]
    return ResNetConfig(
        embedding_size=CHANNELS,
        hidden_sizes=sizes,
        depths=[LAYERS] * 4,
        layer_type="basic",
        out_features=stages or ["stage4"],
    )


def join_projections(fields: dict[str, Any]) -> None:
    """Let what an encoder puts out be as wide as the text model that reads it.

    Library defaults of whole and part often contradict each other here.
    """
    from transformers import PreTrainedConfig

    text = fields.get("text_config")
    if not isinstance(text, PreTrainedConfig) or not any("_token_" in name for name in fields):
        return
    width = value_of(text_config(text), "hidden_size")
    for name, part in fields.items():
        if isinstance(part, PreTrainedConfig) and name != "text_config":
            for field in _OUTPUT_WIDTHS:
                if is_count(value_of(part, field)):
                    setattr(part, field, width)


def fit_rotary_sections(config: Any) -> None:
    """Let the sections of a rotary embedding over time, height and width fill half a head."""
    rotary = value_of(config, "rope_parameters")
    sections = rotary.get("mrope_section") if isinstance(rotary, dict) else None
    heads = value_of(config, "num_attention_heads")
    if not is_counts(sections) or not is_count(heads):
        return
    head_dim = value_of(config, "head_dim") or config.hidden_size // heads
    half = int(head_dim * rotary.get("partial_rotary_factor", 1.0)) // 2
    if sum(sections) != half:
        each = half // len(sections)
        rotary["mrope_section"] = [half - each * (len(sections) - 1), *[each] * (len(sections) - 1)]


def image_fields(config: Any) -> dict[str, Any]:
    """Return a small image size, in whole patches, for a model that cuts images into patches."""
    fields: dict[str, Any] = {}
    image, patch = value_of(config, "image_size"), value_of(config, "patch_size")
    if is_count(image) and is_count(patch) and not hasattr(config, "depths"):
        fields["image_size"] = patch * min(_PATCHES_PER_SIDE, max(1, image // patch))
    vision = getattr(config, "vision_config", None)
    if hasattr(config, "image_seq_length") and vision is not None:
        image = image_fields(vision).get("image_size")
        if image is not None:
            fields["image_seq_length"] = (image // vision.patch_size) ** 2
    return fields
