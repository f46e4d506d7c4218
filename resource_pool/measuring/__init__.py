"""What a generated test needs to measure; the checks themselves stand in the test.

Everything takes plain models, inputs and outputs of transformers, and imports torch when it is
called. A measurement that cannot be taken here raises ``unittest.SkipTest`` with the reason, which
unittest and pytest both show.
"""

from __future__ import annotations

from resource_pool.measuring.batches import (
    continued,
    exchanged,
    first_rows,
    mirrored,
    padded,
    placed,
    reversed_rows,
)
from resource_pool.measuring.elsewhere import also_on, need_engine
from resource_pool.measuring.forwards import Forward, measured_forward, predicted_forward
from resource_pool.measuring.numbers import (
    difference,
    differing,
    identical,
    layout,
    not_finite,
    tensors,
    tolerance,
)
from resource_pool.measuring.room import (
    need_memory,
    readable_gib,
    scratch_folder,
)
from resource_pool.measuring.states import (
    NoProcessor,
    computes_on,
    in_torch,
    loaded_dtype,
    precision_of,
    print_summary,
    processor_of,
    reported,
    state_of,
    weights_of,
)
from resource_pool.measuring.told import record_use, told_of, wanted_dtype
from resource_pool.weights.inputs import example_inputs

__all__ = [
    "Forward",
    "NoProcessor",
    "also_on",
    "computes_on",
    "continued",
    "difference",
    "differing",
    "example_inputs",
    "exchanged",
    "first_rows",
    "identical",
    "in_torch",
    "layout",
    "loaded_dtype",
    "measured_forward",
    "mirrored",
    "need_engine",
    "need_memory",
    "not_finite",
    "padded",
    "placed",
    "precision_of",
    "predicted_forward",
    "print_summary",
    "processor_of",
    "readable_gib",
    "record_use",
    "reported",
    "reversed_rows",
    "scratch_folder",
    "state_of",
    "tensors",
    "told_of",
    "tolerance",
    "wanted_dtype",
    "weights_of",
]
