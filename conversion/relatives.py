"""Models that look alike and cannot be converted: each is refused by its name, with what to use instead."""

from typing import Never

# What stands in `model_type` of a config.json: what it is, and why it does not fit.
RELATIVES = {
    "llava": ("LLaVA 1.5 or LLaVA-Interleave in transformers' layout", "it has neither pooling nor a newline"),
    "llava_next": ("LLaVA-NeXT in transformers' layout", "it was trained on tiled pictures, not on videos"),
    "llava_next_video2": ("LLaVA-NeXT-Video", "its layout in transformers was never released"),
    "video_llava": ("Video-LLaVA", "it has two vision towers"),
    "vipllava": ("VipLLaVA", "it joins several layers of its vision tower"),
    "llava_onevision1_5": (
        "LLaVA-OneVision 1.5",
        "transformers lacks its vision tower (RICE-ViT) and merger",
    ),
    "llavaonevision1_5": (
        "LLaVA-OneVision 1.5",
        "transformers lacks its vision tower (RICE-ViT) and merger",
    ),
    "internvl_chat": ("InternVL in its own layout", "take the checkpoint of the same name that ends in -HF"),
    "idefics2": ("Idefics2", "a resampler reads its pictures, which have no grid then"),
    "idefics3": ("Idefics3 or SmolVLM 1", "it was trained on tiled pictures, not on videos"),
    "perception_lm": ("PerceptionLM", "its vision tower is timm's Perception Encoder"),
    "qwen2_vl": ("Qwen2-VL", "it merges frames in its vision tower and has positions in three dimensions"),
    "qwen2_5_vl": ("Qwen2.5-VL", "it merges frames in its vision tower and has positions in three dimensions"),
    "qwen3_vl": ("Qwen3-VL", "it merges frames in its vision tower and feeds several of its layers"),
    "qwen3_vl_moe": ("Qwen3-VL", "it merges frames in its vision tower and feeds several of its layers"),
    "paligemma": ("PaliGemma", "it has neither pooling nor a newline"),
    "gemma3": ("Gemma 3", "its language model sees pictures through attention of another kind"),
    "mllama": ("Llama 3.2 Vision", "its language model sees pictures through cross-attention"),
    "siglip": ("SigLIP, a vision tower", "it is half of a model"),
    "siglip2": ("SigLIP 2, a vision tower", "it is half of a model"),
    "clip": ("CLIP, a vision tower", "it is half of a model"),
}
# Models that read videos by themselves: they can have the frames that scene selection chooses.
READ_VIDEOS = {
    *("video_llava", "llava_onevision1_5", "llavaonevision1_5", "idefics3", "perception_lm"),
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "gemma3"),
}
SELECT_FRAMES = "With transformers' own code for it, `fila_video.select_frames` chooses the frames that it sees. "
PARTS_HINT = "A language model and a vision tower become a model to train with --language-model and --vision-tower."
OTHER_LANGUAGE_MODELS = ("Llama", "Mistral", "Mixtral", "Mpt", "Gemma", "Phi", "QwenMoe", "Qwen3")
INSTEAD = (
    "LLaVA-OneVision, LLaVA-Video, LLaVA-NeXT-Video, SmolVLM2 and InternVL 3 can be converted "
    "(lmms-lab/llava-onevision-qwen2-*, lmms-lab/LLaVA-Video-*-Qwen2, llava-hf/llava-onevision-qwen2-*-ov-hf, "
    "llava-hf/LLaVA-NeXT-Video-*-hf, HuggingFaceTB/SmolVLM2-*, OpenGVLab/InternVL3*-hf). "
) + PARTS_HINT


def refuse(name: str, config: dict) -> Never:
    """
    Says what a checkpoint is that has none of the layouts.

    Args:
        name (`str`): Of the checkpoint, for the message.
        config (`dict`): Its `config.json`.

    Raises:
        ValueError: Always.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in RELATIVES:
        what, why = RELATIVES[model_type]
        instead = (SELECT_FRAMES if model_type in READ_VIDEOS else "") + INSTEAD
        raise ValueError(
            f"{name} is {what} (`model_type` {model_type!r}), which cannot be converted: {why}. {instead}"
        )
    if model_type is None:
        raise ValueError(
            f"{name} is of no layout that can be converted: its config.json says neither `model_type` nor "
            f"`mm_projector_type`. {INSTEAD}"
        )
    raise ValueError(f"{name} is of `model_type` {model_type!r}, which cannot be converted. {INSTEAD}")


def refuse_language_model(config: dict, tensors: dict[str, tuple[int, ...]] | None = None) -> None:
    """
    LLaVA-NeXT's layout holds a Qwen2 only; by its configuration, or by its tensors where these are known.

    Raises:
        ValueError: If it is another language model.
    """
    architecture = str((config.get("architectures") or ["unknown"])[0])
    other = architecture.startswith(tuple(f"Llava{name}" for name in OTHER_LANGUAGE_MODELS))
    if tensors is not None:
        first = "model.language_model.layers.0."
        other |= f"{first}self_attn.q_proj.weight" in tensors and f"{first}self_attn.q_proj.bias" not in tensors
        other |= any(f"{first}{name}" in tensors for name in ("self_attn.q_norm.weight", "mlp.gate.weight"))
    if other:
        raise ValueError(
            f"The language model of this LLaVA checkpoint ({architecture}) is not Qwen2, the only one that is known "
            f"in LLaVA-NeXT's layout. {INSTEAD}"
        )


__all__ = ["INSTEAD", "RELATIVES", "refuse", "refuse_language_model"]
