"""Imported once by the server that the checking processes are forked from."""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch  # noqa: E402 - after the environment
import transformers.generation  # noqa: E402
import transformers.masking_utils  # noqa: E402
import transformers.modeling_utils  # noqa: E402, F401

torch.set_num_threads(1)
