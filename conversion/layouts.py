"""
Layouts of checkpoints that become FiLA-Video models: which one it is, what its tensors are called here, and which of
its settings the converted model keeps. A layout is a class; a new one is added to `LAYOUTS`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isqrt
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModel, Qwen2Config, SiglipVisionConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.llava_onevision import LlavaOnevisionConfig

from .files import foreign, read_json
from .relatives import refuse, refuse_language_model

# Buffers that old checkpoints carry along, and what a vision tower has beyond the features of its patches.
BUFFERS = r"\.rotary_emb\.inv_freq$|(^|\.)position_ids$"
UNUSED_VISION_PARTS = (
    r"^model\.vision_tower\."
    r"(head|text_model|visual_projection|text_projection|logit_scale|logit_bias|classifier)(\.|$)"
)
BACKBONE_SETTINGS = ("out_features", "out_indices", "stage_names")
LAYER_NUMBER = r"^model\.vision_tower\..*?\b(?:layers?|blocks)\.(\d+)\."
# More layers than any model has: a configuration with more would be built for hours.
MAX_LAYERS = 1000
MAX_PROBLEMS = 20
TIED = "The head is the embedding: there is no `lm_head`, though `tie_word_embeddings` is false."


@dataclass
class Recipe:
    """
    What a checkpoint becomes.

    Args:
        layout (`str`): Its name.
        model (`dict`): Settings of the model's configuration.
        num_scenes (`int`): Frames of a video that the source was trained with.
        time_marks (`str`): How the source tells its language model the times of frames: `"none"`, or `"llava_video"`.
        new (`tuple[str, ...]`): Beginnings of the names of tensors that the checkpoint need not have.
        chatml (`bool`): Whether the source was trained on this project's own chat template.
        remarks (`list[str]`): What the model card says about the conversion.
        max_length (`int`, *optional*): Tokens of the longest prompt, where the checkpoint says so.
        grown_from (`int`, *optional*): Rows of an embedding that has to grow for `<image>` and `<video>`.
    """

    layout: str
    model: dict
    num_scenes: int = 32
    time_marks: str = "none"
    new: tuple[str, ...] = ("model.scene_merger.", "model.vision_tower.post_layernorm.")
    chatml: bool = False
    remarks: list[str] = field(default_factory=list)
    max_length: int | None = None
    grown_from: int | None = None


class LlavaNext:
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
        """
        Refuses what FiLA-Video does not do, by the configuration alone: before gigabytes of weights are fetched.

        Raises:
            ValueError: If the checkpoint works in a way that FiLA-Video does not.
        """
        refuse_language_model(config)
        _require(config, "mm_projector_type", (None, "mlp2x_gelu"))
        _require(config, "mm_resampler_type", (None, "identity"))
        _require(config, "add_faster_video", (None, False))
        _require(config, "mm_newline_position", (None, *self.newline_positions))
        _require(config, "mm_spatial_pool_mode", (None, "bilinear", "average", "max"))

    def recipe(self, folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], tower: Path | None) -> Recipe:
        """
        Args:
            folder (`Path`): Of the checkpoint.
            config (`dict`): Its `config.json`.
            shapes (`dict`): Shapes of its tensors, by their FiLA-Video names.
            tower (`Path`, *optional*): Where the vision tower's configuration is; SigLIP so400m's is known.

        Raises:
            ValueError: If the checkpoint works in a way that FiLA-Video does not.
        """
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
            _require(config, "mm_vision_select_layer", (None, -2))
            _require(config, "mm_vision_select_feature", (None, "patch"))
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


class LlavaHf:
    """LLaVA-OneVision as transformers saves it: pooled bilinearly, by 2, with a newline at the end of a video."""

    name = "llava-hf"
    needs_tower_config = False
    # As written by transformers 4, and by 5 (whose early releases still had SigLIP's inner level).
    renames = (
        (r"^(model\.)?vision_tower\.(vision_model\.)?", "model.vision_tower."),
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^language_model\.model\.", "model.language_model."),
        (r"^multi_modal_projector\.", "model.multi_modal_projector."),
        (r"^image_newline$", "model.image_newline"),
    )

    def matches(self, config: dict, names: Iterable[str]) -> bool:
        # Several models of transformers have tensors of the same names.
        return config.get("model_type") == "llava_onevision"

    def check(self, config: dict) -> None:
        """
        Refuses what FiLA-Video does not do, by the configuration alone.

        Raises:
            ValueError: If it concatenates several layers of its vision tower.
        """
        if not isinstance(config.get("vision_feature_layer", -1), int):
            raise ValueError(
                f"`vision_feature_layer` is {config['vision_feature_layer']}: FiLA-Video takes the features of one "
                "layer."
            )

    def recipe(self, folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], tower: Path | None) -> Recipe:
        """As [`LlavaNext.recipe`]."""
        self.check(config)
        if tower is not None:
            raise ValueError(
                "`--vision-tower` is for LLaVA-NeXT checkpoints: llava-hf's have its configuration with them."
            )
        with foreign(folder / "config.json", "describes no LLaVA-OneVision"):
            source = LlavaOnevisionConfig.from_dict(config)
        text_config, vision_config = source.text_config, without_head(source.vision_config)
        remarks, tied = [], source.tie_word_embeddings
        if "lm_head.weight" not in shapes and not tied:
            tied = True
            remarks.append(TIED)
        text_config.tie_word_embeddings = tied
        num_frames = pixel_settings(folder).get("num_frames") or 32
        if not isinstance(num_frames, int) or num_frames < 1:
            raise ValueError(f"{folder}: the video processor's `num_frames` is {num_frames!r}, no number of frames.")
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
        return Recipe(self.name, model, num_scenes=num_frames, remarks=remarks)


LAYOUTS = (LlavaNext(), LlavaHf())


def find_layout(name: str, config: dict, names: Iterable[str] = ()) -> LlavaNext | LlavaHf:
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


def rename(name: str, layout: LlavaNext | LlavaHf) -> str:
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
    new = ("model.scene_merger.", "model.multi_modal_projector.", "model.image_newline")
    return Recipe("parts", model, time_marks="sentence", new=new)


def tower_config(folder: Path) -> PreTrainedConfig:
    """
    The configuration of a vision tower without its last layer and its head: LLaVA's "layer -2".

    Raises:
        ValueError: If it has no square grid of patches.
    """
    settings = read_json(folder / "config.json")
    # Of a model like CLIP its vision half alone: the text half would warn of token ids that nobody uses here.
    model_type = settings.get("model_type")
    if isinstance(settings.get("vision_config"), dict):
        settings = {"model_type": f"{model_type}_vision_model", **settings["vision_config"]}
        model_type = settings["model_type"]
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(f"{folder} is no vision tower that is known: its `model_type` is {model_type!r}.")
    with foreign(folder / "config.json", f"describes no {model_type}"):
        config = without_head(CONFIG_MAPPING[model_type].from_dict(settings))
    for name in ("image_size", "patch_size", "num_hidden_layers", "hidden_size"):
        value = getattr(config, name, None)
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{folder} is no vision tower that can be used: its `{name}` is {value}, but must be a single "
                "positive number."
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
    check_depth(config)
    with foreign(Path("config.json"), f"describes no {config.model_type} that can be built"), torch.device("meta"):
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


def check_depth(config: PreTrainedConfig) -> None:
    """Refuses a number of layers that would take hours to build."""
    depth = config.num_hidden_layers
    if not isinstance(depth, int) or not 1 <= depth <= MAX_LAYERS:
        raise ValueError(f"`num_hidden_layers` of the {config.model_type} must be 1 to {MAX_LAYERS}, got {depth!r}.")


def pixel_settings(folder: Path) -> dict:
    """Settings of the processor that made the pixels of a checkpoint's videos, or else of its images."""
    nested = read_json(folder / "processor_config.json")
    for settings in (
        read_json(folder / "video_preprocessor_config.json"),
        nested.get("video_processor"),
        read_json(folder / "preprocessor_config.json"),
        nested.get("image_processor"),
    ):
        if isinstance(settings, dict) and "image_mean" in settings:
            return settings
    return {}


def _require(config: dict, name: str, allowed: tuple) -> None:
    if config.get(name) not in allowed:
        raise ValueError(
            f"The checkpoint's `{name}` is {config[name]!r}, which FiLA-Video does not have; only "
            f"{', '.join(repr(value) for value in allowed if value is not None)} can be converted."
        )


_QWEN2_SETTINGS = {
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "initializer_range", "rms_norm_eps", "tie_word_embeddings"),
    *("use_sliding_window", "sliding_window", "max_window_layers"),
    *("attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id"),
}

__all__ = [
    "LAYOUTS",
    "Recipe",
    "check_depth",
    "compare",
    "find_layout",
    "parts_recipe",
    "pixel_settings",
    "rename",
    "rename_language",
    "rename_vision",
    "tower_config",
    "unused_reason",
]
