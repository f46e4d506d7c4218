"""Where requests led: the same request leads there again while the model is cached."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, replace

from resource_pool._plans import Request


@dataclass(frozen=True)
class Route:
    """A key, and whether the caller named devices."""

    key: str
    explicit: bool


class Routes:
    """The routes by what was asked for. No lock of its own: the store's lock guards it."""

    def __init__(self) -> None:
        self._routes: dict[Hashable, Route] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._routes)

    def get(self, signature: Hashable) -> Route | None:
        """Return where a request led; None where it is new."""
        return self._routes.get(signature)

    def lead(self, signature: Hashable, key: str, request: Request) -> None:
        """Note where a request leads."""
        explicit = bool(request.preferences.device or request.preferences.priority_list)
        self._routes[signature] = Route(key, explicit)

    def repoint(self, old: str, new: str, *, explicit: bool = True) -> None:
        """Let routes to one key lead to another; without ``explicit``, those that named devices
        stay.
        """
        for signature, route in self._routes.items():
            if route.key == old and (explicit or not route.explicit):
                self._routes[signature] = replace(route, key=new)

    def keep(self, live: Collection[str]) -> None:
        """Drop the routes to other keys than these."""
        self._routes = {s: route for s, route in self._routes.items() if route.key in live}
