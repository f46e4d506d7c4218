"""onnxruntime-web and transformers.js: pinned versions from npm, their digests checked, cached."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from resource_pool.errors import UnsupportedOperationError, WebSetupError


class Package(NamedTuple):
    """Files of one version of an npm package.

    Attributes:
        name: without its scope, which the files' folder is called by.
        scope: "@who/", or "".
        sha512: as npm's record of this version has it, its "integrity" without "sha512-".
        files: those of its folder "dist" that are needed.
        purpose: what it does, for a message.
    """

    name: str
    scope: str
    version: str
    sha512: str
    files: tuple[str, ...]
    purpose: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


#: The bundle with which exported models came out right on both interfaces, and its engine.
ENGINE = Package(
    "onnxruntime-web",
    "",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
    "runs models in a browser",
)
#: It computes with the engine above, in the place of the development version that it names.
PIPELINES = Package(
    "transformers",
    "@huggingface/",
    "4.3.1",
    "5+voSeUCFK6PCKlY15dPhNOKq3/zOTxDN7oC+Wy9dFb1QZ0TSQomZRRy7URRK8YRuUoE9fGMQTTPC5d/pWBJhA==",
    ("transformers.web.min.js",),
    "has pipelines for browsers",
)
PACKAGES = (ENGINE, PIPELINES)
_FETCH_SECONDS = 300


def runtime_folder(package: Package = ENGINE) -> Path:
    """Return where the files are, or would be."""
    from hardware_detection.files import rp_home

    return rp_home() / "web" / f"{package.name}-{package.version}"


def require_runtime(package: Package = ENGINE) -> Path:
    """Return the folder with the files.

    Raises:
        UnsupportedOperationError: they are not here.
    """
    folder = runtime_folder(package)
    if not _is_whole(folder, package):
        raise UnsupportedOperationError(
            f"{package.scope}{package.name}, which {package.purpose}, is not here; run "
            "`rp web setup`."
        )
    return folder


def _is_whole(folder: Path, package: Package) -> bool:
    return all((folder / name).is_file() for name in package.files)


def install(package: Package = ENGINE, *, again: bool = False) -> Path:
    """Fetch the files unless they are here already; returns their folder.

    Nothing of the package is run, and it is opened only after its digest was found right.

    Raises:
        WebSetupError: npm is missing or fails, the package is another one than was pinned, or
            the folder cannot be written.
    """
    from filelock import FileLock

    folder = runtime_folder(package)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_FETCH_SECONDS):
            if again or not _is_whole(folder, package):
                _fetch(package, folder)
    except OSError as error:
        raise WebSetupError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return folder


def _fetch(package: Package, folder: Path) -> None:
    """Build the folder beside its place, and then put it there as a whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".setup-") as beside:
        archive = _packed(package, Path(beside))
        _check(package, archive)
        made = Path(beside) / "files"
        made.mkdir()
        with tarfile.open(archive) as files:
            for name in package.files:
                _unpack(package, files, name, made)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def _packed(package: Package, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise WebSetupError("npm is not installed; it comes with Node.js, and fetches the files.")
    options = ["--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            [npm, "pack", f"{package.scope}{package.name}@{package.version}", *options],
            capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WebSetupError(f"npm fetched nothing within {_FETCH_SECONDS} s.") from None
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        last = next(reversed(done.stderr.strip().splitlines()), "no message")
        raise WebSetupError(f"npm could not fetch {package}: {last}")
    return found[0]


def _check(package: Package, archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise WebSetupError(
            f"npm delivered another {package} than the one that rp pins (its "
            "sha512 differs); nothing was installed. Ask who runs your registry."
        )


def _unpack(package: Package, files: tarfile.TarFile, name: str, folder: Path) -> None:
    try:
        member = files.extractfile(f"package/dist/{name}")
    except KeyError:
        member = None
    if member is None:
        raise WebSetupError(f"{package} has no {name}.")
    with member, (folder / name).open("xb") as stream:
        shutil.copyfileobj(member, stream)
