"""Where rp keeps its files, and how it writes them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hardware_detection.errors import SettingError
from hardware_detection.files import read_regular, rp_home, write_atomically


def test_a_link_stays_one_and_its_target_keeps_its_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "kept" / "real.json", tmp_path / "link.json"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    for mode in (0o600, 0o664):
        real.chmod(mode)
        write_atomically(link, "new")
        assert link.is_symlink()
        assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("new", mode)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "link.json", "real.json"]


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("")
    write_atomically(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def test_half_of_a_surrogate_pair_is_written_as_json_has_it(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, json.dumps({"name": "ü\ud800"}, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "ü\ud800"}


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    assert read_regular(path, 4) == b"1234"
    with pytest.raises(OSError, match="larger than"):
        read_regular(path, 3)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path, 4)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(Path(os.devnull), 4)


def test_a_home_of_nobody_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RP_HOME", "~nosuchuser/x")
    with pytest.raises(SettingError, match="RP_HOME is '~nosuchuser/x'"):
        rp_home()
    monkeypatch.setenv("RP_HOME", "~/x")
    assert rp_home() == Path.home() / "x"
