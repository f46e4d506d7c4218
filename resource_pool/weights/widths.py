"""One map from a config's widths to tiny ones, so that its parts still fit together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from resource_pool.weights.cases import twin_case
from resource_pool.weights.configs import (
    defaults,
    is_count,
    is_counts,
    nested_configs,
    text_config,
    value_of,
)

CHANNELS = 16
HEADS = 2
WIDTH = 128
IS_HEADS = re.compile(r"(^|_)(num_heads|n_heads?|attention_heads)$")
IS_STAGE_WIDTHS = re.compile(r"^(\w+_)?(hidden_sizes|embed_dims|channels_list)$")
_IS_WIDTH = re.compile(
    r"^(d_model|n_embd|n_embed|dim|d_embed|width|emb_dim|hidden_dim)$"
    r"|hidden_size$|embed_dim$|embedding_dim$|_hidden_dim$"
)
_USES_WIDTH = re.compile(r"hidden|dim|size|width|embed|embd|proj|channel|d_model|d_|features")
_IS_OTHER_SIZE = re.compile(
    r"head_dim|vocab|image|patch|window|kernel|max|position|crop|sample|chunk|token|num_|stride"
    r"|mel|bins|rope|length|rank|state_size|group_size|_per_|n_fft|d_kv"
)


def uses_width(name: str) -> bool:
    """Tell whether a field's number is a width where it equals one."""
    by_name = _USES_WIDTH.search(name) and not _IS_OTHER_SIZE.search(name)
    return bool(by_name) or name.endswith("groups")


def width_map(config: Any) -> dict[int, int]:
    """Return original width -> tiny width for the whole config, the text model's ones first."""
    widths: dict[int, int] = {}
    parts = sorted(nested_configs(config), key=lambda part: part is not text_config(config))
    for part in parts:
        for stages in _own_stage_widths(part):
            factor = _stage_factor(stages)
            for width in stages:
                widths.setdefault(width, width // factor)
        for width in _own_widths(part):
            widths.setdefault(width, _small_width(width, part))
    return widths


def _own_stage_widths(config: Any) -> list[Sequence[int]]:
    """Return the lists of widths, one per stage of a pyramid."""
    keep = twin_case(config.model_type).keep
    fields = [n for n in defaults(type(config)) if IS_STAGE_WIDTHS.search(n) and n not in keep]
    return [v for n in fields if is_counts(v := value_of(config, n))]


def _stage_factor(widths: Sequence[int]) -> int:
    """Return by how much a pyramid can become narrower, all of its stages alike."""
    factor = max(1, min(widths) // CHANNELS)
    return 1 if any(width % factor for width in widths) else factor


def _own_widths(config: Any) -> list[int]:
    keep = twin_case(config.model_type).keep
    fields = [n for n in defaults(type(config)) if _IS_WIDTH.search(n) and n not in keep]
    values = (value_of(config, name) for name in fields)
    return [value for value in values if is_count(value) and value >= 32]


def _small_width(width: int, config: Any) -> int:
    fields = defaults(type(config))
    head_dim = value_of(config, "head_dim")
    if is_count(head_dim) and head_dim * (value_of(config, "num_attention_heads") or 0) == width:
        return head_dim * min(width // head_dim, HEADS)
    if isinstance(fields.get("head_dim"), int) or "d_kv" in fields:
        return min(width, WIDTH)
    counts = [value_of(config, name) for name in fields if IS_HEADS.search(name)]
    first = next((count[0] for count in counts if is_counts(count)), None)
    if first and width % first == 0:
        return width // first
    heads = [count for count in counts if is_count(count) and width % count == 0]
    if not heads:
        return min(width, WIDTH)
    return width // max(heads) * min(max(heads), HEADS)
