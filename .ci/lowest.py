"""Print the lowest version of each requirement that pyproject.toml allows, as constraints.

torch is left out: constraints.txt names the release of which there is a CPU build.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in project["dependencies"]:
    name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()
    if name != "torch":
        print(f"{name}=={lowest}")
