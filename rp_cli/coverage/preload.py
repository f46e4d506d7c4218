"""Imported once by the server that the checking processes are forked from."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402 - after the environment
import transformers.generation  # noqa: E402
import transformers.masking_utils  # noqa: E402
import transformers.modeling_utils  # noqa: E402
from transformers.utils import logging  # noqa: E402

# What most checks import besides; one that is not here is missed by the check that needs it.
_USED = (
    "resource_pool._global",
    "resource_pool.measuring",
    "resource_pool.prediction.answers",
    "rp_cli.coverage.check",
    "rp_cli.runner.child",
    "torch._subclasses.fake_tensor",
    "transformers.image_processing_utils",
    "transformers.processing_utils",
    "transformers.tokenization_utils_tokenizers",
)


def _warm_up() -> None:
    for name in _USED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(Exception):
        # Builds a table of all architectures, which takes half a second each time.
        transformers.conversion_mapping.get_checkpoint_conversion_mapping("bert")


torch.set_num_threads(1)
logging.disable_progress_bar()
_warm_up()
# Otherwise each process would look through all of this when it collects garbage.
gc.collect()
gc.freeze()
