"""Every public name says what it is: units, shapes and errors where there are any."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

PACKAGES = ("hardware_detection", "model_family_classifier", "resource_pool")
MODULES = (
    *PACKAGES,
    "hardware_detection.testing",
    "resource_pool.measuring",
    "resource_pool.prediction",
    "resource_pool.testing",
    "resource_pool.transformers_js",
    "resource_pool.weights",
)


def public(module: str) -> Iterator[tuple[str, Any]]:
    """Yield the public names of a module and of its classes, with what they stand for."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None) or [
        name for name, one in vars(found).items()
        if not name.startswith("_") and getattr(one, "__module__", "") == module
    ]  # fmt: skip
    for name in names:
        one = getattr(found, name)
        if not callable(one):
            continue  # constants: their module's docstring speaks of them
        yield f"{module}.{name}", one
        if inspect.isclass(one):
            yield from methods(f"{module}.{name}", one)


def methods(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    ours = [one for one in kind.__mro__ if one.__module__.partition(".")[0] in PACKAGES]
    members = {key: value for one in reversed(ours) for key, value in vars(one).items()}
    for key, value in members.items():
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if not key.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{key}", function


EVERYTHING = {name: one for module in MODULES for name, one in public(module)}


def test_there_is_something_to_look_at():
    assert len(EVERYTHING) > 60


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_public_name_has_a_docstring_of_its_own(name):
    text = EVERYTHING[name].__doc__
    assert text
    assert text.strip()
    assert not text.startswith(f"{name.rpartition('.')[2]}(")  # what dataclass writes by itself


def raised(function: Any) -> set[str]:
    """Return the names of the errors that a function raises in its own body."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return set()
    caught = {
        name.id for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type
        for name in ast.walk(node.type) if isinstance(name, ast.Name)
    }  # fmt: skip
    calls = (node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc)
    names = (getattr(call, "func", call) for call in calls)
    found = {name.id for name in names if isinstance(name, ast.Name) and name.id[0].isupper()}
    return found - caught


@pytest.mark.parametrize("name", [n for n, one in EVERYTHING.items() if inspect.isfunction(one)])
def test_a_function_names_the_errors_that_it_raises(name):
    text = EVERYTHING[name].__doc__ or ""
    silent = {error for error in raised(EVERYTHING[name]) if error not in text}
    assert not silent, f"{name} raises {silent} and does not say so"


@pytest.mark.parametrize("name", [n for n, one in EVERYTHING.items() if inspect.isfunction(one)])
def test_what_is_counted_in_bytes_or_seconds_says_so(name):
    function = EVERYTHING[name]
    text = f"{function.__doc__ or ''} {inspect.getdoc(inspect.getmodule(function)) or ''}".lower()
    if ":meth:`" in text:  # the arguments are those of another method
        return
    units = {
        "needs": "bytes", "keep_alive": "minutes", "timeout": "seconds", "deadline_s": "seconds",
        "load_deadline": "seconds", "monitor_interval": "seconds", "max_age_minutes": "minutes",
        "mib": "MiB", "memory_total_mb": "MiB",
    }  # fmt: skip
    asked = inspect.signature(function).parameters
    for parameter, unit in units.items():
        if parameter in asked:
            assert unit.lower() in text, f"{name}({parameter}): {unit}"
