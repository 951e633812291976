"""
Layouts of checkpoints that become FiLA-Video models: which one it is, what its tensors are called here, and which of
its settings the converted model keeps. A layout is a class; a new one is added to `LAYOUTS`.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from transformers import Qwen2Config
from transformers.configuration_utils import PreTrainedConfig

from .files import foreign
from .hf_layouts import InternVl, LlavaHf, LlavaNextVideo, SmolVlm
from .recipes import TIED, Layout, Recipe, require
from .relatives import refuse, refuse_language_model
from .towers import feature_select_strategy, so400m_config, tower_config

# Buffers that old checkpoints carry along, and what a vision tower has beyond the features of its patches.
BUFFERS = r"\.rotary_emb\.inv_freq$|(^|\.)position_ids$"
UNUSED_VISION_PARTS = (
    r"^model\.vision_tower\."
    r"(head|text_model|visual_projection|text_projection|logit_scale|logit_bias|classifier)(\.|$)"
)
LAYER_NUMBER = r"^model\.vision_tower\..*?\b(?:layers?|blocks)\.(\d+)\."
MAX_PROBLEMS = 20


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
        refuse_language_model(config)
        require(config, "mm_projector_type", (None, "mlp2x_gelu"))
        require(config, "mm_resampler_type", (None, "identity"))
        require(config, "add_faster_video", (None, False))
        require(config, "mm_newline_position", (None, *self.newline_positions))
        require(config, "mm_spatial_pool_mode", (None, "bilinear", "average", "max"))

    def recipe(self, folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], tower: Path | None) -> Recipe:
        self.check(config)
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
            layout.check(config)
            return layout
    refuse(name, config)


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
    return Recipe("parts", model, time_marks="sentence", new=new)


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
