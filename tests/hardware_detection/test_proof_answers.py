from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware_detection.answers import ProofError, read_answer
from hardware_detection.proofs import matrices, torch_devices
from hardware_detection.proofs.qnn_device import matrix_product_model


def test_the_expected_product_is_exact_in_every_format() -> None:
    product = matrices.expected()
    assert len(product) == matrices.SIZE**2
    assert max(map(abs, product)) <= 32
    # A constant or a repeated row would let a broken device pass.
    rows = {product[i : i + matrices.SIZE] for i in range(0, len(product), matrices.SIZE)}
    assert len(rows) == matrices.SIZE
    assert {value for row in matrices.left() + matrices.right() for value in row} == {-1, 0, 1}


def test_right_results_prove_their_formats(fake: Any) -> None:
    row = fake.gpu_row(results={"fp32": list(map(float, matrices.expected())), "fp16": "refused"})
    answer = read_answer(json.dumps(fake.answer(row, torch="2.13")))
    (device,) = answer.devices
    assert answer.proved
    assert device.dtypes == ("fp32",)
    assert device.problem == ""
    assert device.facts["dtypes_failed"] == {"fp16": "refused"}
    assert answer.facts == {"torch": "2.13"}


def test_devices_come_in_the_order_of_their_index(fake: Any) -> None:
    text = json.dumps(fake.answer(fake.gpu_row(1), fake.gpu_row(0)))
    assert [device.index for device in read_answer(text).devices] == [0, 1]


@pytest.mark.parametrize(
    "result",
    [[], [0] * 1024, list(matrices.expected())[:-1], None, 3.0, [None] * 1024, {"a": 1}, ""],
    ids=["empty", "zeros", "short", "null", "number", "nulls", "object", "no message"],
)
def test_a_wrong_result_proves_nothing(fake: Any, result: object) -> None:
    answer = read_answer(json.dumps(fake.answer(fake.gpu_row(results={"fp32": result}))))
    assert not answer.proved
    assert answer.devices[0].problem


def test_one_wrong_number_proves_nothing(fake: Any) -> None:
    numbers = list(matrices.expected())
    numbers[777] += 1
    answer = read_answer(json.dumps(fake.answer(fake.gpu_row(results={"fp32": numbers}))))
    assert answer.devices[0].problem == "computed a wrong result"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Segmentation fault",
        "null",
        "[]",
        "{}",
        '{"devices": {}, "facts": 3}',
        '{"devices": [3], "facts": {}}',
        '{"devices": [{"index": -1, "results": {}}], "facts": {}}',
        '{"devices": [{"index": true, "results": {}}], "facts": {}}',
        '{"devices": [{"index": 0, "results": [], "facts": {}}], "facts": {}}',
        '{"devices": [{"index": 0, "results": {}, "memory_total_mb": -1}], "facts": {}}',
        '{"devices": [{"index": 0, "results": {}, "memory_free_mb": "80 GB"}], "facts": {}}',
        "[" * 100_000,
    ],
    ids=range(13),
)
def test_nonsense_is_said_to_be_nonsense(text: str) -> None:
    with pytest.raises(ProofError, match="nonsense"):
        read_answer(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_vendors_number_that_json_does_not_have_is_unknown(number: str) -> None:
    row = (
        f'{{"index": 0, "results": {{"fp32": [{number}]}}, "memory_total_mb": {number},'
        f' "facts": {{"limit": {number}, "limits": {{"a": [{number}, 1.5]}}}}}}'
    )
    answer = read_answer(f'{{"devices": [{row}], "facts": {{"driver": {number}}}}}')
    (device,) = answer.devices
    assert (device.memory_total_mb, device.dtypes) == (None, ())
    assert device.facts == {"limit": None, "limits": {"a": [None, 1.5]}}
    assert answer.facts == {"driver": None}


def test_the_childs_own_error_is_passed_on() -> None:
    with pytest.raises(ProofError, match="ImportError: no libcuda"):
        read_answer('{"error": "ImportError: no libcuda"}')


@given(st.text())
def test_no_text_proves_anything(text: str) -> None:
    try:
        proved = read_answer(text).proved
    except ProofError:
        proved = False
    assert not proved


def test_the_onnx_model_computes_the_product() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy

    session = onnxruntime.InferenceSession(
        matrix_product_model(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"left": numpy.array(matrices.left(), numpy.float32)})
    assert tuple(result.flatten().tolist()) == matrices.expected()


def test_the_onnx_model_carries_the_weights_once() -> None:
    model = matrix_product_model()
    assert model.count(b"MatMul") == 1
    assert 4096 < len(model) < 4400


class Factor:
    """A tensor on a GPU that is not here; remembers how it lies in memory."""

    def __init__(self, layout: str = "rows") -> None:
        self.device = SimpleNamespace(type="cuda")
        self.layout = layout

    def t(self) -> Factor:
        return Factor({"rows": "columns", "columns": "rows"}[self.layout])

    def contiguous(self) -> Factor:
        return Factor("rows")

    def to(self, device: object) -> Factor:
        return self

    def __matmul__(self, other: Factor) -> str:
        return "matmul"


@pytest.mark.parametrize("old", [False, True])
def test_eight_bit_products_take_the_calls_that_gpus_have(old: bool) -> None:
    def scaled(left: Factor, right: Factor, **options: object) -> object:
        assert (left.layout, right.layout) == ("rows", "columns")
        assert options["out_dtype"] == "bf16"
        return ("scaled", "amax") if old else "scaled"

    torch = SimpleNamespace(
        int8="int8",
        float8_e4m3fn="fp8",
        bfloat16="bf16",
        tensor=lambda value: Factor(),
        _int_mm=lambda left, right: "integer",
        _scaled_mm=scaled,
    )
    called = {
        dtype: torch_devices._multiply(torch, Factor(), Factor(), dtype)
        for dtype in ("fp8", "int8", "fp16")
    }
    assert called == {"fp8": "scaled", "int8": "integer", "fp16": "matmul"}


def test_a_torch_without_fp8_still_multiplies() -> None:
    torch = SimpleNamespace(int8="int8")
    assert torch_devices._multiply(torch, Factor(), Factor(), "fp16") == "matmul"


def test_the_fp8_call_is_right_where_torch_can_be_tried() -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch, "float8_e4m3fn"):
        pytest.skip("this torch has no fp8")
    left, right = (
        torch.tensor(rows, dtype=torch.float8_e4m3fn)
        for rows in (matrices.left(), matrices.right())
    )
    # The CPU has the same call; nothing but the device's name is made up.
    product = torch_devices._scaled_product(torch, left, right)
    assert tuple(product.to(torch.float32).flatten().tolist()) == matrices.expected()
