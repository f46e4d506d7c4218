"""Shrinks a config to a tiny one of the same structure.

Rules go by the names of the config's fields. Numbers that were equal stay equal where they are
widths, so that sub-models still fit together; the size of a head is kept, so that everything
derived from it (rotary sections, partial rotations) stays valid.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

VOCABULARY = 512
_LAYERS = 2
_HEADS = 2
_WIDTH = 128
_CHANNELS = 16
_PATCHES_PER_SIDE = 4
IMAGE_SIDE = 64

_IS_VOCABULARY = re.compile(r"vocab_size$|^n_vocab$")
_IS_LAYERS = re.compile(r"(^|_)(n_layers?|layers?|depth|num_blocks|num_hidden_groups)$")
_IS_NOT_LAYERS = re.compile(r"feature_layer|feat_extract|shared_layers|norm_layers|adapter_layers")
_IS_HEADS = re.compile(r"(^|_)(num_heads|n_heads?|attention_heads)$")
_IS_KV_HEADS = re.compile(r"(key_value_heads|kv_heads|n_head_kv)$")
_IS_WIDTH = re.compile(
    r"^(d_model|n_embd|n_embed|dim|d_embed|width|emb_dim|hidden_dim)$"
    r"|hidden_size$|embed_dim$|embedding_dim$|_hidden_dim$"
)
_USES_WIDTH = re.compile(r"hidden|dim|size|width|embed|embd|proj|channel|d_model|d_|features")
_IS_OTHER_SIZE = re.compile(
    r"head_dim|vocab|image|patch|window|kernel|max|position|crop|sample|chunk|token|num_|stride"
    r"|mel|bins|rope|length|rank|state_size|group_size|_per_|n_fft|d_kv"
)
_IS_CHANNELS = re.compile(r"^(conv_dim|tdnn_dim)$")
_IS_STAGES = re.compile(r"^(depths|layer_depths|num_blocks|layers_per_stage)$")

# The first rule whose pattern is found in a field's name caps its number.
_CAPS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"intermediate|ffn|ff_dim|d_ff$|n_inner|feedforward|mlp_dim"), _WIDTH),
    (re.compile(r"(^|_)(num_experts|n_routed_experts|num_local_experts|n_experts)$"), 4),
    (re.compile(r"experts_per_tok|top_?k(_experts)?$|num_selected|moe_topk"), 2),
    (re.compile(r"^(n_group|num_expert_group|topk_group|first_k_dense_replace)$"), 1),
    (re.compile(r"num_quer|num_proposals|num_object_queries"), 8),
    # An audio encoder with learned positions takes clips of one length: 100 positions, 2 s.
    (re.compile(r"^max_source_positions$"), 100),
    (re.compile(r"max_position|n_positions|max_seq|n_ctx|max_target_positions"), 1024),
)

# Fields that say how the original was stored, not what it is. Quantised weights and code from a
# hub have no place in a twin.
_DROPPED = {
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "auto_map",
    "compression_config",
    "dtype",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
}
_IS_TOKEN_ID = re.compile(r"token_ids?$|token_index$|^(begin_)?suppress_tokens$")


def shrink_config(original: Any, explicit: Mapping[str, Any]) -> Any:
    """Return a tiny transformers config of the same class as ``original``.

    Args:
        original: the real model's config, or its class's default.
        explicit: the keys of the real config.json; empty for a default. A field that is None by
            default and not explicit is derived again by the class itself.
    """
    vocabulary = getattr(original.get_text_config(), "vocab_size", None)
    size = min(vocabulary, VOCABULARY) if _is_count(vocabulary) else VOCABULARY
    plan = _Plan(_width_map(original), _TokenIds(size))
    return type(original)(**_shrunk_fields(original, explicit, plan))


class _Plan(NamedTuple):
    """What holds for the whole config, so that its parts still fit together."""

    widths: Mapping[int, int]  # original -> tiny
    token_ids: _TokenIds


class _TokenIds:
    """Moves ids beyond the tiny vocabulary to its end; what was one token stays one token."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._moved: dict[int, int] = {}

    def move(self, value: Any) -> Any:
        """Return the new id, or a list of them; what is no id stays."""
        if isinstance(value, (list, tuple)):
            return [self.move(item) for item in value]
        if not _is_count(value) or value < self._vocabulary:
            return value
        return self._moved.setdefault(value, self._vocabulary - 1 - len(self._moved))


def nested_configs(config: Any) -> Iterator[Any]:
    """Yield ``config`` and the configs of its sub-models, outer ones first."""
    yield config
    for child in _children(config).values():
        yield from nested_configs(child)


def _children(config: Any) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    return {k: v for k, v in vars(config).items() if isinstance(v, PreTrainedConfig)}


def _defaults(config_class: Any) -> dict[str, Any]:
    """Return the fields that a config class declares, with their defaults."""
    parameters = inspect.signature(config_class).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}


# Widths ------------------------------------------------------------------------------------------


def _width_map(config: Any) -> dict[int, int]:
    """Return original width -> tiny width for the whole config, the text model's ones first."""
    widths: dict[int, int] = {}
    parts = sorted(nested_configs(config), key=lambda part: part is not config.get_text_config())
    for part in parts:
        for width in _own_widths(part):
            widths.setdefault(width, _small_width(width, part))
    return widths


def _own_widths(config: Any) -> list[int]:
    fields = [name for name in _defaults(type(config)) if _IS_WIDTH.search(name)]
    values = (getattr(config, name, None) for name in fields)
    return [value for value in values if _is_count(value) and value >= 32]


