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
from rp_cli.errors import BadInputError, exit_code_for

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


def test_debug_counts_the_cores_of_the_container(
    gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardware_detection.machine.Machine.usable_cpus", lambda _: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    result = CliRunner().invoke(app, ["detect", "--debug"])
    assert "asks for more threads than the 3 cores" in result.stderr


def test_a_wrong_setting_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_HOME", "~nosuchuser/x")
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "RP_HOME is '~nosuchuser/x'" in err


def test_the_cache_goes_by_both_names(gpu: None, tmp_path: Path) -> None:
    for option in ("--cache", "--hw-cache"):
        assert run(option, str(tmp_path / "hw.json"))[0] == 0


def test_debug_says_conflicts_first(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    result = CliRunner().invoke(app, ["detect", "--debug", "--json"])
    lines = result.stderr.splitlines()
    assert lines[0].startswith("conflict: CUDA_VISIBLE_DEVICES='-1' hides every GPU")
    assert "CUDA_VISIBLE_DEVICES='-1'" in lines
    for name in ("PYTORCH_ENABLE_MPS_FALLBACK", "OMP_NUM_THREADS", "ROCR_VISIBLE_DEVICES"):
        assert any(line.startswith((f"{name}=", f"{name} is not set")) for line in lines)
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
    for name in hd.HARDWARE_NAMES:
        assert re.search(rf"ms  {name}: (available|absent|unusable|error) in \d", first.stderr)

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


def run(*arguments: str) -> tuple[int, str, str]:
    """Call ``rp detect`` in this process; the exit code as ``main`` gives it."""
    result = CliRunner().invoke(app, ["detect", *arguments])
    if result.exception is None or isinstance(result.exception, SystemExit):
        return result.exit_code, result.stdout, result.stderr
    code = exit_code_for(result.exception)
    assert code is not None, result.exception
    return code, result.stdout, str(result.exception)


class TestRequire:
    def test_met(self, gpu: None) -> None:
        code, out, err = run("--require", "cuda>=1,vram>=40GiB")
        assert (code, err) == (0, "")
        assert "cuda" in out

    def test_not_met_is_one_sentence_and_1(self, gpu: None) -> None:
        code, out, err = run("--require", "cuda>=2,vram>=100GiB", "--json")
        assert code == 1
        assert json.loads(out)["hardware"]["cuda"] is True
        assert err == (
            "rp: cuda>=2 is not met: this machine has 1;"
            " vram>=100GiB is not met: this machine has 80.0 GiB\n"
        )

    def test_a_slip_is_told_before_anything_is_detected(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hd, "detect_available_hardware", None)
        code, out, err = run("--require", "vram>=40")
        assert (code, out) == (2, "")
        assert "needs a unit" in err


class TestOtherMachines:
    def test_exported_here_and_planned_for_there(self, gpu: None, tmp_path: Path) -> None:
        path = tmp_path / "machine.json"
        code, _, err = run("--export", str(path))
        assert code == 0
        assert f"Wrote {path}" in err
        with use_report(fake_report()):
            code, out, err = run("--hardware", str(path), "--json", "--require", "cuda")
        report = json.loads(out)
        assert code == 0
        assert report["described_by"] == str(path)
        assert report["hardware"]["cuda"] is True
        assert "nothing is detected" in err

    def test_the_table_says_that_it_is_a_description(self, tmp_path: Path) -> None:
        path = tmp_path / "machine.json"
        path.write_text('{"rp_machine": 1, "devices": {}}')
        code, out, _ = run("--hardware", str(path), "--require", "cuda")
        assert code == 1
        assert "not detected here" in out

    def test_one_machine_is_described_at_a_time(self, rp, tmp_path: Path) -> None:
        path = tmp_path / "machine.json"
        path.write_text('{"rp_machine": 1, "devices": {}}')
        done = rp("--hardware", path, "detect", "--hardware", path)
        assert (done.code, done.out) == (2, "")
        assert "--hardware stands before and behind detect; give it once." in done.err

    def test_an_export_that_cannot_be_written(self, gpu: None, tmp_path: Path) -> None:
        code, _, err = run("--export", str(tmp_path / "missing" / "machine.json"))
        assert code == 4
        assert "cannot be written" in err

    @pytest.mark.parametrize("text", [None, "", "{}", "[]"])
    def test_a_bad_description_is_one_sentence(self, tmp_path: Path, text: str | None) -> None:
        path = tmp_path / "machine.json"
        if text is not None:
            path.write_text(text)
        code, out, err = run("--hardware", str(path))
        assert (code, out) == (2, "")
        assert str(path) in err

    @pytest.mark.parametrize(
        "options",
        [("--watch", "--count", "1"), ("--refresh",), ("--web",), ("--cache", "hw.json")],
    )
    @pytest.mark.parametrize("everywhere", [False, True])
    def test_what_only_this_machine_can_answer_is_refused(
        self, tmp_path: Path, options: tuple[str, ...], everywhere: bool
    ) -> None:
        path = tmp_path / "machine.json"
        path.write_text('{"rp_machine": 1, "devices": {}}')
        hardware = ("--hardware", str(path))
        words = (*hardware, "detect", *options) if everywhere else ("detect", *hardware, *options)
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, BadInputError)
        about = "the hardware cache hw.json" if options[0] == "--cache" else options[0]
        assert str(result.exception).startswith(f"{about} is about this machine")
        assert result.stdout == ""

    def test_what_a_file_says_is_nothing_that_a_terminal_obeys(self, tmp_path: Path) -> None:
        path = tmp_path / "machine.json"
        device = {"memory_total_mb": 1, "compute_capability": "\x1b[1m"}
        device["name"] = "A\x1b[2J\x1b]0;owned\ud800"
        machine = {"rp_machine": 1, "platform": "\x9b2J", "devices": {"cuda": [device]}}
        path.write_text(json.dumps(machine))
        exported = tmp_path / "exported.json"
        code, out, err = run("--hardware", str(path), "--export", str(exported))
        assert code == 0
        assert not re.search("[\x1b\x9b\x07\ud800]", out + err)
        assert "A?[2J" in out
        assert json.loads(exported.read_text())["devices"]["cuda"][0]["name"].startswith("A?")


class TestWatch:
    def test_samples_as_json_lines(self, gpu: None) -> None:
        code, out, _ = run("--watch", "--count", "2", "--interval", "0", "--json")
        assert code == 0
        first, second = (json.loads(line) for line in out.splitlines())
        assert first["loads"][0]["device"] == second["loads"][0]["device"] == "cpu"

    def test_a_table(self, gpu: None) -> None:
        code, out, _ = run("--watch", "--count", "1", "--interval", "0")
        assert code == 0
        assert "Memory used" in out
        assert "Fake CPU" in out

    def test_off_a_terminal_each_table_stays(self, gpu: None) -> None:
        _, out, _ = run("--watch", "--count", "3", "--interval", "0")
        assert out.count("Memory used") == 3
        assert "\x1b" not in out

    def test_what_a_vendor_does_not_tell_is_said_to_be_missing(self) -> None:
        report = fake_report(xpu=[{"name": "Arc", "memory_total_mb": 16384.0}], mps=True)
        options = ("--watch", "--count", "1", "--interval", "0")
        with use_report(report):
            _, table, _ = run(*options)
            _, line, _ = run(*options, "--json")
        arc, apple = (row for row in table.splitlines() if "Arc" in row or "Fake mps" in row)
        assert re.findall(r"n/a|\S+ GiB", arc) == ["n/a", "n/a", "16.0 GiB"]
        assert re.findall(r"n/a|\S+ GiB", apple) == ["n/a", "n/a", "n/a"]
        loads = json.loads(line)["loads"]
        assert [load["device"] for load in loads] == ["cpu", "xpu:0", "mps:0"]
        assert loads[1]["memory_free_mb"] is None

    @pytest.mark.parametrize(
        "options",
        [
            ("--count", "0"),
            *(("--interval", number) for number in ("-1", "inf", "nan", "1e300", "soon")),
        ],
    )
    def test_impossible_numbers(self, gpu: None, options: tuple[str, str]) -> None:
        code, _, _ = run("--watch", *options)
        assert code == 2

    @pytest.mark.parametrize("options", [("--count", "1"), ("--interval", "1")])
    def test_its_options_alone_do_nothing_and_are_refused(
        self, gpu: None, options: tuple[str, str]
    ) -> None:
        code, out, err = run(*options)
        assert (code, out) == (2, "")
        assert "belong to --watch" in err


def test_a_home_that_cannot_be_written_is_one_sentence(rp_process, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RP_HOME", str(tmp_path / "file" / "home"))
    done = rp_process("detect")
    assert done.code == 0
    assert done.err.startswith("rp: the hardware cache ")
    assert "set RP_HOME to a folder" in done.err
    assert len(done.err.splitlines()) == 1
