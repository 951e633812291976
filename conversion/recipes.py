"""What a layout of checkpoints tells the conversion, and what all layouts read in the same way."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .files import read_json

TIED = "The head is the embedding: there is no `lm_head`, though `tie_word_embeddings` is false."
SIGLIP = ("siglip_vision_model", "siglip2_vision_model", "smolvlm_vision")


@dataclass
class Recipe:
    """
    What a checkpoint becomes.

    Args:
        layout (`str`): Its name.
        model (`dict`): Settings of the model's configuration.
        num_scenes (`int`): Frames of a video that the source was trained with.
        even_frames (`str`): How the source spreads them, as the processor's setting says.
        candidate_fps (`float`): How many a second, where it goes by that.
        crops (`bool`): Whether it scales the shorter side of frames and cuts out their middle.
        time_marks (`str`):
            How the source tells its language model the times of frames: `"none"`, `"llava_video"` or `"per_scene"`.
        time_template (`str`, *optional*): The mark of `"per_scene"`.
        texts (`dict`): The processor's `visual_start`, `visual_end`, `video_intro` and `video_outro`.
        image_token (`str`): What the source's tokenizer calls the token of a picture.
        control_tokens (`tuple[str, ...]`): Tokens that its tokenizer must have.
        template (`str`, *optional*): The chat template where the source's own knows no videos.
        turns (`dict`, *optional*): What a template of its chats is made of; see [`trainable`].
        new (`tuple[str, ...]`): Beginnings of the names of tensors that the checkpoint need not have.
        chatml (`bool`):
            Whether the model has this project's own chat template, if its tokenizer has ChatML's tokens: the source
            was trained on it, or is yet to be trained.
        remarks (`list[str]`): What the model card says about the conversion.
        max_length (`int`, *optional*): Tokens of the longest prompt, where the checkpoint says so.
        grown_from (`int`, *optional*): Rows of an embedding that has to grow for `<image>` and `<video>`.
    """

    layout: str
    model: dict
    num_scenes: int = 32
    even_frames: str = "ends"
    candidate_fps: float = 1.0
    crops: bool = False
    time_marks: str = "none"
    time_template: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    image_token: str = "<image>"
    control_tokens: tuple[str, ...] = ()
    template: str | None = None
    turns: dict[str, str] | None = None
    new: tuple[str, ...] = ("model.scene_merger.", "model.background_encoder.", "model.vision_tower.post_layernorm.")
    chatml: bool = False
    remarks: list[str] = field(default_factory=list)
    max_length: int | None = None
    grown_from: int | None = None


class Layout:
    """
    How the checkpoints of one kind are written. Attributes: `name`; `needs_tower_config`, whether the vision tower's
    configuration may lie elsewhere; and `renames`, patterns of tensors' names with what FiLA-Video calls them.
    """

    name: str
    needs_tower_config = False
    renames: tuple[tuple[str, str], ...]

    def matches(self, config: dict, names: Iterable[str]) -> bool:
        """Whether a checkpoint is of this kind, by its `config.json` and the names of its tensors."""
        raise NotImplementedError

    def check(self, config: dict) -> None:
        """
        Refuses what FiLA-Video does not do, by the configuration alone: before gigabytes of weights are fetched.

        Raises:
            ValueError: If the checkpoint works in a way that FiLA-Video does not.
        """

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
        raise NotImplementedError


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


def require_pixels(pixels: dict, tower: str, folder: Path) -> None:
    """
    Raises:
        FileNotFoundError: If what [`pixel_settings`] found in a folder does not say how a vision tower of this
            `model_type` has its pixels normalized. Of SigLIP it is known: by 0.5.
    """
    if tower not in SIGLIP and not {"image_mean", "image_std"} <= pixels.keys():
        raise FileNotFoundError(
            f"{folder} has no preprocessor_config.json, and no processor_config.json, with the `image_mean` and "
            "`image_std` of its pixels: copy the file of the original checkpoint there."
        )


def require(config: dict, name: str, allowed: tuple) -> None:
    if config.get(name) not in allowed:
        raise ValueError(
            f"The checkpoint's `{name}` is {config[name]!r}, which FiLA-Video does not have; only "
            f"{', '.join(repr(value) for value in allowed if value is not None)} can be converted."
        )


def refuse_quantized(name: str, config: dict) -> None:
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ValueError(
            f"{name} is quantized, as `quantization_config` of its config.json says ({method}): convert the "
            "checkpoint that is not."
        )


def refuse_experts(name: str, config: dict) -> None:
    text = config.get("text_config") or config
    if isinstance(text, dict) and (text.get("num_experts") or text.get("num_local_experts")):
        raise ValueError(
            f"The language model of {name} has experts, as its config.json says (`num_experts` or "
            "`num_local_experts`), whose weights are not converted: take a model without."
        )


def require_kind(config: dict, name: str, kind: type) -> None:
    if not isinstance(config.get(name) or kind(), kind):
        raise ValueError(f"`{name}` of config.json must be a {kind.__name__}, got {config[name]!r}.")


__all__ = [
    "TIED",
    "Layout",
    "Recipe",
    "pixel_settings",
    "refuse_experts",
    "refuse_quantized",
    "require",
    "require_kind",
    "require_pixels",
]
