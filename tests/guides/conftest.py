"""A hub's cache that holds twins under the names that the guides use, and the global pool anew."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub.constants
import pytest

from hardware_detection.testing import fake_report, use_report
from resource_pool import ResourcePool, _global, _system, get_global_resource_pool
from resource_pool.devices import Memory
from resource_pool.weights import locate_weights
from rp_cli import app
from rp_cli.output import LOGGERS

# name in the guides -> the class that the guides load it with, which a twin has the heads of
MODELS = {
    "bert-base-uncased": "AutoModel",
    "gpt2": "AutoModelForCausalLM",
    "t5-small": "AutoModelForSeq2SeqLM",
    "vit-base-patch16-224": "AutoModelForImageClassification",
}
COMMIT = "0" * 40


@pytest.fixture(scope="session")
def hub_of_twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a hub cache in which ``from_pretrained`` finds the guides' models offline."""
    hub = tmp_path_factory.mktemp("hub_of_twins")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RP_HOME", str(tmp_path_factory.mktemp("twins")))
        for name, auto_class in MODELS.items():
            twin = locate_weights(name, auto_class=auto_class, mode="tiny").path
            model = hub / f"models--{name}"
            shutil.copytree(twin, model / "snapshots" / COMMIT)
            (model / "refs").mkdir()
            (model / "refs" / "main").write_text(COMMIT)
    return hub


@pytest.fixture
def offline_hub(hub_of_twins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process, and those that it starts, see that cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub_of_twins))
    monkeypatch.setenv("HF_HUB_CACHE", str(hub_of_twins))
    return hub_of_twins


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ResourcePool]:
    """Return the global pool, new, on a machine that has a CPU, much memory and nothing else."""
    monkeypatch.setattr(_global, "_global_pool", None)
    monkeypatch.setattr(_system, "memory", lambda: Memory(64 * 2**30, 48 * 2**30))
    with use_report(fake_report()):
        yield get_global_resource_pool()
        get_global_resource_pool().clear()


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def rp(
    pool: ResourcePool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Done]]:
    """Call ``rp`` in this process; undo what --debug does to its loggers."""
    # Real browsers have tests of their own, and take seconds.
    monkeypatch.setenv("RP_BROWSER", "/nowhere/chromium")
    monkeypatch.setenv("RP_WEIGHTS", "tiny")
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["rp", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            app.main()
        captured = capfd.readouterr()
        return Done(int(stop.value.code or 0), captured.out, captured.err)

    yield call
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
