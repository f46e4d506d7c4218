"""Jinja2 that writes code: text of a model's or a user's reaches a file through a filter only.

As with autoescaping, text that may stand in code has a type of its own: what the filters return,
what a template says itself, and what is made of nothing else. Other text is refused.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, TemplateRuntimeError, Undefined, nodes
from jinja2.environment import TemplateModule
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from hardware_detection.errors import hint_at, nearest
from rp_cli.codegen.plan import TestPlan

# What the plan has made or checked itself: names that are safe whatever a model is called.
_PLAIN = frozenset({"auto_class", "class_name", "file_name", "loader", "rp_version"})
# Filters that no template can name.
_OWN = " own"
_JOINED = " joined"


class Code(str):
    """Text that may stand in a file as it is."""

    __slots__ = ()


class CodeEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox, with the filters `py`, `doc` and `json`; other text is refused."""

    def __init__(self, loader: BaseLoader) -> None:
        super().__init__(
            loader=loader,
            undefined=_Unknown,
            finalize=_checked,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.filters = {name: _keeping(one) for name, one in self.filters.items()}
        self.filters |= {
            "py": lambda value: Code(repr(_there(value))),
            "doc": lambda value: Code(_for_docstring(_there(value))),
            "json": lambda value: Code(json_in_script(_there(value))),
            _OWN: Code,
            _JOINED: _keeping(lambda parts: "".join(map(str, parts))),
        }

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Marking().visit(tree)
        tree.set_environment(self)
        return tree

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute; a plain name of the plan's is code."""
        value = super().getattr(obj, attribute)
        is_plain = isinstance(obj, TestPlan) and attribute in _PLAIN
        return Code(value) if is_plain else value

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call something; what a macro or a block has written is checked already."""
        found = super().call(__context, __obj, *args, **kwargs)
        if isinstance(__obj, Macro | BlockReference | LoopContext):
            return _marked(found)
        # Jinja2 wraps str.format, and gives its result the type of what it is a method of.
        if not isinstance(getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None), Code):
            return found
        if _is_code((args, kwargs)):
            return _marked(found)
        return str(found) if isinstance(found, Code) else found


class _Unknown(StrictUndefined):
    """What is not there: an error that says what is, in the words of a template."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        name, of = str(self._undefined_name), self._undefined_obj
        if isinstance(of, TestPlan):
            return _none_such("plan", name, [one for one in dir(of) if not one.startswith("_")])
        if isinstance(of, TemplateModule):
            return _none_such("that file", name, [one for one in vars(of) if one[:1] != "_"])
        if of is missing and not self._undefined_hint:
            return f"{name!r} is undefined; every template has plan and shared"
        return super()._undefined_message


def _none_such(what: str, name: str, known: Sequence[str]) -> str:
    return f"{what} has no {name!r}{hint_at(nearest(name, known))}; it has {', '.join(known)}"


class _Marking(NodeTransformer):
    """Marks the texts that stand in a template, and what is joined of marked ones."""

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        return _filtered(node, _OWN) if isinstance(node.value, str) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOINED)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, _OWN, node.lineno)
        return node

    def _left(self, node: nodes.Node) -> nodes.Node:
        return node

    visit_Extends = visit_Import = visit_FromImport = visit_Include = _left  # noqa: N815


def _filtered(node: nodes.Expr | None, name: str, line: int = 0) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=line or getattr(node, "lineno", 1))


def _checked(value: Any) -> Any:
    """Return what goes into a file; Jinja2 calls it for each value that is written."""
    if value is None or isinstance(value, Code | int | float | Undefined):
        return value
    raise TemplateRuntimeError(
        f"{str(value)[:40]!r} passes none of the filters py, doc and json, and would become code; "
        "write {{ ... | py }} for a Python literal, or {{ ... | doc }} in a docstring"
    )


def _keeping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that makes code of code, as `join` or `indent` do."""
    first = int(hasattr(function, "jinja_pass_arg"))  # Jinja2's own argument

    @functools.wraps(function)
    def keeping(*given: Any, **options: Any) -> Any:
        words = [list(one) if isinstance(one, Iterator) else one for one in given]
        found = function(*words, **options)
        return _marked(found) if _is_code((words[first:], options)) else found

    return keeping


def _is_code(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_code, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_code, value))
    return value is None or isinstance(value, Code | int | float | Undefined)


def _marked(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_marked(one) for one in value]
    return Code(value) if isinstance(value, str) else value


def _there(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises; a repr would be a name
    return value


def _for_docstring(value: Any) -> str:
    """Return text that stays inside a docstring: no quote, no backslash of its own."""
    return str(value).encode("unicode_escape").decode("ascii").replace('"', '\\"')


def json_in_script(value: Any) -> str:
    """Return a value as JSON that stands inside a script element, whatever it holds."""
    # Neither "</script>" nor "<!--" can be in it; U+2028 and the like are escaped by json.
    text = json.dumps(value, indent=2)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
