"""What is remembered of models' memory: who finds it again, and what a bad file does (nothing)."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resource_pool.prediction import (
    Prediction,
    ladder,
    predict,
    record_peak,
    record_use,
    recorded_bytes,
    records,
)

MIB = 2**20
TRACED = {
    "config_class": "BertConfig",
    "architecture": "BertModel",
    "weights_bytes": 100 * MIB,
    "notes": [],
    "left_out": [],
    "seq": 128,
    "inputs": {"input_ids": [1, 128]},
    "peak_bytes": 30 * MIB,
    "kv_cache_bytes": 0,
}
BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 50}


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let every trace give this answer."""
    answer = dict(TRACED)
    monkeypatch.setattr(ladder, "traced", lambda request, deadline_s: answer)
    return answer


@pytest.fixture
def folder(tmp_path: Path) -> str:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({**BERT, "dtype": "bfloat16"}))
    return str(model)


def use(model: str, measured: int, **other: Any) -> None:
    record_use(model, measured, **{"revision": "", "dtype": "float32", "backend": "cpu", **other})


# What is found again -----------------------------------------------------------------------------


def test_nothing_is_known_of_a_new_model(isolated_home: Path) -> None:
    assert recorded_bytes("org/model", "", "float32") is None
    assert list(isolated_home.iterdir()) == []


def test_a_prediction_is_found_by_model_and_dtype(folder: str) -> None:
    predict(folder, dtype="fp16")
    assert recorded_bytes(folder, "", "float16") == 130 * MIB
    assert recorded_bytes(folder, "", "float32") is None
    assert recorded_bytes(folder, "main", "float16") is None


def test_no_dtype_is_that_of_the_config(folder: str) -> None:
    predict(folder, dtype="fp16")
    assert recorded_bytes(folder, "", None) is None
    predict(folder)
    assert recorded_bytes(folder, "", None) == recorded_bytes(folder, "", "bfloat16") == 130 * MIB


def test_the_smallest_of_several_predictions_counts(folder: str, traced: dict[str, Any]) -> None:
    for batch, peak in [(8, 300), (1, 20), (4, 100)]:
        traced["peak_bytes"] = peak * MIB
        predict(folder, batch=batch)
    assert recorded_bytes(folder, "", None) == 120 * MIB


def test_a_measured_peak_goes_before_predictions_and_the_highest_counts(folder: str) -> None:
    found = predict(folder)
    for measured in (110 * MIB, 125 * MIB, 90 * MIB):
        record_peak(found, measured)
    assert recorded_bytes(folder, "", None) == 125 * MIB


def test_a_peak_without_a_prediction_is_found() -> None:
    use("org/model", 7 * MIB)
    use("org/model", 9 * MIB, revision="v2", dtype=None, backend="cuda")
    assert recorded_bytes("org/model", "", "float32") == 7 * MIB
    assert recorded_bytes("org/model", "", None) is None
    assert recorded_bytes("org/model", "v2", None) == 9 * MIB


def test_a_folder_with_another_config_is_another_model(folder: str) -> None:
    predict(folder)
    config = Path(folder, "config.json")
    later = config.stat().st_mtime_ns + 10**9
    os.utime(config, ns=(later, later))
    assert recorded_bytes(folder, "", None) is None


def test_a_config_that_no_load_would_find_is_not_recorded(isolated_home: Path) -> None:
    predict("gpt2")  # nothing of it is on this disk: these are the defaults of its type
    predict(BERT)
    assert recorded_bytes("gpt2", "", None) is None
    assert recorded_bytes("bert", "", None) is None
    assert not (isolated_home / "peaks.sqlite3").exists()


