"""The catalogue: faults that libraries, pools and drivers have, and on what each can be planted."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from fault_planting import (
    after_forward,
    around,
    every_load,
    every_placement,
    every_reload,
    every_save,
    on_arguments,
    on_generate,
    on_output,
    told_by_the_pool,
)

Tensor = torch.Tensor
Arguments = dict[str, Any]

CONTENT = ("input_ids", "values", "features", "videos")
IMAGES = ("pixel_values", "pixel_values_videos")
SOUNDS = ("input_features", "input_values")


@dataclass(frozen=True)
class Fault:
    """A fault, and the traits that a model must have for it to be possible."""

    name: str
    needs: frozenset[str]
    plant: Callable[[], AbstractContextManager[None]]


# Inputs ------------------------------------------------------------------------------------------


def mask_ignored(_: Any, given: Arguments) -> Arguments:
    return {n: torch.ones_like(v) if _is_mask(n, v) else v for n, v in given.items()}


def first_row_for_all(_: Any, given: Arguments) -> Arguments:
    return {n: v[:1].expand_as(v).clone() if _is_content(n, v) else v for n, v in given.items()}


def ignoring(*names: str) -> Callable[[Any, Arguments], Arguments]:
    def changed(_: Any, given: Arguments) -> Arguments:
        return {n: _constant(n, v) if n in names and v is not None else v for n, v in given.items()}

    return changed


def text_ignored(model: Any, given: Arguments) -> Arguments:
    ids = given.get("input_ids")
    if ids is None:
        return given
    image = getattr(model.config, "image_token_id", None)
    blank = torch.full_like(ids, 7)
    return {**given, "input_ids": blank if image is None else torch.where(ids == image, ids, blank)}


def end_ignored(_: Any, given: Arguments) -> Arguments:
    """Everything behind the first four tokens is taken for the fourth."""
    ids = given.get("input_ids")
    if ids is None or ids.shape[1] <= 4:
        return given
    short = torch.cat([ids[:, :4], ids[:, 3:4].expand(-1, ids.shape[1] - 4)], dim=1)
    return {**given, "input_ids": short}


def _constant(name: str, value: Tensor) -> Tensor:
    return torch.full_like(value, 7) if name.endswith("ids") else torch.zeros_like(value)


def _is_mask(name: str, value: Any) -> bool:
    return name == "attention_mask" and value is not None and value.ndim == 2


def _is_content(name: str, value: Any) -> bool:
    return name.endswith(CONTENT) and name != "past_key_values" and value is not None


# Outputs -----------------------------------------------------------------------------------------


def nan_in_one_row(_: Any, output: Tensor) -> Tensor:
    output = output.clone()
    output[-1].view(-1)[-1] = float("nan")
    return output


def rows_mixed(_: Any, output: Tensor) -> Tensor:
    return output.roll(1, 0)


def rows_leak(_: Any, output: Tensor) -> Tensor:
    return output + 0.1 * output.mean(0, keepdim=True)


def noise(_: Any, output: Tensor) -> Tensor:
    return output + 1e-3 * torch.randn_like(output)


def transposed(_: Any, output: Tensor) -> Tensor:
    return output.transpose(-1, -2)


def in_float64(_: Any, output: Tensor) -> Tensor:
    return output.double()


def pooled_over_padding(model: Any, forward: Callable[..., Any], **given: Any) -> Any:
    outputs = forward(**given)
    if "pooler_output" in outputs:
        outputs["pooler_output"] = outputs.last_hidden_state.mean(1)
    else:
        mean = model.text_projection(outputs.text_model_output.last_hidden_state.mean(1))
        outputs["text_embeds"] = mean / mean.norm(dim=-1, keepdim=True)
    return outputs


# Computation -------------------------------------------------------------------------------------


def silent_half(_: Any, forward: Callable[..., Any], **given: Any) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = forward(**given)
    for name, value in outputs.items():
        if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
            outputs[name] = value.float()
    return outputs


def experts_in_half(model: Any) -> None:
    for experts in [one for one in model.modules() if type(one).__name__.endswith("Experts")]:
        halves = copy.deepcopy(experts).bfloat16()
        experts.forward = lambda states, *routed, halves=halves: halves(
            states.bfloat16(), *routed
        ).to(states.dtype)


def ten_times_the_memory(model: Any, forward: Callable[..., Any], **given: Any) -> Any:
    size = sum(p.numel() for p in model.parameters())
    copies = torch.empty(10 * size)
    outputs = forward(**given)
    del copies
    return outputs


def dropout_left_on(model: Any) -> None:
    linears = [
        one for one in model.modules() if isinstance(one, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    middle = linears[len(linears) // 2]
    middle.register_forward_hook(lambda *a: torch.nn.functional.dropout(a[2], 0.1, training=True))


def batch_statistics(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.train()


@contextmanager
def mask_replaced(name: str, make: Callable[..., Any]) -> Iterator[None]:
    """Replace a function with which models of transformers make their masks."""
    with ExitStack() as patches:
        for key, module in list(sys.modules.items()):
            if key.startswith("transformers.models.") and name in vars(module):
                patches.enter_context(mock.patch.object(module, name, make))
        yield


def everything_seen(**given: Any) -> Tensor:
    past, embeds = given.get("past_key_values"), given["inputs_embeds"]
    before = past.get_seq_length() if past is not None else 0
    shape = (embeds.shape[0], 1, embeds.shape[1], before + embeds.shape[1])
    return torch.ones(shape, dtype=torch.bool)


def only_earlier_seen(**given: Any) -> Tensor:
    rows, length = given["inputs_embeds"].shape[:2]
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    mask = given.get("attention_mask")
    seen = seen.expand(rows, 1, length, length)
    return (
        seen if mask is None else seen & (mask[:, None, None, :].bool() | torch.eye(length).bool())
    )


# Traces of a forward -----------------------------------------------------------------------------


def weights_changed(model: Any, _: Arguments) -> None:
    with torch.no_grad():
        next(model.parameters()).data.view(-1)[0] += 1e-3


def config_changed(model: Any, _: Arguments) -> None:
    model.config.seen = getattr(model.config, "seen", 0) + 1


def hook_left(model: Any, _: Arguments) -> None:
    model.register_forward_hook(lambda *_: None)


def training_left_on(model: Any, _: Arguments) -> None:
    model.training = True


def input_changed(_: Any, given: Arguments) -> None:
    name = next(name for name, value in given.items() if _is_content(name, value))
    given[name].view(-1)[-1] += 1


# Cache and generation ----------------------------------------------------------------------------


def cache_ignored(_: Any, given: Arguments) -> Arguments:
    return {**given, "past_key_values": None} if _cached(given) else given


def cache_forgets(_: Any, given: Arguments) -> Arguments:
    if _cached(given):
        cache = getattr(given["past_key_values"], "self_attention_cache", given["past_key_values"])
        for layer in cache.layers:
            layer.keys[:, :, 0] = 0.0
    return given


def cache_position_off(_: Any, given: Arguments) -> Arguments:
    if not _cached(given):
        return given
    decodes = given.get("decoder_input_ids") is not None
    name, ids = (
        ("decoder_position_ids", "decoder_input_ids") if decodes else ("position_ids", "input_ids")
    )
    length = given[ids].shape[1]
    past = given["past_key_values"].get_seq_length()
    wrong = torch.arange(past - 1, past - 1 + length).expand(given[ids].shape[0], -1)
    return {**given, name: wrong}


def _cached(given: Arguments) -> bool:
    cache = given.get("past_key_values")
    return cache is not None and cache.get_seq_length() > 0


def eos_ignored(given: Arguments) -> Arguments:
    return {name: value for name, value in given.items() if name != "eos_token_id"}


def generation_without_mask(given: Arguments) -> Arguments:
    mask = given.get("attention_mask")
    return given if mask is None else {**given, "attention_mask": torch.ones_like(mask)}


def sampled(given: Arguments) -> Arguments:
    return {**given, "do_sample": True, "temperature": 9.0}


def prompt_lost(_: Any, generate: Callable[..., Any], **given: Any) -> Any:
    generated = generate(**given)
    generated["sequences"] = generated.sequences.clone()
    generated.sequences[:, 0] += 1
    return generated


# Loading and saving ------------------------------------------------------------------------------


def without_last_weight(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return dict(list(tensors.items())[:-1])


def without_a_buffer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    lost = next(name for name in tensors if name.endswith("running_mean"))
    return {name: tensor for name, tensor in tensors.items() if name != lost}


def rounded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t.bfloat16().to(t.dtype) if t.is_floating_point() else t for n, t in tensors.items()}


def untied(model: Any) -> None:
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())


def last_layer_skipped(model: Any) -> None:
    stacks = [one for one in model.modules() if isinstance(one, torch.nn.ModuleList) and len(one)]
    stacks = [s for s in stacks if list(s[-1].children())]

    def skip(_: Any, given: tuple[Any, ...], named: Arguments, output: Any) -> Any:
        first = given[0] if given else named["hidden_states"]
        return (first, *output[1:]) if isinstance(output, tuple) else first

    stacks[-1][-1].register_forward_hook(skip, with_kwargs=True)


def deaf_decoder(model: Any) -> None:
    """The decoder gets zeros in the place of what the encoder made."""

    def deafen(_: Any, given: tuple[Any, ...], named: Arguments) -> tuple[Any, Arguments]:
        heard = named.get("encoder_hidden_states")
        silence = {} if heard is None else {"encoder_hidden_states": torch.zeros_like(heard)}
        return given, {**named, **silence}

    model.get_decoder().register_forward_pre_hook(deafen, with_kwargs=True)


def weights_not_loaded(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.05)


def in_bfloat16(model: Any) -> None:
    model.to(torch.bfloat16)


def fault(name: str, needs: str, plant: Callable[[], AbstractContextManager[None]]) -> Fault:
    return Fault(name, frozenset(needs.split()), plant)


def load(name: str, needs: str, change: Callable[[Any], Any]) -> Fault:
    return fault(name, needs, lambda: every_load(change))


FAULTS = (
    load("mask ignored", "mask", on_arguments(mask_ignored)),
    load("first row read for all rows", "", on_arguments(first_row_for_all)),
    load("text ignored", "text", on_arguments(text_ignored)),
    load("end of the text ignored", "text", on_arguments(end_ignored)),
    load("images ignored", "images", on_arguments(ignoring(*IMAGES))),
    load("sound ignored", "sounds", on_arguments(ignoring(*SOUNDS))),
    load("decoder tokens ignored", "seq2seq", on_arguments(ignoring("decoder_input_ids"))),
    load("encoder ignored by the decoder", "seq2seq", deaf_decoder),
    load("NaN in one row", "", on_output(nan_in_one_row)),
    load("rows mixed", "", on_output(rows_mixed)),
    load("rows leak into each other", "", on_output(rows_leak)),
    load("random numbers in the output", "", on_output(noise)),
    load("output transposed", "", on_output(transposed)),
    load("output in another dtype", "", on_output(in_float64)),
    load("pooled over padding", "pooled", around("forward", pooled_over_padding)),
    load("silent half precision", "", around("forward", silent_half)),
    load("experts in half precision", "experts", experts_in_half),
    load("ten times the memory", "", around("forward", ten_times_the_memory)),
    load("dropout left on", "", dropout_left_on),
    load("statistics of the batch", "batchnorm", batch_statistics),
    fault(
        "causal mask missing",
        "causal",
        lambda: mask_replaced("create_causal_mask", everything_seen),
    ),
    fault(
        "encoder made causal",
        "encoder",
        lambda: mask_replaced("create_bidirectional_mask", only_earlier_seen),
    ),
    load("weights changed by a forward", "", after_forward(weights_changed)),
    load("config changed by a forward", "", after_forward(config_changed)),
    load("hook left by a forward", "", after_forward(hook_left)),
    load("training left on by a forward", "", after_forward(training_left_on)),
    load("input changed by a forward", "", after_forward(input_changed)),
    load("cache ignored", "cache", on_arguments(cache_ignored)),
    load("cache forgets the first token", "cache", on_arguments(cache_forgets)),
    load("position off by one in the cache", "cache positions", on_arguments(cache_position_off)),
    load("end token ignored", "generates", on_generate(eos_ignored)),
    load("mask ignored by generation", "generates mask", on_generate(generation_without_mask)),
    load("sampled instead of greedy", "generates", on_generate(sampled)),
    load("prompt lost", "generates prompted", around("generate", prompt_lost)),
    load("weights not loaded", "", weights_not_loaded),
    fault("training mode", "", lambda: every_placement(lambda model: model.train())),
    fault("half precision delivered", "", lambda: every_placement(in_bfloat16)),
    fault("wrong device told", "", lambda: told_by_the_pool(device="cuda:0")),
    fault("wrong weights told", "", lambda: told_by_the_pool(weights="pretrained")),
    fault("weight lost on save", "", lambda: every_save(without_last_weight)),
    fault("buffer lost on save", "batchnorm", lambda: every_save(without_a_buffer)),
    fault("weights rounded on save", "", lambda: every_save(rounded)),
    fault("untied on reload", "tied", lambda: every_reload(untied)),
    fault("last layer skipped on reload", "", lambda: every_reload(last_layer_skipped)),
    fault("reloaded in half precision", "", lambda: every_reload(in_bfloat16)),
)
