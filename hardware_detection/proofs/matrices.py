"""The small matrix product with which every backend is proved.

All entries are -1, 0 or 1 and the size is 32, so that every product and partial sum is a whole
number of at most 32: exact in int8, float16 and bfloat16, whatever the order of summation.
"""

from __future__ import annotations

from functools import lru_cache

# The least size that CUDA's int8 matrix product takes (more than 16 rows, multiples of 8).
SIZE = 32


def left() -> list[list[int]]:
    """Return the left factor, row by row."""
    return [
        [(31 * i * i + 17 * j * j + 7 * i * j) % 101 % 3 - 1 for j in range(SIZE)]
        for i in range(SIZE)
    ]


def right() -> list[list[int]]:
    """Return the right factor, row by row."""
    return [
        [(13 * i * i + 29 * j * j + 11 * i * j) % 103 % 3 - 1 for j in range(SIZE)]
        for i in range(SIZE)
    ]


@lru_cache(maxsize=1)
def expected() -> tuple[int, ...]:
    """Return the product, row after row, computed with Python's whole numbers."""
    columns = list(zip(*right(), strict=True))
    return tuple(
        sum(a * b for a, b in zip(row, column, strict=True)) for row in left() for column in columns
    )