def test_quantized_models_are_not_recorded_as_unquantized_ones(tmp_path: Path) -> None:
    config = {**BERT, "quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert predict(tmp_path).method == "trace"
    assert recorded_bytes(str(tmp_path), "", None) is None


def test_a_guess_is_not_recorded_but_what_was_measured_after_it_is(
    folder: str, traced: dict[str, Any]
) -> None:
    del traced["peak_bytes"]
    traced["problem"] = "RuntimeError: no"
    guess = predict(folder)
    assert guess.method == "headroom"
    assert recorded_bytes(folder, "", None) is None
    record_peak(guess, 77 * MIB)
    assert recorded_bytes(folder, "", None) == 77 * MIB


def test_the_same_prediction_is_written_once(folder: str, isolated_home: Path) -> None:
    predict(folder)
    before = (isolated_home / "peaks.sqlite3").read_bytes()
    predict(folder)
    assert (isolated_home / "peaks.sqlite3").read_bytes() == before


def test_errors_of_small_models_are_no_margin(traced: dict[str, Any]) -> None:
    traced.update(weights_bytes=MIB, peak_bytes=MIB)
    small = predict(BERT)
    for _ in range(10):
        record_peak(small, 10 * small.total_bytes)
    assert predict(BERT, batch=2).margin == small.margin


def test_old_records_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_KEPT", 3)
    for number in range(5):
        use(f"org/model-{number}", MIB)
    known = [recorded_bytes(f"org/model-{number}", "", "float32") for number in range(5)]
    assert known == [None, None, MIB, MIB, MIB]


def test_asking_imports_nothing_heavy() -> None:
    script = (
        "import sys; from resource_pool.prediction import recorded_bytes\n"
        "recorded_bytes('org/model', '', None)\n"
        "print({'torch', 'transformers', 'numpy', 'yaml', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# Files that are no help --------------------------------------------------------------------------


@pytest.fixture
def prediction() -> Prediction:
    return predict(BERT)


def test_a_damaged_file_is_begun_anew(
    prediction: Prediction, isolated_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (isolated_home / "peaks.sqlite3").write_text("this is no database, and long enough " * 9)
    assert recorded_bytes("org/model", "", None) is None
    assert predict(BERT).method == "trace"
    assert caplog.records == []
    record_peak(prediction, 150 * MIB)
    assert "damaged and begun anew" in caplog.text
    assert predict(BERT).total_bytes == 150 * MIB


def test_a_journal_of_a_damaged_file_does_not_spoil_the_new_one(isolated_home: Path) -> None:
    (isolated_home / "peaks.sqlite3").write_bytes(b"no database" * 100)
    (isolated_home / "peaks.sqlite3-journal").write_bytes(b"no journal" * 100)
    use("org/model", 3 * MIB)
    use("org/model", 4 * MIB)
    assert recorded_bytes("org/model", "", "float32") == 4 * MIB


@pytest.mark.parametrize("value", ["'lots'", "-5", "1.5", "x'00'"])
def test_what_is_no_size_counts_as_unknown(isolated_home: Path, value: str) -> None:
    use("org/model", 3 * MIB)
    with closing(sqlite3.connect(isolated_home / "peaks.sqlite3")) as database, database:
        database.execute(f"UPDATE peaks SET measured = {value}")
    assert recorded_bytes("org/model", "", "float32") is None


def test_tables_of_somebody_else_are_left_alone(
    isolated_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(isolated_home / "peaks.sqlite3")) as database, database:
        database.execute("CREATE TABLE peaks (key TEXT)")
    use("org/model", MIB)
    assert "is not kept" in caplog.text
    assert recorded_bytes("org/model", "", "float32") is None


def test_a_locked_file_is_no_error(
    isolated_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records, "_READ_SECONDS", 0.01)
    monkeypatch.setattr(records, "_WRITE_SECONDS", 0.01)
    use("org/model", 3 * MIB)
    with closing(sqlite3.connect(isolated_home / "peaks.sqlite3")) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert recorded_bytes("org/model", "", "float32") is None
        use("org/model", 4 * MIB)
    assert "database is locked" in caplog.text
    assert recorded_bytes("org/model", "", "float32") == 3 * MIB


@pytest.mark.parametrize("home", ["/proc/nothing/here", "~nobody-of-this-name/rp"])
def test_a_home_that_cannot_be_written_is_no_error(
    folder: str, home: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RP_HOME", home)
    found = predict(folder)
    assert found.method == "trace"
    assert caplog.records == []
    record_peak(found, MIB)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert recorded_bytes(folder, "", None) is None


def test_a_name_that_is_no_path_is_only_unknown() -> None:
    for name in ("a\x00b", "x" * 5000, "'; DROP TABLE models; --"):
        assert recorded_bytes(name, "", None) is None


def test_writers_of_several_processes_and_threads_lose_nothing(isolated_home: Path) -> None:
    script = (
        "import sys; from resource_pool.prediction import record_use\n"
        "for number in range(10):\n"
        "    record_use(f'{sys.argv[1]}/{number}', 1, revision='', dtype=None, backend='cpu')"
    )
    argv = [sys.executable, "-c", script]
    writers = [subprocess.Popen([*argv, f"process-{one}"]) for one in range(2)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: use(f"thread/{number}", 1, dtype=None), range(10)))
    assert [writer.wait(60) for writer in writers] == [0, 0]
    names = [f"{who}/{n}" for who in ("process-0", "process-1", "thread") for n in range(10)]
    assert [recorded_bytes(name, "", None) for name in names] == [1] * 30
