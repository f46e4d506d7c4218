"""The user's own templates: are they under names that anything asks for?"""

from __future__ import annotations

import difflib
import re
from collections.abc import Set
from pathlib import Path

from rp_cli.errors import BadInputError

# How alike the families in two names must be for one to be a slip: "video" is not "vision".
_ALIKE = 0.8
_ENDING = re.compile(r"(\.py)?(\.(j2|jinja2?|jnj|tpl))?$")
_AROUND = re.compile(r"^hf_|(_template)?(\.py)?\.j2$")


def refuse_misspelt(folder: Path, asked: Set[str]) -> None:
    """Refuse a folder without templates, or with one under nearly the name of another.

    The one is what nothing asks for, the other what would be taken.

    Args:
        asked: the names of templates that are asked for.

    Raises:
        BadInputError: it is such a folder; says which template may be meant to be called how.
    """
    _refuse_other_endings(folder, asked)
    texts = {path.name: _text(path) for path in sorted(folder.glob("*.j2"))}
    if not texts:
        raise BadInputError(
            f"{folder} has no template; one is called e.g. hf_embedding_template.py.j2."
        )
    families = {_AROUND.sub("", name): name for name in asked}
    for name in sorted(texts.keys() - asked):
        near = difflib.get_close_matches(_AROUND.sub("", name), families, n=1, cutoff=_ALIKE)
        if near and not any(name in text for other, text in texts.items() if other != name):
            raise BadInputError(
                f"No model takes the template {folder / name}; "
                f"if it is meant to be {families[near[0]]}, rename it."
            )


def _refuse_other_endings(folder: Path, asked: Set[str]) -> None:
    """Refuse what is called as a template that is asked for, but for the ending of its name."""
    here = {path.name for path in folder.glob("*")}
    endless = {_ENDING.sub("", name): name for name in asked - here}
    for name in sorted(here - asked):
        meant = endless.get(_ENDING.sub("", name))
        if meant and (folder / name).is_file():
            raise BadInputError(
                f"No model takes the template {folder / name}: it must end as {meant}; rename it."
            )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # told where it is asked for
        return ""
