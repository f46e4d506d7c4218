"""``rp predict``: the lines, the JSON, and what wrong input says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.testing import fake_report, use_report
from resource_pool.prediction import ladder, recorded_bytes
from rp_cli.app import main

MIB = 2**20
LLAMA = {
    "config_class": "LlamaConfig",
    "architecture": "LlamaForCausalLM",
    "weights_bytes": 12852 * MIB,
    "notes": [],
    "left_out": [],
    "seq": 4096,
    "inputs": {"input_ids": [1, 4096], "attention_mask": [1, 4096]},
    "peak_bytes": 2452 * MIB,
    "kv_cache_bytes": 2048 * MIB,
    "decode_peak_bytes": 2100 * MIB,
    "kv_bytes_per_token": MIB // 2,
}
MACHINE = fake_report(
    cuda=[{"name": "Small GPU", "memory_total_mb": 8192.0, "memory_free_mb": 7987.2}],
    memory_total_mb=65536.0,
    memory_available_mb=32768.0,
)


@pytest.fixture(autouse=True)
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every trace find a Llama of 7 billion parameters."""
    monkeypatch.setattr(ladder, "traced", lambda request, deadline_s: LLAMA)


@pytest.fixture
def rp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run rp as the shell would: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rp", *words])
        with pytest.raises(SystemExit) as ended, use_report(MACHINE):
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


LINES = """\
meta-llama/Llama-2-7b-hf: LlamaForCausalLM, float16, batch 1, seq 4096
  Config: defaults of LlamaConfig, not the real one
  Weights: 12.6 GiB
  Activations: 404.0 MiB
  KV cache: 2.0 GiB (512.0 KiB more with each token)
  Total: 14.9 GiB (traced without weights)
  cuda:0 (Small GPU): would not fit with these defaults: needs 17.2 GiB (14.9 GiB + 10% + \
768.0 MiB of cuda's own), 7.8 GiB free
  cpu (Fake CPU): would fit with these defaults: needs 15.7 GiB (14.9 GiB + 5%), 32.0 GiB free
"""


@pytest.mark.usefixtures("llama")
def test_an_unknown_architecture_is_the_one_in_the_users_database(rp: Any) -> None:
    code, _, err = rp("predict", "nobody/knows-this")
    assert code == 2
    assert "rp models add" in err
    assert "rp classify" not in err
    add = ("models", "add", "nobody/knows-this", "--family", "text_generation")
    assert rp(*add, "--model-type", "llama")[0] == 0
    code, out, err = rp("predict", "nobody/knows-this")
    assert (code, err) == (0, "")
    assert "LlamaForCausalLM" in out


@pytest.mark.usefixtures("llama")
def test_the_lines(rp: Any) -> None:
    words = ("predict", "meta-llama/Llama-2-7b-hf", "--seq", "4096", "--dtype", "fp16")
    assert rp(*words) == (0, LINES, "")


@pytest.mark.usefixtures("llama")
def test_described_devices_are_asked_about_instead_of_this_machine(rp: Any) -> None:
    _, out, _ = rp("predict", "gpt2", "--on", "h100:80GiB", "--on", "cpu:8GiB")
    needs = "needs 17.2 GiB (14.9 GiB + 10% + 768.0 MiB of cuda's own)"
    assert out.splitlines()[-2:] == [
        f"  h100: would fit with these defaults: {needs}, 80.0 GiB free",
        "  cpu: would not fit with these defaults: needs 15.7 GiB (14.9 GiB + 5%), 8.0 GiB free",
    ]


@pytest.mark.usefixtures("llama")
def test_json(rp: Any) -> None:
    code, out, err = rp("predict", "gpt2", "--batch", "2", "--on", "h100:80GiB", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert set(found) == {
        "schema_version", "model_name", "model_type", "architecture", "config", "dtype",
        "batch", "seq", "backend", "inputs",
        "weights_bytes", "activations_bytes", "kv_cache_bytes", "kv_bytes_per_token",
        "total_bytes", "needed_bytes", "method", "margin", "fixed_bytes", "notes", "key",
        "devices",
    }  # fmt: skip
    assert found["total_bytes"] == (12852 + 2452) * MIB
    assert (found["batch"], found["method"], found["backend"]) == (2, "trace", "cuda")
    (device,) = found["devices"]
    assert (device["device"], device["fits"], device["free_bytes"]) == ("h100", True, 80 * 2**30)
    assert device["needed_bytes"] == found["needed_bytes"]


def test_notes_are_shown(rp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {key: LLAMA[key] for key in ("config_class", "architecture", "weights_bytes", "notes")}
    monkeypatch.setattr(
        ladder, "traced", lambda request, deadline_s: {**built, "problem": "OSError: no"}
    )
    _, out, _ = rp("predict", "gpt2", "--on", "cpu:64GiB")
    assert "(weights known, the rest estimated)" in out
    assert out.endswith("  Note: not traced: OSError: no\n")


@pytest.mark.usefixtures("llama")
def test_what_was_predicted_is_known_from_then_on(rp: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "dtype": "float16"}')
    assert rp("predict", str(tmp_path), "--on", "cpu:8GiB")[0] == 0
    assert recorded_bytes(str(tmp_path), "", None) == (12852 + 2452) * MIB


def test_a_real_model_end_to_end(rp: Any) -> None:
    code, out, _ = rp("predict", "bert-base-uncased", "--json")
    found = json.loads(out)
    assert (code, found["method"], found["architecture"]) == (0, "trace", "BertModel")
    assert found["config"] == "defaults of BertConfig, not the real one"
    # 109 482 240 parameters, and the buffers of positions and token types.
    assert found["weights_bytes"] == 109_482_240 * 4 + 2 * 512 * 8
    assert [device["backend"] for device in found["devices"]] == ["cuda", "cpu"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gpt2", "--on", "h100"), "write its name and memory as in h100:80GiB"),
        (("gpt2", "--dtype", "int8"), "choose fp32, fp16 or bf16"),
        (("gpt2", "--batch", "0"), "give a whole number from 1 on"),
        (("/no/such/folder",), "is not a folder here"),
        (("",), "the model name is empty"),
    ],
)
def test_bad_input_is_one_sentence(rp: Any, words: tuple[str, ...], says: str) -> None:
    code, out, err = rp("predict", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1
