"""What a config says about the sizes of a model's inputs, and the small language of sizes.

An input is described by a specification such as ``noise 1 channels height width``: what its
values are, then its dimensions for one row of a batch. A dimension is a number, a fact, a path
into the config (``vision_config.hidden_size``), or a sum of products and quotients of these
(``2*grid/merge+1``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from resource_pool.weights.configs import nested_configs, value_of
from resource_pool.weights.formulas import evaluate


class _Rule(NamedTuple):
    """Where a fact stands in a config: the first of ``fields``, preferably in a part so named."""

    part: str
    fields: tuple[str, ...]
    default: int


_VISION = "vision|image|visual|video|backbone|vit|qformer"
_AUDIO = "audio|speech|sound|encoder"
_RULES: Mapping[str, _Rule] = {
    "channels": _Rule(_VISION, ("num_channels", "in_channels", "in_chans", "in_channel"), 3),
    "height": _Rule(_VISION, ("image_size", "img_size", "input_size", "crop_size"), 64),
    "patch": _Rule(_VISION, ("patch_size", "spatial_patch_size"), 14),
    "temporal_patch": _Rule(_VISION, ("temporal_patch_size", "patch_temporal"), 1),
    "frames": _Rule(_VISION, ("num_frames", "frames_per_clip"), 4),
    "mels": _Rule(
        _AUDIO,
        (
            "num_mel_bins",
            "n_mels",
            "input_feat_per_channel",
            "feature_projection_input_dim",
            "num_mel_channels",
            "feature_size",
            "input_feat_size",
            "input_dim",
            "n_mel_channels",
            "mel_bins",
        ),
        80,
    ),
    "audio_channels": _Rule(_AUDIO, ("audio_channels",), 1),
    "codebooks": _Rule(_AUDIO, ("num_codebooks", "num_quantizers", "n_codebooks"), 1),
    "hidden": _Rule("^$", ("hidden_size", "d_model", "n_embd", "dim"), 32),
    "context": _Rule("^$", ("context_length", "prediction_length"), 32),
    "horizon": _Rule("^$", ("prediction_length", "horizon_length"), 8),
    "series": _Rule("^$", ("num_input_channels", "input_size"), 1),
}
_NUMBERS: Mapping[str, int] = {
    "tokens": 12,
    # Patches of one image where images come as a list of patches: `grid` on each side.
    "grid": 4,
    "samples": 8000,
}
_MAX_FRAMES = 3000


class Facts:
    """The sizes of one config; ``overrides`` (from the table of exceptions) win.

    Raises:
        ValueError: on use, when a size is neither known nor in the config.
    """

    def __init__(self, config: Any, overrides: Mapping[str, Any]) -> None:
        self._config = config
        self._overrides = overrides

    def __getitem__(self, name: str) -> int:
        if name in self._overrides:
            return self.dimension(self._overrides[name])
        if name in ("width", "mel_frames", "lags"):
            return int(getattr(self, f"_{name}")())
        if name in _RULES:
            return _first_number(_found(self._config, _RULES[name]), 0, _RULES[name].default)
        if name in _NUMBERS:
            return _NUMBERS[name]
        return _at_path(self._config, name)

    def dimension(self, text: str | int) -> int:
        """Return the value of a dimension such as ``2*grid/merge+1``."""
        return evaluate(text, self.__getitem__)

    def _width(self) -> int:
        if "height" in self._overrides:
            return self["height"]
        return _first_number(_found(self._config, _RULES["height"]), -1, _RULES["height"].default)

    def _mel_frames(self) -> int:
        """Return the length of a spectrogram: that of a whole clip where positions are learned."""
        for field, factor in (("max_source_positions", 2), ("max_length", 1)):
            value = _found(self._config, _Rule(_AUDIO, (field,), 0))
            if isinstance(value, int) and 20 < value * factor <= _MAX_FRAMES:
                return value * factor
        return 200

    def _lags(self) -> int:
        lags = getattr(self._config, "lags_sequence", None)
        return max(lags) if isinstance(lags, (list, tuple)) and lags else 0


def _found(config: Any, rule: _Rule) -> Any:
    for part in _parts(config, rule.part):
        for field in rule.fields:
            value = value_of(part, field)
            if value is not None:
                return value
    return None


def _parts(config: Any, pattern: str) -> Iterable[Any]:
    """Return the parts of a config: those whose name fits first, each from the outside in."""
    children = {k: v for k, v in vars(config).items() if hasattr(v, "to_diff_dict")}
    fitting = [v for k, v in children.items() if re.search(pattern, k)]
    for part in fitting:
        yield from nested_configs(part)
    yield config
    for part in children.values():
        if part not in fitting:
            yield from nested_configs(part)


def _first_number(value: Any, index: int, default: int) -> int:
    """Return a size's number: of an int, of [height, width], or of {"height": …, "width": …}."""
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    if isinstance(value, (list, tuple)) and value:
        value = value[index]
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _at_path(config: Any, path: str) -> int:
    value = config
    for name in path.split("."):
        field, _, index = name.partition("[")
        value = value_of(value, field)
        if index:
            value = value[int(index.rstrip("]"))]
    if not isinstance(value, int):
        raise ValueError(f"{type(config).__name__} has no number {path!r}")
    return value
