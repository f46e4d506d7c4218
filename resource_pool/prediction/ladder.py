"""Predicts by the best method that answers: recorded peak, trace, headroom, file size."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from resource_pool._hardware import CPU, HARDWARE_NAMES
from resource_pool._preferences import PRECISIONS
from resource_pool.errors import PredictionError
from resource_pool.prediction.files import file_bytes, header_bytes
from resource_pool.prediction.isolation import traced
from resource_pool.prediction.margins import FILE_SIZE_FACTOR, HEADROOM, HEADROOM_TOKENS, margin
from resource_pool.prediction.records import (
    Subject,
    record_prediction,
    recorded_errors,
    recorded_peak,
)
from resource_pool.prediction.result import DEFAULTS_OF, Method, Prediction
from resource_pool.prediction.source import Source, find_source
from resource_pool.prediction.trace import TraceRequest

logger = logging.getLogger("resource_pool")

DEADLINE_S = 60.0


class _NoAnswerError(Exception):
    """A method cannot answer; says why."""


def predict(
    model: str | Path | Mapping[str, Any],
    *,
    revision: str | None = None,
    model_type: str | None = None,
    auto_class: str | None = None,
    dtype: str | None = None,
    batch: int = 1,
    seq: int | None = None,
    backend: str = CPU,
    deadline_s: float = DEADLINE_S,
) -> Prediction:
    """Predict the peak memory of one forward, and of one further token where there is a cache.

    The config on this disk decides (folder, hub cache); without one, the defaults of the model's
    type are taken, and the result says so. Nothing is downloaded and no weights are read. Where
    the config is on this disk, ``recorded_bytes`` knows the answer from then on.

    Args:
        model: a name on the hub, a model folder, or a config as a mapping.
        revision: which of the hub's revisions in the cache; None is its default.
        model_type: transformers' name of the architecture; found out when it is None.
        auto_class: the class that will load it ("AutoModelForCausalLM"); likewise.
        dtype: "fp32", "fp16", "bf16" or torch's names; None: the config's own, else the weights'.
        batch: rows.
        seq: tokens per row (of both sides of an encoder-decoder, besides an image's tokens; of
            raw sound, frames of the encoder). None: 128, or what the model takes at most.
        backend: hardware whose records and margin count.
        deadline_s: the most seconds that a trace may take; 0 leaves it out.

    Raises:
        PredictionError: no method has an answer, or the request is impossible.
        ClassificationInputError: the name or folder cannot be a model's.
    """
    question = _Question(
        source=find_source(model, revision, model_type, auto_class),
        revision=revision or "",
        asked_dtype=_dtype(dtype),
        batch=_positive("batch", batch),
        seq=None if seq is None else _positive("seq", seq),
        backend=_backend(backend),
        deadline_s=deadline_s,
    )
    reasons: list[str] = []
    for method in (_recorded, _traced, _headroom, _file_size):
        try:
            prediction = _noted(method(question), reasons)
        except _NoAnswerError as reason:
            logger.debug("%s: %s", question.source.name, reason)
            reasons.append(str(reason))
            continue
        if question.subject is not None:
            record_prediction(question.subject, prediction)
        return prediction
    why = "; ".join(filter(None, reasons))
    raise PredictionError(f"The memory of {question.source.name} cannot be predicted: {why}.")


@dataclass(frozen=True)
class _Question:
    """A request that was checked."""

    source: Source
    revision: str
    asked_dtype: str | None
    batch: int
    seq: int | None
    backend: str
    deadline_s: float

    @property
    def dtype(self) -> str:
        return self.asked_dtype or self.source.dtype

    @property
    def subject(self) -> Subject | None:
        """Whose memory this asks about; None where no load would find this config."""
        if self.source.identity is None:
            return None
        own = self.dtype == self.source.dtype
        return Subject(self.source.identity, self.revision, self.dtype, own)

    def key(self) -> str:
        """Return a digest of everything that a peak depends on."""
        source = self.source
        parts = (
            source.model_type, source.auto_class, source.config, self.dtype, self.batch, self.seq,
            _version("torch"), _version("transformers"),
        )  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @functools.cached_property
    def trace(self) -> dict[str, Any]:
        """What a trace finds out."""
        if self.source.model_type is None:
            how = "name its folder, or its model type with `rp models add`"
            return {"problem": f"its architecture is unknown; {how}"}
        request = TraceRequest(
            model_type=self.source.model_type,
            auto_class=self.source.auto_class,
            config=self.source.config,
            dtype=self.dtype,
            batch=self.batch,
            seq=self.seq,
        )
        return traced(request, self.deadline_s)

    def answer(
        self,
        method: Method,
        *,
        weights: int,
        rest: int,
        cache: int = 0,
        per_token: int | None = None,
        known: Mapping[str, Any],
    ) -> Prediction:
        """Return a prediction; ``rest`` is what the peak has beside the weights."""
        allowed = margin(method, self.backend, recorded_errors(method, self.backend))
        return Prediction(
            model_name=self.source.name,
            model_type=self.source.model_type,
            architecture=known.get("architecture"),
            config=self.source.origin or _defaults(known, self.source),
            dtype=self.dtype,
            batch=self.batch,
            seq=known.get("seq", self.seq),
            backend=self.backend,
            inputs=known.get("inputs", {}),
            weights_bytes=weights,
            activations_bytes=rest - cache,
            kv_cache_bytes=cache,
            kv_bytes_per_token=per_token,
            method=method,
            margin=allowed.fraction,
            fixed_bytes=allowed.fixed_bytes,
            notes=(*self.source.notes, *known.get("notes", ())),
            key=self.key(),
        )


# The methods, best first -------------------------------------------------------------------------


def _recorded(question: _Question) -> Prediction:
    peak = recorded_peak(question.key(), question.backend)
    if peak is None:
        raise _NoAnswerError("")
    return question.answer(
        "recorded",
        weights=peak.weights,
        rest=max(peak.measured - peak.weights, peak.kv_cache),
        cache=peak.kv_cache,
        per_token=peak.kv_per_token,
        known={},
    )


def _traced(question: _Question) -> Prediction:
    known = question.trace
    if "too_long" in known:
        raise PredictionError(
            f"{question.source.name} takes no {question.seq} tokens: {known['too_long']}."
        )
    if "peak_bytes" not in known:
        raise _NoAnswerError(f"not traced: {known['problem']}")
    known = {**known, "notes": [*known["notes"], *known["left_out"]]}
    # What ends the trace after all of its answers keeps none of them from being right.
    if "problem" in known and known["kv_cache_bytes"] and "decode_peak_bytes" not in known:
        step = f"the step of one further token was not traced: {known['problem']}"
        known = {**known, "notes": [*known["notes"], step]}
    return question.answer(
        "trace",
        weights=known["weights_bytes"],
        rest=max(known["peak_bytes"], known.get("decode_peak_bytes", 0)),
        cache=known["kv_cache_bytes"],
        per_token=known.get("kv_bytes_per_token"),
        known=known,
    )


def _headroom(question: _Question) -> Prediction:
    source, known = question.source, question.trace
    weights = known.get("weights_bytes")
    if weights is None and source.folder is not None:
        weights = header_bytes(source.folder, question.dtype)
    if weights is None:
        raise _NoAnswerError("no safetensors weights of it are on this disk")
    length = max(1.0, (question.seq or HEADROOM_TOKENS) / HEADROOM_TOKENS)
    share = HEADROOM[source.family] * question.batch * length
    note = f"activations and attention cache are taken as {share:.0%} of the weights"
    known = {**known, "notes": [*known.get("notes", ()), note]}
    return question.answer("headroom", weights=weights, rest=round(weights * share), known=known)


def _file_size(question: _Question) -> Prediction:
    folder = question.source.folder
    size = file_bytes(folder) if folder is not None else 0
    if not size:
        raise _NoAnswerError("there are no weight files to go by")
    note = f"the peak is taken as {FILE_SIZE_FACTOR} times the size of its files"
    rest = round(size * (FILE_SIZE_FACTOR - 1))
    return question.answer("file_size", weights=size, rest=rest, known={"notes": [note]})


def _noted(prediction: Prediction, reasons: list[str]) -> Prediction:
    """Add why better methods had no answer."""
    notes = (*prediction.notes, *filter(None, reasons))
    return dataclasses.replace(prediction, notes=notes)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _defaults(known: Mapping[str, Any], source: Source) -> str:
    name = known.get("config_class") or f"the model type {source.model_type}"
    return f"{DEFAULTS_OF}{name}, not the real one"


# Checks ------------------------------------------------------------------------------------------


def _dtype(asked: str | None) -> str | None:
    if asked is None:
        return None
    known = PRECISIONS.get(asked.lower())
    if known is None or known == "int8":
        why = "int8 needs quantized layers" if known else f"{asked!r} is no dtype that rp knows"
        raise PredictionError(f"dtype: {why}; choose fp32, fp16 or bf16.")
    return known


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PredictionError(f"{name} is {value!r}; give a whole number from 1 on.")
    return value


def _backend(name: str) -> str:
    if name not in HARDWARE_NAMES:
        raise PredictionError(f"backend is {name!r}; choose one of {', '.join(HARDWARE_NAMES)}.")
    return name
