"""``rp classify``: the guides' block, the JSON, and what wrong input says."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hardware_detection.testing import fake_report, use_report
from model_family_classifier.confidence import confidence_of
from resource_pool.prediction import record_use
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
  Family: embedding (confidence: {sure:.2f})
  Subfamily: masked_lm (confidence: {sure_of_sub:.2f})
  Optimal Hardware: cuda
  PyTorch Device: cuda:0
  Hardware Priority: cuda > mps > cpu
  Recommended Template: hf_embedding_template.py
  Memory: unknown (rp predict bert-base-uncased predicts it)
  Hardware Compatibility:
    cuda: ✅ (System: ✅, Effective: ✅)
    mps: ✅ (System: ❌, Effective: ❌)
    openvino: ✅ (System: ✅, Effective: ✅)
    webnn: ✅ (System: ❌, Effective: ❌)
    webgpu: ✅ (System: ❌, Effective: ❌)
  Evidence:
    name: 'bert' in the name: model type bert -> embedding/masked_lm ({sure:.2f})
"""


def test_guides_block(rp: Any) -> None:
    # How sure a name is, is measured and changes with the labelled set.
    block = GUIDES_BLOCK.format(
        sure=confidence_of("name_type"), sure_of_sub=confidence_of("name_type", "subfamily")
    )
    assert rp("classify", "bert-base-uncased") == (0, block, "")


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


def test_what_does_not_suit_says_why_whether_it_is_here_or_not(rp: Any) -> None:
    _, out, _ = rp("classify", "openai/whisper-tiny", machine=fake_report(webgpu=True))
    why = ": audio models are not supported in browsers\n"
    assert f"    webnn: ❌ (System: ❌, Effective: ❌){why}" in out
    assert f"    webgpu: ❌ (System: ✅, Effective: ❌){why}" in out


@pytest.mark.parametrize("name", ["bert-base-uncased", "llava-hf/llava-1.5-7b-hf", "nobody/knows"])
def test_nothing_that_does_not_suit_is_without_a_reason(rp: Any, name: str) -> None:
    _, out, _ = rp("classify", name, machine=fake_report(rocm=[{"name": "Fake AMD"}], tpu=True))
    assert "❌ (System: ❌, Effective: ❌)\n" not in out
    assert "❌ (System: ✅, Effective: ❌)\n" not in out


def test_model_database(rp: Any, tmp_path: Path) -> None:
    database = tmp_path / "db.yaml"
    database.write_text("gpt2: {family: vision, subfamily: segmentation}\n")
    _, out, _ = rp("classify", "gpt2", "--model-db", str(database))
    assert "Family: vision (confidence: 1.00)" in out
    assert "model_database: entry of the model database" in out


