"""A tokenizer for a tiny twin, made from its config alone.

Byte-level BPE without a merge reads every text; the special tokens lie where the config says.
Vocabularies that are too small for all bytes (speech, proteins) get characters instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resource_pool.weights.configs import nested_configs, text_config

# Models that number positions from the padding id on, as RoBERTa does: so many positions fewer.
_POSITIONS_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_CHARACTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ0123456789.,-"
_MODALITIES = ("image", "video", "audio")
_CTC_TOKENIZER = "Wav2Vec2CTCTokenizer"


@dataclass
class TokenLayout:
    """Which special token lies at which id, and how a text is framed by them."""

    size: int
    ids: dict[str, int] = field(default_factory=dict)  # text -> id
    roles: dict[str, str] = field(default_factory=dict)  # "pad" -> text

    def place(self, role: str, text: str, wanted: int | None) -> int:
        """Give ``role`` a token at the id ``wanted``, or at the highest free one."""
        taken = {index: known for known, index in self.ids.items()}
        if wanted in taken:
            self.roles[role] = taken[wanted]
            return wanted
        index = wanted if wanted is not None else self._highest_free()
        self.ids[text] = index
        self.roles[role] = text
        return index

    def id_of(self, role: str) -> int | None:
        """Return the id of a role's token; None when the model has no such role."""
        return self.ids.get(self.roles.get(role, ""))

    def free(self) -> list[int]:
        """Return the ids that no special token has."""
        taken = set(self.ids.values())
        return [index for index in range(self.size) if index not in taken]

    def _highest_free(self) -> int:
        return self.free()[-1]


@dataclass(frozen=True)
class TextKind:
    """What a model does with text, by transformers' own tables of architectures."""

    encoder: bool
    decoder_only: bool
    encoder_decoder: bool


def text_kind(config: Any) -> TextKind:
    """Tell encoders (masked language models), decoders and encoder-decoders apart."""
    from transformers.models.auto import modeling_auto as tables

    text = text_config(config)
    both = bool(config.is_encoder_decoder)
    masked = text.model_type in tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = text.model_type in tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return TextKind(masked and not both, causal and not masked and not both, both)


def lay_out_tokens(config: Any, placeholders: Mapping[str, str]) -> TokenLayout:
    """Place the special tokens that the config names, and those that it lacks and needs.

    Sets the config's padding (and an encoder-decoder's first token) where they are None, so
    that batches can be padded and ``generate`` works; the tokenizer will agree.

    Args:
        config: the tiny config.
        placeholders: role -> text of the tokens that stand for an image, a video or a sound.
    """
    text = text_config(config)
    layout = TokenLayout(text.vocab_size)
    kind = text_kind(config)
    named = {r: _first(getattr(text, f"{r}_token_id", None)) for r in _special_tokens(kind)}
    named |= {role: _placeholder_id(config, role) for role in placeholders}
    texts = {**_special_tokens(kind), **placeholders}
    # First what the config names, so that nothing else takes its ids.
    for role, wanted in named.items():
        if wanted is not None and 0 <= wanted < layout.size:
            layout.place(role, texts[role], wanted)
    _reserve_other_ids(config, layout)
    for role in [*_needed(kind), *placeholders]:
        if role not in layout.roles:
            layout.place(role, texts[role], _stand_in(role, layout))
    _complete(config, layout)
    return layout


def _reserve_other_ids(config: Any, layout: TokenLayout) -> None:
    """Keep the ids that the config gives to other roles (decoder_start, a second eos) theirs."""
    for part in (config, text_config(config)):
        for name, value in vars(part).items():
            if not name.endswith("_token_id"):
                continue
            for index in value if isinstance(value, list) else [value]:
                if index in layout.free():
                    layout.ids[f"<{name.removesuffix('_token_id')}_{index}>"] = index


def _special_tokens(kind: TextKind) -> dict[str, str]:
    tokens = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"}
    if kind.decoder_only:
        return tokens
    return {**tokens, "sep": "<sep>", "cls": "<cls>", "mask": "<mask>"}


def _needed(kind: TextKind) -> list[str]:
    return ["pad", "unk", *(["cls", "sep", "mask"] if kind.encoder else ["eos"])]


def _stand_in(role: str, layout: TokenLayout) -> int | None:
    """An encoder whose config has <s> and </s> uses them where BERT uses [CLS] and [SEP]."""
    return layout.id_of({"cls": "bos", "sep": "eos"}.get(role, ""))


def _placeholder_id(config: Any, role: str) -> int | None:
    names = (f"{role}_token_id", f"{role}_token_index")
    values = (getattr(part, name, None) for part in nested_configs(config) for name in names)
    return next((value for value in values if isinstance(value, int)), None)


