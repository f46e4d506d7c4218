"""Blocks of a user's template that nothing asks for: they would be left out in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hardware_detection.errors import hint_at, nearest
from rp_cli.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2 import Environment, nodes


def refuse_unknown_blocks(environment: Environment, name: str, folder: Path) -> None:
    """Refuse a template with a block that none of those that it extends has.

    A template that extends nothing may have any. What cannot be read or found is told where it
    is rendered.

    Raises:
        BadInputError: there is such a block; says where, and which it may be meant to be.
    """
    from jinja2 import nodes

    chain = [*_chain(environment, name)]
    known: set[str] = set()
    for at, (place, tree) in reversed([*enumerate(chain)]):
        is_child = at + 1 < len(chain)
        for block in _outermost(tree) if is_child else ():
            if block.name not in known | _called(tree):
                near = hint_at(nearest(block.name, sorted(known)))
                raise BadInputError(
                    f"The template {folder}/{place}, line {block.lineno} is wrong: what it "
                    f"extends has no block {block.name!r}{near}; there is "
                    f"{', '.join(sorted(known)) or 'none'}."
                )
        known |= {block.name for block in tree.find_all(nodes.Block)}


def _chain(environment: Environment, name: str) -> Iterator[tuple[str, nodes.Template]]:
    """Yield a template and those that it extends; ends early where a name is only computed."""
    from jinja2 import TemplateError, nodes

    seen: set[str] = set()
    trees = []
    while environment.loader and name not in seen:
        seen.add(name)
        try:
            tree = environment.parse(environment.loader.get_source(environment, name)[0])
        except (TemplateError, OSError, ValueError, RecursionError):
            return
        trees.append((name, tree))
        parent = tree.find(nodes.Extends)
        if parent is None:
            yield from trees
            return
        if not isinstance(parent.template, nodes.Const):
            return
        name = str(parent.template.value)


def _outermost(node: nodes.Node) -> Iterator[nodes.Block]:
    """Yield the blocks that stand in no other; those inside one are its own."""
    from jinja2 import nodes

    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Block):
            yield child
        else:
            yield from _outermost(child)


def _called(tree: nodes.Template) -> set[str]:
    """Return the blocks that a template calls itself: ``{{ self.name() }}``."""
    from jinja2 import nodes

    return {
        found.attr
        for found in tree.find_all(nodes.Getattr)
        if isinstance(found.node, nodes.Name) and found.node.name == "self"
    }
