"""Processors for models of a few thousand parameters, with the repository's own tokenizer and chat template."""

from pathlib import Path

import numpy as np
import torch
from fila_video.configuration_fila_video import FilaVideoConfig
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.video_processing_fila_video import FilaVideoVideoProcessor
from transformers import AutoTokenizer, BatchFeature, SiglipImageProcessor

from helpers.tiny_models import tiny_config, tiny_model, tiny_text_config

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = {"height": 20, "width": 20}
PATCHES_PER_SIDE = 5


def tiny_tokenizer():
    return AutoTokenizer.from_pretrained(ROOT)


def chat_template() -> str:
    return (ROOT / "chat_template.jinja").read_text()


def tiny_video_processor(**kwargs) -> FilaVideoVideoProcessor:
    """Four scenes of three frames by default, from twelve candidates or more."""
    settings = {"size": SIZE, "num_scenes": 4, "min_candidates": 12, "max_candidates": 24}
    return FilaVideoVideoProcessor(**(settings | kwargs))


def tiny_processor(**kwargs) -> FilaVideoProcessor:
    """For the model of [`model_for`]. Keyword arguments are the video processor's."""
    return FilaVideoProcessor(
        SiglipImageProcessor(size=SIZE),
        tiny_tokenizer(),
        tiny_video_processor(**kwargs),
        chat_template=chat_template(),
        patches_per_side=PATCHES_PER_SIDE,
    )


def config_for(processor: FilaVideoProcessor, **kwargs) -> FilaVideoConfig:
    tokenizer = processor.tokenizer
    text_config = tiny_text_config(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    settings = {
        "text_config": text_config,
        "image_token_id": processor.image_token_id,
        "video_token_id": processor.video_token_id,
    }
    return tiny_config(**(settings | kwargs))


def model_for(processor: FilaVideoProcessor, **kwargs) -> FilaVideoForConditionalGeneration:
    """A model of random weights that knows the processor's tokens."""
    return tiny_model(config_for(processor, **kwargs))


def tiny_pipeline(**config) -> VideoTextToTextPipeline:
    """Keyword arguments are the model's settings."""
    processor = tiny_processor()
    return VideoTextToTextPipeline(model_for(processor, **config), processor=processor, device="cpu")


def clip(num_frames: int = 30, seed: int = 0, shape: tuple = (24, 28, 3)) -> np.ndarray:
    """Frames `(num_frames, height, width, channels)`, uint8, that cut between a few scenes."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, 200, size=(5, *shape))
    order = np.repeat(generator.integers(5, size=num_frames // 4 + 1), 4)[:num_frames]
    return (places[order] + generator.integers(0, 40, size=(num_frames, *shape))).astype(np.uint8)


def small_clip(num_frames: int = 30, seed: int = 0) -> np.ndarray:
    """At the tower's size, so that nothing is resized."""
    return clip(num_frames, seed, (SIZE["height"], SIZE["width"], 3))


def conversation(*content, answer: str | None = None) -> list[dict]:
    """A chat: of the content, strings are text, and anything else a video."""
    blocks = [
        {"type": "text", "text": item} if isinstance(item, str) else {"type": "video", "video": item}
        for item in content
    ]
    messages = [{"role": "user", "content": blocks}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def count_tokens(processor: FilaVideoProcessor, inputs: BatchFeature, token_id: int, row: int = 0) -> int:
    return int((inputs["input_ids"][row] == token_id).sum())


def mean_features(model, processor, frames: np.ndarray) -> torch.Tensor:
    """Equation 1 without the processor: frames of the tower's size, one at a time, through the vision tower."""
    features = []
    for frame in frames:
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            features.append(model.encode_frames((pixels - 0.5) / 0.5)[0].mean(0))
    return torch.stack(features)