@pytest.mark.parametrize("name", ["", "../up", "/no/such/folder", "a\x1bb"])
def test_wrong_name_is_one_sentence_and_exit_2(rp: Any, name: str) -> None:
    for more in ((), ("--json",), ("--table",)):
        code, out, _ = rp("classify", name, *more)
        assert (code, out) == (2, "")
    code, out, err = rp("classify", "gpt2", name, "t5-small")
    # It costs its own row, and no other.
    assert (code, out.count("Model: ")) == (2, 2)
    assert err.startswith("rp: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


def test_one_wrong_line_of_a_list_costs_its_own_row(
    rp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("gpt2\na/b/c\nbert-base-uncased\n"))
    code, out, err = rp("classify", "-", "--table")
    assert (code, out.count("\n"), err.count("\n")) == (2, 2, 1)
    assert "bert-base-uncased" in out
    assert "'a/b/c'" in err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_names_may_come_through_a_pipe(rp: Any, tmp_path: Path) -> None:
    # As `-f <(…)` does.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("gpt2\n",))
    writer.start()
    code, out, _ = rp("classify", "-f", str(pipe), "--table")
    writer.join()
    assert (code, out.split()[0]) == (0, "gpt2")
    code, _, err = rp("classify", "-f", "/dev/zero")
    assert code == 2
    assert "not a regular file" in err


def test_what_does_nothing_is_refused(rp: Any, tmp_path: Path) -> None:
    machine = tmp_path / "machine.json"
    machine.write_text('{"rp_machine": 1, "devices": {}}')
    for words in (
        ("classify", "gpt2", "--table", "--json"),
        ("--hardware", str(machine), "classify", "gpt2", "--hw-cache", str(tmp_path / "hw.json")),
        ("--hardware", str(machine), "classify", "gpt2", "--cache", str(tmp_path / "hw.json")),
    ):
        code, out, err = rp(*words)
        assert (code, out) == (2, "")
        assert "use one of them" in err


def test_what_detection_proves_is_what_is_used(rp: Any) -> None:
    _, out, _ = rp("classify", "gpt2", machine=fake_report(xpu=[{"name": "Fake Intel"}]))
    assert "Optimal Hardware: xpu\n  PyTorch Device: xpu:0\n" in out
    assert "    xpu: ✅ (System: ✅, Effective: ✅)\n" in out


def test_what_is_known_not_to_fit_is_not_optimal(rp: Any, tmp_path: Path) -> None:
    record_use("gpt2", 100 << 30, revision="", dtype=None, backend="cpu")
    machine = fake_report(cuda=[{"memory_total_mb": 8192.0}, {"memory_total_mb": 24576.0}])
    _, out, _ = rp("classify", "gpt2", machine=machine)
    assert "Optimal Hardware: cpu" in out
    assert (
        "cuda: ✅ (System: ✅, Effective: ❌): it needs 102400 MiB, and the largest device has"
        " 24576 MiB\n" in out
    )


@pytest.mark.parametrize("adapter", ["hardware", "software"])
def test_an_emulated_gpu_in_a_browser_is_of_no_use(rp: Any, tmp_path: Path, adapter: str) -> None:
    file = tmp_path / "machine.json"
    device = {"name": "Fake adapter", "adapter": adapter}
    file.write_text(json.dumps({"rp_machine": 1, "devices": {"webgpu": [device]}}))
    _, out, _ = rp("--hardware", str(file), "classify", "gpt2", "--json")
    cell = json.loads(out)[0]["compatibility"]["webgpu"]
    assert (cell["system"], cell["effective"]) == (True, adapter == "hardware")


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


def test_names_from_standard_input_a_file_and_the_command_line_in_order(
    rp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("gpt2  # small\n\n# none\n"))
    names = tmp_path / "models.txt"
    names.write_text("t5-small\n   google/vit-base-patch16-224\n")
    code, out, _ = rp("classify", "bert-base-uncased", "-", "-f", str(names), "--json")
    assert code == 0
    assert [row["model_name"] for row in json.loads(out)] == [
        "bert-base-uncased",
        "gpt2",
        "t5-small",
        "google/vit-base-patch16-224",
    ]


def test_many_names_are_a_line_each(rp: Any, tmp_path: Path) -> None:
    names = tmp_path / "models.txt"
    names.write_text("".join(f"acme/bert-{number}\n" for number in range(30)))
    _, out, _ = rp("classify", "--file", str(names))
    assert len(out.splitlines()) == 30
    assert out.splitlines()[7].split()[:3] == ["acme/bert-7", "embedding", "masked_lm"]
    _, out, _ = rp("classify", "--file", str(names), "--json")
    assert len(json.loads(out)) == 30
    assert len(out.splitlines()) == 32


def test_table(rp: Any) -> None:
    _, out, _ = rp("classify", "--table", "gpt2", "nobody/knows-this")
    assert out.splitlines()[0].split() == [
        "gpt2",
        "text_generation",
        "causal_lm",
        f"{confidence_of('name_type'):.2f}",
        "cuda",
    ]
    assert out.splitlines()[1].split() == ["nobody/knows-this", "unknown", "-", "0.00", "cuda"]


def test_no_name_at_all(rp: Any, tmp_path: Path) -> None:
    empty = tmp_path / "models.txt"
    empty.write_text("# nothing\n")
    for words in ((), ("-f", str(empty))):
        code, out, err = rp("classify", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "no model was named" in err


def test_the_own_database_is_used_without_being_named(
    rp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mine.yaml"
    database.write_text("gpt2: {family: vision}\n")
    monkeypatch.setenv("RP_MODEL_DB", str(database))
    _, out, _ = rp("classify", "gpt2")
    assert "Family: vision (confidence: 1.00)" in out
    database.unlink()
    assert rp("classify", "gpt2")[0] == 2


def test_own_matrix(rp: Any, tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text("families: {text_generation: {cuda: {compatible: false}}}\n")
    _, out, _ = rp("classify", "facebook/opt-125m", "--matrix", str(matrix))
    assert "Optimal Hardware: cpu" in out


def test_models_for_browsers_say_so(rp: Any) -> None:
    _, out, _ = rp("classify", "Xenova/all-MiniLM-L6-v2")
    assert "  Deployment: web_deployment\n" in out
    assert "Subfamily: sentence_transformer" in out


def test_the_hub_is_not_asked_offline_and_that_is_said(rp: Any) -> None:
    code, out, _ = rp("classify", "gpt2", "--hub")
    assert code == 0
    assert "hub: the hub is not asked: HF_HUB_OFFLINE is set" in out


def test_memory_is_predicted_on_request_and_unknown_memory_is_said(rp: Any) -> None:
    code, out, err = rp("classify", "--memory", "--json", "gpt2", "nobody/knows")
    assert code == 0
    known, unknown = json.loads(out)
    needs = known["resource_requirements"]
    assert needs["weights_bytes"] == 4 * 124_439_808  # in float32; the head is tied
    assert needs["memory_bytes"] > needs["weights_bytes"]
    assert needs["config"] == "defaults of GPT2Config, not the real one"
    assert unknown["resource_requirements"] is None
    assert "nobody/knows cannot be predicted" in err


def test_who_cannot_be_predicted_is_not_sent_to_predict(rp: Any) -> None:
    _, out, _ = rp("classify", "nobody/knows-this")
    assert "rp predict" not in out
    assert "rp models add" in out


def test_memory_comes_from_a_record_where_there_is_one(rp: Any) -> None:
    record_use("gpt2", 500 << 20, revision="", dtype=None, backend="cpu")
    _, out, err = rp("classify", "gpt2", "t5-small")
    assert err == ""
    assert "  Memory: 500 MiB (recorded)\n" in out
    assert "  Memory: unknown (rp predict t5-small predicts it)\n" in out
    rows = json.loads(rp("classify", "--json", "gpt2", "t5-small")[1])
    recorded = {"memory_bytes": 500 << 20, "method": "recorded"}
    assert [row["resource_requirements"] for row in rows] == [recorded, None]


def test_a_prediction_from_a_config_is_remembered(rp: Any, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 99, **small}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _, first, _ = rp("classify", "--memory", "--json", str(tmp_path))
    _, second, _ = rp("classify", "--json", str(tmp_path))
    predicted = json.loads(first)[0]["resource_requirements"]["memory_bytes"]
    assert json.loads(second)[0]["resource_requirements"]["memory_bytes"] == predicted


def test_damaged_records_are_no_error(rp: Any, isolated_home: Path) -> None:
    record_use("gpt2", 500 << 20, revision="", dtype=None, backend="cpu")
    for file in isolated_home.glob("*.sqlite3"):
        file.write_bytes(b"no database" * 1000)
    code, out, _ = rp("classify", "gpt2")
    assert code == 0
    assert "Memory: unknown" in out


def described(tmp_path: Path, limits: dict[str, int]) -> str:
    file = tmp_path / "machine.json"
    device = {"name": "Fake adapter", "limits": limits}
    file.write_text(json.dumps({"rp_machine": 1, "devices": {"webgpu": [device]}}))
    return str(file)


@pytest.mark.parametrize(("mib", "fits"), [(512, True), (256, False)])
def test_the_limits_that_a_described_browser_reported_decide(
    rp: Any, tmp_path: Path, mib: int, fits: bool
) -> None:
    file = described(tmp_path, {"maxBufferSize": mib << 20, "maxStorageBufferBindingSize": 1 << 30})
    words = ("--hardware", file, "classify", "gpt2", "--memory")
    code, out, _ = rp(*words, "--json")
    cell = json.loads(out)[0]["compatibility"]["webgpu"]
    assert (code, cell["system"], cell["effective"]) == (0, True, fits)
    _, out, _ = rp(*words)
    why = f"max_buffer_size is {mib} MiB (as the browser reports)"
    assert (why in out) is not fits


def test_a_users_matrix_and_a_described_machine_go_together(rp: Any, tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text("families: {text_generation: {webgpu: {size_limit: wasm_memory}}}\n")
    file = described(tmp_path, {"maxBufferSize": 1 << 28})
    words = ("--hardware", file, "classify", "gpt2", "--memory", "--matrix", str(matrix))
    _, out, _ = rp(*words, "--json")
    assert json.loads(out)[0]["compatibility"]["webgpu"]["effective"] is True
