"""Where Chromium-family browsers are installed; nothing is started here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import NamedTuple, Protocol

#: Names the one executable to use, instead of looking for any.
BROWSER_VARIABLE = "RP_BROWSER"

# On PATH, under Linux and elsewhere.
_PROGRAMS = {
    "chromium": "Chromium",
    "chromium-browser": "Chromium",
    "google-chrome": "Chrome",
    "google-chrome-stable": "Chrome",
    "google-chrome-unstable": "Chrome",
    "microsoft-edge": "Edge",
    "microsoft-edge-stable": "Edge",
    "brave-browser": "Brave",
}
_MAC = {
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome": "Chrome",
    "/Applications/Google Chrome Canary.app/Contents/MacOS/Google Chrome Canary": "Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge": "Edge",
    "/Applications/Chromium.app/Contents/MacOS/Chromium": "Chromium",
    "/Applications/Brave Browser.app/Contents/MacOS/Brave Browser": "Brave",
}
_WINDOWS_FOLDERS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")
_WINDOWS = {
    "Google\\Chrome\\Application\\chrome.exe": "Chrome",
    "Microsoft\\Edge\\Application\\msedge.exe": "Edge",
    "Chromium\\Application\\chrome.exe": "Chromium",
    "BraveSoftware\\Brave-Browser\\Application\\brave.exe": "Brave",
}


class Browser(NamedTuple):
    """An installed browser: what it is called, and the absolute path of its executable."""

    name: str
    path: str


class Places(Protocol):
    """What the search needs to know of a machine; ``machine.Machine`` has it."""

    platform: str
    environ: Mapping[str, str]

    def which(self, program: str) -> str | None: ...  # noqa: D102
    def exists(self, path: str) -> bool: ...  # noqa: D102
    def real_path(self, path: str) -> str: ...  # noqa: D102


def find_browsers(machine: Places) -> tuple[Browser, ...]:
    """Return the installed browsers, each once, in the order of the tables above.

    RP_BROWSER names the only one, by its path or as it is called on PATH.
    """
    chosen = machine.environ.get(BROWSER_VARIABLE)
    if chosen:
        path = machine.which(chosen) or (chosen if machine.exists(chosen) else None)
        return (Browser(PurePath(chosen).name, path),) if path else ()
    found: dict[str, Browser] = {}
    for name, path in _candidates(machine):
        # Distributions install one browser under several names.
        found.setdefault(machine.real_path(path), Browser(name, path))
    return tuple(found.values())


def _candidates(machine: Places) -> Iterable[tuple[str, str]]:
    for program, name in _PROGRAMS.items():
        path = machine.which(program)
        if path:
            yield name, path
    for path, name in _installed(machine):
        if machine.exists(path):
            yield name, path


def _installed(machine: Places) -> Iterable[tuple[str, str]]:
    if machine.platform == "darwin":
        yield from _MAC.items()
    elif machine.platform == "win32":
        for variable in _WINDOWS_FOLDERS:
            folder = machine.environ.get(variable)
            if folder:
                yield from ((f"{folder}\\{path}", name) for path, name in _WINDOWS.items())
