"""One of transformers.js's pipelines in a browser of its own, and the model on PyTorch."""

from __future__ import annotations

import re
import sys
import tempfile
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resource_pool._global import note_placement
from resource_pool.devices import browser
from resource_pool.devices.browser_runtime import PIPELINES, require_runtime
from resource_pool.devices.browser_session import BrowserSession
from resource_pool.devices.flat import Inputs
from resource_pool.devices.onnx_export import Exported
from resource_pool.errors import UnsupportedOperationError
from resource_pool.transformers_js import tasks

if TYPE_CHECKING:
    from resource_pool.weights import Weights

_SCRIPTS = Path(__file__).parent / "web"
_IMPORTS = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)
# Where the page looks for the model, whose own name is nobody's path.
_MODEL = "models/model"


def start(page: Path, weights: Weights, auto_class: str, task: str) -> Pipeline:
    """Return the running pipeline of a generated page.

    Args:
        page: the generated HTML file.
        weights: what ``locate_weights`` found.
        auto_class: transformers' class that loads them.
        task: by its name in transformers.js.

    Raises:
        unittest.SkipTest: a package, transformers.js or a browser is not here; says which.
        UnsupportedOperationError: the model cannot be exported, or transformers.js cannot load it.
        ComputationTimeoutError: the browser gave no answer in time.
    """
    try:
        browser.require_packages()
        runtimes = (require_runtime(), require_runtime(PIPELINES))
        program, kind = browser.proved("webgpu", 0)
    except UnsupportedOperationError as error:
        raise unittest.SkipTest(str(error)) from error
    files = {file.name: file for file in _SCRIPTS.iterdir()}
    files |= {name: runtimes[1] / name for name in PIPELINES.files}
    inline = _IMPORTS.findall(page.read_text(encoding="utf-8"))
    session = BrowserSession(program, runtimes[0], page={**files, "page.html": page}, inline=inline)
    try:
        return Pipeline(session, weights, auto_class, task, kind)
    except BaseException:
        session.close()
        raise


class Pipeline:
    """A pipeline that has its model.

    Attributes:
        facts: transformers.js's version, and milliseconds of loading.
        dispatches: how often the last run reached the GPU.
    """

    def __init__(
        self, session: BrowserSession, weights: Weights, auto_class: str, task: str, kind: str
    ) -> None:
        import transformers

        self.task, self._session, self._kind = task, session, kind
        transformers.utils.logging.disable_progress_bar()
        self._weights = weights
        self._model = getattr(transformers, auto_class).from_pretrained(
            weights.path, use_safetensors=True, trust_remote_code=False
        )
        self._model.float().eval()
        self._given = tasks.given(task, weights.path)
        self._folder = tempfile.TemporaryDirectory(prefix="rp-tjs-")
        self._offer(Path(self._folder.name))
        self.dispatches = 0
        self.facts: dict[str, Any] = session.call("load", {})
        self._record()

    def _record(self) -> None:
        """Note in the pool's record what runs where; the pool itself has no part in it."""
        name, device, dtype = self._weights.model_name, "webgpu:0", "float32"
        note_placement(
            f"transformers.js:{name}:{device}:{dtype}",
            f"the {self.task} pipeline of transformers.js {self.facts['version']}",
            {
                "device": device,
                "dtype": dtype,
                "backend": "webgpu",
                "weights": self._weights.kind,
                "memory_usage": self._session.memory(),
                "web": {"browser": self._session.program.name, "adapter_kind": self._kind},
            },
        )

    def run(self) -> list[Any]:
        """Return what the page answers: numbers, or (label, score) pairs."""
        told = self._session.call("run", self._given.plain)
        self.dispatches = told["dispatches"]
        return tasks.flat(told["answer"])

    def expected(self) -> list[Any]:
        """Return what PyTorch gives for the same texts or image."""
        return tasks.expected(self.task, self._model, self._given.tensors)

    def difference(self) -> float:
        """Return the greatest difference of a run, as a share of the greatest value."""
        return tasks.difference(self.expected(), self.run())

    def print_summary(self) -> None:
        """Print which weights ran where."""
        sys.stdout.write(
            f"\nWeights: {self._weights}\n"
            f"Pipeline {self.task}: transformers.js {self.facts['version']}, webgpu on "
            f"{self._session.program.name} {self._session.version} ({self._kind} adapter), "
            f"dtype: float32, {self.dispatches} dispatches in the last run\n"
        )
        sys.stdout.flush()

    def close(self) -> None:
        """End the browser and delete the exported model."""
        self._session.close()
        self._folder.cleanup()

    def _offer(self, folder: Path) -> None:
        """Serve the model as transformers.js wants it: config, tokenizer and ONNX file."""
        self._model.config.save_pretrained(folder)
        self._given.processor.save_pretrained(folder)
        (folder / "onnx").mkdir()
        inputs = Inputs(self._given.tensors, "A browser")
        names = [*self._given.tensors]
        with _no_gradient():
            output = self._model(**self._given.tensors)
        tensors = [name for name, value in output.items() if hasattr(value, "detach")]
        Exported(self._model, inputs, folder / "onnx/model.onnx", names=(names, tensors))
        for file in folder.rglob("*"):
            if file.is_file():
                self._session.offer(f"{_MODEL}/{file.relative_to(folder).as_posix()}", file)


def _no_gradient() -> Any:
    import torch

    return torch.no_grad()
