"""A model in transformers.js, in a real browser, beside the same model on PyTorch.

The tests that ``rp generate --target transformers-js`` writes use it. Imports torch when called.
"""

from __future__ import annotations

from resource_pool.transformers_js.pipeline import Pipeline, start
from resource_pool.transformers_js.tasks import TASKS, UNSUPPORTED, why_not

__all__ = ["TASKS", "UNSUPPORTED", "Pipeline", "start", "why_not"]
