"""Edits a user's model database: other entries stay, and the file is never half-written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardware_detection.files import rp_home, write_atomically
from model_family_classifier.database import check_entries, read_database
from model_family_classifier.documents import load_yaml
from model_family_classifier.errors import ClassificationInputError
from rp_cli.errors import BadInputError, OutputError

VARIABLE = "RP_MODEL_DB"
_LOCK_SECONDS = 10.0

Entries = Mapping[str, Mapping[str, Any]]


def default_database() -> Path:
    """Return the file that is used without --model-db: $RP_MODEL_DB, or models.yaml in rp's folder.

    Raises:
        BadInputError: RP_MODEL_DB begins with a user whom this system does not know.
    """
    chosen = os.environ.get(VARIABLE)
    if not chosen:
        return rp_home() / "models.yaml"
    try:
        return Path(chosen).expanduser()
    except RuntimeError:
        raise BadInputError(
            f"{VARIABLE} is {chosen!r}, and there is no such user here; set it to a file."
        ) from None


def existing_database() -> Path | None:
    """Return the default database, or None where the user has none.

    One that RP_MODEL_DB names must be there: reading it then says what is wrong.
    """
    path = default_database()
    there = os.path.lexists(path)  # a name that is too long is not, and raises nothing
    return path if os.environ.get(VARIABLE) or there else None


def classified(model_name: str) -> dict[str, Any]:
    """Return what a model is, by the user's database where there is one.

    Raises:
        BadInputError: as ``default_database``.
        ClassificationInputError: the name or the database is wrong.
    """
    from model_family_classifier import classify_model

    return classify_model(model_name, model_db_path=existing_database())


def entries_of(path: Path) -> Entries:
    """Return the entries of a database; none for a file that is not there yet.

    Raises:
        ClassificationInputError: it cannot be read, or one of its entries is malformed.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError):
        pass  # reading it says what is wrong
    return read_database(path)


def add_entries(path: Path, new: Entries, *, replace: bool = False) -> None:
    """Write entries into a database, all of them or none.

    Raises:
        BadInputError: an entry is there already, and ``replace`` is not set.
        ClassificationInputError: the database or an entry is malformed.
        OutputError: the file cannot be written.
    """
    check_entries(dict(new), "the new entry")
    path = Path(os.path.realpath(path))  # one lock for all names of a file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            before = entries_of(path)
            taken = [name for name in new if name in before and before[name] != new[name]]
            if taken and not replace:
                raise BadInputError(
                    f"{path} has an entry for {taken[0]!r} already; --replace puts the new one "
                    "in its place."
                )
            write_atomically(path, _edited(path, before, new))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep two commands from reading the same old file and losing one's entries."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name[:40]}.lock"), timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        why = "another command is editing it; try again"
        if not Path(lock.lock_file).exists():
            why = f"no file can be made in {path.parent}"
        raise OSError(why) from None
    try:
        yield
    finally:
        lock.release()


def _edited(path: Path, before: Entries, new: Entries) -> str:
    wanted = {**before, **new}
    if path.suffix.lower() == ".json":
        return json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
    text = path.read_text(encoding="utf-8-sig") if path.exists() else ""
    added = {name: entry for name, entry in new.items() if name not in before}
    if len(added) == len(new):
        appended = f"{text.rstrip()}\n{_yaml(added)}".lstrip()
        if _says(appended, wanted):
            return appended
    # A changed entry, or a file in flow style: written anew, which loses the comments.
    text = _yaml(wanted)
    if not _says(text, wanted):
        raise BadInputError(f"YAML cannot hold some text of an entry; give {path} the suffix .json")
    return text


def _yaml(entries: Entries) -> str:
    import yaml

    plain = json.loads(json.dumps(entries))  # no anchors for objects that occur twice
    text = str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))
    # PyYAML writes some line separators as they are and reads them back as blanks.
    return text if _says(text, plain) else str(yaml.safe_dump(plain, sort_keys=False))


def _says(text: str, wanted: Entries) -> bool:
    try:
        return bool(load_yaml(text) == wanted)
    except (ValueError, RecursionError, ClassificationInputError):
        return False
