# Copyright 2026 The FiLA-Video authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Layouts of checkpoints that become FiLA-Video models: which one it is, what its tensors are called here, and which of
its settings the converted model keeps.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isqrt

import torch
from transformers import AutoConfig, AutoModel, Qwen2Config, SiglipVisionConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.llava_onevision import LlavaOnevisionConfig

LLAVA_NEXT, LLAVA_HF, PARTS = "LLaVA-NeXT", "llava-hf", "parts"

# In order; the first that matches a name renames it.
LLAVA_NEXT_NAMES = (
    (r"^model\.vision_tower\.vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
)
# As written by transformers 4, and by 5 (whose early releases still had SigLIP's inner level).
LLAVA_HF_NAMES = (
    (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^multi_modal_projector\.", "model.multi_modal_projector."),
    (r"^image_newline$", "model.image_newline"),
)
NEWLINE_POSITIONS = {"one_token": "video", "grid": "grid", "frame": "frame", "no_token": "none"}
# Buffers that old checkpoints carry along, and what a vision tower has beyond the features of its patches.
BUFFERS = r"\.rotary_emb\.inv_freq$|(^|\.)position_ids$"
UNUSED_VISION_PARTS = (
    r"^model\.vision_tower\."
    r"(head|text_model|visual_projection|text_projection|logit_scale|logit_bias|classifier)(\.|$)"
)
BACKBONE_SETTINGS = ("out_features", "out_indices", "stage_names")
LAYER_NUMBER = r"^model\.vision_tower\..*?\b(?:layers?|blocks)\.(\d+)\."


@dataclass
class Recipe:
    """
    What a checkpoint becomes: settings of the model's configuration and of its processor, and the beginnings of the
    names of tensors that the checkpoint need not have, which start new.
    """

    layout: str
    model: dict
    processor: dict
    new: tuple[str, ...] = ("model.scene_merger.", "model.vision_tower.post_layernorm.")
    remarks: list[str] = field(default_factory=list)
    # Tokens of the longest prompt, where the checkpoint says so.
    max_length: int | None = None
    # Rows of an embedding that has to grow for `<image>` and `<video>`.
    grown_from: int | None = None


def detect_layout(names: Iterable[str]) -> str:
    """
    Which layout a checkpoint has, by the names of its tensors alone: several `model_type`s occur for the same layout.

    Raises:
        ValueError: If it is none of those that can be converted.
    """
    names = list(names)
    if any(name.startswith("model.scene_merger.") for name in names):
        raise ValueError("This is a FiLA-Video checkpoint already: there is nothing to convert.")
    if any(name.startswith("model.mm_projector.") for name in names):
        return LLAVA_NEXT
    if any(name.startswith(("language_model.model.", "model.language_model.")) for name in names) and any(
        "multi_modal_projector." in name for name in names
    ):
        return LLAVA_HF
    raise ValueError(
        "The checkpoint has neither LLaVA-NeXT's layout (`model.mm_projector.*`) nor llava-hf's "
        "(`language_model.model.*` or `model.language_model.*`, with `multi_modal_projector.*`). A language model "
        "and a vision tower are converted with `--language-model` and `--vision-tower`. It has: "
        + ", ".join(sorted(names))
    )


def rename(name: str, layout: str) -> str:
    """The name that a tensor of a LLaVA-NeXT or llava-hf checkpoint has in a FiLA-Video model."""
    for pattern, replacement in LLAVA_NEXT_NAMES if layout == LLAVA_NEXT else LLAVA_HF_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def rename_language(name: str, base_prefix: str, head: str) -> str:
    """The same for a causal language model, whose base model and head have the names given."""
    if name.startswith(f"{head}."):
        return "lm_head." + name.removeprefix(f"{head}.")
    return "model.language_model." + name.removeprefix(f"{base_prefix}.")


def rename_vision(name: str, base_prefix: str) -> str:
    """The same for a vision tower that stands alone, or that is half of a CLIP-like model."""
    return "model.vision_tower." + name.removeprefix("vision_model.").removeprefix(f"{base_prefix}.")


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


def llava_next_recipe(
    config: dict, shapes: dict[str, tuple[int, ...]], vision_config: PreTrainedConfig | None = None
) -> Recipe:
    """
    Settings of a LLaVA-NeXT checkpoint.

    Args:
        config (`dict`): Its `config.json`.
        shapes (`dict`): Shapes of its tensors, by their FiLA-Video names.
        vision_config (`PreTrainedConfig`, *optional*):
            Of the vision tower, as [`tower_config`] gives it; needed where it is not SigLIP so400m.

    Raises:
        ValueError: If the checkpoint works in a way that FiLA-Video does not.
    """
    _require(config, "mm_projector_type", (None, "mlp2x_gelu"))
    _require(config, "mm_resampler_type", (None, "identity"))
    position = config.get("mm_newline_position") or "one_token"
    _require({"mm_newline_position": position}, "mm_newline_position", tuple(NEWLINE_POSITIONS))
    pooling = config.get("mm_spatial_pool_mode") or "bilinear"
    _require({"mm_spatial_pool_mode": pooling}, "mm_spatial_pool_mode", ("bilinear", "average", "max"))
    remarks = []
    newline = NEWLINE_POSITIONS[position]
    if "model.image_newline" not in shapes and newline != "none":
        newline = "none"
        remarks.append(f"There is no newline embedding (`mm_newline_position` is '{position}'), so none is used.")
    text = {name: value for name, value in config.items() if name in _QWEN2_SETTINGS}
    # A head that is not there was left out because it is the embedding, unless the checkpoint says otherwise.
    text.setdefault("tie_word_embeddings", "lm_head.weight" not in shapes)
    vision_config = vision_config or so400m_config(shapes, config.get("mm_vision_tower"))
    strategy = feature_select_strategy(vision_config)
    if strategy == "default":
        # SigLIP's settings are ignored there, CLIP's are not.
        _require(config, "mm_vision_select_layer", (None, -2))
        _require(config, "mm_vision_select_feature", (None, "patch"))
    time_instruction = bool(config.get("add_time_instruction", False))
    model = {
        "text_config": Qwen2Config(**text),
        "vision_config": vision_config,
        "vision_feature_select_strategy": strategy,
        "projector_hidden_act": "gelu",
        "pooling_mode": pooling,
        "pooling_stride": config.get("mm_spatial_pool_stride") or 2,
        "newline_position": newline,
    }
    # LLaVA-Video, which is told the times, saw 64 frames a video, OneVision 32.
    processor = {"num_scenes": 64 if time_instruction else 32, "add_time_instruction": time_instruction}
    return Recipe(LLAVA_NEXT, model, processor, remarks=remarks, max_length=config.get("tokenizer_model_max_length"))


def llava_hf_recipe(config: dict, processor: dict) -> Recipe:
    """
    Settings of a llava-hf checkpoint, which always pools bilinearly, by 2, and ends a video with a newline.

    Args:
        config (`dict`): Its `config.json`.
        processor (`dict`): Settings of its video processor, as far as there are any.

    Raises:
        ValueError: If it concatenates several layers of its vision tower.
    """
    source = LlavaOnevisionConfig.from_dict(config)
    if not isinstance(source.vision_feature_layer, int):
        raise ValueError(
            f"`vision_feature_layer` is {source.vision_feature_layer}: FiLA-Video takes the features of one layer."
        )
    text_config, vision_config = source.text_config, without_head(source.vision_config)
    text_config.tie_word_embeddings = source.tie_word_embeddings
    model = {
        "text_config": text_config,
        "vision_config": vision_config,
        "vision_feature_layer": source.vision_feature_layer,
        "vision_feature_select_strategy": source.vision_feature_select_strategy,
        "projector_hidden_act": source.projector_hidden_act,
        "pooling_mode": "bilinear",
        "pooling_stride": 2,
        "newline_position": "video",
        "image_token_id": source.image_token_index,
        "video_token_id": source.video_token_index,
    }
    return Recipe(LLAVA_HF, model, {"num_scenes": processor.get("num_frames") or 32, "add_time_instruction": False})


def parts_recipe(text_config: PreTrainedConfig, vision_config: PreTrainedConfig) -> Recipe:
    """Settings of the paper (section 4.1) for a language model and a vision tower, as [`tower_config`] gives it."""
    model = {
        "text_config": text_config,
        "vision_config": vision_config,
        "vision_feature_select_strategy": feature_select_strategy(vision_config),
    }
    new = ("model.scene_merger.", "model.multi_modal_projector.", "model.image_newline")
    return Recipe(PARTS, model, {"num_scenes": 32, "add_time_instruction": True}, new)


def tower_config(folder_or_id: str) -> PreTrainedConfig:
    """
    The configuration of a vision tower without its last layer and its head: LLaVA's "layer -2".

    Raises:
        ValueError: If it has no square grid of patches.
    """
    config = AutoConfig.from_pretrained(folder_or_id)
    config = without_head(getattr(config, "vision_config", config))
    for name in ("image_size", "patch_size", "num_hidden_layers", "hidden_size"):
        if not isinstance(getattr(config, name, None), int):
            raise ValueError(
                f"{folder_or_id} is no vision tower that can be used: its `{name}` is {getattr(config, name, None)}, "
                "but must be a single number."
            )
    # Built anew, because backbones derive the names of their stages from the number of layers.
    settings = {name: value for name, value in config.to_dict().items() if name not in BACKBONE_SETTINGS}
    return type(config).from_dict(settings | {"num_hidden_layers": config.num_hidden_layers - 1})


def without_head(config: PreTrainedConfig) -> PreTrainedConfig:
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return config


def so400m_config(shapes: dict[str, tuple[int, ...]], name: str | None) -> SiglipVisionConfig:
    """
    The configuration of SigLIP so400m/14-384 without its last layer; LLaVA-NeXT saves the tower's name alone.

    Raises:
        ValueError: If the tensors are not this tower's.
    """
    patches = shapes.get("model.vision_tower.embeddings.patch_embedding.weight")
    positions = shapes.get("model.vision_tower.embeddings.position_embedding.weight")
    if patches not in (None, (1152, 3, 14, 14)) or positions not in (None, (729, 1152)):
        side = isqrt(positions[0]) if positions else None
        raise ValueError(
            f"The vision tower ('{name}', patch embedding {patches}, {side} x {side} patches) is not SigLIP "
            "so400m/14-384: say with `--vision-tower` where its configuration is."
        )
    return SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )


@torch.no_grad()
def feature_select_strategy(config: PreTrainedConfig) -> str:
    """
    Whether a tower gives its patches alone (`"full"`) or a class token first (`"default"`), found by running it on the
    meta device.

    Raises:
        ValueError: If it gives any other number of tokens.
    """
    with torch.device("meta"):
        tower = AutoModel.from_config(config)
        pixels = torch.empty(1, getattr(config, "num_channels", 3), config.image_size, config.image_size)
        num_tokens = tower(pixels).last_hidden_state.shape[1]
    num_patches = (config.image_size // config.patch_size) ** 2
    if num_tokens not in (num_patches, num_patches + 1):
        raise ValueError(
            f"The vision tower ({config.model_type}) gives {num_tokens} tokens a picture, but its grid has "
            f"{num_patches} patches: only one class token can be dropped."
        )
    return "full" if num_tokens == num_patches else "default"


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
        ValueError: If a tensor is missing, unexpected or of a wrong shape; it lists all of them.
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
            + "\n".join(problems)
        )
    return new, dropped


def _require(config: dict, name: str, allowed: tuple):
    if config.get(name) not in allowed:
        raise ValueError(
            f"The checkpoint's `{name}` is {config[name]!r}, which FiLA-Video does not have; only "
            f"{', '.join(repr(value) for value in allowed if value is not None)} can be converted."
        )


_QWEN2_SETTINGS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "initializer_range", "rms_norm_eps", "tie_word_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "use_sliding_window", "sliding_window", "max_window_layers"),
    *("attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id"),
}

__all__ = [
    "LLAVA_HF",
    "LLAVA_NEXT",
    "PARTS",
    "Recipe",
    "compare",
    "detect_layout",
    "llava_hf_recipe",
    "llava_next_recipe",
    "parts_recipe",
    "rename",
    "rename_language",
    "rename_vision",
    "tower_config",
    "unused_reason",
]
