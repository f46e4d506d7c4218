"""Models whose forward is computed elsewhere: the module stays what it is, its forward moves out.

A model that is placed so keeps its class, its config and its methods (``generate``,
``save_pretrained``); only ``forward`` is another: it is traced and converted once for each set of
arguments, runs in another engine, and answers with the output types of the original.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from resource_pool.devices import modules
from resource_pool.devices.flat import Inputs
from resource_pool.devices.survey import Survey
from resource_pool.errors import UnsupportedOperationError

_ATTRIBUTE = "_rp_forward"

# So many are kept converted: WebNN's graphs are built for the very sizes, and a text that grows
# by a token has new ones at each.
MOST_CONVERTED = 16

# Tensors -> the output of the forward.
Computation = Callable[[Sequence[Any]], Any]


class _Here(threading.local):
    """Whether this thread wants torch's own forwards, to compare with: of parts, too."""

    torch = False


_here = _Here()


class Forward:
    """Stands in for a model's ``forward``. ``_lock`` is held to convert: one is made at a time, and
    calls that need none of it do not wait.

    It refers to the model weakly: the model refers to it. The first answer at each new set of sizes
    is compared with torch's: engines have given wrong answers without an error.

    Attributes:
        title: the engine's name, for messages.
        backend: the engine's name in preferences and statistics.
        device: where in the engine, e.g. "openvino:0".
        dtype: torch's name of the precision that it computes in.
    """

    title = ""
    backend = ""

    def __init__(self, model: Any, device: str, dtype: str) -> None:
        self.device = device
        self.dtype = dtype
        self.used_cache: bool | None = None  # what generate() did before
        self._model = weakref.ref(model)
        self._lock = threading.Lock()
        self._converted: dict[Hashable, Computation] = {}
        self._clock = itertools.count()
        self._used: dict[Hashable, int] = {}
        self._compared: set[Hashable] = set()
        self._marks = _marks(model)
        _all.add(self)
        # What generate() and the caller's tools read, as if it were the method itself.
        self.__signature__ = inspect.signature(functools.partial(type(model).forward, model))
        self.__name__ = "forward"

    def convert(self, model: Any, inputs: Inputs) -> Computation:
        """Return what computes the model's forward for arguments such as these.

        Raises:
            UnsupportedOperationError: the engine cannot.
        """
        raise NotImplementedError

    def compare(self, expected: Any, output: Any, inputs: Inputs) -> None:
        """Hold an answer against torch's.

        Raises:
            WrongResultError: it is another one.
        """
        raise NotImplementedError

    def on_torch(self, model: Any, inputs: Inputs) -> Any:
        """Return what torch computes."""
        return type(model).forward(model, **inputs.rebuilt(inputs.tensors))

    def kind(self, inputs: Inputs) -> Hashable:
        """Return what a converted forward depends on."""
        return inputs.traced_kind

    def for_part(self, part: Any) -> Forward:
        """Return what stands in for the forward of a part that is called by itself."""
        raise NotImplementedError

    def describe(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts of the placed model, given those of its module."""
        raise NotImplementedError

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Compute elsewhere; returns what the model's own forward would, on the CPU.

        Raises:
            UnsupportedOperationError: an argument that cannot be passed there, a conversion that
                fails, a model in training mode, or one whose weights have changed.
            WrongResultError: the engine computes something else than torch.
            Exception: what torch raises for these arguments, where there is nothing to convert.
        """
        import torch

        model: Any = self._model()
        # A larger model that is being converted, or compared, calls this part of it.
        if torch.jit.is_tracing() or _here.torch:
            return type(model).forward(model, *args, **options)
        inputs = Inputs(self._given(args, options), self.title)
        self._refuse_changes(model)
        kind = self.kind(inputs)
        output = self._computation(model, inputs, kind)(inputs.tensors)
        sizes = (kind, inputs.sizes)
        if sizes not in self._compared:
            with _own_forwards(), torch.no_grad():
                expected = self.on_torch(model, inputs)
            self.compare(expected, output, inputs)
            self._compared.add(sizes)
        return output

    def _computation(self, model: Any, inputs: Inputs, kind: Hashable) -> Computation:
        self._used[kind] = next(self._clock)
        known = self._converted.get(kind)
        if known is not None:
            return known
        with self._lock:
            known = self._converted.get(kind)
            if known is None:
                self._make_room()
                known = self._converted[kind] = self._convert(model, inputs)
            return known

    def _make_room(self) -> None:
        """Let go of what was used least recently; a thread that computes with it holds it."""
        while len(self._converted) >= MOST_CONVERTED:
            oldest = min(self._converted, key=lambda kind: self._used.get(kind, -1))
            del self._converted[oldest]
            self._used.pop(oldest, None)

    def _given(self, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        """Return what was given by name, None left out."""
        given = dict(self.__signature__.bind(*args, **options).arguments)
        for name, parameter in self.__signature__.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        if given.get("use_cache") or given.get("past_key_values") is not None:
            raise UnsupportedOperationError(
                f"{self.title} computes without a key-value cache here: pass use_cache=False, or "
                "load the model on device='cpu'."
            )
        if "use_cache" in self.__signature__.parameters:
            given["use_cache"] = False
        return {name: value for name, value in given.items() if value is not None}

    def _convert(self, model: Any, inputs: Inputs) -> Computation:
        import torch

        try:
            return self.convert(model, inputs)
        except UnsupportedOperationError:
            # Where the arguments are at fault, and not the engine, torch says how.
            with _own_forwards(), torch.no_grad():
                type(model).forward(model, **inputs.rebuilt(inputs.tensors))
            raise

    def _refuse_changes(self, model: Any) -> None:
        if model.training:
            raise UnsupportedOperationError(
                f"{self.title} computes inference only; call model.eval() first."
            )
        if _marks(model) != self._marks:
            raise UnsupportedOperationError(
                f"{self.title} computes with the weights that the model had when it was placed, "
                "and they have changed since: move it to the CPU with move_model_to_device, "
                "change it there, and move it back."
            )


# For a forked child: another thread may have held a lock.
_all: weakref.WeakSet[Forward] = weakref.WeakSet()


def _after_fork() -> None:
    for forward in _all:
        forward._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _marks(model: Any) -> list[tuple[int, int, int]] | None:
    """Return what tells whether weights change: see ``survey.Marks``; None where nothing does."""
    try:
        return [(id(one), one._version, one.data_ptr()) for one in Survey(model).parameters]
    except RuntimeError:  # tensors of inference mode count no versions
        return None


@contextlib.contextmanager
def _own_forwards() -> Iterator[None]:
    before = _here.torch
    _here.torch = True
    try:
        yield
    finally:
        _here.torch = before


def placement(model: Any) -> Forward | None:
    """Return what stands in for a model's forward; None for one that computes by itself."""
    found = getattr(model, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, Forward) else None


def examples(model: Any, title: str) -> list[dict[str, Any]]:
    """Return arguments of a model's forward at two batch sizes, to compare with torch on.

    Raises:
        UnsupportedOperationError: no arguments are known for this model.
    """
    from resource_pool.weights import example_inputs

    if getattr(model, "config", None) is None:
        raise UnsupportedOperationError(
            f"{title} takes models of transformers: of others, no inputs are known to compare on."
        )
    try:
        found = [example_inputs(model, batch=batch) for batch in (2, 1)]
    except ValueError as error:
        raise UnsupportedOperationError(
            f"{title} cannot be compared with torch on this model: {error}"
        ) from error
    if "use_cache" in inspect.signature(type(model).forward).parameters:
        return [{**one, "use_cache": False} for one in found]
    return found


def attach(model: Any, forward: Forward, inputs: Mapping[str, Any]) -> None:
    """Let a model compute elsewhere, and the encoder that ``generate()`` calls by itself.

    Args:
        inputs: arguments of the model's forward, on which the encoder by itself is tried.

    Raises:
        UnsupportedOperationError, WrongResultError: as a call of the encoder does; the model is
            left as it was.
    """
    _attach(model, forward)
    if getattr(model.config, "is_encoder_decoder", False):
        encoder = model.get_encoder()
        if encoder is not model:  # an encoder by itself has the config of the whole
            _attach(encoder, forward.for_part(encoder))
            try:
                _rehearse(model, encoder, inputs)
            except BaseException:
                remove(model)
                raise


def _rehearse(model: Any, encoder: Any, inputs: Mapping[str, Any]) -> None:
    if not (hasattr(model, "can_generate") and model.can_generate()):
        return  # nobody calls it by itself, and it may take what the model makes first
    takes = inspect.signature(type(encoder).forward).parameters
    given = {name: value for name, value in inputs.items() if name in takes}
    encoder(**{**given, "return_dict": True} if "return_dict" in takes else given)


def _attach(model: Any, forward: Forward) -> None:
    model.forward = forward
    setattr(model, _ATTRIBUTE, forward)
    model.backend = forward.backend
    config = getattr(model, "generation_config", None)
    if config is not None:
        forward.used_cache, config.use_cache = config.use_cache, False


def remove(model: Any) -> None:
    """Give a model, and its parts, their own forward back."""
    if placement(model) is None:
        return
    for _, module in modules.walk(model):
        forward = placement(module)
        if forward is not None:
            for name in ("forward", "backend", _ATTRIBUTE):
                delattr(module, name)
            if forward.used_cache is not None:
                module.generation_config.use_cache = forward.used_cache
