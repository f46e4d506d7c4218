"""Every test gets a home of its own, no hub, and none of the caller's settings."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# CI has two cores and runs the tests side by side: how long an example takes says nothing. The
# suite tries the same examples each time, so that it says something of the change alone; new ones
# are what `make search` tries.
settings.register_profile(
    "rp", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile(
    "search",
    settings.get_profile("rp"),
    derandomize=False,
    # One that tries the same examples keeps none, and hands that on.
    database=settings.get_profile("default").database,
    max_examples=2000,
    print_blob=True,
)
settings.load_profile("rp")

# huggingface_hub reads these once, when a test module imports it. The user's cache is never read.
_HUB = tempfile.TemporaryDirectory(prefix="rp_tests_hub_")
os.environ.update(HF_HOME=_HUB.name, HF_HUB_CACHE=f"{_HUB.name}/hub", HF_HUB_OFFLINE="1")
os.environ.pop("HUGGINGFACE_HUB_CACHE", None)

# Generated files, to be compared and not to be collected as tests of ours.
collect_ignore_glob = ["golden/*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the golden files again."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden again")


_OURS = ("RP_", "RESOURCE_POOL_", "TEST_HARDWARE_PREFERENCES")


@pytest.fixture(autouse=True)
def isolated_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Point RP_HOME and the hub's cache at an empty folder; clear what changes what rp does."""
    for name in list(os.environ):
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("rp_home")
    monkeypatch.setenv("RP_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(home / "huggingface"))
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "huggingface" / "hub"))
    return home


# The fixtures of several folders' tests, which are no package.
sys.path.append(str(Path(__file__).parent))
pytest_plugins = ["web_parts"]
