"""Models of a few thousand parameters, and inputs for them."""

import torch
from fila_video.configuration_fila_video import FilaVideoConfig, num_cooperative_tokens, num_visual_tokens
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from transformers import CLIPVisionConfig, LlamaConfig, Qwen2Config, SiglipVisionConfig, set_seed

# Threads cost such models more than they give.
torch.set_num_threads(1)

PAD, BOS, EOS, IMAGE, VIDEO, FIRST_WORD = 0, 1, 2, 3, 4, 10
VISION_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 20,
    "patch_size": 4,
}
TEXT_SIZES = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def tiny_vision_config(**kwargs) -> SiglipVisionConfig:
    return SiglipVisionConfig(**(VISION_SIZES | {"vision_use_head": False} | kwargs))


def tiny_text_config(**kwargs) -> Qwen2Config:
    return Qwen2Config(**(TEXT_SIZES | kwargs))


def tiny_config(**kwargs) -> FilaVideoConfig:
    """SigLIP with a grid of 5 x 5 patches, and Qwen2."""
    settings = {
        "vision_config": tiny_vision_config(),
        "text_config": tiny_text_config(),
        "scene_size": 3,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
    }
    return FilaVideoConfig(**(settings | kwargs))


def tiny_clip_llama_config(**kwargs) -> FilaVideoConfig:
    settings = {
        "vision_config": CLIPVisionConfig(**VISION_SIZES),
        "text_config": LlamaConfig(**TEXT_SIZES),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }
    return tiny_config(**(settings | kwargs))


def tiny_model(config: FilaVideoConfig | None = None, seed: int = 0, **kwargs) -> FilaVideoForConditionalGeneration:
    """A model in evaluation mode, the same for the same seed, whose merger is no longer the mean."""
    set_seed(seed)
    model = FilaVideoForConditionalGeneration(config if config is not None else tiny_config(**kwargs)).eval()
    merger = model.model.scene_merger
    for parameter in [] if merger is None else merger.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def video_tokens_of(config: FilaVideoConfig, num_scenes: int) -> int:
    """Placeholder tokens of a video with that many scenes; with cooperative encoding, frames."""
    if config.frame_encoding == "scenes":
        return tokens_of(config, num_scenes)
    return num_cooperative_tokens(
        num_scenes,
        config.patches_per_side,
        config.num_prototypes,
        config.key_frames,
        config.background_tokens,
        config.newline_position,
        config.detail_tokens,
    )


def tokens_of(config: FilaVideoConfig, num_frames: int) -> int:
    """Placeholder tokens of an image (one frame) or of a video with that many scenes."""
    return num_visual_tokens(
        num_frames, config.patches_per_side, config.pooling_mode, config.pooling_stride, config.newline_position
    )


def random_frames(num_frames: int, config: FilaVideoConfig, seed: int = 0) -> torch.Tensor:
    """Normalized pixels, `(num_frames, 3, height, width)`."""
    size = config.vision_config.image_size
    return torch.randn(num_frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


def random_videos(num_scenes: list[int], config: FilaVideoConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """`pixel_values_videos`, padded with noise to the longest video, and `video_num_scenes`."""
    frames = max(num_scenes) * config.scene_size
    videos = [random_frames(frames, config, seed=1000 * seed + index) for index in range(len(num_scenes))]
    return {"pixel_values_videos": torch.stack(videos), "video_num_scenes": torch.tensor(num_scenes)}


def prompt(*parts: int | str, config: FilaVideoConfig) -> list[int]:
    """Token ids: a number is a video of that many scenes, `"image"` an image, another text a word a character."""
    ids = []
    for part in parts:
        if isinstance(part, int):
            ids += [config.video_token_id] * video_tokens_of(config, part)
        elif part == "image":
            ids += [config.image_token_id] * tokens_of(config, 1)
        else:
            ids += [FIRST_WORD + ord(letter) % 80 for letter in part]
    return ids


def left_padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of several prompts."""
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[PAD] * (longest - len(ids)) + ids for ids in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]),
    }


def video_batch(config: FilaVideoConfig, num_scenes: tuple[int, ...] = (2, 1), seed: int = 0) -> dict:
    """A batch of questions, each about one video of so many scenes."""
    prompts = [prompt("ask", scenes, f"what {index}", config=config) for index, scenes in enumerate(num_scenes)]
    return left_padded(prompts) | random_videos(list(num_scenes), config, seed)
