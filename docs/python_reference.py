"""The page of public names in Python, from their signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

MODULES = {
    "resource_pool": "The pool. [More](../pool.md).",
    "resource_pool.testing": "Fakes for tests: a machine that is not here, under the real pool.",
    "resource_pool.weights": "Where a model's weights come from, and what can be proved of them.",
    "resource_pool.prediction": "Memory beforehand.",
    "resource_pool.measuring": "What generated tests measure and compare with.",
    "resource_pool.transformers_js": "What the tests of transformers.js run. [More](../web.md).",
    "hardware_detection": "What this machine can compute on. [More](../detection.md).",
    "hardware_detection.testing": "Fakes for tests: machines that are not here.",
    "model_family_classifier": "What a model is. [More](../classification.md).",
}
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ITEM = re.compile(r"^ {4}(\w[\w ,`.]*?): (.*)$")
_WORDS = {"Args": "Arguments"}


def page(note: str) -> str:
    """Return the page in Markdown."""
    parts = [note, "# Python", "Every public name of the three libraries, as `help()` tells it."]
    for name, text in MODULES.items():
        module = importlib.import_module(name)
        parts += [f"## `{name}`", text, *_constants(module)]
        for public in _names(module):
            parts += _described(f"{name}.{public}", getattr(module, public))
    return "\n\n".join(parts) + "\n"


def _constants(module: Any) -> Iterator[str]:
    names = [name for name in _public(module) if name.isupper()]
    if names:
        yield "\n".join(f"- `{name}`: `{getattr(module, name)!r}`" for name in names)


def _names(module: Any) -> list[str]:
    return [name for name in _public(module) if not name.isupper()]


def _public(module: Any) -> list[str]:
    return getattr(module, "__all__", None) or [
        name
        for name, one in vars(module).items()
        if not name.startswith("_") and getattr(one, "__module__", "") == module.__name__
    ]


def _described(name: str, one: Any) -> Iterator[str]:
    yield f"### `{name.rpartition('.')[2]}`"
    if inspect.isclass(one) and issubclass(one, BaseException):
        yield markdown(one.__doc__ or "")
        return
    kind = "class " if inspect.isclass(one) else ""
    yield f"```text\n{kind}{_signature(name.rpartition('.')[2], one)}\n```"
    yield markdown(one.__doc__ or "")
    for key, value in _members(one) if inspect.isclass(one) else ():
        function = getattr(value, "__func__", value)
        if not key.startswith("_") and inspect.isfunction(function):
            yield f"#### `{one.__name__}.{key}`"
            yield f"```text\n{_signature(key, function)}\n```"
            yield markdown(function.__doc__ or "")


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield what a class has of its own, and what the private classes that it is made of have."""
    yield from vars(kind).items()
    for base in kind.__bases__:
        if base.__module__.partition(".")[2].startswith("_"):
            yield from _members(base)


def _signature(name: str, one: Any) -> str:
    try:
        found = inspect.signature(one)
    except (TypeError, ValueError):
        return name
    shown = [p for key, p in found.parameters.items() if key != "self"]
    # What a default prints (an address, a whole object) is not for readers.
    shown = [p.replace(annotation=p.empty) for p in shown]
    text = f"{name}{found.replace(parameters=shown, return_annotation=found.empty)}"
    return re.sub(r"=<[^>]*>+", "=...", text)


def markdown(docstring: str) -> str:
    """Return a docstring's text with its sections as lists."""
    lines = re.sub(r":\w+:`([^`]+)`", r"``\1``", inspect.cleandoc(docstring)).split("\n")
    shown: list[str] = []
    section = ""
    for line in lines:
        header, item = _SECTION.match(line), _ITEM.match(line)
        if header:
            section = header[1]
            shown += ["", f"**{_WORDS.get(section, section)}**", ""]
        elif not section:
            shown.append(line)
        elif item and section not in ("Returns", "Yields"):
            shown.append(f"- `{item[1]}`: {item[2]}")
        elif line.strip():
            shown.append(f"  {line.strip()}" if shown[-1] else line.strip())
        else:
            section = ""
            shown.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(shown)).replace("``", "`").strip()
