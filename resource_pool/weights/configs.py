"""Reads transformers configs: their fields, their parts, and which of them describes the text."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard


def value_of(config: Any, name: str, default: Any = None) -> Any:
    """Return a config's value by its name or alias.

    Where layers differ, `getattr` refuses to say the value that holds for the rest of them.
    """
    own = vars(config)
    for known in (name, type(config).attribute_map.get(name, name)):
        if known in own:
            return own[known]
    return getattr(config, name, default)


def text_config(config: Any) -> Any:
    """Return the part of a config that describes its text model; the whole where there is none.

    A model with several text models (an encoder for prompts, a decoder for sounds) reads with its
    encoder.
    """
    try:
        return config.get_text_config(decoder=True)
    except ValueError:
        return next(iter(children(config).values()), config)


def nested_configs(config: Any) -> Iterator[Any]:
    """Yield ``config`` and the configs of its sub-models, outer ones first."""
    yield config
    for child in children(config).values():
        yield from nested_configs(child)


def children(config: Any) -> dict[str, Any]:
    """Return the configs of a config's sub-models by their fields."""
    from transformers import PreTrainedConfig

    return {k: v for k, v in vars(config).items() if isinstance(v, PreTrainedConfig)}


def defaults(config_class: Any) -> dict[str, Any]:
    """Return the fields that a config class declares, with their defaults."""
    parameters = inspect.signature(config_class).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}


def is_counts(value: Any) -> TypeGuard[Sequence[int]]:
    """Tell whether ``value`` is a list of positive numbers."""
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_count, value))


def is_count(value: Any) -> TypeGuard[int]:
    """Tell whether ``value`` is a positive number."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
