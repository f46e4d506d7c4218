"""What the shells complete behind an option; the words are looked up when Tab is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def among(words: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes one of these words."""
    known = tuple(words)

    def begun(incomplete: str) -> list[str]:
        return [word for word in known if word.startswith(incomplete)]

    return begun


def device(incomplete: str) -> list[str]:
    """Complete the kind of a device."""
    from hardware_detection import HARDWARE_NAMES

    return among(("auto", *HARDWARE_NAMES))(incomplete)


def family(incomplete: str) -> list[str]:
    """Complete a family of models."""
    from model_family_classifier import FAMILIES

    return among(FAMILIES)(incomplete)


def weights(incomplete: str) -> list[str]:
    """Complete a value of --weights."""
    from resource_pool.weights.locate import MODES

    return among(MODES)(incomplete)
