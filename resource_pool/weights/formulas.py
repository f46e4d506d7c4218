"""The small language of sizes in the table of exceptions: sums of products (``2*grid+1``)."""

from __future__ import annotations

import re
from collections.abc import Callable


def evaluate(text: str | int, lookup: Callable[[str], int]) -> int:
    """Return the value of a formula; division is whole, and ``lookup`` gives the named sizes."""
    return sum(_product(term, lookup) for term in str(text).split("+"))


def _product(term: str, lookup: Callable[[str], int]) -> int:
    total = 1
    for operator, factor in re.findall(r"([*/]?)([^*/]+)", term):
        value = int(factor) if factor.isdigit() else lookup(factor)
        total = total // value if operator == "/" else total * value
    return total
