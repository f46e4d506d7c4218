"""Makes docs/images/demo.svg: what rp really prints on this machine, with tiny weights.

``make pictures`` runs it. The commands run in an empty folder with a home of their own, offline.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
COLUMNS = 112
# The command, and whether it draws for a terminal; a bar that moves is no picture.
COMMANDS = (
    ("rp generate --model bert-base-uncased", False),
    ("rp run skills", False),
    ("rp report", True),
)
SETTINGS = {
    "RP_WEIGHTS": "tiny",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TERM": "xterm-256color",
    "COLUMNS": str(COLUMNS),
}
# Of a run, what it says of tests one by one is left out.
_KEPT = re.compile(r"^(PASSED|FAILED|Weights:|Model |Ran |OK|\d+ files)")


def printed(command: str, folder: str, *, drawn: bool) -> str:
    """Return what a command prints, as a terminal of COLUMNS columns gets it where it is drawn."""
    words = [str(Path(sys.executable).with_name("rp")), *command.split()[1:]]
    environment = {**os.environ, **SETTINGS, "RP_HOME": f"{folder}/home"}
    if not drawn:
        done = subprocess.run(
            words, cwd=folder, env=environment, text=True, check=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines = done.stdout.splitlines()
        kept = [line for line in lines if command != "rp run skills" or _KEPT.match(line)]
        return "\n".join(kept)
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    with subprocess.Popen(
        words, cwd=folder, env=environment, stdin=follower, stdout=follower, stderr=follower
    ):
        os.close(follower)
        text = b"".join(_read(leader))
    os.close(leader)
    return text.decode().replace("\r\n", "\n").strip("\n")


def _read(leader: int) -> list[bytes]:
    parts = []
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # how Linux says that nobody writes any more
            return parts
        if not part:
            return parts
        parts.append(part)


def main() -> None:
    """Run the commands and write the picture."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with tempfile.TemporaryDirectory(prefix="rp-demo-") as folder:
        printed("rp detect", folder, drawn=False)  # remembered: the picture begins after it
        for command, drawn in COMMANDS:
            console.print(Text("$ ", "bold green") + Text(command, "bold"))
            console.print(Text.from_ansi(printed(command, folder, drawn=drawn)))
            console.print()
    svg = console.export_svg(title="rp")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # they name another host's files
    svg = "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "demo.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
