"""Video models of transformers itself, tiny and random; their processors have this repository's tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}


@dataclass
class NativeModel:
    """A model, its processor, and what stands for a video in its prompts."""

    model: torch.nn.Module
    processor: Any
    placeholder: str

    def inputs(self, videos: list, metadata: list, question: str = " What is seen?", **options) -> Any:
        """Model inputs of one prompt a video."""
        texts = [self.placeholder + question] * len(videos)
        self.processor.tokenizer.padding_side = "left"
        if type(self.processor).__name__ == "SmolVLMProcessor":  # older ones count a flat list's frames as videos
            videos = [[video] for video in videos]
        return self.processor(
            text=texts, videos=videos, video_metadata=metadata, padding=True, return_tensors="pt", **options
        )


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """The repository's vocabulary with a model's special tokens, each also an attribute of the tokenizer."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(ROOT / "tokenizer.json"),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[],
        extra_special_tokens=special,
    )


def _ids(tokens: PreTrainedTokenizerFast, **names: str) -> dict[str, int]:
    return {name: tokens.convert_tokens_to_ids(token) for name, token in names.items()}


def _text(tokens: PreTrainedTokenizerFast, **changes: Any) -> dict[str, Any]:
    ids = {"vocab_size": len(tokens), "pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id}
    return TEXT | ids | {"bos_token_id": None} | changes


def _qwen_tokens() -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    tokens = tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )
    ids = _ids(
        tokens,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    )
    return tokens, ids


def qwen2_5_vl() -> NativeModel:
    tokens, ids = _qwen_tokens()
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    config = transformers.Qwen2_5_VLConfig(
        text_config=_text(tokens, rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3]}),
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
        **ids,
    )
    processor = transformers.Qwen2_5_VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size), tokens, transformers.Qwen2VLVideoProcessor(size=size)
    )
    model = transformers.Qwen2_5_VLForConditionalGeneration(config)
    return NativeModel(model, processor, "<|vision_start|><|video_pad|><|vision_end|>")


def qwen3_vl() -> NativeModel:
    tokens, ids = _qwen_tokens()
    size = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64 * 64}
    config = transformers.Qwen3VLConfig(
        text_config=_text(tokens, head_dim=16, rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3]}),
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 16,
        },
        **ids,
    )
    processor = transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(size=size, patch_size=16),
        tokens,
        transformers.Qwen3VLVideoProcessor(size=size),
    )
    return NativeModel(transformers.Qwen3VLForConditionalGeneration(config), processor, "<|video_pad|>")


def glm4v() -> NativeModel:
    names = {"image_token": "<|image|>", "video_token": "<|video|>"}
    names |= {f"{edge}_of_{kind}": f"<|{edge}_of_{kind}|>" for edge in ("begin", "end") for kind in ("image", "video")}
    tokens = tokenizer(**names)
    ids = _ids(
        tokens,
        image_token_id="<|image|>",
        video_token_id="<|video|>",
        image_start_token_id="<|begin_of_image|>",
        image_end_token_id="<|end_of_image|>",
        video_start_token_id="<|begin_of_video|>",
        video_end_token_id="<|end_of_video|>",
    )
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56 * 64}
    config = transformers.Glm4vConfig(
        text_config=_text(
            tokens,
            rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0},
        ),
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "image_size": 56,
        },
        **ids,
    )
    processor = transformers.Glm4vProcessor(
        transformers.Glm4vImageProcessor(size=size), tokens, transformers.Glm4vVideoProcessor(size=size)
    )
    model = transformers.Glm4vForConditionalGeneration(config)
    return NativeModel(model, processor, "<|begin_of_video|><|video|><|end_of_video|>")


def internvl() -> NativeModel:
    tokens = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    config = transformers.InternVLConfig(
        text_config=_text(tokens, model_type="qwen2"),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        image_token_id=tokens.convert_tokens_to_ids("<IMG_CONTEXT>"),
    )
    size = {"height": 56, "width": 56}
    processor = transformers.InternVLProcessor(
        transformers.GotOcr2ImageProcessor(size=size),
        tokens,
        transformers.InternVLVideoProcessor(size=size),
        image_seq_length=4,
    )
    return NativeModel(transformers.InternVLForConditionalGeneration(config), processor, "<video>")


