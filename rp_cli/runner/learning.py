"""What a test file is going to need, read from its text; nothing of it is executed.

What cannot be read is left out: the file then imports and loads it by itself.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hardware_detection.names import OPENVINO
from rp_cli.runner.constructing import Scope, first_name, model_plans

_MOST_BYTES = 1 << 21
# What is worth importing before the files are run: it is slow, and the same for all.
_SHARED_IMPORTS = ("torch", "transformers", "resource_pool", "numpy", "pytest")

Style = Literal["unittest", "pytest"]


@dataclass(frozen=True)
class ModelPlan:
    """A model that a file gets from the pool, as far as somebody else can load it for the file.

    ``path`` may be ``Located.PATH`` and ``variant`` may contain ``Located.KIND``: then
    ``located`` are the arguments of ``locate_weights``. ``preferences``: those in the file;
    ``from_environment``: TEST_HARDWARE_PREFERENCES replaces them.
    """

    family: str
    name: str
    path: str
    auto_class: str
    evaluated: bool
    options: Mapping[str, Any]
    variant: str | None
    revision: str | None
    located: Mapping[str, Any] | None
    preferences: Mapping[str, Any] | None
    from_environment: bool

    @property
    def key(self) -> str:
        """Return what two plans have in common exactly where they load the same."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Facts:
    """What is known of a file beforehand.

    ``alone``: why it must have a process that nobody prepared, or "". ``classes`` are names of
    transformers' classes; ``types`` are its model types.
    """

    style: Style = "unittest"
    alone: str = ""
    imports: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    models: tuple[ModelPlan, ...] = ()
    preferences: Mapping[str, Any] | None = None
    uses_models: bool = False


def read_facts(file: Path) -> Facts:
    """Return what a file's text says; nothing where it is no readable Python."""
    tree = _parsed(file)
    return Facts() if tree is None else _facts(tree, file)


def first_model(file: Path) -> str | None:
    """Return the first model that a file names; None where it names none plainly."""
    tree = _parsed(file)
    return None if tree is None else first_name(Scope(tree))


def _parsed(file: Path) -> ast.Module | None:
    try:
        if file.stat().st_size > _MOST_BYTES:
            return None
        return ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _facts(tree: ast.Module, file: Path) -> Facts:
    scope = Scope(tree)
    packages = {name.partition(".")[0] for name in scope.imported.values()}
    style: Style = "pytest" if "pytest" in packages or _looks_like_pytest(tree) else "unittest"
    preferences = scope.constants.get("HARDWARE_PREFERENCES")
    types = scope.constants.get("MODEL_TYPE"), *(one.get("model_type") for one in scope.located())
    shared = packages | ({"torch", "transformers"} if "resource_pool" in packages else set())
    return Facts(
        style=style,
        alone=_plugins(tree, file) if style == "pytest" else "",
        imports=(
            *(name for name in _SHARED_IMPORTS if name in shared | {style}),
            *sorted(one for one in scope.imported.values() if one.startswith("resource_pool.")),
            *((OPENVINO,) if "resource_pool" in packages and _names(scope, OPENVINO) else ()),
        ),
        classes=tuple(sorted(_transformers_names(scope))),
        types=tuple(sorted({one for one in types if isinstance(one, str)})),
        models=tuple(_plans(scope, preferences)),
        preferences=preferences if isinstance(preferences, dict) else None,
        uses_models=bool(packages & {"torch", "transformers", "resource_pool"}),
    )


def _plans(scope: Scope, preferences: Any) -> Iterator[ModelPlan]:
    default = preferences if isinstance(preferences, dict) else None
    seen = set()
    for found in model_plans(scope, default):
        plan = ModelPlan(**found)
        try:
            key = plan.key
        except (TypeError, ValueError):  # an option that is no JSON: bytes, a complex number
            continue
        if key not in seen:
            seen.add(key)
            yield plan


def _names(scope: Scope, word: str) -> bool:
    """Whether a text in the file is this very word."""
    return any(isinstance(node, ast.Constant) and node.value == word for node in scope.nodes)


def _transformers_names(scope: Scope) -> Iterator[str]:
    for origin in scope.imported.values():
        package, _, name = origin.partition(".")
        if package == "transformers" and name.isidentifier():
            yield name
    for node in scope.nodes:
        # `transformers.AutoModel`, `cls.transformers.AutoModel`
        if isinstance(node, ast.Attribute) and node.attr[:1].isupper():
            base = node.value
            if getattr(base, "id", getattr(base, "attr", "")) == "transformers":
                yield node.attr


def _looks_like_pytest(tree: ast.Module) -> bool:
    """Whether a file has tests that unittest would not find; pytest finds those of both styles."""
    plain = {"object"}
    for node in _outermost(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name.startswith("test"):
                return True
        elif isinstance(node, ast.ClassDef):
            if not all(getattr(base, "id", "") in plain for base in node.bases):
                plain.discard(node.name)
            elif node.name.startswith("Test"):
                return True
            else:
                plain.add(node.name)
    return False


def _outermost(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield a module's statements in their order, with those inside an ``if`` or a ``try``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.Module, ast.If, ast.Try, ast.ExceptHandler)):
            waiting += reversed([*ast.iter_child_nodes(node)])


def _plugins(tree: ast.Module, file: Path) -> str:
    """Return why a pytest file must not run in a forked process: who knows what a plugin does."""
    if any(name == "pytest_plugins" for node in tree.body for name in _targets(node)):
        return "it names pytest plugins"
    conftest = next((p / "conftest.py" for p in _folders(file) if (p / "conftest.py").exists()), "")
    return f"{conftest} may hold plugins" if conftest else ""


def _folders(file: Path) -> Iterator[Path]:
    """Yield the folders whose conftest.py counts: up to the top of the project, where it shows."""
    for folder in file.resolve().parents:
        yield folder
        if any((folder / name).exists() for name in ("pytest.ini", "pyproject.toml", ".git")):
            return


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]
