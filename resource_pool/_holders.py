"""Whether somebody outside the pool refers to a cached object, or to a part of it.

CPython counts references. Those that the object has to itself and its parts (a module in its
parent, a tied weight, a hook, a wrapped method) are found by a walk over it; what a count has
above them comes from outside. The walk takes milliseconds for a large model, and is taken only
where something may have to go.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

# A hook may lead to anything. After so many objects, what refers to what is left unknown.
_MOST = 100_000

_CARRIERS = (
    dict, list, tuple, set, frozenset, functools.partial, types.FunctionType, types.MethodType,
    types.CellType, property, staticmethod, classmethod,
)  # fmt: skip
_NOT_ENTERED = (type, types.ModuleType, types.FrameType, types.BuiltinFunctionType)


def is_held(values: Sequence[Any], own: int) -> bool:
    """Whether any object, or a part of one, is referred to from outside.

    Args:
        values: objects that may share parts.
        own: the references that the caller has to each of them, ``values`` included.
    """
    parts = [part for value in values for part in _parts(value)]
    inside = _references_inside([*values], {id(one) for one in (*values, *parts)})
    whole = zip(map(id, values), map(sys.getrefcount, values), strict=True)
    if any(count - _IN_A_LIST - inside.get(number, 0) > own - 1 for number, count in whole):
        return True
    each = [*{id(part): part for part in parts}.values()]
    del parts
    counts = zip(map(id, each), map(sys.getrefcount, each), strict=True)
    return any(count - _IN_A_LIST > inside.get(number, 0) for number, count in counts)


def is_held_besides(whole: Any, model: weakref.ref[Any]) -> bool:
    """Whether a model lives that something else refers to than ``whole``, which may contain it."""
    found = [model()]
    if found[0] is None:
        return False
    number = id(found[0])
    inside = _references_inside([whole], {number}).get(number, 0)
    (count,) = map(sys.getrefcount, found)
    return count - _IN_A_LIST > inside


def _parts(value: Any) -> Iterator[Any]:
    """Yield the modules inside a module, and their parameters."""
    seen, waiting = {id(value)}, [value]
    while waiting:
        inside = getattr(waiting.pop(), "__dict__", {})
        parameters, modules = inside.get("_parameters"), inside.get("_modules")
        if not isinstance(parameters, dict) or not isinstance(modules, dict):
            continue
        for part in (*parameters.values(), *modules.values()):
            if part is not None and id(part) not in seen:
                seen.add(id(part))
                yield part
        waiting += [part for part in modules.values() if part is not None]


def _references_inside(values: list[Any], counted: set[int]) -> dict[int, int]:
    """Return how often what is ``counted`` is referred to from inside: id -> count."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    waiting = values
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if len(seen) > _MOST:
            break
        for part in _referents(one):
            number = id(part)
            if number in counted:
                found[number] = found.get(number, 0) + 1
            if number not in seen and _is_entered(part):
                waiting.append(part)
    return found


def _referents(one: Any) -> Sequence[Any]:
    if isinstance(one, types.FunctionType):  # not its globals, which lead everywhere
        return [*(one.__closure__ or ()), *(one.__defaults__ or ()), one.__dict__]
    if isinstance(one, _CARRIERS):
        return gc.get_referents(one)
    kind = type(one)
    # A class made for one object, as torch's parametrizations do, may hold it in its methods.
    made_here = getattr(sys.modules.get(kind.__module__), kind.__name__, None) is not kind
    return [one.__dict__, *(vars(kind).values() if made_here else ())]


def _is_entered(one: Any) -> bool:
    if isinstance(one, _CARRIERS):
        return True
    # A tensor's own attributes are none of the model's.
    return not isinstance(one, _NOT_ENTERED) and hasattr(one, "__dict__") and not _is_tensor(one)


def _is_tensor(one: Any) -> bool:
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)
    return tensor is not None and isinstance(one, tensor)


# What ``getrefcount`` says of an object that only a list refers to, asked by ``map``.
(_IN_A_LIST,) = map(sys.getrefcount, [object()])
