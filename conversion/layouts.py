"""
Layouts of checkpoints that become FiLA-Video models: which one it is, what its tensors are called here, and which of
its settings the converted model keeps. A layout is a class; a new one is added to `LAYOUTS`. Models that look alike
and cannot be converted are refused by their names, with what to use instead.
"""

import re
from collections.abc import Callable, Container, Iterable
from pathlib import Path

from transformers import Qwen2Config
from transformers.configuration_utils import PreTrainedConfig

from .files import foreign
from .hf_layouts import InternVl, LlavaHf, LlavaNextVideo, SmolVlm
from .recipes import TIED, Layout, Recipe, refuse_quantized, require, require_kind
from .towers import feature_select_strategy, so400m_config, tower_config

# Buffers that old checkpoints carry along, and what a vision tower has beyond the features of its patches.
BUFFERS = r"\.rotary_emb\.inv_freq$|(^|\.)position_ids$"
UNUSED_VISION_PARTS = (
    r"^model\.vision_tower\."
    r"(head|text_model|visual_projection|text_projection|logit_scale|logit_bias|classifier)(\.|$)"
)
LAYER_NUMBER = r"^model\.vision_tower\..*?\b(?:layers?|blocks)\.(\d+)\."
MAX_PROBLEMS = 20
# What stands in `model_type` of a config.json: what it is, and why it does not fit.
RELATIVES = {
    "llava": ("LLaVA 1.5 or LLaVA-Interleave in transformers' layout", "it has neither pooling nor a newline"),
    "llava_next": ("LLaVA-NeXT in transformers' layout", "it was trained on tiled pictures, not on videos"),
    "llava_next_video2": ("LLaVA-NeXT-Video", "its layout in transformers was never released"),
    "video_llava": ("Video-LLaVA", "it has two vision towers"),
    "vipllava": ("VipLLaVA", "it joins several layers of its vision tower"),
    "llava_onevision1_5": ("LLaVA-OneVision 1.5", "transformers lacks its vision tower (RICE-ViT) and merger"),
    "llavaonevision1_5": ("LLaVA-OneVision 1.5", "transformers lacks its vision tower (RICE-ViT) and merger"),
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


class LlavaNext(Layout):
    """What LLaVA-NeXT's own code saves: LLaVA-OneVision and LLaVA-Video with a Qwen2, as `lmms-lab` publishes them."""

    name = "LLaVA-NeXT"
    needs_tower_config = True
    renames = (
        (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
        (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
        (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    )
    newline_positions = {"one_token": "video", "grid": "grid", "frame": "frame", "no_token": "none"}

    def matches(self, config: dict, names: Iterable[str]) -> bool:
        # By its keys, for `llava`, `llava_qwen` and `qwen2` all occur as its `model_type`.
        by_config = any(name in config for name in ("mm_projector_type", "mm_vision_tower", "mm_hidden_size"))
        return by_config or any(name.startswith("model.mm_projector.") for name in names)

    def check(self, config: dict) -> None:
        require_kind(config, "architectures", list)
        require_kind(config, "rope_parameters", dict)
        refuse_language_model(config)
        require(config, "mm_projector_type", (None, "mlp2x_gelu"))
        require(config, "mm_resampler_type", (None, "identity"))
        require(config, "add_faster_video", (None, False))
        require(config, "mm_newline_position", (None, *self.newline_positions))
        require(config, "mm_spatial_pool_mode", (None, "bilinear", "average", "max"))

    def recipe(self, folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], tower: Path | None) -> Recipe:
        refuse_language_model(config, shapes)
        remarks = []
        position = config.get("mm_newline_position") or "one_token"
        newline = self.newline_positions[position]
        if "model.image_newline" not in shapes and newline != "none":
            newline = "none"
            remarks.append(f"There is no newline embedding (`mm_newline_position` is '{position}'), so none is used.")
        text = {name: value for name, value in config.items() if name in _QWEN2_SETTINGS}
        rope = config.get("rope_parameters") or {}
        scaling = config.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
        if scaling:
            remarks.append(f"Left out: `rope_scaling` ({scaling}), which LLaVA-NeXT's own code does not apply either.")
        theta = config.get("rope_theta") or rope.get("rope_theta") or 1000000.0
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
        if "lm_head.weight" not in shapes:
            # A head that is not there was left out because it is the embedding, whatever the configuration says.
            if config.get("tie_word_embeddings") is False:
                remarks.append(TIED)
            text["tie_word_embeddings"] = True
        if config.get("mm_spatial_pool_stride") not in (None, 2):
            remarks.append(
                f"`mm_spatial_pool_stride` ({config['mm_spatial_pool_stride']}) is left out: LLaVA-NeXT's own code "
                "pools by 2 whatever it says."
            )
        vision_config = so400m_config(shapes, config.get("mm_vision_tower")) if tower is None else tower_config(tower)
        strategy = feature_select_strategy(vision_config)
        if strategy == "default":
            # SigLIP's settings are ignored there, CLIP's are not.
            require(config, "mm_vision_select_layer", (None, -2))
            require(config, "mm_vision_select_feature", (None, "patch"))
        with foreign(folder / "config.json", "describes no Qwen2"):
            text_config = Qwen2Config(**text)
        is_llava_video = bool(config.get("add_time_instruction", False))
        return Recipe(
            self.name,
            {
                "text_config": text_config,
                "vision_config": vision_config,
                "vision_feature_select_strategy": strategy,
                "projector_hidden_act": "gelu",
                "pooling_mode": config.get("mm_spatial_pool_mode") or "bilinear",
                "pooling_stride": 2,
                "newline_position": newline,
            },
            # LLaVA-Video, which is told the times, saw 64 frames of a video, OneVision 32.
            num_scenes=64 if is_llava_video else 32,
            time_marks="llava_video" if is_llava_video else "none",
            chatml=True,
            remarks=remarks,
            max_length=config.get("tokenizer_model_max_length"),
        )


LAYOUTS = (LlavaNext(), LlavaHf(), LlavaNextVideo(), SmolVlm(), InternVl())


def find_layout(name: str, config: dict, names: Iterable[str] = ()) -> Layout:
    """
    Which layout a checkpoint has.

    Args:
        name (`str`): Of the checkpoint, for messages.
        config (`dict`): Its `config.json`.
        names (`Iterable[str]`): Of its tensors, where these are known already.

    Raises:
        ValueError: If it is none of those that can be converted: it says what it is and what to use instead.
    """
    names = list(names)
    if config.get("model_type") == "fila_video" or any(name.startswith("model.scene_merger.") for name in names):
        raise ValueError(f"{name} is a FiLA-Video checkpoint already: there is nothing to convert.")
    for layout in LAYOUTS:
        if layout.matches(config, names):
            refuse_quantized(name, config)
            layout.check(config)
            return layout
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


def rename(name: str, layout: Layout) -> str:
    """The name that a tensor of a checkpoint has in a FiLA-Video model: by the first pattern that it matches."""
    for pattern, replacement in layout.renames:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def rename_language(name: str, base_prefix: str, head: str) -> str:
    """The same for a causal language model, whose base model and head have the names given."""
    if name.startswith(f"{head}."):
        return "lm_head." + name.removeprefix(f"{head}.")
    return "model.language_model." + name.removeprefix(f"{base_prefix}.")


def rename_vision(name: str, base_prefix: str, own: Iterable[str]) -> str:
    """
    The same for a vision tower that stands alone, or that is half of a CLIP-like model; `own` are the names that the
    tower itself gives its tensors, which may begin as the prefix does.
    """
    if name not in own:
        name = name.removeprefix("vision_model.").removeprefix(f"{base_prefix}.")
    return f"model.vision_tower.{name}"


def unused_reason(name: str, config: PreTrainedConfig) -> str | None:
    """Why a tensor, by its FiLA-Video name, has no place in the model, or `None` where no reason is known."""
    if re.search(BUFFERS, name):
        return "buffers that are computed"
    if re.match(UNUSED_VISION_PARTS, name):
        return "the vision tower's head and text tower"
    layer = re.match(LAYER_NUMBER, name)
    if layer and int(layer[1]) >= config.vision_config.num_hidden_layers:
        return "the vision tower's last layer"
    if name == "model.image_newline" and config.newline_position == "none":
        return "the newline embedding, which this checkpoint does not use"
    return None


def parts_recipe(text_config: PreTrainedConfig, vision_config: PreTrainedConfig) -> Recipe:
    """Settings of the paper (section 4.1) for a language model and a vision tower, as [`tower_config`] gives it."""
    model = {
        "text_config": text_config,
        "vision_config": vision_config,
        "vision_feature_select_strategy": feature_select_strategy(vision_config),
    }
    new = ("model.scene_merger.", "model.background_encoder.", "model.multi_modal_projector.", "model.image_newline")
    return Recipe("parts", model, time_marks="sentence", chatml=True, new=new)


def compare(
    targets: dict[str, tuple[int, ...]],
    sources: dict[str, tuple[str, tuple[int, ...]]],
    may_be_new: tuple[str, ...],
    unused: Callable[[str], str | None],
) -> tuple[list[str], dict[str, list[str]]]:
    """
    Holds what a checkpoint has against what the model needs.

    Args:
        targets (`dict`): Shape of each tensor of the model.
        sources (`dict`): By FiLA-Video name, the checkpoint's own name and the shape of each of its tensors.
        may_be_new (`tuple`): Beginnings of the names of tensors that need not be in the checkpoint.
        unused (`Callable`): Why a tensor is not needed, or `None` where it is unknown.

    Returns:
        The names of tensors that start new, and for each reason the checkpoint's names of those that are dropped.

    Raises:
        ValueError: If a tensor is missing, unexpected or of a wrong shape; it lists the first twenty.
    """
    problems, dropped = [], {}
    new = [name for name in targets if name not in sources and name.startswith(may_be_new)]
    problems += [f"missing: {name}" for name in targets if name not in sources and not name.startswith(may_be_new)]
    for name, (original, shape) in sources.items():
        if name not in targets:
            reason = unused(name)
            if reason is None:
                problems.append(f"unexpected: {original}")
            else:
                dropped.setdefault(reason, []).append(original)
        elif shape != targets[name]:
            problems.append(f"wrong shape: {original} is {list(shape)}, but must be {list(targets[name])}")
    if problems:
        raise ValueError(
            f"The checkpoint does not fit its configuration in {len(problems)} tensors; nothing was written.\n"
            + "\n".join(problems[:MAX_PROBLEMS])
            + (f"\n... and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else "")
        )
    return new, dropped


_QWEN2_SETTINGS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "initializer_range", "rms_norm_eps", "tie_word_embeddings"),
    *("use_sliding_window", "sliding_window", "max_window_layers"),
    *("attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id"),
}


def refuse_language_model(config: dict, tensors: Container[str] = ()) -> None:
    """
    LLaVA-NeXT's layout holds a Qwen2 only; by its configuration, or by its tensors where these are known.

    Raises:
        ValueError: If it is another language model.
    """
    architecture = str((config.get("architectures") or ["unknown"])[0])
    other = architecture.startswith(tuple(f"Llava{name}" for name in OTHER_LANGUAGE_MODELS))
    first = "model.language_model.layers.0."
    other |= f"{first}self_attn.q_proj.weight" in tensors and f"{first}self_attn.q_proj.bias" not in tensors
    other |= any(f"{first}{name}" in tensors for name in ("self_attn.q_norm.weight", "mlp.gate.weight"))
    if other:
        raise ValueError(
            f"The language model of this LLaVA checkpoint ({architecture}) is not Qwen2, the only one that is known "
            f"in LLaVA-NeXT's layout. {INSTEAD}"
        )


__all__ = [
    "LAYOUTS",
    "compare",
    "find_layout",
    "parts_recipe",
    "rename",
    "rename_language",
    "rename_vision",
    "unused_reason",
]
