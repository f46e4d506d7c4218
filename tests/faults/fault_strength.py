"""Runs generated tests with and without planted faults, in one process per architecture."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
import unittest
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from fault_catalogue import FAULTS, Fault

from model_family_classifier import classify_model
from resource_pool import get_global_resource_pool
from rp_cli.codegen.plan import make_plan
from rp_cli.codegen.render import render


@dataclass(frozen=True)
class Architecture:
    """A model, and what of it a fault can be planted on."""

    model: str
    traits: frozenset[str]


def architecture(model: str, traits: str) -> Architecture:
    return Architecture(model, frozenset(traits.split()))


_DECODER = "text mask causal cache positions generates prompted"
ARCHITECTURES = (
    architecture("bert-base-uncased", "text mask encoder pooled"),
    architecture("gpt2", f"{_DECODER} tied"),
    architecture("meta-llama/Llama-2-7b-hf", _DECODER),
    architecture("t5-small", "text mask seq2seq causal cache generates tied"),
    architecture("google/vit-base-patch16-224", "images"),
    architecture("microsoft/resnet-50", "images batchnorm"),
    architecture("openai/whisper-tiny", "sounds seq2seq causal cache positions generates tied"),
    architecture("facebook/wav2vec2-base-960h", "sounds"),
    architecture("openai/clip-vit-base-patch32", "text images pooled"),
    architecture("llava-hf/llava-1.5-7b-hf", f"{_DECODER} images"),
    architecture("MCG-NJU/videomae-base", "images"),
    architecture("mistralai/Mixtral-8x7B-v0.1", f"{_DECODER} experts"),
    # Sets the scores of image tokens to the lowest number of its dtype.
    architecture("facebook/chameleon-7b", _DECODER),
)


@dataclass(frozen=True)
class Outcome:
    """What one run of a generated file said."""

    architecture: str
    template: str
    fault: str | None
    caught_by: str | None  # the first test that failed
    detail: str

    @property
    def caught(self) -> bool:
        return self.caught_by is not None


def applicable(one: Architecture) -> list[Fault]:
    return [fault for fault in FAULTS if fault.needs <= one.traits]


def measure(one: Architecture, folder: Path, faults: Iterable[Fault | None]) -> Iterator[Outcome]:
    """Yield an outcome for each fault; None is the model as it is."""
    # On the CPU alone: what other hardware and engines do is no part of this.
    plan = replace(make_plan(classify_model(one.model)), priority=("cpu",), engines=())
    path = folder / plan.file_name
    path.write_text(render(plan), encoding="utf-8")
    module = _imported(path)
    for fault in faults:
        with contextlib.ExitStack() as planted:
            planted.enter_context(_one_thread())
            if fault is not None:
                planted.enter_context(fault.plant())
            test, detail = _first_failure(module)
        name = None if fault is None else fault.name
        yield Outcome(one.model, plan.template, name, test, detail)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """For models of a few layers a second thread takes more time than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _first_failure(module: ModuleType) -> tuple[str | None, str]:
    """Run a module's tests on newly loaded models until one fails; return its name and why."""
    get_global_resource_pool().clear()
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    runner = unittest.TextTestRunner(stream=io.StringIO(), failfast=True)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = runner.run(suite)
    get_global_resource_pool().clear()
    for test, trace in [*result.failures, *result.errors]:
        return test.id().rpartition(".")[2], trace.strip().rpartition("\n")[2]
    if not result.testsRun:
        raise RuntimeError(f"{module.__name__} ran no test")
    return None, ""


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
