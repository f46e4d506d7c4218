"""``rp classify``: the guides' block, the JSON, and what wrong input says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.testing import fake_report, use_report
from rp_cli.app import main

GUIDES_MACHINE = fake_report(cuda=[{"name": "Fake GPU"}], openvino=True)


@pytest.fixture(autouse=True)
def no_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def rp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run rp as the shell would: (exit code, stdout, stderr)."""

    def run(*words: str, machine: Any = GUIDES_MACHINE) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rp", *words])
        with pytest.raises(SystemExit) as ended, use_report(machine):
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


GUIDES_BLOCK = """\
Model: bert-base-uncased
  Family: embedding (confidence: 0.85)
  Subfamily: masked_lm (confidence: 0.85)
  Optimal Hardware: cuda
  PyTorch Device: cuda:0
  Hardware Priority: cuda > mps > cpu
  Recommended Template: hf_embedding_template.py
  Hardware Compatibility:
    cuda: ✅ (System: ✅, Effective: ✅)
    mps: ✅ (System: ❌, Effective: ❌)
    openvino: ✅ (System: ✅, Effective: ✅)
    webnn: ✅ (System: ❌, Effective: ❌)
    webgpu: ✅ (System: ❌, Effective: ❌)
  Evidence:
    name: 'bert' in the name: model type bert -> embedding/masked_lm (0.85)
"""


def test_guides_block(rp: Any) -> None:
    assert rp("classify", "bert-base-uncased") == (0, GUIDES_BLOCK, "")


def test_several_models_are_blocks_with_a_line_between(rp: Any) -> None:
    _, out, _ = rp("classify", "gpt2", "nobody/knows-this")
    first, second = out.split("\n\n")
    assert first.startswith("Model: gpt2\n")
    assert "Family: unknown (confidence: 0.00)" in second
    assert "Subfamily" not in second
    assert "Recommended Template: hf_generic_template.py" in second


def test_json(rp: Any) -> None:
    code, out, err = rp("classify", "--json", "bert-base-uncased", "t5-small")
    rows = json.loads(out)
    assert (code, err, [row["model_name"] for row in rows]) == (
        0,
        "",
        ["bert-base-uncased", "t5-small"],
    )
    bert = rows[0]
    assert bert["hardware_priority"] == ["cuda", "mps", "cpu"]
    assert bert["optimal_hardware"] == "cuda"
    assert bert["compatibility"]["mps"]["system"] is False
    assert bert["evidence"][0]["family"] == "embedding"
    assert rows[1]["subfamily"] == "seq2seq"


def test_rocm_is_shown_where_it_is(rp: Any) -> None:
    _, out, _ = rp("classify", "gpt2", machine=fake_report(rocm=[{"name": "Fake AMD"}]))
    assert "Optimal Hardware: rocm\n  PyTorch Device: cuda:0\n" in out
    assert "    rocm: ✅ (System: ✅, Effective: ✅)\n" in out


def test_model_database(rp: Any, tmp_path: Path) -> None:
    database = tmp_path / "db.yaml"
    database.write_text("gpt2: {family: vision, subfamily: segmentation}\n")
    _, out, _ = rp("classify", "gpt2", "--model-db", str(database))
    assert "Family: vision (confidence: 1.00)" in out
    assert "model_database: entry of the model database" in out


@pytest.mark.parametrize("name", ["", "../up", "/no/such/folder", "a\x1bb"])
def test_wrong_name_is_one_sentence_and_exit_2(rp: Any, name: str) -> None:
    code, out, err = rp("classify", "gpt2", name)
    assert (code, out) == (2, "")
    assert err.startswith("rp: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_folder_without_config(rp: Any, tmp_path: Path) -> None:
    code, _, err = rp("classify", str(tmp_path))
    assert code == 2
    assert "config.json" in err


@pytest.mark.parametrize(
    "content", ["[", "x: !!python/name:os.system", "a: &a [*a]", "x: {family: y}"]
)
def test_malformed_database_is_one_sentence_and_exit_2(
    rp: Any, tmp_path: Path, content: str
) -> None:
    database = tmp_path / "db.yaml"
    database.write_text(content)
    code, out, err = rp("classify", "gpt2", "--model-db", str(database))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(database) in err
    assert list(tmp_path.iterdir()) == [database]


def test_missing_database(rp: Any, tmp_path: Path) -> None:
    code, _, err = rp("classify", "gpt2", "--model-db", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err
