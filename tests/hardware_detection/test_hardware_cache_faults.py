from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import hardware_detection as hd
from hardware_detection import cache, service
from hardware_detection.errors import HardwareCacheError

TORN = '{"schema_version": 1, "fingerprint": {"hostna'
FORGED = '{"hardware": {"cuda": true, "cpu": true}, "best_available": "cuda"}'

# What no JSON object of a hardware cache is, by the name of the fault.
MALFORMED = {
    "empty": "",
    "torn": TORN,
    "not json": "hello",
    "list": "[]",
    "null": "null",
    "string": '"cuda"',
    "not a number": '{"schema_version": NaN}',
    "deep": "[" * 100_000,
    "huge": " " * (cache.MAX_BYTES + 1),
    "endless number": '{"schema_version": 1e999}',
    "long number": '{"schema_version": ' + "9" * 5000 + "}",
}


@pytest.fixture
def written(empty_machine: Callable[[], int], tmp_path: Path) -> Path:
    """A good cache, forgotten by this process."""
    path = tmp_path / "hw.json"
    hd.detect_available_hardware(path)
    service._MEMORY.clear()
    return path


def change(path: Path, *keys: str, value: Any) -> None:
    data = json.loads(path.read_text())
    target = data
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    path.write_text(json.dumps(data))