def _complete(config: Any, layout: TokenLayout) -> None:
    for name, value in list(vars(config).items()):
        role = name.removesuffix("_token_id").removesuffix("_token_index")
        if value is None and role != name and role in _MODALITIES and layout.free():
            index = layout.id_of(role)
            setattr(config, name, layout.place(role, f"<{role}>", None) if index is None else index)
    text = text_config(config)
    for part in {id(part): part for part in (config, text)}.values():
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = layout.id_of("pad")
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        first = _first(getattr(text, "bos_token_id", None))
        config.decoder_start_token_id = text.pad_token_id if first is None else first


def _first(value: Any) -> int | None:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return value if isinstance(value, int) else None


# Building ----------------------------------------------------------------------------------------


def build_tokenizer(config: Any, layout: TokenLayout, folder: Path) -> Any:
    """Return the tokenizer of a twin; ``folder`` takes the files that its class must read."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    if TOKENIZER_MAPPING_NAMES.get(config.model_type) == _CTC_TOKENIZER:
        return _ctc_tokenizer(layout, folder)
    from transformers import PreTrainedTokenizerFast

    extra = {f"{role}_token": text for role, text in layout.roles.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(config, layout),
        padding_side="left" if text_kind(config).decoder_only else "right",
        model_max_length=_max_length(config),
        model_input_names=_input_names(config),
        clean_up_tokenization_spaces=False,
        **_as_arguments(extra),
    )


def _as_arguments(tokens: dict[str, str]) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerBase

    known = PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES
    plain = {name: text for name, text in tokens.items() if name in known}
    extra = {name: text for name, text in tokens.items() if name not in known}
    return {**plain, "extra_special_tokens": extra} if extra else plain


def _backend(config: Any, layout: TokenLayout) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    by_bytes = len(layout.free()) >= len(alphabet)
    vocabulary = _vocabulary(layout, alphabet if by_bytes else list(_CHARACTERS))
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token=layout.roles["unk"]))
    if by_bytes:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend.normalizer = normalizers.Sequence([_upper_case(), normalizers.Replace(" ", "|")])
        backend.decoder = decoders.Replace("|", " ")
    backend.add_special_tokens([AddedToken(token, special=True) for token in layout.ids])
    backend.post_processor = _frame(config, layout)
    return backend


def _upper_case() -> Any:
    from tokenizers import normalizers

    letters = "abcdefghijklmnopqrstuvwxyz"
    return normalizers.Sequence([normalizers.Replace(x, x.upper()) for x in letters])


def _vocabulary(layout: TokenLayout, alphabet: list[str]) -> dict[str, int]:
    """Return every id with its token, so that whatever a model generates can be decoded."""
    free = layout.free()
    unused = [f"<unused{index}>" for index in free[len(alphabet) :]]
    return layout.ids | dict(zip([*alphabet, *unused], free, strict=False))


def _frame(config: Any, layout: TokenLayout) -> Any:
    """Return the template that puts the model's special tokens around a text."""
    from tokenizers import processors

    before, after = _framing_roles(config, layout)
    first = [f"{layout.roles[role]}:0" for role in before]
    last = [layout.roles[role] for role in after]
    one = [*first, "$A:0", *(f"{token}:0" for token in last)]
    return processors.TemplateProcessing(
        single=one,
        pair=[*one, "$B:1", *(f"{token}:1" for token in last)],
        special_tokens=list(layout.ids.items()),
    )


def _framing_roles(config: Any, layout: TokenLayout) -> tuple[list[str], list[str]]:
    kind = text_kind(config)
    if kind.encoder:
        return ["cls"], ["sep"]
    bos = layout.id_of("bos")
    before = ["bos"] if bos is not None and bos != layout.id_of("eos") else []
    after = [] if kind.decoder_only else ["sep" if "sep" in layout.roles else "eos"]
    return before, after


def _max_length(config: Any) -> int:
    names = ("max_position_embeddings", "n_positions", "max_target_positions")
    text = text_config(config)
    positions = next((n for name in names if (n := getattr(text, name, None))), 512)
    if text.model_type in _POSITIONS_AFTER_PADDING:
        return int(positions - text.pad_token_id - 1)
    return int(positions)


def _input_names(config: Any) -> list[str]:
    has_types = text_kind(config).encoder and hasattr(config, "type_vocab_size")
    return ["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"]


def _ctc_tokenizer(layout: TokenLayout, folder: Path) -> Any:
    from transformers import Wav2Vec2CTCTokenizer

    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(_vocabulary(layout, list(_CHARACTERS))), encoding="utf-8")
    names = {f"{role}_token": layout.roles[role] for role in ("pad", "bos", "eos", "unk")}
    return Wav2Vec2CTCTokenizer(str(vocabulary), do_lower_case=True, **names)
