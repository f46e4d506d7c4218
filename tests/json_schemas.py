"""The published schemas of docs/schemas, for tests that hold what rp prints against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"


def schema(name: str) -> dict[str, Any]:
    """Return a schema by the name of its file."""
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def assert_fits(document: Any, name: str) -> None:
    """Fail with the place and the reason where a document is not as its schema says."""
    import jsonschema

    jsonschema.validate(document, schema(name), cls=jsonschema.Draft202012Validator)