def _small_width(width: int, config: Any) -> int:
    defaults = _defaults(type(config))
    if isinstance(defaults.get("head_dim"), int) or "d_kv" in defaults:
        return min(width, _WIDTH)
    heads = [
        value
        for name in defaults
        if _IS_HEADS.search(name)
        and _is_count(value := getattr(config, name, None))
        and width % value == 0
    ]
    if not heads:
        return min(width, _WIDTH)
    return width // max(heads) * min(max(heads), _HEADS)


# Fields ------------------------------------------------------------------------------------------


def _shrunk_fields(config: Any, explicit: Mapping[str, Any], plan: _Plan) -> dict[str, Any]:
    """Return the arguments with which the config's class makes the tiny config."""
    layers = _layers_to_keep(config)
    fields = {k: plan.token_ids.move(v) for k, v in _token_ids_of(explicit, config).items()}
    for name, default in _defaults(type(config)).items():
        value = getattr(config, name, None)
        if name in _DROPPED or (default is None and _is_derived(name, value, explicit)):
            continue
        if name in _children(config):
            fields[name] = _shrunk_child(value, explicit.get(name) or {}, plan)
        else:
            fields[name] = _shrunk_value(name, value, config, plan, layers)
    fields.update(_image_fields(config))
    return fields


def _shrunk_child(child: Any, explicit: Mapping[str, Any], plan: _Plan) -> Any:
    # timm's backbones are described by a name alone, so there is nothing to shrink.
    if child.model_type == "timm_backbone":
        return _small_backbone(child)
    return type(child)(**_shrunk_fields(child, explicit, plan))


def _small_backbone(timm: Any) -> Any:
    from transformers import ResNetConfig

    stages = [f"stage{index}" for index in timm.out_indices or (4,) if 1 <= index <= 4]
    sizes = [_CHANNELS, 2 * _CHANNELS, 4 * _CHANNELS, 8 * _CHANNELS]
    return ResNetConfig(
        embedding_size=_CHANNELS,
        hidden_sizes=sizes,
        depths=[_LAYERS] * 4,
        layer_type="basic",
        out_features=stages or ["stage4"],
    )


def _is_derived(name: str, value: Any, explicit: Mapping[str, Any]) -> bool:
    return name not in explicit and not isinstance(value, dict) and not hasattr(value, "to_dict")


def _token_ids_of(explicit: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return special tokens that a config.json names beyond the fields of its class."""
    known = _defaults(type(config)).keys() | config.attribute_map.keys()
    return {k: v for k, v in explicit.items() if k not in known and _IS_TOKEN_ID.search(k)}


def _shrunk_value(name: str, value: Any, config: Any, plan: _Plan, layers: int) -> Any:
    if _IS_TOKEN_ID.search(name):
        return plan.token_ids.move(value)
    if _is_count(value):
        return _shrunk_number(name, value, config, plan.widths, layers)
    if isinstance(value, (list, tuple)) and value:
        return _shrunk_list(name, value, config, layers)
    return value


def _shrunk_number(
    name: str, value: int, config: Any, widths: Mapping[int, int], layers: int
) -> int:
    if _IS_VOCABULARY.search(name):
        return min(value, VOCABULARY)
    if _IS_LAYERS.search(name) and not _IS_NOT_LAYERS.search(name):
        return min(value, layers)
    if _IS_KV_HEADS.search(name):
        return min(value, _HEADS if value == config.num_attention_heads else 1)
    if _IS_HEADS.search(name):
        return min(value, _HEADS)
    for pattern, cap in _CAPS:
        if pattern.search(name):
            return min(value, cap)
    if _USES_WIDTH.search(name) and not _IS_OTHER_SIZE.search(name):
        return widths.get(value, value)
    return value


def _shrunk_list(name: str, value: Any, config: Any, layers: int) -> Any:
    if _is_per_layer(value, config):
        return value[:layers]
    if not all(_is_count(item) for item in value):
        return value
    if _IS_CHANNELS.search(name):
        return type(value)(min(item, 2 * _CHANNELS) for item in value)
    if _IS_STAGES.search(name):
        return type(value)(min(item, _LAYERS) for item in value)
    if _IS_WIDTH.search(name) or name == "hidden_sizes":
        factor = max(1, min(value) // _CHANNELS)
        return value if any(item % factor for item in value) else [v // factor for v in value]
    return value


# Layers and images -------------------------------------------------------------------------------


def _layers_to_keep(config: Any) -> int:
    """Return the length of the shortest prefix of layers in which every kind of layer occurs."""
    keep = _LAYERS
    for name in {*vars(config), "layer_types", "layers_block_type"}:
        kinds = getattr(config, name, None)
        if _is_per_layer(kinds, config) and all(isinstance(kind, str) for kind in kinds):
            keep = max(keep, max(kinds.index(kind) for kind in kinds) + 1)
    return keep


def _is_per_layer(value: Any, config: Any) -> TypeGuard[Sequence[Any]]:
    layers = getattr(config, "num_hidden_layers", None)
    return isinstance(value, (list, tuple)) and _is_count(layers) and len(value) == layers > _LAYERS


def _image_fields(config: Any) -> dict[str, Any]:
    """Return a small image size, in whole patches, for a model that cuts images into patches."""
    fields: dict[str, Any] = {}
    image, patch = getattr(config, "image_size", None), getattr(config, "patch_size", None)
    if _is_count(image) and _is_count(patch) and not hasattr(config, "depths"):
        fields["image_size"] = patch * min(_PATCHES_PER_SIDE, max(1, image // patch))
    vision = getattr(config, "vision_config", None)
    if hasattr(config, "image_seq_length") and vision is not None:
        sides = _image_fields(vision).get("image_size", vision.image_size) // vision.patch_size
        fields["image_seq_length"] = sides**2
    return fields


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
