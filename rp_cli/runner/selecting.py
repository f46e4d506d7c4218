"""``-k``: which tests are meant, by words of their names, with ``and``, ``or``, ``not``."""

from __future__ import annotations

import re
from collections.abc import Callable

from rp_cli.errors import BadInputError

_TOKEN = re.compile(r"\s*([()]|[^\s()]+)")

Selection = Callable[[str], bool]


def parse_selection(text: str) -> Selection:
    """Return whether a test's name is meant; a word is meant by every name that contains it.

    Case does not matter. An empty text means all.

    Raises:
        BadInputError: it is no such expression.
    """
    if not text.strip():
        return lambda _: True
    reader = _Reader(text)
    selection = reader.alternatives()
    if reader.token is not None:
        raise reader.error()
    return lambda name: selection(name.lower())


class _Reader:
    """Reads the expression by recursive descent; ``token`` is the next one, None at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = iter(_TOKEN.findall(text))
        self.token: str | None = None
        self._advance()

    def error(self) -> BadInputError:
        return BadInputError(
            f"-k {self._text!r} cannot be read at {self.token or 'its end'!r}; write words with "
            'and, or, not and parentheses, such as -k "bert and not padding".'
        )

    def _advance(self) -> str | None:
        before, self.token = self.token, next(self._tokens, None)
        return before

    def alternatives(self) -> Selection:
        parts = [self._together()]
        while self.token == "or":  # noqa: S105 - no password
            self._advance()
            parts.append(self._together())
        return lambda name: any(part(name) for part in parts)

    def _together(self) -> Selection:
        parts = [self._single()]
        while self.token == "and":  # noqa: S105 - no password
            self._advance()
            parts.append(self._single())
        return lambda name: all(part(name) for part in parts)

    def _single(self) -> Selection:
        if self.token in (None, ")", "and", "or"):
            raise self.error()
        token = self._advance()
        if token == "not":  # noqa: S105 - no password
            inner = self._single()
            return lambda name: not inner(name)
        if token != "(":  # noqa: S105 - no password
            word = str(token).lower()
            return lambda name: word in name
        inner = self.alternatives()
        if self.token != ")":  # noqa: S105 - no password
            raise self.error()
        self._advance()
        return inner
