"""Models that have memory in common: which they are, and who of them answers for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resource_pool._entries import Entry

if TYPE_CHECKING:
    from resource_pool._shelf import Memories


def sharing(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the entries in groups that have parts in common; most are a group of their own."""
    if not any("shares" in entry.facts for entry in entries):
        return [[entry] for entry in entries]
    groups: list[list[Entry]] = []
    for entry in entries:
        related = {entry.created_for, *entry.facts.get("shares", ())}
        near = [
            group
            for group in groups
            if any(related & {o.created_for, *o.facts.get("shares", ())} for o in group)
        ]
        groups = [group for group in groups if group not in near]
        groups.append([*(one for group in near for one in group), entry])
    return groups


def answer_anew(group: Sequence[Entry], memories: Memories) -> dict[int, Any]:
    """Let each entry answer for the memory for which no older one of its group answers.

    Returns:
        All that they have their memory in, by its ``id``.
    """
    seen: dict[int, Any] = {}
    for entry in sorted(group, key=lambda one: one.created_at):
        mine = {id(one): one for one in memories.storages(entry.value)}
        shared = [one for number, one in mine.items() if number in seen]
        # Another dict: somebody may be reading this one.
        entry.facts = {**entry.facts, "shared_sizes": memories.sizes(shared)}
        seen |= mine
    return seen
