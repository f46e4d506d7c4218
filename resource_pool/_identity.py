"""What a model is to the pool, and the keys that this gives it."""

from __future__ import annotations

from dataclasses import dataclass

from resource_pool._store import quoted


@dataclass(frozen=True)
class Identity:
    """What makes models differ, besides where they are and in which precision."""

    family: str
    name: str
    revision: str = ""
    variant: str = ""

    @property
    def label(self) -> str:
        """Return "family:name", as messages and the log say it."""
        return f"{self.family}:{self.name}"

    @property
    def tokenizer_key(self) -> str:
        """Return the key of the tokenizer."""
        return f"tokenizer:{self._stem}"

    def key(self, device: str, dtype: str | None) -> str:
        """Return the key of the instance on a device, in a dtype."""
        return f"{self._stem}:{device}:{dtype or 'native'}"

    @property
    def _stem(self) -> str:
        extra = f"@{quoted(self.revision)}" if self.revision else ""
        extra += f"#{quoted(self.variant)}" if self.variant else ""
        return f"{quoted(self.family)}:{quoted(self.name)}{extra}"
