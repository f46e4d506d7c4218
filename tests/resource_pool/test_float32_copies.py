"""Copies in float32 of models that are stored in half precision."""

from __future__ import annotations

import threading

import pytest

from resource_pool import UnsupportedOperationError

torch = pytest.importorskip("torch")

from resource_pool.devices.float32 import as_float32, in_float32  # noqa: E402


class Tied(torch.nn.Module):
    def __init__(self, dtype) -> None:
        super().__init__()
        self.first = torch.nn.Linear(4, 4, dtype=dtype)
        self.norm = torch.nn.LayerNorm(4)
        self.last = torch.nn.Linear(4, 4, dtype=dtype)
        self.last.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4, dtype=dtype))


def test_a_model_in_float32_is_no_copy():
    model = Tied(torch.float32)
    assert in_float32(model) is model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_only_what_is_in_half_precision_is_copied_and_ties_stay(dtype):
    model = Tied(dtype)
    made = in_float32(model)
    assert {value.dtype for value in made.state_dict().values()} == {torch.float32}
    assert made.last.weight is made.first.weight
    assert made.norm.weight is model.norm.weight
    assert torch.equal(made.first.weight, model.first.weight.float())
    assert (model.first.weight.dtype, model.scale.dtype) == (dtype, dtype)


def test_what_cannot_be_copied_is_said():
    model = Tied(torch.bfloat16)
    model.lock = threading.Lock()
    with pytest.raises(UnsupportedOperationError, match=r"torch\.float32"):
        in_float32(model)


def test_other_inputs_than_half_precision_stay():
    tokens = torch.arange(3)
    assert as_float32(tokens) is tokens
    assert as_float32(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
