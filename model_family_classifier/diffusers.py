"""What the pipelines of diffusers, and libraries other than transformers, say about a model."""

from __future__ import annotations

from pathlib import Path

from model_family_classifier.configs import is_word, read_object
from model_family_classifier.errors import ClassificationInputError
from model_family_classifier.index import Verdict

# What a word in a pipeline's class name says, the most telling one first.
_PIPELINES = (
    (("Audio", "Music"), ("audio", "text_to_audio")),
    (("ImageToVideo", "StableVideo"), ("diffusion", "image_to_video")),
    (("Video", "AnimateDiff", "Wan", "LTX", "Mochi"), ("diffusion", "text_to_video")),
    (("Img2Img", "Inpaint", "Pix2Pix", "Upscale", "Edit"), ("diffusion", "image_to_image")),
    (("DDPM", "DDIM", "ScoreSde", "Unconditional"), ("diffusion", "image_generation")),
    (("",), ("diffusion", "text_to_image")),
)

# Libraries whose models are all of one family; a pipeline tag would say more.
LIBRARIES = {
    "diffusers": Verdict("diffusion", None, None, "task"),
    "sentence-transformers": Verdict("embedding", "sentence_transformer", "AutoModel", "task"),
    "timm": Verdict("vision", None, None, "task"),
    "ultralytics": Verdict("vision", "object_detector", None, "task"),
    "pyannote-audio": Verdict("audio", "audio_classifier", None, "task"),
    "speechbrain": Verdict("audio", None, None, "task"),
    "nemo": Verdict("audio", None, None, "task_hint"),
    "flair": Verdict("embedding", "token_classifier", None, "task"),
    "stable-baselines3": Verdict("reinforcement", "policy", None, "task"),
    "lerobot": Verdict("reinforcement", "robot_policy", None, "task"),
    "sklearn": Verdict("tabular", None, None, "task_hint"),
}


def read_pipeline(folder: Path) -> str | None:
    """Return the pipeline class of a diffusers folder, or None for a folder of another kind.

    Raises:
        ClassificationInputError: a model_index.json that is malformed.
    """
    path = folder / "model_index.json"
    raw = read_object(path)
    if raw is None:
        return None
    name = raw.get("_class_name")
    if is_word(name):
        return str(name)
    raise ClassificationInputError(f"{str(path)!r} must name the pipeline in '_class_name'.")


def judge_pipeline(class_name: str) -> Verdict:
    """Return what a diffusers pipeline makes."""
    said = (row[1] for row in _PIPELINES if any(word in class_name for word in row[0]))
    return Verdict(*next(said), None, "files")
