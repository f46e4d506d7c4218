"""The same test on hardware other than the chosen one."""

from __future__ import annotations

import functools
import importlib.util
import math
import unittest
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from resource_pool.weights import Weights

Test = Callable[..., None]

_BROWSER_PACKAGES = ("playwright", "onnx", "onnxruntime")


def also_on(*backends: str) -> Callable[[Test], Any]:
    """Let a class have a test as it is, and once more for each backend, with its name.

    The test takes preferences: none in ``test_x``; in ``test_cuda_x``, which joins it, those that
    insist on CUDA; and so on. They are tests of their own for whatever runs, selects and reports
    them.
    """
    return functools.partial(_OnEach, backends)


class _OnEach:
    """Puts the tests into the class that it is an attribute of."""

    def __init__(self, backends: tuple[str, ...], test: Test) -> None:
        self._backends, self._test = backends, test

    def __set_name__(self, owner: type, name: str) -> None:
        self._put(owner, name, None, self._test.__doc__)
        for backend in self._backends:
            named = name.replace("test_", f"test_{backend}_", 1)
            preferences = {"device": backend, "force_device": True}
            self._put(owner, named, preferences, f"The same on {backend}, where it is here.")

    def _put(self, owner: type, name: str, preferences: Any, doc: str | None) -> None:
        # Not functools.wraps: pytest would take the argument for a fixture.
        def test(case: Any) -> None:
            self._test(case, preferences)

        test.__name__, test.__qualname__ = name, f"{owner.__qualname__}.{name}"
        test.__module__, test.__doc__ = self._test.__module__, doc
        setattr(owner, name, test)


def need_engine(
    preferences: Mapping[str, Any] | None, family: str, model_type: str | None, weights: Weights
) -> None:
    """Go on unless a browser is asked for, and none is set up or takes a model of this size.

    No browser is started before `rp web setup` was run.

    Args:
        preferences: what a test is about to load with; other devices than browsers pass.
        family: decides, with the type, which limit the weights must stay under.
        model_type: transformers' name of the architecture.
        weights: the files; browsers compute in float32, so that is how they are counted.

    Raises:
        unittest.SkipTest: says what is missing, or the sizes.
    """
    from model_family_classifier.hardware import compatibility_of
    from model_family_classifier.web import WEB_BACKENDS, reported_web_limits, too_large

    backend = str((preferences or {}).get("device")).partition(":")[0]
    if backend not in WEB_BACKENDS:
        return
    missing = _missing_for_browsers()
    if missing:
        raise unittest.SkipTest(f"{backend}: {missing}")
    from resource_pool._hardware import detect

    limit = compatibility_of(family, model_type)[backend]["size_limit"]
    reported = reported_web_limits(detect(web=True))
    why = too_large(backend, limit, _float32_sizes(weights.path), reported)
    if why:
        raise unittest.SkipTest(f"{backend}: {why}")


def _missing_for_browsers() -> str:
    """Return what is not here of what a browser needs, or ""; nothing is started."""
    from resource_pool.devices.browser_runtime import require_runtime
    from resource_pool.errors import UnsupportedOperationError

    try:
        require_runtime()
    except UnsupportedOperationError as error:
        return str(error)
    lacking = [name for name in _BROWSER_PACKAGES if importlib.util.find_spec(name) is None]
    return (
        f"{lacking[0]} is not installed; run `pip install 'rp-toolchain[web]'`" if lacking else ""
    )


def _float32_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of all weights, and of the largest, in float32, from the files' headers."""
    from resource_pool.prediction.files import weight_entries

    sizes = [4 * math.prod(entry["shape"]) for entry in weight_entries(folder)]
    return {"weights_bytes": sum(sizes), "largest_tensor_bytes": max(sizes, default=0)}
