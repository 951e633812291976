"""Checkpoints as transformers saves them: what their configuration says, in FiLA-Video's settings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.configuration_utils import PreTrainedConfig
from transformers.models.internvl import InternVLConfig
from transformers.models.llava_next_video import LlavaNextVideoConfig
from transformers.models.llava_onevision import LlavaOnevisionConfig
from transformers.models.smolvlm import SmolVLMConfig, processing_smolvlm

from .files import foreign, read_json
from .recipes import TIED, Layout, Recipe, pixel_settings, require
from .templates import INTERNVL, SMOLVLM
from .towers import without_head


class HfLayout(Layout):
    """What the layouts below have in common. Attributes: `model_type`, and `config_class`, its configuration."""

    model_type: str
    config_class: type[PreTrainedConfig]
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
        return config.get("model_type") == self.model_type

    def check(self, config: dict) -> None:
        if not isinstance(config.get("vision_feature_layer", -1), int):
            raise ValueError(
                f"`vision_feature_layer` is {config['vision_feature_layer']}: FiLA-Video takes the features of one "
                "layer."
            )

    def recipe(self, folder: Path, config: dict, shapes: dict[str, tuple[int, ...]], tower: Path | None) -> Recipe:
        with foreign(folder / "config.json", f"describes no {self.name}"):
            source = self.config_class.from_dict(config)
        remarks = []
        has_head = "lm_head.weight" in shapes
        if not has_head and not source.tie_word_embeddings:
            remarks.append(TIED)
        source.text_config.tie_word_embeddings = not has_head or self.is_tied(source, config)
        num_frames = pixel_settings(folder).get("num_frames") or 32
        if not isinstance(num_frames, int) or num_frames < 1:
            raise ValueError(f"{folder}: the video processor's `num_frames` is {num_frames!r}, no number of frames.")
        model = {"text_config": source.text_config, "vision_config": without_head(source.vision_config)}
        recipe = Recipe(self.name, model, num_scenes=num_frames, remarks=remarks)
        with foreign(folder / "config.json", f"describes no {self.name} that FiLA-Video can be"):
            self.fill(recipe, source, folder)
        return recipe

    def is_tied(self, source: PreTrainedConfig, config: dict) -> bool:
        """Whether a head that is there is the embedding: not unless the file says so, as defaults have changed."""
        text = config.get("text_config") or {}
        return config.get("tie_word_embeddings", False) and text.get("tie_word_embeddings", True)

    def fill(self, recipe: Recipe, source: Any, folder: Path) -> None:
        """Adds what this kind of model says to `recipe`."""
        raise NotImplementedError


def _settings(source: Any) -> dict[str, Any]:
    """What these configurations and FiLA-Video's call by the same names."""
    names = ("vision_feature_layer", "vision_feature_select_strategy", "projector_hidden_act")
    return {name: getattr(source, name) for name in names}


class LlavaHf(HfLayout):
    """LLaVA-OneVision: pooled bilinearly, by 2, with a newline at the end of a video."""

    name = "llava-hf"
    model_type = "llava_onevision"
    config_class = LlavaOnevisionConfig

    def is_tied(self, source: LlavaOnevisionConfig, config: dict) -> bool:
        return source.tie_word_embeddings

    def fill(self, recipe: Recipe, source: LlavaOnevisionConfig, folder: Path) -> None:
        recipe.model |= _settings(source) | {
            "pooling_mode": "bilinear",
            "pooling_stride": 2,
            "newline_position": "video",
            "image_token_id": source.image_token_index,
            "video_token_id": source.video_token_index,
        }


class LlavaNextVideo(HfLayout):
    """LLaVA-NeXT-Video: pooled by average before the projector, no newline in a video."""

    name = "LLaVA-NeXT-Video"
    model_type = "llava_next_video"
    config_class = LlavaNextVideoConfig

    def check(self, config: dict) -> None:
        super().check(config)
        config = {"spatial_pool_mode": "average", "multimodal_projector_bias": True} | config
        require(config, "spatial_pool_mode", ("average", "max"))
        require(config, "multimodal_projector_bias", (True,))

    def fill(self, recipe: Recipe, source: LlavaNextVideoConfig, folder: Path) -> None:
        recipe.model |= _settings(source) | {
            "pooling_mode": source.spatial_pool_mode,
            "pooling_stride": source.spatial_pool_stride,
            "pooling_position": "before_projector",
            "newline_position": "none",
            "image_token_id": source.image_token_index,
            "video_token_id": source.video_token_index,
        }
        recipe.crops = bool(pixel_settings(folder).get("do_center_crop", True))
        recipe.remarks.append(
            "A picture is read as a video of one frame: tiles and newlines of pictures are left out."
        )


