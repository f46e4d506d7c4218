"""Reads from a file's text how it gets its models: ``pool.get_model(..., constructor=...)``.

Only what is plain is understood: names that are assigned once, constants, f-strings of them,
and constructors that are one call of ``from_pretrained`` of a class of transformers.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

_GETTERS = ("get_model", "lease")
_PARAMETERS = ("model_type", "model_name", "constructor", "hardware_preferences")


class Unreadable(Exception):  # noqa: N818 - no error: the file is only not understood
    """The text does not say it plainly."""


class Located:
    """What stands for the results of ``locate_weights``, which only its call can tell."""

    PATH = "\0path\0"
    KIND = "\0kind\0"


class Scope:
    """The names of a file: its constants, its imports, its functions, its located weights."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))
        self.imported = dict(_imports(self.nodes))
        self.constants: dict[str, Any] = {}
        self._functions = {n.name: n for n in self.nodes if isinstance(n, ast.FunctionDef)}
        self._located: dict[str, Mapping[str, Any]] = {}
        for name, value in _assigned_once(tree, self.nodes):
            with suppress(Unreadable):
                self.constants[name] = self._value(value)
        self._located |= self._find_located()

    def located(self) -> list[Mapping[str, Any]]:
        """Return the arguments of each call of ``locate_weights`` that is kept under a name."""
        return list(self._located.values())

    def text(self, node: ast.expr | None) -> str:
        """Return the string that an expression is, with the marks of ``Located`` in it."""
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(part) for part in node.values)
        if isinstance(node, ast.FormattedValue) and node.conversion == -1 and not node.format_spec:
            return self.text(node.value)
        if isinstance(node, ast.Attribute) and _last_name(node.value) in self._located:
            marks = {"path": Located.PATH, "kind": Located.KIND}
            if node.attr in marks:
                return marks[node.attr]
        if isinstance(node, ast.Call) and _last_name(node.func) in ("str", "Path"):
            return self.text(node.args[0] if len(node.args) == 1 else None)
        return _string(self.literal(node))

    def _value(self, node: ast.expr) -> Any:
        try:
            return self.literal(node)
        except Unreadable:
            return self.text(node)  # an f-string of the constants above it

    def literal(self, node: ast.expr | None) -> Any:
        """Return the value of a literal, or of a name that is a constant."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.constants[node.id]
        try:
            return ast.literal_eval(node) if node is not None else None
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise Unreadable from None

    def weights_of(self, texts: list[str]) -> Mapping[str, Any] | None:
        """Return the one ``locate_weights`` that the texts refer to; None where they do not."""
        if not any(mark in text for text in texts for mark in (Located.PATH, Located.KIND)):
            return None
        if len(self._located) != 1:
            raise Unreadable
        return next(iter(self._located.values()))

    def body_of(self, constructor: ast.expr | None) -> ast.expr:
        """Return the expression whose value a constructor returns, the file's own calls inlined."""
        if isinstance(constructor, ast.Lambda):
            body = constructor.body
        else:
            body = self._returned(getattr(constructor, "id", ""))
        called = _last_name(body.func) if isinstance(body, ast.Call) else ""
        if called in self._functions and isinstance(body, ast.Call):
            return _inlined(body, self._functions[called], self._returned(called))
        return body

    def _returned(self, name: str) -> ast.expr:
        """Return what a function of the file returns, where it does nothing else."""
        function = self._functions.get(name)
        for statement in function.body if function is not None else ():
            if isinstance(statement, ast.Return) and statement.value is not None:
                return statement.value
            if not _does_nothing(statement):
                break
        raise Unreadable

    def transformers_class(self, node: ast.expr) -> str:
        """Return the name of the class of transformers that an expression is."""
        if isinstance(node, ast.Name):
            package, _, name = self.imported.get(node.id, "").partition(".")
        elif isinstance(node, ast.Attribute):
            package, name = _last_name(node.value), node.attr
        else:
            raise Unreadable
        if package != "transformers" or not name.isidentifier():
            raise Unreadable
        return name

    def _find_located(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for node in self.nodes:
            value = getattr(node, "value", None)
            if not isinstance(node, ast.Assign) or not isinstance(value, ast.Call):
                continue
            if _last_name(value.func) == "locate_weights" and len(node.targets) == 1:
                try:
                    found = {str(word.arg): self.literal(word.value) for word in value.keywords}
                    if value.args:
                        found["model_name"] = self.literal(value.args[0])
                except Unreadable:
                    continue
                yield _last_name(node.targets[0]), found


def model_plans(scope: Scope, preferences: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the fields of a ``ModelPlan`` for each call that is plain enough."""
    for node in scope.nodes:
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _GETTERS:
            try:
                yield _plan(node, scope, preferences)
            except Unreadable:
                continue


def first_name(scope: Scope) -> str | None:
    """Return the first model that a file names: MODEL_NAME, or what it asks the pool for."""
    named = scope.constants.get("MODEL_NAME")
    if isinstance(named, str):
        return named
    places = {"model": 0} | dict.fromkeys(_GETTERS, 1)
    calls = (node for node in scope.nodes if isinstance(node, ast.Call))
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        place = places.get(_last_name(call.func), len(call.args))
        with suppress(Unreadable):
            if place < len(call.args):
                return scope.text(call.args[place])
    return None


def _plan(call: ast.Call, scope: Scope, default: Mapping[str, Any] | None) -> dict[str, Any]:
    given: dict[str, ast.expr] = dict(zip(_PARAMETERS, call.args, strict=False))
    given |= {word.arg: word.value for word in call.keywords if word.arg}
    if len(given) != len(call.args) + len(call.keywords):
        raise Unreadable
    loading, evaluated = _loading(scope.body_of(given.get("constructor")))
    path, options = _arguments(loading, scope)
    variant = scope.text(given["variant"]) if "variant" in given else None
    return {
        "family": scope.text(given.get("model_type")),
        "name": scope.text(given.get("model_name")),
        "path": path,
        "auto_class": scope.transformers_class(loading.func.value),  # type: ignore[attr-defined]
        "evaluated": evaluated,
        "options": options,
        "variant": variant,
        "revision": scope.text(given["revision"]) if "revision" in given else None,
        "located": scope.weights_of([path, variant or ""]),
        **_preferences(given.get("hardware_preferences"), scope, default),
    }


def _loading(body: ast.expr) -> tuple[ast.Call, bool]:
    """Return the call of ``from_pretrained``, and whether ``.eval()`` follows it."""
    outer = _method_call(body, "eval")
    inner = body if outer is None else outer.func.value  # type: ignore[attr-defined]
    loading = _method_call(inner, "from_pretrained")
    if loading is None or len(loading.args) != 1:
        raise Unreadable
    return loading, outer is not None


def _arguments(loading: ast.Call, scope: Scope) -> tuple[str, dict[str, Any]]:
    options = {str(word.arg): scope.literal(word.value) for word in loading.keywords}
    if "None" in options or options.pop("trust_remote_code", False) is not False:
        raise Unreadable
    return scope.text(loading.args[0]), options


def _preferences(
    node: ast.expr | None, scope: Scope, default: Mapping[str, Any] | None
) -> dict[str, Any]:
    if node is None:
        return {"preferences": None, "from_environment": False}
    try:
        given = scope.literal(node)
    except Unreadable:
        # A generated file passes them through; whoever guesses wrong loads once in vain.
        return {"preferences": default, "from_environment": True}
    return {"preferences": given if isinstance(given, dict) else None, "from_environment": False}


def _imports(nodes: list[ast.AST]) -> Iterator[tuple[str, str]]:
    """Yield (the name in the file, what it is: "torch", "transformers.AutoModel")."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _assigned_once(tree: ast.Module, nodes: list[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a module assigns, where nothing else in the file assigns them."""
    counts = Counter(n.id for n in nodes if isinstance(n, ast.Name) and _is_stored(n))
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            if isinstance(target, ast.Name) and counts[target.id] == 1:
                yield target.id, node.value


def _is_stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _inlined(call: ast.Call, function: ast.FunctionDef, returned: ast.expr) -> ast.expr:
    """Return what a call returns: the function's expression with the arguments put in."""
    names = [parameter.arg for parameter in function.args.args]
    if isinstance(call.func, ast.Attribute) and names[:1] in (["self"], ["cls"]):
        del names[0]
    if call.keywords or len(call.args) != len(names):
        raise Unreadable
    given = dict(zip(names, call.args, strict=True))
    rest = function.args.kwarg.arg if function.args.kwarg else None
    return cast("ast.expr", _Substitution(given, rest).visit(copy.deepcopy(returned)))


class _Substitution(ast.NodeTransformer):
    """Puts arguments in the place of parameters; ``**rest`` is empty and goes."""

    def __init__(self, given: Mapping[str, ast.expr], rest: str | None) -> None:
        self._given, self._rest = given, rest

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._given.get(node.id, node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [word for word in node.keywords if not self._is_rest(word)]
        return self.generic_visit(node)

    def _is_rest(self, word: ast.keyword) -> bool:
        return word.arg is None and getattr(word.value, "id", "") == self._rest


def _does_nothing(statement: ast.stmt) -> bool:
    """Whether it is a docstring or an import; anything else may be what the file is about."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, (ast.Import, ast.ImportFrom))


def _method_call(node: ast.expr, name: str) -> ast.Call | None:
    """Return the node where it is a call of a method of that name."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node if node.func.attr == name else None
    return None


def _last_name(node: ast.expr) -> str:
    """Return "c" of both ``c`` and ``a.b.c``."""
    return str(getattr(node, "id", getattr(node, "attr", "")))


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Unreadable
    return value
