"""What takes its time is shown on a terminal, on stderr, and nowhere else."""

from __future__ import annotations

import sys
import threading

import pytest

import hardware_detection
from rp_cli.output import detected, progress, working


def be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest's capture, which is none, pass for a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def do_both() -> list[int]:
    with working("Thinking"):
        pass
    return list(progress([1, 2, 3], "Counting"))


def test_nothing_is_shown_where_there_is_no_terminal(capsys):
    assert do_both() == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_what_is_done_and_stdout_stays_clean(monkeypatch, capsys):
    be_a_terminal(monkeypatch)
    assert do_both() == [1, 2, 3]
    out, err = capsys.readouterr()
    assert out == ""
    assert "Thinking" in err
    assert "Counting" in err


def test_a_few_items_need_no_bar(monkeypatch, capsys):
    be_a_terminal(monkeypatch)
    assert list(progress([1, 2], "Counting", least=3)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_an_error_inside_comes_out_as_it_is():
    with pytest.raises(ZeroDivisionError), working("Thinking"):
        raise ZeroDivisionError


def test_what_is_over_at_once_draws_nothing(monkeypatch, capsys):
    be_a_terminal(monkeypatch)
    with working("Thinking", after=3600):
        pass
    assert capsys.readouterr().err == ""
    assert not [one for one in threading.enumerate() if isinstance(one, threading.Timer)]


def test_a_detection_that_takes_its_time_is_shown(monkeypatch, capsys):
    be_a_terminal(monkeypatch)
    drawn = threading.Event()
    show = sys.stderr.write

    def write(text):
        if "Detecting hardware" in text:
            drawn.set()
        return show(text)

    def detect(cache, **options):
        assert drawn.wait(30)
        return {"asked": (cache, options)}

    monkeypatch.setattr(sys.stderr, "write", write)
    monkeypatch.setattr(hardware_detection, "detect_available_hardware", detect)
    assert detected(None, web=True) == {"asked": (None, {"web": True})}
    monkeypatch.setattr(hardware_detection, "detect_available_hardware", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detected()