def smolvlm() -> NativeModel:
    tokens = tokenizer(
        image_token="<image>",
        video_token="<video>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )
    config = transformers.SmolVLMConfig(
        text_config=_text(tokens, model_type="llama"),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    edge = {"longest_edge": 56}
    videos = transformers.SmolVLMVideoProcessor(
        size=edge, max_image_size=edge, video_sampling={"max_frames": 64, "fps": 64, "video_size": edge}
    )
    processor = transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(size=edge, max_image_size=edge), tokens, videos, image_seq_len=4
    )
    return NativeModel(transformers.SmolVLMForConditionalGeneration(config), processor, "<video>")


def llava_onevision() -> NativeModel:
    tokens = tokenizer(image_token="<image>", video_token="<video>")
    config = transformers.LlavaOnevisionConfig(
        text_config=_text(tokens, model_type="qwen2"),
        vision_config=_siglip(),
        image_grid_pinpoints=[[28, 28]],
        **_ids(tokens, image_token_index="<image>", video_token_index="<video>"),
    )
    config.image_token_id, config.video_token_id = (
        tokens.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video")
    )
    size = {"height": 28, "width": 28}
    processor = transformers.LlavaOnevisionProcessor(
        transformers.LlavaOnevisionImageProcessor(size=size),
        tokens,
        transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    return NativeModel(transformers.LlavaOnevisionForConditionalGeneration(config), processor, "<video>")


def _siglip() -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 7,
        "vision_use_head": False,
    }


def llava_next_video() -> NativeModel:
    tokens = tokenizer(image_token="<image>", video_token="<video>")
    config = transformers.LlavaNextVideoConfig(
        text_config=_text(tokens, model_type="llama"),
        vision_config={**_siglip(), "model_type": "clip_vision_model", "projection_dim": 32, "num_hidden_layers": 2},
        image_grid_pinpoints=[[28, 28]],
    )
    for kind in ("image", "video"):
        setattr(config, f"{kind}_token_id", tokens.convert_tokens_to_ids(f"<{kind}>"))
    processor = transformers.LlavaNextVideoProcessor(
        transformers.LlavaNextVideoVideoProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        transformers.LlavaNextImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokens,
        patch_size=7,
        vision_feature_select_strategy="default",
    )
    return NativeModel(transformers.LlavaNextVideoForConditionalGeneration(config), processor, "<video>")


def video_llama_3() -> NativeModel:
    tokens, ids = _qwen_tokens()
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56 * 64}
    config = transformers.VideoLlama3Config(
        text_config=_text(tokens, model_type="qwen2"),
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "patch_size": 14,
        },
        image_token_id=ids["image_token_id"],
        video_token_id=ids["video_token_id"],
    )
    processor = transformers.VideoLlama3Processor(
        transformers.VideoLlama3ImageProcessor(size=size), tokens, transformers.VideoLlama3VideoProcessor(size=size)
    )
    return NativeModel(transformers.VideoLlama3ForConditionalGeneration(config), processor, "<|video_pad|>")


def perception_lm() -> NativeModel:
    tokens = tokenizer(image_token="<|image|>", video_token="<|video|>")
    config = transformers.PerceptionLMConfig(
        text_config=_text(tokens, model_type="llama"),
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "vit_pe_core_large_patch14_336",
            "model_args": {
                "embed_dim": 32,
                "img_size": (56, 56),
                "depth": 1,
                "num_heads": 2,
                "global_pool": "",
                "use_post_transformer_norm": False,
                "init_values": 0.1,
                "ref_feat_shape": (4, 4),
            },
        },
        projector_pooling_ratio=2,
        vision_use_cls_token=True,
        **_ids(tokens, image_token_id="<|image|>", video_token_id="<|video|>"),
    )
    processor = transformers.PerceptionLMProcessor(
        transformers.PerceptionLMVideoProcessor(size={"height": 56, "width": 56}),
        transformers.PerceptionLMImageProcessor(tile_size=56),
        tokens,
        patch_size=14,
        pooling_ratio=2,
    )
    return NativeModel(transformers.PerceptionLMForConditionalGeneration(config), processor, "<|video|>")


def video_llava() -> NativeModel:
    tokens = tokenizer(image_token="<image>", video_token="<video>")
    clip = {**_siglip(), "model_type": "clip_vision_model", "projection_dim": 32, "num_hidden_layers": 2}
    config = transformers.VideoLlavaConfig(
        text_config=_text(tokens, model_type="llama"),
        vision_config=clip,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        video_token_index=tokens.convert_tokens_to_ids("<video>"),
    )
    size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    processor = transformers.VideoLlavaProcessor(
        transformers.VideoLlavaImageProcessor(**size),
        transformers.VideoLlavaVideoProcessor(**size),
        tokens,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return NativeModel(transformers.VideoLlavaForConditionalGeneration(config), processor, "<video>")


NATIVE: dict[str, Callable[[], NativeModel]] = {
    build.__name__: build
    for build in (
        qwen2_5_vl,
        qwen3_vl,
        glm4v,
        internvl,
        smolvlm,
        llava_onevision,
        llava_next_video,
        video_llama_3,
        perception_lm,
        video_llava,
    )
}
