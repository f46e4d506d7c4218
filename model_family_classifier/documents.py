"""Reads JSON and YAML that nobody vouches for: data only, of bounded size and depth."""

from __future__ import annotations

import functools
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from model_family_classifier.errors import ClassificationInputError

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 32
# Half a million parts of YAML take some seconds; as many in JSON take a tenth of one.
MAX_PARTS = 500_000

Read = TypeVar("Read")


def read_document(path: Path, *, what: str) -> Any:
    """Return the content of a JSON (by its suffix) or YAML file.

    Args:
        path: the file.
        what: how the message calls it, e.g. "model database".

    Raises:
        ClassificationInputError: unreadable, over 8 MiB, malformed, a key twice, too deeply
            nested, or YAML with a tag or an alias.
    """
    text = read_text(path, what=what)
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
        return load_yaml(text)
    except ClassificationInputError as error:
        raise ClassificationInputError(f"{what} {str(path)!r} {error}.") from None
    except (ValueError, RecursionError) as error:
        raise ClassificationInputError(
            f"{what} {str(path)!r} is malformed: {_brief(error)}."
        ) from None


def read_cached(load: Callable[[Path, int, int], Read], path: str | Path, *, what: str) -> Read:
    """Return ``load(path, time, size)`` of a file, so that a cache in ``load`` sees each change.

    Raises:
        ClassificationInputError: there is no such file, or whatever ``load`` raises.
    """
    file = Path(path)
    try:
        found = file.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClassificationInputError(f"{what} {str(path)!r} cannot be read: {reason}.") from None
    return load(file, found.st_mtime_ns, found.st_size)


def read_text(path: Path, *, what: str, pipes: bool = False) -> str:
    """Return the text of a UTF-8 file of at most 8 MiB; ``pipes``: a pipe may be read, too.

    Raises:
        ClassificationInputError: it cannot be read, or is no such file.
    """
    try:
        content = _read(path, MAX_BYTES + 1, pipes=pipes)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ClassificationInputError(f"{what} {str(path)!r} cannot be read: {reason}.") from None
    if len(content) > MAX_BYTES:
        limit = MAX_BYTES // 1024**2
        raise ClassificationInputError(f"{what} {str(path)!r} is larger than {limit} MiB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ClassificationInputError(f"{what} {str(path)!r} is not UTF-8 text.") from None


def load_trusted_yaml(path: Path) -> Any:
    """Return the content of a YAML file of our own."""
    import yaml

    return yaml.load(path.read_bytes(), Loader=_safe_loader())  # noqa: S506 - a safe loader


def read_head(path: Path, size: int) -> str:
    """Return the first ``size`` bytes of a file as text; nothing for a file that is not there."""
    try:
        return _read(path, size).decode("utf-8-sig", errors="ignore")
    except (OSError, ValueError):
        return ""


def _read(path: Path, size: int, *, pipes: bool = False) -> bytes:
    """Return the first ``size`` bytes of a regular file.

    Opening a pipe would wait for a writer for ever, and a device never ends. With ``pipes``,
    what a person names to be read to its end (``-f <(…)``) may be one.
    """
    wait = 0 if pipes else getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, os.O_RDONLY | wait | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as stream:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or (pipes and stat.S_ISFIFO(mode))):
            raise OSError(0, "it is not a regular file")
        return stream.read(size)


def load_yaml(text: str) -> Any:
    """Return the content of YAML that nobody vouches for.

    Raises:
        ClassificationInputError: a tag, an alias, or nested too deeply.
        ValueError: not YAML.
    """
    import yaml

    try:
        _refuse_hostile(text)
        return yaml.load(text, Loader=_safe_loader())  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(_yaml_problem(error)) from None


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: a server or a file may have written it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _refuse_hostile(text: str) -> None:
    """Walk the events before anything is built.

    Deep nesting overflows the C stack of libyaml's composer and kills the process, so it cannot
    be caught there; the event parser does not recurse.
    """
    import yaml

    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_safe_loader())):
        if count > MAX_PARTS:
            raise ClassificationInputError(f"has more than {MAX_PARTS} parts; write it as JSON")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ClassificationInputError(f"uses an anchor or alias{_where(event)}; write it out")
        tag = getattr(event, "tag", None)
        if tag:
            raise ClassificationInputError(f"uses the tag {tag!r}{_where(event)}; remove it")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ClassificationInputError(f"is nested more than {MAX_DEPTH} levels deep")


@functools.cache
def _safe_loader() -> Any:
    """Return PyYAML's safe loader, stricter: no key twice, and only what JSON has, too.

    A date is text, as it is written, and so is what is no finite number.
    """
    import yaml

    # libyaml is ten times faster, but PyYAML can be built without it.
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]  # decided at run time
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            _check_unique(node)
            return super().construct_mapping(node, deep)

    # "1:1:1" would be a number in YAML 1.1, and a long one takes hours to compute.
    for kind in ("int", "float"):
        tag = f"tag:yaml.org,2002:{kind}"
        number = base.yaml_constructors[tag]
        Loader.add_constructor(tag, lambda self, node, number=number: _text_or(number, self, node))
    Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: node.value)
    return Loader


def _text_or(number: Callable[[Any, Any], Any], loader: Any, node: Any) -> Any:
    if ":" in node.value:
        return node.value
    value = number(loader, node)
    return node.value if isinstance(value, float) and not math.isfinite(value) else value


def _check_unique(node: Any) -> None:
    """Refuse a mapping with a key twice: which of the two its author meant, nobody knows."""
    from yaml.constructor import ConstructorError

    seen = set()
    for key, _ in node.value:
        if isinstance(key.value, str) and key.value in seen:
            raise ConstructorError(
                None, None, f"{key.value[:80]!r} stands there twice", key.start_mark
            )
        seen.add(key.value if isinstance(key.value, str) else None)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object, or refuse one with a key twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} stands there twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _where(event: Any) -> str:
    return f" in line {event.start_mark.line + 1}"


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or 'not YAML'}{where}"


def _brief(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).splitlines()[0][:200]