class TestNamedFile:
    @pytest.mark.parametrize("fault", MALFORMED)
    @pytest.mark.parametrize("refresh", [False, True])
    def test_malformed_is_an_error_and_left_alone(
        self, empty_machine: Callable[[], int], tmp_path: Path, fault: str, refresh: bool
    ) -> None:
        path = tmp_path / "hw.json"
        path.write_text(MALFORMED[fault])
        with pytest.raises(HardwareCacheError, match=r"delete it|another path") as caught:
            hd.detect_available_hardware(path, refresh=refresh)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert path.read_text() == MALFORMED[fault]
        assert list(tmp_path.iterdir()) == [path]
        assert empty_machine() == 0

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "hw.json"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(HardwareCacheError):
            hd.detect_available_hardware(path)

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            '{"name": "package", "version": "1.0.0"}',
            '{"schema_version": 1, "error_type": "driver", "stack_trace": "…"}',
            '{"schema_version": 1, "fingerprint": {}}',
            '{"hardware": "a list of screws"}',
            # What `rp detect --json` prints.
            '{"schema_version": 1, "hardware": {"cpu": true}, "fingerprint": {}}',
        ],
    )
    def test_another_programs_file_is_not_overwritten(
        self, empty_machine: Callable[[], int], tmp_path: Path, text: str
    ) -> None:
        path = tmp_path / "package.json"
        path.write_text(text)
        for refresh in (False, True):
            with pytest.raises(HardwareCacheError, match="not a hardware cache"):
                hd.detect_available_hardware(path, refresh=refresh)
        assert path.read_text() == text

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(HardwareCacheError, match="not a regular file"):
            hd.detect_available_hardware(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_a_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(HardwareCacheError, match="not a regular file"):
            hd.detect_available_hardware(tmp_path / "pipe")

    def test_unreadable(self, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("hardware_detection.files.os.open", refuse)
        with pytest.raises(HardwareCacheError, match="Permission denied"):
            hd.detect_available_hardware(written)

    def test_unwritable(
        self,
        empty_machine: Callable[[], int],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache, "write_atomically", refuse)
        with pytest.raises(HardwareCacheError, match="No space left"):
            hd.detect_available_hardware(tmp_path / "hw.json")

    def test_missing_is_created(self, empty_machine: Callable[[], int], tmp_path: Path) -> None:
        assert hd.detect_available_hardware(tmp_path / "new.json")["from_cache"] is False
        assert (tmp_path / "new.json").is_file()

    def test_missing_folder(self, empty_machine: Callable[[], int], tmp_path: Path) -> None:
        with pytest.raises(HardwareCacheError, match="folder"):
            hd.detect_available_hardware(tmp_path / "no" / "hw.json")
        assert empty_machine() == 0
        assert list(tmp_path.iterdir()) == []


class TestDefaultFile:
    @pytest.mark.parametrize("fault", [*MALFORMED, "forged", "other"])
    def test_is_replaced_with_one_line_in_the_log(
        self,
        empty_machine: Callable[[], int],
        isolated_home: Path,
        caplog: pytest.LogCaptureFixture,
        fault: str,
    ) -> None:
        path = hd.default_cache_path()
        path.write_text({**MALFORMED, "forged": FORGED, "other": '{"a": 1}'}[fault])
        with caplog.at_level(logging.INFO, "hardware_detection"):
            report = hd.detect_available_hardware()
        assert report["hardware"]["cuda"] is False
        assert report["from_cache"] is False
        assert json.loads(path.read_text())["schema_version"] == 1
        messages = [record.message for record in caplog.records]
        assert messages
        assert len(set(messages)) == 1

    def test_unreadable_is_detected_anew(
        self,
        empty_machine: Callable[[], int],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        hd.default_cache_path().write_text("{}")

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patched:
            patched.setattr("hardware_detection.files.os.open", refuse)
            patched.setattr(cache, "locked", lambda path: nullcontext())
            patched.setattr(cache, "write_atomically", refuse)
            with caplog.at_level(logging.WARNING, "hardware_detection"):
                assert hd.detect_available_hardware()["from_cache"] is False
        assert "Permission denied" in caplog.text

    def test_a_home_that_cannot_be_written(
        self,
        empty_machine: Callable[[], int],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RP_HOME", str(tmp_path / "file" / "home"))
        with caplog.at_level(logging.WARNING, "hardware_detection"):
            assert hd.detect_available_hardware()["hardware"]["cpu"] is True
        assert "cannot be written" in caplog.text
        assert hd.detect_available_hardware()["from_cache"] is True
        assert empty_machine() == 1


class TestBelief:
    def test_a_good_file_is_believed(self, written: Path, empty_machine: Callable[[], int]) -> None:
        assert hd.detect_available_hardware(written)["from_cache"] is True

    @pytest.mark.parametrize(
        ("keys", "value"),
        [
            (("schema_version",), 2),
            (("schema_version",), "1"),
            (("fingerprint",), None),
            (("fingerprint",), {}),
            (("fingerprint", "hostname"), "another"),
            (("fingerprint", "boot"), "earlier"),
            (("fingerprint", "drivers", "nvidia"), "1.0"),
            (("fingerprint", "torch"), {"version": "2.0"}),
            (("fingerprint", "environment"), {"CUDA_VISIBLE_DEVICES": "0"}),
            (("fingerprint", "extra"), 1),
            (("detected_at",), "yesterday"),
            (("detected_at",), None),
            (("detected_at",), 0),
            (("results",), {}),
            (("results",), []),
            (("results", "cuda"), {"status": "available"}),
            (("results", "cuda", "status"), "available"),
            (("results", "cuda", "name"), "mps"),
            (("results", "cpu", "devices"), []),
            (("results", "cpu", "status"), "absent"),
        ],
    )
    def test_anything_else_is_detected_again_and_rewritten(
        self, written: Path, keys: tuple[str, ...], value: Any
    ) -> None:
        good = json.loads(written.read_text())
        change(written, *keys, value=value)
        report = hd.detect_available_hardware(written)
        assert report["from_cache"] is False
        assert report["hardware"]["cpu"] is True
        assert report["hardware"]["cuda"] is False
        rewritten = json.loads(written.read_text())
        assert rewritten["fingerprint"] == good["fingerprint"]
        assert rewritten["results"] == good["results"]

    def test_a_forged_file_is_not_believed(
        self, empty_machine: Callable[[], int], tmp_path: Path
    ) -> None:
        path = tmp_path / "hw.json"
        path.write_text(FORGED)
        report = hd.detect_available_hardware(path)
        assert report["hardware"]["cuda"] is False
        assert report["best_available"] == "cpu"
        assert "results" in json.loads(path.read_text())

    def test_a_file_changed_behind_our_back_is_read_again(self, written: Path) -> None:
        hd.detect_available_hardware(written)
        written.write_text(TORN)
        with pytest.raises(HardwareCacheError):
            hd.detect_available_hardware(written)

    def test_facts_cannot_overwrite_the_verdict(self, written: Path) -> None:
        change(written, "results", "cuda", "facts", value={"status": "available", "reason": "x"})
        report = hd.detect_available_hardware(written)
        assert report["details"]["cuda"]["status"] == "absent"
        assert report["hardware"]["cuda"] is False


def test_readers_never_see_half_a_file(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from hardware_detection import cache; from hardware_detection.machine import Machine\n"
        "path = Path(sys.argv[1]); data = cache.read(path)\n"
        "detection = cache.believe(data, data['fingerprint'])\n"
        "for _ in range(10): cache.write(path, detection)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    argv = [sys.executable, "-c", code, str(written)]
    writers = [subprocess.Popen(argv, env=env) for _ in range(20)]
    reads = 0
    while reads == 0 or any(writer.poll() is None for writer in writers):
        data = cache.read(written)
        assert data is not None
        assert cache.believe(data, data["fingerprint"]) is not None
        reads += 1
    assert [writer.wait() for writer in writers] == [0] * 20
    assert list(written.parent.iterdir()) == [written]


def test_twenty_processes_detect_once(tmp_path: Path) -> None:
    path = tmp_path / "hw.json"
    code = (
        "import sys, hardware_detection as hd\n"
        "from hardware_detection import service\n"
        "class Bare(service.Machine):\n"
        "    def package_file(self, package, name): return None\n"
        "    def has_package(self, package): return False\n"
        "service.Machine = Bare\n"
        "print(hd.detect_available_hardware(sys.argv[1])['from_cache'])\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    argv = [sys.executable, "-c", code, str(path)]
    started = [
        subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for _ in range(20)
    ]
    answers = [process.communicate()[0].strip() for process in started]
    assert sorted(answers) == ["False"] + ["True"] * 19
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_waited_for_another_uses_its_result(
    empty_machine: Callable[[], int],
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contextlib import contextmanager

    target = tmp_path / "shared.json"

    @contextmanager
    def locked(path: Path) -> Any:
        # While we waited for the lock, somebody else detected.
        target.write_text(written.read_text())
        yield

    monkeypatch.setattr(cache, "locked", locked)
    before = empty_machine()
    assert hd.detect_available_hardware(target)["from_cache"] is True
    assert empty_machine() == before


def test_without_working_locks_detection_goes_on(
    empty_machine: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise NotImplementedError("no locks on this file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    assert hd.detect_available_hardware(tmp_path / "hw.json")["from_cache"] is False