class SmolVlm(HfLayout):
    """SmolVLM2: a pixel shuffle and one matrix, and the time of each frame before its tokens."""

    name = "SmolVLM2"
    model_type = "smolvlm"
    config_class = SmolVLMConfig
    renames = (
        (r"^model\.vision_model\.", "model.vision_tower."),
        (r"^model\.connector\.modality_projection\.proj\.", "model.multi_modal_projector.linear_1."),
        (r"^model\.text_model\.", "model.language_model."),
    )

    def fill(self, recipe: Recipe, source: SmolVLMConfig, folder: Path) -> None:
        recipe.new = ("model.scene_merger.", "model.background_encoder.")
        recipe.model |= {
            "vision_final_norm": True,
            "projector_type": "linear",
            "pooling_mode": "pixel_shuffle",
            "pooling_stride": source.scale_factor,
            "pooling_position": "before_projector",
            "newline_position": "none",
            "image_token_id": source.image_token_id,
        }
        pixels, sampling = pixel_settings(folder), read_json(folder / "preprocessor_config.json").get("video_sampling")
        side = (pixels.get("max_image_size") or {}).get("longest_edge", source.vision_config.image_size)
        if side != source.vision_config.image_size:
            raise ValueError(
                f"the processor makes frames of {side} pixels (`max_image_size`), the vision tower's grid is for "
                f"{source.vision_config.image_size} (`image_size`)"
            )
        sampling = sampling or pixels.get("video_sampling") or {}
        recipe.num_scenes = sampling.get("max_frames") or pixels.get("num_frames") or 64
        recipe.even_frames, recipe.candidate_fps = "rate", float(sampling.get("fps") or pixels.get("fps") or 1)
        recipe.time_marks, recipe.time_template = "per_scene", processing_smolvlm.FRAME_TIMESTAMP_MESSAGE
        # What stands around a picture, and around a video.
        start, edge, end = "<global-img>", "<fake_token_around_image>", "<end_of_utterance>"
        intro = processing_smolvlm.DEFAULT_VIDEO_INTRO.format(frame_count="{count_in_words}", video_duration="{clock}")
        recipe.texts = {
            "visual_start": edge + start,
            "visual_end": edge,
            "video_intro": intro,
            "video_outro": processing_smolvlm.DEFAULT_MEDIA_OUTTRO,
        }
        recipe.control_tokens = ("<image>", start, edge, end)
        # Its own knows no videos; this is what transformers uses for them.
        recipe.template, recipe.turns = processing_smolvlm.DEFAULT_CHAT_TEMPLATE, SMOLVLM
        recipe.remarks.append("A picture is read whole: SmolVLM2's tiles of pictures are left out.")


class InternVl(HfLayout):
    """InternVL 3 and 3.5 as transformers saves them: a pixel shuffle before the projector, numbered frames."""

    name = "InternVL"
    model_type = "internvl"
    config_class = InternVLConfig

    def check(self, config: dict) -> None:
        super().check(config)
        ratio = config.get("downsample_ratio", 0.5)
        if not isinstance(ratio, int | float) or not 0 < ratio <= 1 or 1 / ratio != round(1 / ratio):
            raise ValueError(f"`downsample_ratio` is {ratio!r}, but must be one divided by a whole number.")

    def fill(self, recipe: Recipe, source: InternVLConfig, folder: Path) -> None:
        recipe.new = ("model.scene_merger.", "model.background_encoder.")
        recipe.model |= _settings(source) | {
            "vision_final_norm": source.vision_feature_layer == -1,
            "projector_type": "norm_mlp",
            "pooling_mode": "pixel_shuffle",
            "pooling_stride": round(1 / source.downsample_ratio),
            "pooling_position": "before_projector",
            "newline_position": "none",
            "image_token_id": source.image_token_id,
        }
        recipe.even_frames = "middles"
        recipe.time_marks, recipe.time_template = "per_scene", "\nFrame{number}: "
        recipe.image_token, recipe.turns = "<IMG_CONTEXT>", INTERNVL
        recipe.texts = {"visual_start": "<img>", "visual_end": "</img>"}
        recipe.control_tokens = ("<IMG_CONTEXT>", "<img>", "</img>")
        recipe.remarks.append("A picture is read whole: InternVL's tiles of pictures are left out.")


__all__ = ["InternVl", "LlavaHf", "LlavaNextVideo", "SmolVlm"]
