"""How a fault gets into a model from outside: a load, a forward or a generation is changed.

Nothing here touches the generated file, and what is planted in one context is gone after it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import transformers

from resource_pool import ResourcePool

Model = Any
Change = Callable[[Model], None]
TWIN_MARKER = "rp_twin.json"


@contextmanager
def every_load(change: Change) -> Iterator[None]:
    """Change each model that ``from_pretrained`` returns, whoever loads it."""
    with _loads(lambda model, _: change(model)):
        yield


@contextmanager
def every_reload(change: Change) -> Iterator[None]:
    """Change each model that is loaded from a folder which the test itself has saved."""

    def changed(model: Model, folder: Path) -> None:
        if not (folder / TWIN_MARKER).exists():
            change(model)

    with _loads(changed):
        yield


@contextmanager
def _loads(change: Callable[[Model, Path], None]) -> Iterator[None]:
    original = transformers.PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: type, folder: Any, *args: Any, **options: Any) -> Any:
        loaded = original(cls, folder, *args, **options)
        change(loaded[0] if isinstance(loaded, tuple) else loaded, Path(folder))
        return loaded

    patched = classmethod(from_pretrained)
    with mock.patch.object(transformers.PreTrainedModel, "from_pretrained", patched):
        yield


@contextmanager
def every_placement(change: Change) -> Iterator[None]:
    """Change each model that the pool hands out, once."""
    original = ResourcePool.get_model
    done: list[Model] = []

    @functools.wraps(original)
    def get_model(pool: ResourcePool, *args: Any, **options: Any) -> Any:
        model = original(pool, *args, **options)
        if not any(model is one for one in done):
            done.append(model)
            change(model)
        return model

    with mock.patch.object(ResourcePool, "get_model", get_model):
        yield


@contextmanager
def told_by_the_pool(**facts: Any) -> Iterator[None]:
    """Let the pool's statistics say something else of each model."""
    original = ResourcePool.get_stats

    def get_stats(pool: ResourcePool) -> Any:
        stats = original(pool)
        for told in stats["models"].values():
            told.update(facts)
        return stats

    with mock.patch.object(ResourcePool, "get_stats", get_stats):
        yield


@contextmanager
def every_save(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Change the tensors in each file that ``save_pretrained`` writes."""
    from safetensors.torch import load_file, save_file

    original = transformers.PreTrainedModel.save_pretrained

    def save_pretrained(model: Model, folder: Any, *args: Any, **options: Any) -> None:
        original(model, folder, *args, **options)
        for file in Path(folder).glob("*.safetensors"):
            save_file(change(load_file(file)), file, metadata={"format": "pt"})

    with mock.patch.object(transformers.PreTrainedModel, "save_pretrained", save_pretrained):
        yield


def around(method: str, change: Callable[..., Any]) -> Change:
    """Return what replaces a model's method by ``change(model, original, **arguments)``."""

    def plant(model: Model) -> None:
        original = getattr(model, method)

        @functools.wraps(original)
        def replaced(*args: Any, **arguments: Any) -> Any:
            return change(model, functools.partial(original, *args), **arguments)

        setattr(model, method, replaced)

    return plant


def on_arguments(change: Callable[[Model, dict[str, Any]], dict[str, Any]]) -> Change:
    """Return what changes the arguments of each forward."""
    return around("forward", lambda model, forward, **given: forward(**change(model, given)))


def on_output(change: Callable[[Model, Any], Any]) -> Change:
    """Return what changes the first tensor of each forward's outputs."""

    def changed(model: Model, forward: Callable[..., Any], **given: Any) -> Any:
        outputs = forward(**given)
        name = next(name for name, value in outputs.items() if hasattr(value, "shape"))
        outputs[name] = change(model, outputs[name])
        return outputs

    return around("forward", changed)


def after_forward(change: Callable[[Model, dict[str, Any]], None]) -> Change:
    """Return what does something after each forward, such as leaving traces."""

    def changed(model: Model, forward: Callable[..., Any], **given: Any) -> Any:
        outputs = forward(**given)
        change(model, given)
        return outputs

    return around("forward", changed)


def on_generate(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """Return what changes the arguments of each generation."""
    return around("generate", lambda model, generate, **given: generate(**change(given)))
