"""FiLA-Video model configuration."""

import math
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args

import torch
from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import auto_docstring

# Which class of this repository each auto class builds. It travels in every config.json, so that a folder written by
# `save_pretrained` loads by all of them.
AUTO_MAP = {
    "AutoConfig": "configuration_fila_video.FilaVideoConfig",
    "AutoModel": "modeling_fila_video.FilaVideoForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_fila_video.FilaVideoForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_fila_video.FilaVideoForConditionalGeneration",
    "AutoProcessor": "processing_fila_video.FilaVideoProcessor",
    "AutoVideoProcessor": "video_processing_fila_video.FilaVideoVideoProcessor",
}
# What the model's arguments about videos are called.
VIDEO_INPUTS = ("pixel_values_videos", "frame_features", "video_num_scenes", "video_background_places")
VIDEO_INPUTS += ("video_question_ids",)
# Settings that a processor has too, itself and among those of its scenes.
SHARED_WITH_PROCESSOR = ("patches_per_side", "pooling_mode", "pooling_stride", "newline_position")
SHARED_WITH_SCENES = ("scene_size", "frame_encoding", "background_tokens", "num_prototypes", "key_frames")
SHARED_WITH_SCENES += ("detail_tokens",)
KINDS = {int: "a whole number", float: "a number", str: "a text", NoneType: "`None`"}
CUSTOM_PIPELINES = {
    "video-text-to-text": {
        "impl": "pipeline_fila_video.VideoTextToTextPipeline",
        "pt": ["AutoModelForImageTextToText"],
    }
}


