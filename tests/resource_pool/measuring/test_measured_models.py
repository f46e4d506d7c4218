"""Forwards, states and room, measured on a small model of transformers."""

from __future__ import annotations

import copy
import json
import unittest

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from resource_pool import (
    DeviceUnavailableError,
    InsufficientMemoryError,
    get_global_resource_pool,
    measuring,
)
from resource_pool.measuring.products import Products
from resource_pool.prediction.live import watching
from resource_pool.weights import Weights

CONFIG = BertConfig(
    vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
INPUTS = {"input_ids": torch.arange(12).view(2, 6)}


@pytest.fixture
def model():
    return BertModel(copy.deepcopy(CONFIG)).eval()


def test_a_forward_is_as_its_config_predicts(model):
    predicted = measuring.predicted_forward(model, INPUTS)
    measured = measuring.measured_forward(model, INPUTS)
    assert measured.layout == predicted.layout
    assert measured.layout["last_hidden_state"] == ((2, 6, 16), "float32")
    assert measured.computed_in == predicted.computed_in == {"float32"}
    assert measured.peak_bytes <= predicted.limit_bytes(torch.device("cpu"))


def test_a_prediction_knows_nothing_of_the_instance(model):
    original = model.forward
    model.forward = lambda **given: original(**{**given, "hoard": torch.empty(10**7)})
    model.forward = lambda **given: (torch.empty(10**7), original(**given))[1]
    predicted = measuring.predicted_forward(model, INPUTS)
    measured = measuring.measured_forward(model, INPUTS)
    assert measured.peak_bytes > predicted.limit_bytes(torch.device("cpu"))


def test_half_precision_inside_a_forward_is_seen(model):
    original = model.forward

    def forward(**given):
        with torch.autocast("cpu", torch.bfloat16):
            return original(**given)

    model.forward = forward
    assert "bfloat16" in measuring.measured_forward(model, INPUTS).computed_in


@pytest.mark.parametrize("kernel", list(torch.nn.attention.SDPBackend.__members__.values()))
def test_attention_is_in_the_format_of_its_arguments_whatever_its_kernel(model, kernel):
    """The kernel that torch falls back to converts bfloat16 to float32 inside."""
    model.to(torch.bfloat16)
    allowed = [kernel, torch.nn.attention.SDPBackend.MATH]
    with torch.nn.attention.sdpa_kernel(allowed, set_priority=True):
        assert measuring.measured_forward(model, INPUTS).computed_in == {"bfloat16"}


HALF = torch.ones(16, 16, dtype=torch.bfloat16)


def lstm_in_half():
    return torch.nn.LSTM(16, 16).to(torch.bfloat16)(HALF)


@pytest.mark.parametrize(
    "multiply",
    [
        lambda: torch._grouped_mm(
            HALF, torch.ones(2, 16, 16, dtype=torch.bfloat16), offs=torch.tensor([8, 16]).int()
        ),
        lambda: HALF @ HALF[0],
        lambda: HALF[0] @ HALF[0],
        lambda: torch.addmv(HALF[0], HALF, HALF[0]),
        lambda: torch.addbmm(HALF, HALF[None], HALF[None]),
        lstm_in_half,
    ],
    ids=["experts", "vector", "dot", "addmv", "addbmm", "lstm"],
)
def test_half_precision_in_every_kind_of_product_is_seen(multiply):
    products = Products(lambda op, args: None)
    with torch.no_grad(), watching(None, products.note):
        multiply()
    assert products.dtypes == {"bfloat16"}


def test_half_precision_inside_attention_is_seen():
    def rounded(query, *others, **options):
        return query.bfloat16() @ query.bfloat16().mT

    products = Products(lambda op, args: None)
    one = torch.ones(2, 2)
    with watching(None, products.note):
        products._attend(rounded, (one, one, one), {})
    assert products.dtypes == {"float32", "bfloat16"}


def test_a_forward_that_needs_values_is_skipped_with_the_reason(model, monkeypatch):
    def forward(self, **given):
        raise ValueError("no values here")

    monkeypatch.setattr(BertModel, "forward", forward)
    with pytest.raises(unittest.SkipTest, match="no values here"):
        measuring.predicted_forward(model, INPUTS)


def test_a_prediction_leaves_no_tensor_without_data_in_caches_of_the_library(model):
    from transformers.pytorch_utils import compile_compatible_method_lru_cache

    @compile_compatible_method_lru_cache(maxsize=1)
    def cached(size):
        return torch.ones(size)

    class Caching(type(model)):
        def forward(self, **inputs):
            return {"cached": cached(3), **super().forward(**inputs)}

    inputs = measuring.example_inputs(model)
    model.__class__ = Caching
    measuring.predicted_forward(model, inputs)
    assert cached(3).tolist() == [1, 1, 1]


def touch(model):
    next(model.parameters()).data[0] += 1


@pytest.mark.parametrize(
    "change",
    [
        touch,
        lambda model: model.train(),
        lambda model: model.encoder.train(),
        lambda model: model.register_forward_hook(lambda *_: None),
        lambda model: next(model.parameters()).requires_grad_(False),
        lambda model: setattr(model.config, "use_cache", False),
    ],
    ids=["weight", "training", "training inside", "hook", "gradient", "config"],
)
def test_every_change_of_a_model_is_seen(model, change):
    before = measuring.state_of(model)
    assert measuring.state_of(model) == before
    change(model)
    assert measuring.state_of(model) != before


def test_tied_weights_count_once_and_untied_ones_do_not(model):
    model.twin = torch.nn.Linear(16, 16, bias=False)
    model.twin.weight = model.pooler.dense.weight
    assert "twin.weight" not in measuring.weights_of(model)
    model.twin.weight = torch.nn.Parameter(model.pooler.dense.weight.detach().clone())
    assert "twin.weight" in measuring.weights_of(model)


def loads_as(folder):
    return str(BertModel.from_pretrained(folder).dtype).removeprefix("torch.")


def test_the_dtype_is_that_of_most_parameters_where_the_config_has_none(model, tmp_path):
    model.to(torch.bfloat16)
    model.pooler.float()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert measuring.loaded_dtype(tmp_path) == loads_as(tmp_path) == "bfloat16"


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_dtype_of_the_config_goes_before_that_of_the_files(model, tmp_path, key):
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype", None)
    (tmp_path / "config.json").write_text(json.dumps({**config, key: "bfloat16"}))
    assert measuring.loaded_dtype(tmp_path) == loads_as(tmp_path) == "bfloat16"
    weights = Weights("m", tmp_path, "pretrained", "", 0)
    assert measuring.wanted_dtype("embedding", "m", {"device": "cpu"}, weights) == "bfloat16"


@pytest.mark.parametrize(
    ("config", "stored"),
    [({"quantization_config": {"quant_method": "gptq"}}, torch.float16), ({}, torch.int32)],
)
def test_quantised_files_say_nothing_of_the_dtype(config, stored, tmp_path):
    save_file({"a": torch.zeros(2, dtype=stored)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert measuring.loaded_dtype(tmp_path) is None
    with pytest.raises(unittest.SkipTest, match="quantised"):
        measuring.wanted_dtype(
            "embedding", "m", {"device": "cpu"}, Weights("m", tmp_path, "pretrained", "", 0)
        )


def test_too_little_room_is_a_skip_with_the_arithmetic(model, monkeypatch):
    stats = {"system_memory": {"available_mb": 7.8 * 1024}}
    monkeypatch.setattr(type(get_global_resource_pool()), "get_stats", lambda _: stats)
    with pytest.raises(unittest.SkipTest, match=r"needs 9\.1 GiB, 7\.8 free in this machine"):
        measuring.need_memory(int(9.1 * 2**30))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with (
        pytest.raises(unittest.SkipTest, match="free on the disk"),
        measuring.scratch_folder(model),
    ):
        pytest.fail("there is no room")


def test_memory_that_runs_out_for_a_second_copy_is_a_skip_and_other_errors_are_not(model):
    with (
        pytest.raises(unittest.SkipTest, match=r"needs 0\.0 GiB for a second copy, .*ran out"),
        measuring.scratch_folder(model),
    ):
        raise MemoryError("Cannot allocate memory")
    with pytest.raises(RuntimeError, match="shapes"), measuring.scratch_folder(model):
        raise RuntimeError("shapes do not match")


class AutoNothing:
    @staticmethod
    def from_pretrained(folder, *, trust_remote_code):
        assert trust_remote_code is False
        raise OSError("no processor in this folder")


def test_a_twin_may_lack_a_processor_and_a_real_model_may_not(tmp_path):
    twin = Weights("m", tmp_path, "tiny", "", 0)
    assert isinstance(measuring.processor_of(AutoNothing, twin), measuring.NoProcessor)
    with pytest.raises(OSError, match="no processor"):
        measuring.processor_of(AutoNothing, Weights("m", tmp_path, "pretrained", "", 0))


class Wordless:
    all_special_ids = (0, 1)
    pad_token = "[PAD]"

    def __len__(self):
        return len(self.all_special_ids)


class AutoEmpty:
    @staticmethod
    def from_pretrained(folder, *, trust_remote_code):
        return Wordless()


def test_a_tokenizer_that_knows_no_word_is_not_the_models(tmp_path):
    """What transformers makes of a folder without one: each word would be unknown."""
    with pytest.raises(OSError, match="has no tokenizer; save the model's there"):
        measuring.processor_of(AutoEmpty, Weights("m", tmp_path, "pretrained", "", 0))
    twin = Weights("m", tmp_path, "tiny", "", 0)
    assert len(measuring.processor_of(AutoEmpty, twin)) == 2
    get_global_resource_pool().clear()


class AutoTokenizer:
    @classmethod
    def from_pretrained(cls, folder, *, trust_remote_code):
        tokenizer = cls()
        tokenizer.pad_token, tokenizer.eos_token = None, "<end>"
        return tokenizer


def test_a_tokenizer_is_shared_and_pads_with_its_end_where_it_must(tmp_path):
    weights = Weights("m", tmp_path, "pretrained", "", 0)
    tokenizer = measuring.processor_of(AutoTokenizer, weights)
    assert tokenizer.pad_token == "<end>"
    assert measuring.processor_of(AutoTokenizer, weights) is tokenizer
    get_global_resource_pool().clear()


@pytest.mark.parametrize(
    "error", [DeviceUnavailableError("cuda is absent"), InsufficientMemoryError("needs 9.1 GiB")]
)
def test_what_is_not_here_and_what_has_no_room_is_a_skip(error):
    with pytest.raises(unittest.SkipTest, match=str(error)), measuring.reported("m", {}):
        raise error
