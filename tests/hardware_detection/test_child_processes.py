from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hardware_detection.machine import Machine
from hardware_detection.process import Outcome, run_bounded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")


def run(code: str, *arguments: str, deadline_s: float = 60.0) -> Outcome:
    return run_bounded([sys.executable, "-c", code, *arguments], deadline_s=deadline_s)


def test_output_and_status_come_back() -> None:
    outcome = run("import sys; print('out'); print('first\\nlast', file=sys.stderr); sys.exit(3)")
    assert (outcome.kind, outcome.returncode, outcome.stdout) == ("finished", 3, "out\n")
    assert not outcome.ok
    assert outcome.describe() == "ended with status 3 (last)"


def test_success_is_ok() -> None:
    assert run("").ok


def test_a_crash_is_told_by_its_signal() -> None:
    outcome = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert outcome.kind == "crashed"
    assert outcome.describe() == "crashed with SIGSEGV"


def test_a_program_that_is_not_there() -> None:
    outcome = run_bounded(["/nowhere/nvidia-smi"], deadline_s=1)
    assert outcome.kind == "unstartable"
    assert "could not be started" in outcome.describe()


def test_arguments_never_meet_a_shell() -> None:
    outcome = run("import sys; print(sys.argv[1])", "$(touch x); `id` && *")
    assert outcome.stdout == "$(touch x); `id` && *\n"


def test_a_hang_is_killed_with_everything_it_started(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # The grandchild opens the pipe for writing and waits for ever. Our read ends only when every
    # writer is gone, so it proves that the grandchild was killed too.
    code = (
        "import subprocess, sys, threading\n"
        'inner = \'import sys, threading; f = open(sys.argv[1], "w"); f.write("x");\'\n'
        "inner += ' f.flush(); threading.Event().wait()'\n"
        "subprocess.Popen([sys.executable, '-c', inner, sys.argv[1]])\n"
        "threading.Event().wait()\n"
    )
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    outcome = run(code, str(pipe), deadline_s=2.0)
    # Were the grandchild killed before it opened the pipe, nobody would ever open it.
    os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
    reader.join(60)
    assert not reader.is_alive()
    assert outcome.kind == "timeout"
    # How long it really took: killing takes its time where the machine is busy.
    assert re.fullmatch(r"gave no answer within \d+ s and was stopped", outcome.describe())
    assert seen in (["x"], [""])


def test_a_grandchild_that_holds_the_output_does_not_hold_us() -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        "print('done')\n"
    )
    outcome = run(code)
    assert (outcome.kind, outcome.stdout) == ("finished", "done\n")


def test_a_flood_is_cut_and_does_not_block_the_child() -> None:
    outcome = run("import os\nfor _ in range(64): os.write(1, b'x' * 65536)\n")
    assert outcome.ok
    assert len(outcome.stdout) == 1 << 20


def test_output_that_is_no_text() -> None:
    assert run("import os; os.write(1, b'\\xff\\x00ok')").stdout.endswith("\x00ok")


def test_a_closed_machine_kills_its_children() -> None:
    machine = Machine()
    outcomes: list[Outcome] = []
    code = "import threading; threading.Event().wait()"
    worker = threading.Thread(
        target=lambda: outcomes.append(machine.run([sys.executable, "-c", code], deadline_s=60))
    )
    worker.start()
    # Whether the child has started yet or not, it must not outlive `close`.
    machine.close()
    worker.join(60)
    assert not worker.is_alive()
    assert outcomes[0].kind == "crashed"
    assert outcomes[0].returncode == -signal.SIGKILL


def test_the_current_folder_is_not_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the current folder')")
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the current folder')")
    monkeypatch.chdir(tmp_path)
    outcome = Machine().prove("torch", "cpu")
    assert outcome.ok, outcome.stderr


def test_what_libraries_print_does_not_mix_with_the_answer() -> None:
    code = (
        "import sys, types, os\n"
        "noisy = types.ModuleType('hardware_detection.proofs.noisy')\n"
        "def prove():\n"
        "    print('hello from a library'); os.write(1, b'and from C\\n')\n"
        "    return {'devices': [], 'facts': {}}\n"
        "noisy.prove = prove\n"
        "sys.modules[noisy.__name__] = noisy\n"
        "from hardware_detection import proofs\n"
        "proofs.PROOFS['noisy'] = 'noisy'\n"
        "proofs.main(['noisy'])\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.stdout == '{"devices": [], "facts": {}}'
    assert "hello from a library" in done.stderr
    assert "and from C" in done.stderr
