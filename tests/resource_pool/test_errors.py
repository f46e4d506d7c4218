"""What errors say of others."""

from __future__ import annotations

import pytest

from resource_pool.errors import first_line, type_and_first_line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("No such operator.\nCheck failed at x.cpp:3", "No such operator"),
        ("\n  out of nodes\n", "out of nodes"),
        ("", "RuntimeError"),
        (" \n", "RuntimeError"),
        (
            "Validation error for field 'n':\n    TypeError: no int\n  more",
            "Validation error for field 'n': TypeError: no int",
        ),
    ],
)
def test_the_first_line_of_an_error_ends_a_sentence(said, told):
    assert first_line(RuntimeError(said)) == told


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("out of nodes.\nat x", "KindError: out of nodes."),
        ("", "KindError: "),
        ("x" * 300, "KindError: " + "x" * 200),
    ],
)
def test_the_first_line_with_the_type_is_short(said, told):
    assert type_and_first_line(type("KindError", (Exception,), {})(said)) == told
