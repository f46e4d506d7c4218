"""Shrinks a config to a tiny one of the same structure.

Rules go by the names of the config's fields. Numbers that were equal stay equal where they are
widths, so that sub-models still fit together; the size of a head is kept, so that everything
derived from it (rotary sections, partial rotations) stays valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from resource_pool.weights.cases import twin_case
from resource_pool.weights.configs import (
    children,
    defaults,
    is_count,
    is_counts,
    nested_configs,
    text_config,
    value_of,
)
from resource_pool.weights.fitting import (
    IS_STAGES,
    LAYERS,
    backbone_fields,
    fit_rotary_sections,
    image_fields,
    is_per_layer,
    join_projections,
    layers_to_keep,
    small_backbone,
)
from resource_pool.weights.formulas import evaluate
from resource_pool.weights.widths import (
    CHANNELS,
    HEADS,
    IS_HEADS,
    IS_STAGE_WIDTHS,
    WIDTH,
    uses_width,
    width_map,
)

__all__ = ["IMAGE_SIDE", "nested_configs", "shrink_config"]

VOCABULARY = 512
IMAGE_SIDE = 64

_IS_VOCABULARY = re.compile(r"vocab_size|^n_vocab$|_vocab$")
_IS_LAYERS = re.compile(r"(^|_)(n_layers?|layers?|depth|num_blocks|num_hidden_groups)$")
_IS_NOT_LAYERS = re.compile(r"feature_layer|feat_extract|shared_layers|norm_layers|adapter_layers")
_IS_KV_HEADS = re.compile(r"(key_value_heads|kv_heads|n_head_kv)$")
_IS_LAYER_INDEX = re.compile(r"attn_index(es)?$|hook_ids$|^target_layer_ids$|feature_layers?$")
_IS_CHANNELS = re.compile(r"^(conv_dim|tdnn_dim)$")

# The first rule whose pattern is found in a field's name caps its number.
_CAPS: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"intermediate|ffn|ff_dim|d_ff$|n_inner|feedforward|mlp_dim|linear_units"), WIDTH),
    (re.compile(r"^codebook_size$|^num_embeddings$|upsample_initial_channel"), 64),
    (re.compile(r"^num_filters$"), 8),
    (re.compile(r"(^|_)(num_experts|n_routed_experts|num_local_experts|n_experts)$"), 4),
    (re.compile(r"experts_per_tok|(?<!index_)top_?k(_experts)?$|num_selected|moe_topk|^moe_k$"), 2),
    (re.compile(r"^(n_group|num_expert_group|topk_group|first_k_dense_replace)$"), 1),
    (re.compile(r"^(mamba_)?n_groups$"), 1),
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
_IS_TOKEN_ID = re.compile(r"token_ids?$|token_index$|^image_patch_id$|^(begin_)?suppress_tokens$")


def shrink_config(original: Any, explicit: Mapping[str, Any]) -> Any:
    """Return a tiny transformers config of the same class as ``original``.

    Args:
        original: the real model's config, or its class's default.
        explicit: the keys of the real config.json; empty for a default. A field that is None by
            default and not explicit is derived again by the class itself.
    """
    vocabulary = getattr(text_config(original), "vocab_size", None)
    size = min(vocabulary, VOCABULARY) if is_count(vocabulary) else VOCABULARY
    plan = _Plan(width_map(original), _TokenIds(size))
    tiny = type(original)(**_shrunk_fields(original, explicit, plan))
    for part in nested_configs(tiny):
        fit_rotary_sections(part)
    return tiny


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
        if not is_count(value) or value < self._vocabulary:
            return value
        return self._moved.setdefault(value, self._vocabulary - 1 - len(self._moved))


# Fields ------------------------------------------------------------------------------------------


def _shrunk_fields(config: Any, explicit: Mapping[str, Any], plan: _Plan) -> dict[str, Any]:
    """Return the arguments with which the config's class makes the tiny config."""
    layers = layers_to_keep(config)
    case = twin_case(config.model_type)
    fields = {k: plan.token_ids.move(v) for k, v in _token_ids_of(explicit, config).items()}
    for name, default in defaults(type(config)).items():
        value = value_of(config, name)
        if name in _DROPPED or (default is None and _is_derived(name, value, explicit)):
            continue
        if name in case.keep or "*" in case.keep:
            fields[name] = value
        elif name in children(config):
            fields[name] = _shrunk_child(value, explicit.get(name) or {}, plan)
        else:
            fields[name] = _shrunk_value(name, value, config, plan, layers)
    # Flags that a class takes without declaring them.
    flags = {k: v for k, v in vars(config).items() if isinstance(v, bool) and k[0] != "_"}
    fields = {**flags, **fields}
    if "image_size" not in case.keep:
        fields.update(image_fields(config))
    fields.update(backbone_fields(config, layers))
    join_projections(fields)
    missing = {k: v for k, v in case.defaults.items() if k.partition(".")[0] not in explicit}
    return _with_exceptions(fields, {**missing, **case.fields})


