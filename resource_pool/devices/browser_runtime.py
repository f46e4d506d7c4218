"""onnxruntime-web: a pinned version from npm, its digest checked, in the user's cache."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from resource_pool.errors import UnsupportedOperationError, WebSetupError

VERSION = "1.30.0"
# As npm's record of this version has it (its "integrity", without the name of the algorithm).
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
#: The bundle with which exported models came out right on both interfaces, and its engine.
FILES = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
_FETCH_SECONDS = 300


def runtime_folder() -> Path:
    """Return where the files are, or would be."""
    from hardware_detection.files import rp_home

    return rp_home() / "web" / f"onnxruntime-web-{VERSION}"


def require_runtime() -> Path:
    """Return the folder with the files.

    Raises:
        UnsupportedOperationError: they are not here.
    """
    folder = runtime_folder()
    if not all((folder / name).is_file() for name in FILES):
        raise UnsupportedOperationError(
            "onnxruntime-web, which runs models in a browser, is not here; run `rp web setup`."
        )
    return folder


def install(*, again: bool = False) -> Path:
    """Fetch the files unless they are here already; returns their folder.

    Nothing of the package is run, and it is opened only after its digest was found right.

    Raises:
        WebSetupError: npm is missing or fails, the package is another one than was pinned, or
            the folder cannot be written.
    """
    from filelock import FileLock

    folder = runtime_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock", timeout=_FETCH_SECONDS):
            if again or not all((folder / name).is_file() for name in FILES):
                _fetch(folder)
    except OSError as error:
        raise WebSetupError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return folder


def _fetch(folder: Path) -> None:
    """Build the folder beside its place, and then put it there as a whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".setup-") as beside:
        archive = _packed(Path(beside))
        _check(archive)
        made = Path(beside) / "files"
        made.mkdir()
        with tarfile.open(archive) as package:
            for name in FILES:
                _unpack(package, name, made)
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def _packed(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise WebSetupError("npm is not installed; it comes with Node.js, and fetches the files.")
    options = ["--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(
            [npm, "pack", f"onnxruntime-web@{VERSION}", *options],
            capture_output=True, text=True, timeout=_FETCH_SECONDS, check=False, cwd=folder,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise WebSetupError(f"npm fetched nothing within {_FETCH_SECONDS} s.") from None
    found = list(folder.glob("*.tgz"))
    if done.returncode or len(found) != 1:
        last = next(reversed(done.stderr.strip().splitlines()), "no message")
        raise WebSetupError(f"npm could not fetch onnxruntime-web {VERSION}: {last}")
    return found[0]


def _check(archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise WebSetupError(
            f"npm delivered another onnxruntime-web {VERSION} than the one that rp pins (its "
            "sha512 differs); nothing was installed. Ask who runs your registry."
        )


def _unpack(package: tarfile.TarFile, name: str, folder: Path) -> None:
    try:
        member = package.extractfile(f"package/dist/{name}")
    except KeyError:
        member = None
    if member is None:
        raise WebSetupError(f"onnxruntime-web {VERSION} has no {name}.")
    with member, (folder / name).open("xb") as stream:
        shutil.copyfileobj(member, stream)
