"""Models for the tests of generated files: at least one for each template of rp's."""

from __future__ import annotations

UNKNOWN = "nobody/knows-this"
#: Model -> the template of its test. Each has a file in tests/golden, and runs in tests/functional.
TEMPLATE_OF = {
    "bert-base-uncased": "hf_embedding_template.py",
    "gpt2": "hf_text_generation_template.py",
    "t5-small": "hf_text_generation_template.py",
    "google/vit-base-patch16-224": "hf_vision_template.py",
    "openai/whisper-tiny": "hf_audio_template.py",
    "facebook/wav2vec2-base-960h": "hf_audio_template.py",
    "openai/clip-vit-base-patch32": "hf_multimodal_template.py",
    "llava-hf/llava-1.5-7b-hf": "hf_multimodal_template.py",
    UNKNOWN: "hf_generic_template.py",
}
#: Those that there are, and a large one.
RUN = [*(model for model in TEMPLATE_OF if model != UNKNOWN), "meta-llama/Llama-2-7b-hf"]
