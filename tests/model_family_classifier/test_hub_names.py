"""Well-known names of the hub, by name alone."""

from __future__ import annotations

import pytest

from model_family_classifier import classify_model

KNOWN = """
bert-base-uncased                                embedding        masked_lm
google-bert/bert-large-cased                     embedding        masked_lm
distilbert-base-uncased                          embedding        masked_lm
FacebookAI/roberta-base                          embedding        masked_lm
FacebookAI/xlm-roberta-base                      embedding        masked_lm
microsoft/deberta-v3-base                        embedding        masked_lm
albert/albert-base-v2                            embedding        masked_lm
google/electra-small-discriminator               embedding        masked_lm
allenai/scibert_scivocab_uncased                 embedding        masked_lm
dmis-lab/biobert-v1.1                            embedding        masked_lm
microsoft/codebert-base                          embedding        masked_lm
answerdotai/ModernBERT-base                      embedding        masked_lm
almanach/camembert-base                          embedding        masked_lm
facebook/esm2_t6_8M_UR50D                        embedding        masked_lm
google/bigbird-roberta-base                      embedding        masked_lm
allenai/longformer-base-4096                     embedding        masked_lm
sentence-transformers/all-MiniLM-L6-v2           embedding        sentence_transformer
sentence-transformers/all-mpnet-base-v2          embedding        sentence_transformer
sentence-transformers/distiluse-base-v2          embedding        sentence_transformer
BAAI/bge-small-en-v1.5                           embedding        sentence_transformer
BAAI/bge-m3                                      embedding        sentence_transformer
intfloat/e5-base-v2                              embedding        sentence_transformer
intfloat/multilingual-e5-large                   embedding        sentence_transformer
intfloat/e5-mistral-7b-instruct                  embedding        sentence_transformer
thenlper/gte-base                                embedding        sentence_transformer
Alibaba-NLP/gte-Qwen2-1.5B-instruct              embedding        sentence_transformer
Qwen/Qwen3-Embedding-0.6B                        embedding        sentence_transformer
nomic-ai/nomic-embed-text-v1.5                   embedding        sentence_transformer
mixedbread-ai/mxbai-embed-large-v1               embedding        sentence_transformer
jinaai/jina-embeddings-v2-base-en                embedding        sentence_transformer
google/embeddinggemma-300m                       embedding        sentence_transformer
microsoft/speecht5_asr                           audio            speech_recognition
microsoft/speecht5_tts                           audio            text_to_speech
stabilityai/stable-video-diffusion-img2vid-xt    diffusion        image_to_video
THUDM/CogVideoX-5b-I2V                           diffusion        image_to_video
nvidia/nemotron-ocr-v1                           vision           image_to_text
BAAI/bge-reranker-base                           embedding        reranker
Qwen/Qwen3-Reranker-0.6B                         embedding        reranker
cross-encoder/ms-marco-MiniLM-L6-v2              embedding        reranker
gpt2                                             text_generation  causal_lm
openai-community/gpt2-xl                         text_generation  causal_lm
distilgpt2                                       text_generation  causal_lm
microsoft/DialoGPT-medium                        text_generation  causal_lm
EleutherAI/pythia-70m                            text_generation  causal_lm
EleutherAI/gpt-neo-125m                          text_generation  causal_lm
EleutherAI/gpt-j-6b                              text_generation  causal_lm
facebook/opt-125m                                text_generation  causal_lm
bigscience/bloom-560m                            text_generation  causal_lm
bigscience/bloomz-560m                           text_generation  causal_lm
tiiuae/falcon-7b                                 text_generation  causal_lm
tiiuae/Falcon3-1B-Base                           text_generation  causal_lm
llama-7b                                         text_generation  causal_lm
huggyllama/llama-7b                              text_generation  causal_lm
meta-llama/Llama-3.2-1B                          text_generation  causal_lm
codellama/CodeLlama-7b-hf                        text_generation  causal_lm
TinyLlama/TinyLlama-1.1B-Chat-v1.0               text_generation  chat_model
lmsys/vicuna-7b-v1.5                             text_generation  chat_model
mistralai/Mistral-7B-v0.1                        text_generation  causal_lm
mistralai/Mistral-7B-Instruct-v0.3               text_generation  chat_model
mistralai/Mixtral-8x7B-v0.1                      text_generation  mixture_of_experts
Qwen/Qwen2.5-7B                                  text_generation  causal_lm
Qwen/Qwen2.5-7B-Instruct                         text_generation  chat_model
Qwen/Qwen3-0.6B                                  text_generation  causal_lm
google/gemma-2b                                  text_generation  causal_lm
google/gemma-2-9b                                text_generation  causal_lm
google/gemma-3-1b-pt                             text_generation  causal_lm
microsoft/phi-2                                  text_generation  causal_lm
microsoft/Phi-3-mini-4k-instruct                 text_generation  chat_model
HuggingFaceTB/SmolLM2-135M                       text_generation  causal_lm
bigcode/starcoder2-3b                            text_generation  causal_lm
Salesforce/codegen-350M-mono                     text_generation  causal_lm
state-spaces/mamba-130m-hf                       text_generation  state_space
allenai/OLMo-1B-hf                               text_generation  causal_lm
deepseek-ai/DeepSeek-V3                          text_generation  mixture_of_experts
deepseek-ai/DeepSeek-R1-Distill-Qwen-7B          text_generation  chat_model
openai/gpt-oss-20b                               text_generation  mixture_of_experts
t5-small                                         text_generation  seq2seq
google/flan-t5-base                              text_generation  seq2seq
google/mt5-small                                 text_generation  seq2seq
google/byt5-small                                text_generation  seq2seq
VietAI/vit5-base                                 text_generation  seq2seq
facebook/bart-large-cnn                          text_generation  seq2seq
sshleifer/distilbart-cnn-12-6                    text_generation  seq2seq
facebook/mbart-large-50                          text_generation  seq2seq
google/pegasus-xsum                              text_generation  seq2seq
Helsinki-NLP/opus-mt-en-de                       text_generation  seq2seq
facebook/nllb-200-distilled-600M                 text_generation  seq2seq
facebook/m2m100_418M                             text_generation  seq2seq
google/vit-base-patch16-224                      vision           image_classifier
microsoft/resnet-50                              vision           image_classifier
facebook/deit-tiny-patch16-224                   vision           image_classifier
facebook/convnext-tiny-224                       vision           image_classifier
microsoft/swin-tiny-patch4-window7-224           vision           image_classifier
microsoft/beit-base-patch16-224                  vision           image_classifier
google/mobilenet_v2_1.0_224                      vision           image_classifier
timm/resnet18.a1_in1k                            vision           image_classifier
facebook/dinov2-base                             vision           image_encoder
facebook/vit-mae-base                            vision           image_encoder
facebook/detr-resnet-50                          vision           object_detector
hustvl/yolos-tiny                                vision           object_detector
PekingU/rtdetr_r50vd                             vision           object_detector
microsoft/table-transformer-detection            vision           object_detector
google/owlvit-base-patch32                       vision           object_detector
IDEA-Research/grounding-dino-tiny                vision           object_detector
nvidia/segformer-b0-finetuned-ade-512-512        vision           segmentation
facebook/mask2former-swin-tiny-coco-instance     vision           segmentation
facebook/sam-vit-base                            vision           segmentation
Intel/dpt-large                                  vision           depth_estimation
depth-anything/Depth-Anything-V2-Small-hf        vision           depth_estimation
microsoft/trocr-base-printed                     vision           image_to_text
MCG-NJU/videomae-base                            video            video_classifier
openai/whisper-tiny                              audio            speech_recognition
distil-whisper/distil-large-v3                   audio            speech_recognition
facebook/wav2vec2-base-960h                      audio            speech_recognition
facebook/hubert-large-ls960-ft                   audio            speech_recognition
facebook/mms-1b-all                              audio            speech_recognition
microsoft/wavlm-base                             audio            speech_recognition
MIT/ast-finetuned-audioset-10-10-0.4593          audio            audio_classifier
facebook/mms-tts-eng                             audio            text_to_speech
microsoft/speecht5_tts                           audio            text_to_speech
suno/bark-small                                  audio            text_to_speech
facebook/encodec_24khz                           audio            audio_codec
openai/clip-vit-base-patch32                     multimodal       image_text_encoder
laion/CLIP-ViT-B-32-laion2B-s34B-b79K            multimodal       image_text_encoder
google/siglip-base-patch16-224                   multimodal       image_text_encoder
laion/clap-htsat-unfused                         multimodal       audio_text_encoder
Salesforce/blip-image-captioning-base            multimodal       vision_language
Salesforce/blip2-opt-2.7b                        multimodal       vision_language
llava-hf/llava-1.5-7b-hf                         multimodal       vision_language
llava-hf/llava-v1.6-mistral-7b-hf                multimodal       vision_language
Qwen/Qwen2.5-VL-7B-Instruct                      multimodal       vision_language
google/gemma-3-4b-it                             multimodal       vision_language
google/paligemma-3b-pt-224                       multimodal       vision_language
HuggingFaceTB/SmolVLM-256M-Instruct              multimodal       vision_language
microsoft/Florence-2-base                        multimodal       vision_language
microsoft/git-base                               multimodal       vision_language
dandelin/vilt-b32-finetuned-vqa                  multimodal       vision_language
meta-llama/Llama-3.2-11B-Vision-Instruct         multimodal       vision_language
microsoft/layoutlmv3-base                        multimodal       document_qa
google/timesfm-2.0-500m-pytorch                  time_series      forecasting
"""
ROWS = [tuple(line.split()) for line in KNOWN.strip().splitlines()]


@pytest.mark.parametrize(("name", "family", "subfamily"), ROWS)
def test_family_and_subfamily(name: str, family: str, subfamily: str) -> None:
    result = classify_model(name)
    assert (result["family"], result["subfamily"]) == (family, subfamily)


@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("EleutherAI/pythia-70m", "gpt_neox"),
        ("Helsinki-NLP/opus-mt-en-de", "marian"),
        ("google/gemma-2b", "gemma"),
        ("google/gemma-2-2b", "gemma2"),
        ("dolphin-2.9-llama3-8b", "llama"),
        ("microsoft/deberta-v3-base", "deberta-v2"),
        ("sentence-transformers/all-MiniLM-L6-v2", "bert"),
        ("facebook/detr-resnet-50", "detr"),
        ("FacebookAI/xlm-roberta-base", "xlm-roberta"),
        ("openai-community/gpt2", "gpt2"),
    ],
)
def test_model_type(name: str, model_type: str) -> None:
    assert classify_model(name)["model_type"] == model_type
