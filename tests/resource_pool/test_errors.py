"""What errors say of others."""

from __future__ import annotations

import pytest

from resource_pool.errors import first_line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No such operator.\nCheck failed at x.cpp:3", "No such operator"),
        ("\n  out of nodes\n", "out of nodes"),
        ("", "RuntimeError"),
        (" \n", "RuntimeError"),
    ],
)
def test_the_first_line_of_an_error_ends_a_sentence(said, told):
    assert first_line(RuntimeError(said)) == told