@auto_docstring(checkpoint="fila-video/FiLA-Video")
@strict
class FilaVideoConfig(PreTrainedConfig):
    r"""
    vision_config (`PreTrainedConfig` or `dict`, *optional*):
        Any vision tower with patch tokens that `AutoModel` knows. By default SigLIP so400m/14-384 without its last
        layer and its head: what LLaVA calls layer -2.
    text_config (`PreTrainedConfig` or `dict`, *optional*):
        Any causal language model that `AutoModel` knows, if its logits are what its head gives. By default Qwen2-7B.
    scene_size (`int`, *optional*, defaults to 3):
        Frames fused into one: a representative and its r supplements, r + 1 (equation 6).
    merger_type (`str`, *optional*, defaults to `"weighted"`):
        How the frames of a scene become one (section 3.2, supplement C): `"weighted"` (equation 8), `"mean"`,
        `"attention"` or `"bsm"`.
    projector_type (`str`, *optional*, defaults to `"mlp"`):
        `"mlp"`, two linear layers with `projector_hidden_act` between them; `"norm_mlp"`, the same behind a norm; or
        `"linear"`, one without bias.
    pooling_mode (`str`, *optional*, defaults to `"bilinear"`):
        How a frame's grid of tokens shrinks: `"bilinear"`, `"average"`, `"max"`, `"pixel_shuffle"` (neighbors become
        channels of one token) or `"none"`.
    pooling_stride (`int`, *optional*, defaults to 2):
        By how much the grid shrinks in height and width.
    pooling_position (`str`, *optional*, defaults to `"after_projector"`):
        Where it shrinks: `"after_projector"` or `"before_projector"`, the only place for a pixel shuffle.
    newline_position (`str`, *optional*, defaults to `"video"`):
        Where the learned newline embedding stands: after the whole `"video"`, after every row of the `"grid"`, after
        every `"frame"`, or nowhere (`"none"`).
    vision_feature_layer (`int`, *optional*, defaults to -1):
        Which hidden state of the vision tower is used, as an index into its `hidden_states`. The last one is taken
        before the tower's final norm, and the first, the bare embeddings, cannot be chosen.
    vision_final_norm (`bool`, *optional*, defaults to `False`):
        Whether the tower's output is used instead, which its final norm has gone over if it has one.
    vision_feature_select_strategy (`str`, *optional*, defaults to `"full"`):
        `"full"` keeps every token of the tower, `"default"` drops the first one (CLIP's class token).
    frame_encoding (`str`, *optional*, defaults to `"scenes"`):
        How frames become tokens: `"scenes"`, selected and merged (FiLA-Video), or `"cooperative"`, many tokens for
        key frames and few for every frame of the pool (DynFocus, arXiv 2411.12355). The latter takes frames one by
        one, `scene_size=1`.
    background_tokens (`int`, *optional*):
        The few tokens, 0 to 2. With `"scenes"`, by default 0, of frames of the pool that are in no scene: 1, its
        mean patch, which takes no new weights; or 2, the other by a learned query, which starts as the mean too. With
        `"cooperative"`, by default 2, of every frame: its mean patch and what the question attends to.
    num_prototypes (`int`, *optional*, defaults to 25):
        With `"cooperative"`: the frames that stand for a video's events (L). A pool with fewer is taken whole.
    key_frames (`int` or `float`, *optional*, defaults to 0.8):
        With `"cooperative"`: how many of the prototypes are key frames (K), or which share of them, rounded up. The
        paper has 20 of 25, its code 0.45 of 80; with 0 there are none.
    detail_tokens (`int`, *optional*):
        With `"cooperative"`, as an ablation: so many tokens of a key frame, means of bands of its patches from top to
        bottom, in place of its pooled patches and clusters (38 of 16 x 16 patches).
    topk_samples (`int`, *optional*, defaults to 500):
        With `"cooperative"`: samples of the noise by which the choice of key frames has a gradient in training.
    topk_sigma (`float`, *optional*, defaults to 0.1):
        And its standard deviation; scores are from 0 to 1.
    layer_compression (`str`, *optional*):
        `"cosine"` lets the tokens of a video's scenes fall away through the language model's layers (XComp's LP-Comp);
        by default all of them go through all layers.
    layer_compression_group (`int`, *optional*):
        Tokens of a group, of which one reaches the last layer: 16 in XComp, by default all of a scene.
    layer_compression_rounding (`str`, *optional*, defaults to `"round"`):
        `"round"` is the schedule that XComp's code trained with, `"ceil"` the one that its paper prints.
    layer_compression_keep (`str`, *optional*, defaults to `"suffix"`):
        Which tokens of a group stay: the last ones, or in an ablation those that are `"uniform"`ly spread.
    tie_word_embeddings (`bool`, *optional*):
        Whether the head is the embedding; by default as `text_config` says.

    Example:

    ```python
    >>> from transformers import AutoModel
    >>> from fila_video import FilaVideoConfig, FilaVideoForConditionalGeneration

    >>> config = FilaVideoConfig(merger_type="weighted", scene_size=3)
    >>> model = FilaVideoForConditionalGeneration(config)
    ```"""

    model_type = "fila_video"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}

    # Of an evaluation, `Trainer` keeps the logits alone. With layer compression they are of the tokens that were left:
    # then only its loss means something.
    keys_to_ignore_at_inference = [
        "cache",
        "past_key_values",
        "image_hidden_states",
        "video_hidden_states",
        "kept_tokens",
    ]

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    projector_hidden_act: str = "gelu"
    scene_size: int = 3
    merger_type: Literal["weighted", "mean", "attention", "bsm"] = "weighted"
    projector_type: Literal["mlp", "norm_mlp", "linear"] = "mlp"
    pooling_mode: Literal["bilinear", "average", "max", "pixel_shuffle", "none"] = "bilinear"
    pooling_stride: int = 2
    pooling_position: Literal["after_projector", "before_projector"] = "after_projector"
    newline_position: Literal["video", "grid", "frame", "none"] = "video"
    vision_feature_layer: int = -1
    vision_final_norm: bool = False
    vision_feature_select_strategy: Literal["full", "default"] = "full"
    frame_encoding: Literal["scenes", "cooperative"] = "scenes"
    background_tokens: Literal[0, 1, 2] | None = None
    num_prototypes: int = 25
    key_frames: int | float = 0.8
    detail_tokens: int | None = None
    topk_samples: int = 500
    topk_sigma: float = 0.1
    layer_compression: Literal["cosine"] | None = None
    layer_compression_group: int | None = None
    layer_compression_rounding: Literal["round", "ceil"] = "round"
    layer_compression_keep: Literal["suffix", "uniform"] = "suffix"
    image_token_id: int = 151646
    video_token_id: int = 151647
    tie_word_embeddings: bool | None = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _build_config(
            self.vision_config,
            "siglip_vision_model",
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=26,
            num_attention_heads=16,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        )
        self.text_config = _build_config(
            self.text_config,
            "qwen2",
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        )
        self._set_defaults()
        # A server may point an entry elsewhere (see the model card): what is set already stays.
        self.auto_map = AUTO_MAP | (kwargs.pop("auto_map", None) or {})
        self.custom_pipelines = kwargs.pop("custom_pipelines", None) or CUSTOM_PIPELINES
        super().__post_init__(**kwargs)

    def _set_defaults(self) -> None:
        """Sets what is `None` and follows from other settings."""
        # Language models that stand alone keep the flag of a tied head in their own config.
        if self.tie_word_embeddings is None:
            self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        if self.background_tokens is None:
            self.background_tokens = 2 if self.frame_encoding == "cooperative" else 0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        # transformers sets what is given over the saved settings on the finished object, where nobody checks it.
        returns_unused = kwargs.pop("return_unused_kwargs", False)
        kwargs = {name: value for name, value in kwargs.items() if name not in cls.sub_configs or value is not None}
        saved = config_dict.get("frame_encoding", cls.frame_encoding)
        if kwargs.get("frame_encoding", saved) != saved:
            kwargs.setdefault("background_tokens", None)  # the saved number was the other encoding's
        config, unused = super().from_dict(config_dict, return_unused_kwargs=True, **kwargs)
        config._set_defaults()
        config.validate()
        return (config, unused) if returns_unused else config

    def validate_architecture(self) -> None:
        """Part of `@strict`: refuses sizes that no model can have."""
        counts = ("scene_size", "pooling_stride", "layer_compression_group", "num_prototypes", "topk_samples")
        for name in (*counts, "detail_tokens"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.pooling_stride > self.patches_per_side and self.pooling_mode in ("average", "max", "pixel_shuffle"):
            raise ValueError(
                f"`pooling_stride` ({self.pooling_stride}) is larger than the vision tower's grid "
                f"({self.patches_per_side} patches a side): no token would be left."
            )
        if self.pooling_mode == "pixel_shuffle":
            if self.pooling_position != "before_projector":
                raise ValueError(
                    "`pooling_mode='pixel_shuffle'` makes wider tokens for the projector: set "
                    "`pooling_position='before_projector'`."
                )
            if self.patches_per_side % self.pooling_stride:
                raise ValueError(
                    f"The vision tower's grid has {self.patches_per_side} patches a side, which a pixel shuffle by "
                    f"`pooling_stride` ({self.pooling_stride}) does not divide."
                )
        # These are worked on by the language model's own class for generation, in whose place this model stands.
        scales = ("logit_scale", "logits_scaling", "lm_head_multiplier", "output_multiplier")
        scales += ("logits_mup_width_multiplier",)
        for name in (*scales, "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"):
            if getattr(self.text_config, name, None) not in (None, 1):
                raise ValueError(
                    f"`text_config` changes its logits by `{name}` ({getattr(self.text_config, name)}), which this "
                    "model does not do: take another language model."
                )
        if self.vision_final_norm and self.vision_feature_layer != -1:
            raise ValueError(
                f"`vision_final_norm` takes the vision tower's output, but `vision_feature_layer` is "
                f"{self.vision_feature_layer}: choose one."
            )
        check_key_frames(self.num_prototypes, self.key_frames)
        if self.layer_compression is not None and (self.background_tokens or self.frame_encoding != "scenes"):
            raise ValueError(
                "`layer_compression` drops tokens of the grids of scenes and knows no others: it needs "
                "`frame_encoding='scenes'` and `background_tokens=0`, got "
                f"{self.frame_encoding!r} and {self.background_tokens}."
            )
        if self.frame_encoding == "cooperative":
            self._validate_cooperative()
        num_layers = self.vision_config.num_hidden_layers
        if self.vision_feature_layer == 0 or not -num_layers <= self.vision_feature_layer <= num_layers:
            raise ValueError(
                f"`vision_feature_layer` is {self.vision_feature_layer}, but the vision tower has {num_layers} "
                f"layers: choose one of 1 to {num_layers} or -1 to {-num_layers}."
            )
        if self.image_token_id == self.video_token_id:
            raise ValueError(f"`image_token_id` and `video_token_id` are both {self.image_token_id}: choose two.")

    def _validate_cooperative(self) -> None:
        if self.scene_size != 1:
            raise ValueError(
                "`frame_encoding='cooperative'` takes frames one by one, but `scene_size` is "
                f"{self.scene_size}: set it to 1."
            )
        if self.newline_position not in ("video", "none"):
            raise ValueError(
                "`frame_encoding='cooperative'` has no grids of tokens that newlines could end: `newline_position` "
                f"must be 'video' or 'none', got {self.newline_position!r}."
            )
        if self.pooling_mode == "pixel_shuffle":
            raise ValueError(
                "`frame_encoding='cooperative'` projects means of patches, but the projector of "
                "`pooling_mode='pixel_shuffle'` takes several patches as one: choose another."
            )
        if not self.topk_sigma > 0:
            raise ValueError(f"`topk_sigma` must be positive, got {self.topk_sigma}.")
        if self.detail_tokens is not None and self.detail_tokens > self.num_patches:
            raise ValueError(
                f"`detail_tokens` ({self.detail_tokens}) is more than the {self.num_patches} patches of a frame."
            )
        if self.background_tokens == 0 and self.key_frames == 0:
            raise ValueError("`background_tokens` and `key_frames` are both 0: no token would be left.")

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of the vision tower's square grid."""
        return self.frame_side // _square(self.vision_config, "patch_size")

    @property
    def frame_side(self) -> int:
        """Pixels along one side of the vision tower's square frames."""
        return _square(self.vision_config, "image_size")

    @property
    def num_patches(self) -> int:
        """Patch tokens of one frame, L in equation 1."""
        return self.patches_per_side**2

    def to_dict(self) -> dict[str, Any]:
        output = super().to_dict()
        # Code that was loaded from another repository is written beside the weights: its entries must name it there.
        entries = output.get("auto_map", {})
        output["auto_map"] = {key: value.split("--")[-1] for key, value in entries.items()}
        return output


def _build_config(config: dict | PreTrainedConfig | None, model_type: str, **defaults: Any) -> PreTrainedConfig:
    """A sub-config from what the user gave: as it is, built from a dictionary, or the paper's own."""
    if config is None:
        return CONFIG_MAPPING[model_type](**defaults)
    if isinstance(config, dict):
        config = dict(config)
        return CONFIG_MAPPING[config.pop("model_type", model_type)](**config)
    return config


def check_head(text_config: PreTrainedConfig) -> None:
    """
    Raises:
        ValueError: If the language model's own class for generation has another head than one matrix.
    """
    if type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return  # a language model with code of its own, of which only the base is known
    with torch.device("meta"):
        head = AutoModelForCausalLM.from_config(text_config).get_output_embeddings()
    if type(head) is not torch.nn.Linear or head.bias is not None:
        raise ValueError(
            f"The head of `text_config` ({text_config.model_type}) is a {type(head).__name__}"
            f"{'' if getattr(head, 'bias', None) is None else ' with a bias'}, but this model's is a matrix alone: "
            "take another language model."
        )


def check_shared_settings(model: Any, processor: Any, scenes: Any) -> None:
    """
    Args:
        model (`nn.Module`, *optional*): With a configuration, or there is nothing to check.
        processor (`FilaVideoProcessor`): Of the model.
        scenes (`SceneSettings`): The processor's, or a call's.

    Raises:
        ValueError: If a setting differs that the model has too.
    """
    config = getattr(model, "config", None)
    for owner, names in ((processor, SHARED_WITH_PROCESSOR), (scenes, SHARED_WITH_SCENES)):
        for name in names:
            ours = getattr(owner, name)
            theirs = getattr(config, name, ours)  # models of other kinds have no such setting
            # A whole number of `key_frames` counts them, and 1.0 is all of them.
            if ours != theirs or isinstance(ours, float) != isinstance(theirs, float):
                raise ValueError(
                    f"The processor's `{name}` is {ours!r}, but the model's is {theirs!r}: make them equal."
                )


def _square(config: PreTrainedConfig, name: str) -> int:
    """A size in pixels that some towers give as a pair."""
    size = getattr(config, name)
    height, width = size if isinstance(size, (list, tuple)) and len(size) == 2 else (size, size)
    if height != width or not isinstance(height, int):
        raise ValueError(f"The vision tower's `{name}` is {size}, but its grid of patches must be a square.")
    return height


def pooled_grid_size(patches_per_side: int, pooling_mode: str, pooling_stride: int) -> int:
    """Tokens along one side of a frame's grid after pooling: 27 becomes 14 (`bilinear`) or 13 (all others)."""
    if pooling_mode == "none":
        return patches_per_side
    if pooling_mode == "bilinear":
        return -(-patches_per_side // pooling_stride)
    return patches_per_side // pooling_stride


def num_visual_tokens(
    num_frames: int, patches_per_side: int, pooling_mode: str, pooling_stride: int, newline_position: str
) -> int:
    """
    Tokens that one video of `num_frames` merged frames (its scenes), or one image (a single frame), gives to the
    language model. The model and the processor both count here.
    """
    side = pooled_grid_size(patches_per_side, pooling_mode, pooling_stride)
    newlines = {"video": 1, "grid": num_frames * side, "frame": num_frames, "none": 0}[newline_position]
    return num_frames * side * side + newlines


def check_types(settings: Any) -> None:
    """
    Raises:
        ValueError: If a field of a dataclass of settings is of another type than its own. A number may be NumPy's.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        kinds = get_args(field.type) or (field.type,)
        allowed = tuple({int: Integral, float: Real}.get(kind, kind) for kind in kinds)
        if isinstance(value, bool) or not isinstance(value, allowed):
            words = [word for kind, word in KINDS.items() if kind in kinds and not (kind is int and float in kinds)]
            raise ValueError(f"`{field.name}` must be {' or '.join(words)}, got {value!r}.")


def check_key_frames(num_prototypes: int, key_frames: int | float) -> None:
    """
    Raises:
        ValueError: If more key frames are asked for than there are prototypes.
    """
    is_share = not isinstance(key_frames, Integral)
    if isinstance(key_frames, bool) or key_frames < 0 or (is_share and not key_frames <= 1):
        raise ValueError(f"`key_frames` must be a whole number or a share from 0.0 to 1.0, got {key_frames!r}.")
    if not is_share and key_frames > num_prototypes:
        raise ValueError(
            f"`key_frames` ({key_frames}) is more than `num_prototypes` ({num_prototypes}), of which they are chosen."
        )


def num_key_frames(num_frames: int, num_prototypes: int, key_frames: int | float) -> int:
    """Key frames (K) of a pool of `num_frames`: of its prototypes, which are all frames where there are fewer."""
    num_prototypes = min(num_prototypes, num_frames)
    # A share such as 0.28 of 25 is 7, though its product is a little more.
    wanted = key_frames if isinstance(key_frames, Integral) else math.ceil(key_frames * num_prototypes - 1e-9)
    return min(wanted, num_prototypes)


def detail_sizes(patches_per_side: int) -> tuple[int, int, int]:
    """
    Tokens that a key frame has of each kind: pooled ones along one side of their grid, and clusters of patches in two
    levels. 16 x 16 patches give 4 (16 tokens), 16 and 6, 38 in all; other grids in proportion.
    """
    clusters = math.ceil(patches_per_side**2 / 16)
    return min(4, patches_per_side), clusters, math.ceil(0.35 * clusters - 1e-9)


def num_detail_tokens(patches_per_side: int, detail_tokens: int | None) -> int:
    """Tokens that a key frame has beside those of every frame."""
    side, clusters, groups = detail_sizes(patches_per_side)
    return side**2 + clusters + groups if detail_tokens is None else detail_tokens


def num_cooperative_tokens(
    num_frames: int,
    patches_per_side: int,
    num_prototypes: int,
    key_frames: int | float,
    background_tokens: int,
    newline_position: str,
    detail_tokens: int | None = None,
) -> int:
    """Tokens that a pool of `num_frames` gives to the language model with `frame_encoding="cooperative"`."""
    num_keys = num_key_frames(num_frames, num_prototypes, key_frames)
    details = num_keys * num_detail_tokens(patches_per_side, detail_tokens)
    return num_frames * background_tokens + details + (newline_position == "video")


FilaVideoConfig.register_for_auto_class()

__all__ = ["FilaVideoConfig"]
