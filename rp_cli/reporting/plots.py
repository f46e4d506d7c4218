"""Where the parts of the page's plots lie. Nothing here knows of SVG but its coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rp_cli.reporting.runs import Tidy

_MOST_TICKS = 7
_LANES = 40
_LABEL = 30


@dataclass(frozen=True)
class Frame:
    """The inner rectangle of a plot, in the units of its viewBox."""

    left: float
    top: float
    right: float
    bottom: float


SQUARE = Frame(left=84, top=16, right=444, bottom=376)
WIDE = Frame(left=250, top=26, right=980, bottom=0)
LANE = 26


def scatter(points: Sequence[Tidy]) -> dict[str, Any] | None:
    """Return {ticks, points} of predicted (x) against measured (y), both axes logarithmic.

    None where there is nothing to show. A tick has its label and its place on both axes.
    """
    sizes = [point[side] for point in points for side in ("predicted_mb", "measured_mb")]
    sizes = [size for size in sizes if size > 0]
    if not sizes:
        return None
    low, step, count = _powers(min(sizes), max(sizes))
    high = low + step * count

    def share(size: float) -> float:
        exponent = math.log2(max(size, 2.0**low))
        return (exponent - low) / (high - low)

    ticks = [2.0 ** (low + step * i) for i in range(count + 1)]
    return {
        "ticks": [{"label": size_label(t), **_on_both(share(t), share(t))} for t in ticks],
        "points": [
            {**point, **_on_both(share(point["predicted_mb"]), share(point["measured_mb"]))}
            for point in points
        ],
    }


def timeline(spans: Sequence[Tidy], seconds: float | None) -> dict[str, Any] | None:
    """Return {ticks, lanes, height, hidden}, time in seconds from left to right.

    None where there is nothing to show. Of very many lanes, the first are shown.
    """
    if not spans:
        return None
    ends = [span["end"] or span["start"] for span in spans]
    begin, end = min(0.0, *(span["start"] for span in spans)), max(seconds or 0.0, *ends)
    scale = (WIDE.right - WIDE.left) / ((end - begin) or 1.0)

    def place(second: float) -> float:
        return float(round(WIDE.left + (second - begin) * scale, 1))

    lanes = [_lane(span, index, place) for index, span in enumerate(spans[:_LANES])]
    ticks = [{"label": f"{at:g} s", "x": place(at)} for at in _seconds(begin, end)]
    return {
        "ticks": ticks,
        "lanes": lanes,
        "height": WIDE.top + LANE * len(lanes) + 8,
        "hidden": len(spans) - len(lanes),
    }


def size_label(megabytes: float) -> str:
    """Return a size for people: "512 KiB", "1.3 MiB", "16 GiB"."""
    for unit, size in (("TiB", 2.0**20), ("GiB", 2.0**10), ("MiB", 1.0)):
        if megabytes >= size:
            return f"{_three(megabytes / size)} {unit}"
    return f"{_three(megabytes * 1024)} KiB"


def _three(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 100 else f"{value:.0f}"


def _powers(smallest: float, largest: float) -> tuple[int, int, int]:
    """Return the exponent of the first tick, the step of exponents, and how many steps."""
    low, high = math.floor(math.log2(smallest)), math.ceil(math.log2(largest))
    high = max(high, low + 1)
    step = math.ceil((high - low) / (_MOST_TICKS - 1))
    return low, step, math.ceil((high - low) / step)


def _on_both(x: float, y: float) -> dict[str, float]:
    return {
        "x": round(SQUARE.left + x * (SQUARE.right - SQUARE.left), 1),
        "y": round(SQUARE.bottom - y * (SQUARE.bottom - SQUARE.top), 1),
    }


def _lane(span: Tidy, index: int, place: Any) -> Tidy:
    start = place(span["start"])
    ended = span["latest"] if span["end"] is None else span["end"]
    end = WIDE.right if ended is None else min(place(ended), WIDE.right)
    return {
        **span,
        "label": _shortened(_named(span)),
        "x": start,
        "y": WIDE.top + LANE * index,
        "width": max(round(end - start, 1), 2.0),
    }


def _named(span: Tidy) -> str:
    elsewhere = span["device"] not in (None, "cpu")
    return f"{span['model_name']} on {span['device']}" if elsewhere else str(span["model_name"])


def _shortened(name: str) -> str:
    """Return a name that fits beside a lane; of a path, its end says most."""
    return name if len(name) <= _LABEL else f"…{name[1 - _LABEL :]}"


def _seconds(begin: float, end: float) -> list[float]:
    rough = max((end - begin) / _MOST_TICKS, 1e-3)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(begin / step)
    return [i * step for i in range(first, math.floor(end / step) + 1)]
