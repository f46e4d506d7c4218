"""What passes as torch's answer, and what must not."""

from __future__ import annotations

import pytest

from resource_pool import WrongResultError
from resource_pool.devices.comparing import LIMITS, compare

torch = pytest.importorskip("torch")
STATES = torch.manual_seed(0) and torch.randn(2, 16, 64)


def passes(expected, got, dtype="float32") -> float:
    return compare([expected], [got], LIMITS[dtype], "an engine", "here")


def refused(expected, got, dtype="float32") -> None:
    with pytest.raises(WrongResultError, match="an engine computes something else than torch"):
        passes(expected, got, dtype)


def test_rounding_passes_in_each_precision():
    enormous = STATES.clone()
    enormous[..., 3] += 300
    assert passes(enormous, enormous * (1 + 1e-6 * torch.randn_like(enormous))) < 1e-5
    assert passes(enormous, enormous.half().float(), "float16") < 1e-3
    assert passes(STATES, STATES.bfloat16().float(), "bfloat16") < 1e-2
    logits = 10 + 0.4 * torch.randn(2, 8)
    assert passes(logits, logits + 0.01 * torch.randn_like(logits), "int8") < 1e-2


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_channel_of_enormous_values_hides_nothing(dtype):
    theirs, ours = STATES.clone(), torch.randn_like(STATES)
    theirs[..., 0] = ours[..., 0] = 300
    refused(theirs, ours, dtype)


@pytest.mark.parametrize("dtype", [*LIMITS])
def test_another_greatest_label_in_each_row_is_another_answer(dtype):
    rows = torch.tensor([[10.4, 10.0, 9.6]]).repeat(4, 1)
    if dtype == "bfloat16":  # which has a digit less than that
        rows = rows - 9
    refused(rows, rows.flip(1), dtype)


def test_offsets_of_rows_hide_nothing():
    offsets = 10 * torch.randn(32, 1)
    theirs, ours = (offsets + 0.3 * torch.randn(32, 100) for _ in range(2))
    refused(theirs, ours, "int8")


@pytest.mark.parametrize("infinity", [-1e4, -1e9, -1e30, torch.finfo(torch.float32).min])
def test_what_stands_for_an_infinity_hides_nothing(infinity):
    refused(torch.tensor([infinity, 1, 2, 3]), torch.tensor([infinity, 3, -2, 1]))
    assert passes(torch.tensor([infinity, 1, 2]), torch.tensor([infinity, 1, 2])) == 0


def test_whole_numbers_and_complex_ones_are_compared():
    refused(torch.tensor([1, 2, 3]), torch.tensor([9, 9, 9]))
    refused(torch.tensor([True, False]), torch.tensor([True, True]))
    refused(torch.tensor([1 + 2j]), torch.tensor([1 - 2j]))
    assert passes(torch.tensor([1 + 2j]), torch.tensor([1 + 2j])) == 0
    assert passes(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3])) == 0


def test_another_shape_is_another_answer():
    refused(torch.zeros(0), torch.zeros(3))
    refused(torch.zeros(2, 3), torch.zeros(3, 2))


def test_not_a_number_is_another_answer():
    refused(torch.ones(3), torch.tensor([1, float("nan"), 1]))
