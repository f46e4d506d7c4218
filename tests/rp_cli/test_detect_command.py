from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hardware_detection as hd
from hardware_detection.testing import fake_report, use_report
from rp_cli.app import app
from rp_cli.errors import exit_code_for

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu() -> Iterator[None]:
    row = {"name": "[red]H100[/red]", "memory_total_mb": 81920.0, "compute_capability": "9.0"}
    with use_report(fake_report(cuda=[row], errors={"rocm": "torch is not built for ROCm"})):
        yield


def rp(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from rp_cli.app import main; main()", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        check=False,
    )


def test_json_is_the_report(gpu: None) -> None:
    result = CliRunner().invoke(app, ["detect", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == hd.detect_available_hardware()


def test_the_table_names_every_backend_and_reason(gpu: None) -> None:
    result = CliRunner().invoke(app, ["detect"])
    assert result.exit_code == 0
    for name in hd.HARDWARE_NAMES:
        assert re.search(rf"│ {name} +│ (available|absent|unusable|error) +│", result.stdout)
    assert "torch is not built for ROCm" in result.stdout
    assert "compute capability 9.0" in result.stdout
    assert "best: cuda (torch: cuda:0)" in result.stdout
    # A name from a driver is text, never markup.
    assert "[red]H100[/red]" in result.stdout


def test_debug_says_conflicts_first(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    result = CliRunner().invoke(app, ["detect", "--debug", "--json"])
    lines = result.stderr.splitlines()
    assert lines[0].startswith("conflict: CUDA_VISIBLE_DEVICES='-1' hides every GPU")
    assert "CUDA_VISIBLE_DEVICES='-1'" in lines
    assert any(line.startswith("HIP_VISIBLE_DEVICES is not set") for line in lines)
    assert json.loads(result.stdout)["hardware"]["cuda"] is True


@pytest.mark.parametrize("text", ["", "[]", "{torn", "{}"])
def test_a_malformed_cache_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hw.json"
    path.write_text(text)
    result = CliRunner().invoke(app, ["detect", "--cache", str(path)])
    assert isinstance(result.exception, hd.HardwareCacheError)
    assert exit_code_for(result.exception) == 2
    assert path.read_text() == text


def test_the_whole_way_in_real_processes(tmp_path: Path) -> None:
    path = tmp_path / "hw.json"
    first = rp("detect", "--cache", str(path), "--json", "--debug")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["from_cache"] is False
    assert report["details"]["cpu"]["devices"][0]["dtypes"]
    assert re.search(r"ms  cpu: available in \d", first.stderr)

    path_before = path.read_bytes()
    second = rp("detect", "--cache", str(path), "--json", "--debug")
    again = json.loads(second.stdout)
    assert again["from_cache"] is True
    assert again["detected_at"] == report["detected_at"]
    assert "no probe ran" in second.stderr
    assert path.read_bytes() == path_before

    hidden = rp("detect", "--cache", str(path), "--json", CUDA_VISIBLE_DEVICES="-1")
    assert json.loads(hidden.stdout)["from_cache"] is False


def test_a_bad_cache_in_a_real_process(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "hw.json"
    result = rp("detect", "--cache", str(path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("rp: the folder of the hardware cache")


def test_a_valid_cache_starts_no_probe_and_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "hw.json"
    assert rp("detect", "--cache", str(path)).returncode == 0
    code = (
        "import sys\n"
        "from rp_cli.app import app\n"
        "app(['detect', '--cache', sys.argv[1]], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'psutil', 'archspec', 'filelock',"
        " 'hardware_detection.process', 'hardware_detection.detection'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