def _with_exceptions(fields: dict[str, Any], exceptions: Mapping[str, Any]) -> dict[str, Any]:
    """Set what the table of exceptions says: a field, or one of a sub-model (with dots).

    A value that begins with "=" is a formula over other fields.
    """
    for path, value in exceptions.items():
        *parts, name = path.split(".")
        holder: Any = fields
        for part in parts:
            holder = holder[part] if isinstance(holder, dict) else getattr(holder, part)
        if isinstance(value, str) and value.startswith("="):
            value = evaluate(value[1:], lambda other: _at(fields, other.split(".")))
        if isinstance(holder, dict):
            holder[name] = value
        else:
            setattr(holder, name, value)
    return fields


def _at(fields: Mapping[str, Any], path: Sequence[str]) -> int:
    value: Any = fields[path[0]]
    for name in path[1:]:
        value = value_of(value, name)
    return int(value)


def _shrunk_child(child: Any, explicit: Mapping[str, Any], plan: _Plan) -> Any:
    # timm's backbones are described by a name alone, so there is nothing to shrink.
    if child.model_type == "timm_backbone":
        return small_backbone(child)
    return type(child)(**_shrunk_fields(child, explicit, plan))


def _is_derived(name: str, value: Any, explicit: Mapping[str, Any]) -> bool:
    if name in explicit or isinstance(value, dict) or hasattr(value, "to_dict"):
        return False
    # The sizes of a pyramid's stages are constants, wherever they are set.
    return not (IS_STAGES.search(name) or IS_STAGE_WIDTHS.search(name))


def _token_ids_of(explicit: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return special tokens that a config.json names beyond the fields of its class."""
    known = defaults(type(config)).keys() | config.attribute_map.keys()
    return {k: v for k, v in explicit.items() if k not in known and _IS_TOKEN_ID.search(k)}


def _shrunk_value(name: str, value: Any, config: Any, plan: _Plan, layers: int) -> Any:
    if _IS_TOKEN_ID.search(name):
        return plan.token_ids.move(value)
    if is_count(value):
        return _shrunk_number(name, value, config, plan.widths, layers)
    if isinstance(value, (list, tuple)) and value:
        return _shrunk_list(name, value, config, plan, layers)
    return value


def _shrunk_number(
    name: str, value: int, config: Any, widths: Mapping[int, int], layers: int
) -> int:
    if _IS_VOCABULARY.search(name):
        return min(value, VOCABULARY)
    if _IS_LAYERS.search(name) and not _IS_NOT_LAYERS.search(name):
        return min(value, layers)
    if _IS_KV_HEADS.search(name):
        return min(value, HEADS if value == value_of(config, "num_attention_heads") else 1)
    if IS_HEADS.search(name):
        return min(value, HEADS)
    for pattern, cap in _CAPS:
        if pattern.search(name):
            return min(value, cap)
    if uses_width(name):
        return widths.get(value, value)
    return value


def _shrunk_list(name: str, value: Any, config: Any, plan: _Plan, layers: int) -> Any:
    if is_per_layer(value, config):
        return value[:layers]
    if _IS_LAYER_INDEX.search(name) and value_of(config, "num_hidden_layers"):
        small = [min(item, layers - 1) for item in value]
    elif is_counts(value):
        small = _shrunk_counts(name, value, plan)
    else:
        return value
    return tuple(small) if isinstance(value, tuple) else small


def _shrunk_counts(name: str, value: Sequence[int], plan: _Plan) -> list[int]:
    """Return a list of numbers, one per stage, each smaller where its name says that it may be."""
    if IS_HEADS.search(name) and all(item % value[0] == 0 for item in value):
        return [item // value[0] for item in value]
    if _IS_CHANNELS.search(name):
        return [min(item, 2 * CHANNELS) for item in value]
    if IS_STAGES.search(name):
        return [min(item, LAYERS) for item in value]
    if uses_width(name) and all(item in plan.widths for item in value):
        return [plan.widths[item] for item in value]
    return list(value)
