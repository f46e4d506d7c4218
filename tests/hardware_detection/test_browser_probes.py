"""WebGPU and WebNN: which browsers are found, and what their answers justify."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import hardware_detection as hd
from hardware_detection import service
from hardware_detection.browsers import Browser, find_browsers
from hardware_detection.machine import Machine
from hardware_detection.probes import PROBES
from hardware_detection.process import Outcome
from hardware_detection.proofs.matrices import expected
from hardware_detection.record import ProbeResult, from_json, to_json

PATH = "/usr/bin/chromium"
PLAIN, FLAGS = ("browser", "webgpu", PATH, "plain"), ("browser", "webgpu", PATH, "flags")
NO_API = {"devices": [], "facts": {"browser_version": "120.0", "api": False}}
NO_ADAPTER = {"devices": [], "facts": {"browser_version": "156.0", "api": True}}
CRASH = Outcome("crashed", -11, "", "", 1.0)
HANG = Outcome("timeout", -9, "", "", 60.0)


def computed(name: str = "nvidia ampere", **changes: Any) -> dict[str, Any]:
    row = {
        "index": 0,
        "name": name,
        "results": {"fp32": list(expected())},
        "facts": {"architecture": "ampere", "is_fallback_adapter": False, "limits": {"a": 1}},
        **changes,
    }
    return {"devices": [row], "facts": {"browser_version": "156.0", "api": True}}


def probe(fake: Any, name: str = "webgpu", **machine: Any) -> ProbeResult:
    there = {
        "web": True,
        "packages": ["playwright"],
        "programs": {"chromium": fake.finished()},
        **machine,
    }
    result: ProbeResult = importlib.import_module(PROBES[name]).probe(fake.machine(**there))
    assert from_json(json.loads(json.dumps(to_json(result)))) == result
    return result


class TestSearch:
    def test_on_path_each_browser_once(self, fake: Any) -> None:
        programs = dict.fromkeys(("chromium", "google-chrome", "google-chrome-stable"))
        machine = fake.machine(programs=programs)
        machine.real_path = lambda path: path.replace("-stable", "")
        assert find_browsers(machine) == (
            Browser("Chromium", "/usr/bin/chromium"),
            Browser("Chrome", "/usr/bin/google-chrome"),
        )

    @pytest.mark.parametrize(
        ("platform", "environ", "path", "name"),
        [
            (
                "darwin",
                {},
                "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
                "Edge",
            ),
            (
                "win32",
                {"PROGRAMFILES(X86)": "C:\\Program Files (x86)"},
                "C:\\Program Files (x86)\\Google\\Chrome\\Application\\chrome.exe",
                "Chrome",
            ),
        ],
    )
    def test_in_its_usual_place(
        self, fake: Any, platform: str, environ: dict[str, str], path: str, name: str
    ) -> None:
        machine = fake.machine(platform=platform, environ=environ, files={path: ""})
        assert find_browsers(machine) == (Browser(name, path),)
        assert find_browsers(fake.machine(platform="linux", files={path: ""})) == ()

    def test_the_variable_names_the_only_one(self, fake: Any) -> None:
        machine = fake.machine(
            environ={"RP_BROWSER": "/opt/c/headless_shell"},
            programs={"chromium": None},
            files={"/opt/c/headless_shell": ""},
        )
        assert find_browsers(machine) == (Browser("headless_shell", "/opt/c/headless_shell"),)

    def test_the_variable_may_be_a_name_on_the_path(self, fake: Any) -> None:
        machine = fake.machine(environ={"RP_BROWSER": "chromium"}, programs={"chromium": None})
        (found,) = find_browsers(machine)
        assert (found.name, found.path) == ("chromium", machine.which("chromium"))


class TestVerdicts:
    def test_nothing_is_started_unless_somebody_asks(self, fake: Any) -> None:
        result = probe(fake, web=False)
        assert (result.status, result.facts["asked"]) == ("absent", False)
        assert "--web" in result.reason

    def test_without_playwright(self, fake: Any) -> None:
        result = probe(fake, packages=[])
        assert result.status == "absent"
        assert "rp-toolchain[web]" in result.reason

    def test_without_a_browser(self, fake: Any) -> None:
        result = probe(fake, programs={})
        assert result.status == "absent"
        assert "RP_BROWSER" in result.reason

    def test_with_a_browser_that_is_not_there(self, fake: Any) -> None:
        result = probe(fake, environ={"RP_BROWSER": "/nowhere/chromium"})
        assert result.status == "absent"
        assert result.reason.startswith("RP_BROWSER names /nowhere/chromium, which is not there")

    def test_a_gpu_without_flags(self, fake: Any) -> None:
        result = probe(fake, proofs={PLAIN: computed(), FLAGS: computed()})
        assert result.status == "available"
        assert result.facts["adapter"] == "hardware"
        (device,) = result.devices
        assert device.facts["flags"] == []
        assert device.facts["limits"] == {"a": 1}
        assert "as installed" in result.reason
        assert [row["outcome"] for row in result.facts["browsers"]] == [
            "computed without flags",
            "computed with flags",
        ]

    @pytest.mark.parametrize(
        ("name", "facts"),
        [
            ("google swiftshader", {"architecture": "swiftshader"}),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", {}),
            ("Microsoft Basic Render Driver", {}),
            ("some name", {"is_fallback_adapter": True}),
        ],
    )
    def test_a_software_fallback_is_called_one(
        self, fake: Any, name: str, facts: dict[str, Any]
    ) -> None:
        result = probe(fake, proofs={PLAIN: NO_ADAPTER, FLAGS: computed(name, facts=facts)})
        assert result.status == "available"
        assert result.facts["adapter"] == result.devices[0].facts["adapter"] == "software"
        assert "software fallback, which is the CPU" in result.reason
        assert result.devices[0].facts["flags"]

    def test_a_gpu_comes_before_a_fallback(self, fake: Any) -> None:
        edge = "/usr/bin/microsoft-edge"
        result = probe(
            fake,
            programs=dict.fromkeys(("chromium", "microsoft-edge")),
            proofs={
                PLAIN: NO_ADAPTER,
                FLAGS: computed("swiftshader"),
                ("browser", "webgpu", edge, "plain"): computed(),
                ("browser", "webgpu", edge, "flags"): computed(),
            },
        )
        assert [device.facts["adapter"] for device in result.devices] == ["hardware", "software"]
        assert [device.index for device in result.devices] == [0, 1]
        assert result.facts["adapter"] == "hardware"

    def test_webnn_does_not_tell_what_computes(self, fake: Any) -> None:
        answer = computed("WebNN", facts={})
        answer["facts"]["contexts"] = {"gpu": "accepted", "npu": "accepted"}
        proofs = {("browser", "webnn", PATH, mode): answer for mode in ("plain", "flags")}
        result = probe(fake, "webnn", proofs=proofs)
        assert result.status == "available"
        assert result.facts["adapter"] == "unknown"

    @pytest.mark.parametrize(
        ("plain", "flags", "status", "words"),
        [
            (NO_API, NO_API, "absent", "has no WebGPU without flags"),
            (NO_API, NO_ADAPTER, "unusable", "gives no adapter"),
            (NO_ADAPTER, NO_ADAPTER, "unusable", "gives no adapter"),
            (computed(results={"fp32": [0]}), NO_ADAPTER, "unusable", "wrong result"),
            (NO_ADAPTER, computed(results={"fp32": "lost"}), "unusable", "lost"),
            (CRASH, None, "error", "SIGSEGV"),
            (HANG, None, "error", "60 s"),
            ("nonsense", None, "error", "nonsense"),
            ({"error": "Error: no usable sandbox"}, None, "error", "no usable sandbox"),
            (NO_ADAPTER, CRASH, "unusable", "gives no adapter"),
        ],
    )
    def test_the_rest(self, fake: Any, plain: Any, flags: Any, status: str, words: str) -> None:
        # Without an answer for the second start: it must not happen.
        proofs = {PLAIN: plain} | ({} if flags is None else {FLAGS: flags})
        result = probe(fake, proofs=proofs)
        assert result.status == status
        assert words in result.reason
        assert "\n" not in result.reason

    def test_a_fallback_does_not_hide_in_the_wrong_result(self, fake: Any) -> None:
        wrong = computed(results={"fp32": [1.0] * 1024})
        result = probe(fake, proofs={PLAIN: wrong, FLAGS: computed("swiftshader")})
        assert result.status == "available"
        assert result.devices[0].facts["adapter"] == "software"


class TestAutomaticChoice:
    def test_an_emulated_gpu_is_never_chosen(
        self, fake: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proofs = {
            ("browser", name, PATH, mode): computed("swiftshader")
            for name in ("webgpu", "webnn")
            for mode in ("plain", "flags")
        }
        monkeypatch.setattr(
            service,
            "Machine",
            lambda web: fake.machine(
                web=web,
                packages=["playwright"],
                programs={"chromium": None},
                proofs=proofs,
            ),
        )
        report = hd.detect_available_hardware(web=True)
        assert report["hardware"]["webgpu"] is report["hardware"]["webnn"] is True
        automatic = hd.automatic_hardware(report)
        assert automatic["webgpu"] is automatic["webnn"] is False
        assert automatic["cpu"] is True
        assert report["best_available"] == "cpu"


class TestCache:
    @pytest.fixture
    def started(self, fake: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Return the list to which every detection's machine is added."""
        machines: list[Any] = []

        def build(web: bool) -> Machine:
            proofs = {
                ("browser", name, PATH, mode): computed("swiftshader")
                for name in ("webgpu", "webnn")
                for mode in ("plain", "flags")
            }
            machine = fake.machine(
                web=web,
                packages=["playwright"],
                programs={"chromium": None},
                proofs=proofs,
            )
            machines.append(machine)
            return machine  # type: ignore[no-any-return]

        monkeypatch.setattr(service, "Machine", build)
        return machines

    def test_what_a_browser_proved_is_remembered(self, started: list[Any], tmp_path: Path) -> None:
        path = tmp_path / "hw.json"
        assert hd.detect_available_hardware(path)["hardware"]["webgpu"] is False
        assert hd.detect_available_hardware(path, web=True)["hardware"]["webgpu"] is True
        service._MEMORY.clear()
        for web in (False, True):
            report = hd.detect_available_hardware(path, web=web)
            assert report["from_cache"] is True
            assert report["hardware"]["webgpu"] is True
        assert sum(bool(machine.started) for machine in started) == 1

    def test_the_detector_asks_browsers_when_it_is_told_to(
        self, started: list[Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "hw.json"
        assert hd.HardwareDetector(path).is_available("webgpu") is False
        assert hd.HardwareDetector(path, web=True).is_available("webgpu") is True
        assert [machine.web for machine in started] == [False, True]

    def test_a_new_detection_without_browsers_forgets_them(
        self, started: list[Any], tmp_path: Path
    ) -> None:
        path = tmp_path / "hw.json"
        hd.detect_available_hardware(path, web=True)
        report = hd.detect_available_hardware(path, refresh=True)
        assert report["details"]["webgpu"]["asked"] is False


FAKE_PLAYWRIGHT = """
from contextlib import contextmanager


class Page:
    def route(self, pattern, handler): pass
    def goto(self, address): assert address.startswith("https://")
    def evaluate(self, script, factors):
        size, left, right = factors["size"], factors["left"], factors["right"]
        product = [
            sum(left[i * size + k] * right[k * size + j] for k in range(size))
            for i in range(size) for j in range(size)
        ]
        row = {"name": "Fake adapter", "results": {"fp32": product}, "facts": {}}
        return {"devices": [row], "facts": {"api": True}}


class Browser:
    version = "1.0"
    def new_page(self): return Page()
    def close(self): pass


class Chromium:
    def launch(self, *, executable_path, headless, args, timeout):
        assert headless and timeout
        if not __import__("os").path.exists(executable_path):
            raise RuntimeError("Executable doesn't exist at " + executable_path)
        return Browser()


@contextmanager
def sync_playwright():
    yield type("Playwright", (), {"chromium": Chromium()})
"""


@pytest.fixture
def fake_playwright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vendor" / "playwright"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "sync_api.py").write_text(FAKE_PLAYWRIGHT)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def real(executable: str, monkeypatch: pytest.MonkeyPatch, **machine: Any) -> Machine:
    monkeypatch.setenv("RP_BROWSER", executable)
    return Machine(web=True, **machine)


class TestRealChildren:
    def test_the_factors_reach_the_page(
        self, fake_playwright: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = real(sys.executable, monkeypatch)
        monkeypatch.setattr(machine, "has_package", lambda name: True)
        result = importlib.import_module(PROBES["webgpu"]).probe(machine)
        assert result.status == "available", result.reason
        assert result.facts["adapter"] == "hardware"

    def test_an_executable_that_is_not_there(
        self, fake_playwright: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = real("/nowhere/chromium", monkeypatch)
        monkeypatch.setattr(machine, "has_package", lambda name: True)
        result = importlib.import_module(PROBES["webgpu"]).probe(machine)
        assert result.status == "absent"
        assert "RP_BROWSER names /nowhere/chromium" in result.reason


needs_playwright = pytest.mark.skipif(
    find_spec("playwright") is None, reason="playwright is not installed (extra: web)"
)
needs_browser = pytest.mark.skipif(
    not find_browsers(Machine()), reason="no Chromium-family browser is installed"
)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """Return a function: a shell script's text -> an executable that is taken for a browser."""

    def write(text: str) -> str:
        path = tmp_path / "chromium"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


@needs_playwright
@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts and signals")
class TestBrokenBrowsers:
    @pytest.mark.parametrize(
        "text", ["exit 3", "kill -SEGV $$", "echo not a browser"], ids=["exits", "crashes", "lies"]
    )
    def test_one_that_ends_at_once_is_an_error(
        self, script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        machine = real(script(text), monkeypatch)
        result = importlib.import_module(PROBES["webgpu"]).probe(machine)
        assert result.status == "error"
        assert "\n" not in result.reason

    def test_one_that_hangs_is_killed_with_its_children(
        self, script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # Opened for reading and writing: no open blocks, and the test reads what was written.
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        held = os.open(pipe, os.O_RDWR)
        machine = real(
            script(f"echo $$ > {pipe}\nexec sleep 100000"), monkeypatch, proof_deadline_s=5.0
        )
        result = importlib.import_module(PROBES["webgpu"]).probe(machine)
        assert result.status == "error"
        assert "gave no answer within 5 s" in result.reason
        os.write(held, b"0\n")  # on a slow machine the script never came to write its own
        pid = int(os.read(held, 100).split()[0])
        os.close(held)
        assert pid == 0 or has_ended(pid)


def has_ended(pid: int) -> bool:
    """Wait for the end of somebody else's child; one that nobody has reaped has ended too."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        process.wait(timeout=30)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


@needs_playwright
@needs_browser
class TestInstalledBrowser:
    def test_webgpu_tells_the_four_states_apart(self) -> None:
        result = importlib.import_module(PROBES["webgpu"]).probe(Machine(web=True))
        assert result.status in ("available", "unusable"), result.reason
        starts = result.facts["browsers"]
        assert {row["browser_version"] for row in starts}
        assert [bool(row["flags"]) for row in starts[:2]] == [False, True]
        if result.status == "available":
            device = result.devices[0]
            assert device.dtypes[0] == "fp32"
            assert device.facts["limits"]["maxBufferSize"] >= 1 << 28
            assert ("shader-f16" in device.facts["features"]) is ("fp16" in device.dtypes)
            assert device.facts["adapter"] in ("hardware", "software")

    def test_webnn_computes_or_says_why_not(self) -> None:
        result = importlib.import_module(PROBES["webnn"]).probe(Machine(web=True))
        assert result.status in ("available", "unusable", "absent"), result.reason
        assert result.facts["browsers"]
        if result.status == "available":
            assert result.devices[0].facts["limits"]["operations"]
