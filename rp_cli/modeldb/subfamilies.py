"""The subfamilies that rp says itself; a user's database may have others."""

from __future__ import annotations

from typing import Any

from hardware_detection.errors import hint_at, nearest


def notice_of(family: str, subfamily: str) -> str:
    """Return what to say of a subfamily that rp gives no model of that family; "" if it does."""
    from model_family_classifier.data import compiled_data
    from model_family_classifier.index import load_index

    known = sorted(_of(family, [compiled_data(), load_index()]))
    if subfamily in known:
        return ""
    hint = hint_at(nearest(subfamily, known))
    return (
        f"{subfamily!r} is no subfamily of {family} that rp knows{hint}; it is kept as it is. "
        f"rp says {', '.join(known) or 'none'}."
    )


def _of(family: str, data: Any) -> set[str]:
    """Return the subfamilies that stand beside the family, anywhere in the data."""
    if isinstance(data, dict):
        here = {data.get("subfamily")} if data.get("family") == family else set()
        return {name for name in here if name}.union(*(_of(family, one) for one in data.values()))
    if isinstance(data, list | tuple):
        return set().union(*(_of(family, one) for one in data))
    return set()
