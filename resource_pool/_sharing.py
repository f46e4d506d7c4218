"""Models that have memory in common: which they are, and who of them answers for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resource_pool._entries import Entry
from resource_pool._ledger import Place, per_device


def sharing(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the entries in groups that have memory in common; most are a group of their own."""
    if not any(entry.shares for entry in entries):
        return [[entry] for entry in entries]
    groups: list[list[Entry]] = []
    for entry in entries:
        near = [group for group in groups if any(_is_near(entry, other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(one for group in near for one in group), entry])
    return groups


def _is_near(one: Entry, other: Entry) -> bool:
    return one.created_for in other.shares or other.created_for in one.shares


def shared_sizes(group: Sequence[Entry]) -> Iterator[tuple[Entry, dict[str, int]]]:
    """Yield each entry with the bytes per device for which an older one of the group answers."""
    seen: set[Place] = set()
    for entry in sorted(group, key=lambda one: one.created_at):
        yield entry, per_device(entry.places, among=seen)
        seen |= entry.places.keys()
