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
"""FiLA-Video processor: text, images and videos in, model inputs out; it selects the scenes of each video."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin
from transformers.utils import auto_docstring, logging

from .configuration_fila_video import num_visual_tokens
from .scene_selection_fila_video import num_selected_scenes, select_scenes
from .video_inputs_fila_video import (
    flatten_metadata,
    flatten_videos,
    images_of_rows,
    is_frame_sequence,
    load_images,
    videos_of_rows,
)
from .video_processing_fila_video import FilaVideoVideoProcessorKwargs, pad_frames, thumbnails

logger = logging.get_logger(__name__)


class FilaVideoProcessorVideosKwargs(FilaVideoVideoProcessorKwargs, total=False):
    r"""
    return_scenes (`bool`, *optional*, defaults to `False`):
        Also return `scenes`: for each video the `indices` and `timestamps` of its scenes' frames and its `duration`.
    progress (`Callable[[str, int, int], None]`, *optional*):
        A function, called with what is being done ("reading" or "encoding"), the number of frames done and their
        total.
    """

    return_scenes: bool
    progress: Any


class FilaVideoProcessorKwargs(ProcessingKwargs, total=False):
    videos_kwargs: FilaVideoProcessorVideosKwargs


# transformers 5.18 reads it of every class of this kind, and a TypedDict inherits none.
FilaVideoProcessorKwargs._defaults = {}


class _Guest:
    """Holds the frame encoder so that copies, pickles and saved files of the processor never carry a model along."""

    def __init__(self, value: Callable | None = None):
        self.value = value

    def __deepcopy__(self, memo):
        return _Guest()

    def __reduce__(self):
        return _Guest, ()


def _video_setting(name: str) -> property:
    return property(
        lambda self: getattr(self.video_processor, name),
        lambda self, value: setattr(self.video_processor, name, value),
    )


@auto_docstring
class FilaVideoProcessor(ProcessorMixin):
    valid_processor_kwargs = FilaVideoProcessorKwargs
    skip_tensor_conversion = ["video_metadata", "text_replacement_offsets", "scenes"]

    # The settings of the selection belong to the video processor, where a call can override them.
    num_scenes = _video_setting("num_scenes")
    scene_size = _video_setting("scene_size")
    candidate_fps = _video_setting("candidate_fps")
    min_candidates = _video_setting("min_candidates")
    max_candidates = _video_setting("max_candidates")
    selection = _video_setting("selection")
    init = _video_setting("init")
    seed = _video_setting("seed")

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        patches_per_side=27,
        pooling_mode="bilinear",
        pooling_stride=2,
        newline_position="video",
        add_time_instruction=True,
    ):
        r"""
        patches_per_side (`int`, *optional*, defaults to 27):
            Patches along one side of the vision tower's grid. This and the next three must be the model's.
        pooling_mode (`str`, *optional*, defaults to `"bilinear"`):
            How the model pools a frame's tokens.
        pooling_stride (`int`, *optional*, defaults to 2):
            By how much.
        newline_position (`str`, *optional*, defaults to `"video"`):
            Where the model puts its newline embedding.
        add_time_instruction (`bool`, *optional*, defaults to `True`):
            Whether the paper's sentence with the timestamps follows each video (section 3.3).
        """
        self.patches_per_side = patches_per_side
        self.pooling_mode = pooling_mode
        self.pooling_stride = pooling_stride
        self.newline_position = newline_position
        self.add_time_instruction = add_time_instruction
        self.image_token = getattr(tokenizer, "image_token", "<image>")
        self.video_token = getattr(tokenizer, "video_token", "<video>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        self._frame_encoder = _Guest()
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)

    @property
    def frame_encoder(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """
        What scenes are selected with: a function from normalised pixels `(num_frames, 3, height, width)` to patch
        features `(num_frames, num_patches, hidden_size)`, usually `model.encode_frames`. Without one, thumbnails of
        the frames serve. It is a guest: saving, copying, pickling and printing the processor leave it out.

        Raises:
            ValueError: When it is set to a model's method and a setting differs from the model's.
        """
        return self._frame_encoder.value

    @frame_encoder.setter
    def frame_encoder(self, encoder: Callable[[torch.Tensor], torch.Tensor] | None):
        self._check_model(encoder, self.scene_size)
        self._frame_encoder = _Guest(encoder)

    def _check_model(self, encoder: Callable | None, scene_size: int):
        config = getattr(getattr(encoder, "__self__", None), "config", None)
        settings = {"scene_size": scene_size}
        for name in ("patches_per_side", "pooling_mode", "pooling_stride", "newline_position"):
            settings[name] = getattr(self, name)
        for name, ours in settings.items():
            theirs = getattr(config, name, None)
            if theirs is not None and ours != theirs:
                raise ValueError(
                    f"The processor's `{name}` is {ours!r}, but the model's is {theirs!r}: make them equal."
                )

    def to_dict(self) -> dict[str, Any]:
        # Saving sets it on the object; so a saved and a loaded processor are equal.
        return {**super().to_dict(), "auto_map": {"AutoProcessor": "processing_fila_video.FilaVideoProcessor"}}

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "video_num_scenes"]

    def prepare_inputs_layout(self, images=None, text=None, videos=None, audio=None, **kwargs):
        text = [text] if isinstance(text, str) else text if text is None else list(text)
        # Sanitised texts come from chats, where the rows agree, and may hold tokens that are none.
        count_rows = text is not None and not kwargs.get("sanitize_control_tokens")
        if videos is not None:
            rows = videos_of_rows(videos, len(text)) if count_rows else None
            self._check_rows(text, rows, self.video_token, "videos")
            videos = flatten_videos(videos)
            videos = None if text and not videos else videos
        if images is not None:
            rows = images_of_rows(images, len(text)) if count_rows else None
            self._check_rows(text, rows, self.image_token, "images")
            rescale = kwargs.get("do_rescale", (kwargs.get("images_kwargs") or {}).get("do_rescale"))
            images = load_images(images, self.image_processor.do_rescale if rescale is None else rescale)
            images = None if text and not images else images
        return images, text, videos, audio

    def _check_rows(self, text: list[str] | None, counts: list[int] | None, token: str, name: str):
        for row, count in enumerate(counts or []):
            if isinstance(text[row], str) and text[row].count(token) != count:
                raise ValueError(
                    f"The number of {token} tokens in the prompts should be the same as the number of {name} passed "
                    f"for each: prompt {row} has {text[row].count(token)} {token} tokens and {count} {name}."
                )

    def validate_inputs(self, images=None, text=None, videos=None, audio=None, **kwargs):
        if images is None and text is None and videos is None:
            raise ValueError("Pass at least one of `text`, `images` and `videos`.")
        if audio is not None:
            logger.warning_once("FiLA-Video takes no sound: `audio` is left out.")
        for name, given in (("text", text), ("images", images), ("videos", videos)):
            if given is not None and not given:
                raise ValueError(f"`{name}` is an empty batch: pass at least one of them.")
        if text is None:
            return
        for sample in text:
            if not isinstance(sample, str):
                raise ValueError(f"`text` must be a string or a list of strings, got a {type(sample).__name__} in it.")
            if not sample.strip():
                raise ValueError("`text` has an empty prompt: ask something.")
        for name, token, given in (("images", self.image_token, images), ("videos", self.video_token, videos)):
            found, passed = sum(sample.count(token) for sample in text), len(given or [])
            if found != passed:
                raise ValueError(
                    f"The total number of {token} tokens in the prompts should be the same as the number of {name} "
                    f"passed: found {found} {token} tokens and {passed} {name}."
                )

    def _process_videos(self, videos, **kwargs):
        settings = {name: value for name, value in kwargs.items() if value is not None}
        return_scenes, return_metadata = settings.pop("return_scenes", False), settings.pop("return_metadata", False)
        progress, return_tensors = settings.pop("progress", None), settings.pop("return_tensors", None)
        metadata = flatten_metadata(settings.pop("video_metadata", None), len(videos))
        sampling = {name: settings.pop(name) for name in ("num_frames", "fps", "do_sample_frames") if name in settings}

        chosen, scenes, infos = [], [], []
        for video, info in zip(videos, metadata, strict=True):
            if info is None and is_frame_sequence(video):
                logger.warning_once(
                    "Frames were passed without `video_metadata`: the prompt names times as if they had been taken at "
                    "`candidate_fps` frames a second."
                )
            reading = None if progress is None else (lambda done, total: progress("reading", done, total))
            frames, info = self.video_processor.load_video(video, info, progress=reading, **sampling, **settings)
            inputs, indices = self._select(frames, settings, progress)
            chosen.append(inputs)
            scenes.append(_describe_scenes(indices, info))
            infos.append(info)

        name = "pixel_values_videos" if self.frame_encoder is None else "frame_features"
        if return_tensors == "np":  # which knows no bfloat16
            chosen = [inputs.float().cpu() for inputs in chosen]
        processed = {
            name: pad_frames(chosen),
            "video_num_scenes": [len(scene["indices"]) for scene in scenes],
            "scenes": scenes,
            "video_metadata": infos,
        }
        replacements = [self.replace_video_token(processed, video_idx=index) for index in range(len(videos))]
        if not return_scenes:
            del processed["scenes"]
        if not return_metadata:
            del processed["video_metadata"]
        return BatchFeature(
            processed, return_tensors, skip_tensor_conversion=self.skip_tensor_conversion
        ), replacements

    def _select(
        self, frames: torch.Tensor, settings: dict, progress: Callable | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the model gets of the chosen frames, pixels or patch features, and the scenes' indices in the pool."""
        value = {name: settings.get(name, getattr(self.video_processor, name, None)) for name in SELECTION_SETTINGS}
        pixel_settings = {name: setting for name, setting in settings.items() if name not in SELECTION_SETTINGS}
        self._check_model(self.frame_encoder, value["scene_size"])
        batch_size = value["frame_batch_size"]
        if batch_size < 1:
            raise ValueError(f"`frame_batch_size` must be at least 1, got {batch_size}.")
        batches = frames.split(batch_size)
        kept = None
        if value["selection"] == "uniform":  # which reads no feature: only the chosen frames are encoded
            features = torch.zeros(len(frames), 1)
        elif self.frame_encoder is None:
            features = torch.cat([thumbnails(batch) for batch in batches])
        else:
            features, kept = self._encode(batches, value["max_feature_bytes"], pixel_settings, progress)
        indices = select_scenes(
            features,
            value["num_scenes"],
            value["scene_size"],
            value["selection"],
            init=value["init"],
            seed=value["seed"],
        )
        order = indices.flatten()
        if self.frame_encoder is None:
            return self._pixels(frames[order], pixel_settings), indices
        if kept is None:
            order, repeated = order.unique(return_inverse=True)
            kept = self._encode(frames[order].split(batch_size), float("inf"), pixel_settings, progress)[1]
            order = repeated
        return kept[order.to(kept.device)], indices

    @torch.no_grad()
    def _encode(
        self, batches: tuple[torch.Tensor, ...], max_bytes: float, pixel_settings: dict, progress: Callable | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The representative features `(num_frames, hidden_size)` of equation 1, float32, and the patch features
        `(num_frames, num_patches, hidden_size)` they are the means of, or `None` where these take more than
        `max_bytes`.
        """
        device = getattr(getattr(self.frame_encoder, "__self__", None), "device", None)
        total = sum(len(batch) for batch in batches)
        representatives, patch_features, done = [], None, 0
        for batch in batches:
            encoded = self.frame_encoder(self._pixels(batch, pixel_settings, device))
            if encoded.ndim != 3 or len(encoded) != len(batch):
                raise ValueError(
                    f"The frame encoder must give ({len(batch)}, num_patches, hidden_size) for {len(batch)} frames, "
                    f"got {tuple(encoded.shape)}."
                )
            representatives.append(encoded.float().mean(dim=1))
            if done == 0 and encoded[0].nbytes * total <= max_bytes:
                patch_features = encoded.new_empty(total, *encoded.shape[1:])
            if patch_features is not None:
                patch_features[done : done + len(batch)] = encoded
            done += len(batch)
            if progress is not None:
                progress("encoding", done, total)
        return torch.cat(representatives), patch_features

    def _pixels(self, frames: torch.Tensor, pixel_settings: dict, device=None) -> torch.Tensor:
        """Frames `(num_frames, 3, height, width)` resized and normalised, on the encoder's device."""
        settings = {**pixel_settings, "do_sample_frames": False}
        if device is not None:
            settings["device"] = device
        return self.video_processor([frames], return_tensors="pt", **settings)["pixel_values_videos"][0]

    def _num_visual_tokens(self, num_frames: int) -> int:
        return num_visual_tokens(
            num_frames, self.patches_per_side, self.pooling_mode, self.pooling_stride, self.newline_position
        )

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        return self.image_token * self._num_visual_tokens(1)

    def replace_video_token(self, video_inputs: dict, video_idx: int, **kwargs) -> str:
        scenes = video_inputs["scenes"][video_idx]
        tokens = self.video_token * self._num_visual_tokens(len(scenes["indices"]))
        if not self.add_time_instruction:
            return tokens
        # One time a scene: its representative's, the last of its frames.
        return f"{tokens}\n{time_instruction(scenes['timestamps'][:, -1].tolist(), scenes['duration'])}"

    def _check_special_mm_tokens(self, text, text_inputs, modalities):
        super()._check_special_mm_tokens(text, text_inputs, modalities)
        masks = text_inputs.get("attention_mask", text_inputs["input_ids"])
        longest = max(int(sum(mask)) if "attention_mask" in text_inputs else len(mask) for mask in masks)
        config = getattr(getattr(self.frame_encoder, "__self__", None), "config", None)
        context = getattr(getattr(config, "text_config", None), "max_position_embeddings", None)
        context = min(self.tokenizer.model_max_length, context or self.tokenizer.model_max_length)
        if longest > context:
            raise ValueError(
                f"A prompt takes {longest} tokens with its images and videos, but the model's context has "
                f"{context}. Nothing is truncated: lower `num_scenes`, pass fewer videos or "
                "shorten the text."
            )

    def _get_num_multimodal_tokens(self, image_sizes=None, video_sizes=None, **kwargs) -> MultiModalData:
        """
        Placeholder tokens of images of sizes `(height, width)` and of videos of sizes `(num_frames, height, width)`,
        the frames being the candidates.
        """
        counts = {}
        if image_sizes is not None:
            counts["num_image_tokens"] = [self._num_visual_tokens(1)] * len(image_sizes)
            counts["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            num_scenes = kwargs.get("num_scenes", self.num_scenes)
            counts["num_video_tokens"] = [
                self._num_visual_tokens(num_selected_scenes(num_frames, num_scenes)) for num_frames, *_ in video_sizes
            ]
        return MultiModalData(**counts)

    def apply_chat_template(self, conversation, *args, sanitize_control_tokens: bool = False, **kwargs):
        """
        Renders chats, and with `tokenize=True` processes them; see `ProcessorMixin.apply_chat_template`.

        Raises:
            ValueError: If there are no messages, a question is empty, or a text contains a control or placeholder
            token. `sanitize_control_tokens=True`, where transformers has it, reads such tokens as plain text instead.
        """
        if isinstance(conversation, (list, tuple)):
            chats = conversation if conversation and isinstance(conversation[0], (list, tuple)) else [conversation]
            for chat in chats:
                self._check_chat(chat, sanitize_control_tokens)
        if sanitize_control_tokens:
            if "sanitize_control_tokens" not in inspect.signature(ProcessorMixin.apply_chat_template).parameters:
                raise ValueError(
                    "`sanitize_control_tokens` needs a newer transformers: remove control tokens yourself."
                )
            kwargs["sanitize_control_tokens"] = True
        return super().apply_chat_template(conversation, *args, **kwargs)

    def _check_chat(self, chat: Any, sanitize_control_tokens: bool):
        if not chat:
            raise ValueError("A chat has no messages: ask something.")
        for message in chat:
            if not isinstance(message, dict):
                raise ValueError(
                    f"A message is a dictionary with `role` and `content`, got a {type(message).__name__}."
                )
            content = message.get("content")
            blocks = content if isinstance(content, (list, tuple)) else [{"type": "text", "text": content or ""}]
            texts = [block["text"] for block in blocks if isinstance(block, dict) and "text" in block]
            if message.get("role") == "user" and (not blocks or any(not str(text).strip() for text in texts)):
                raise ValueError("A question is empty: ask something.")
            # Blocks of text follow each other without a gap, and could make up a token together.
            texts = [str(message.get("role")), "".join(map(str, texts))]
            for token in self.tokenizer.added_tokens_decoder.values():
                if token.special and any(token.content in text for text in texts) and not sanitize_control_tokens:
                    raise ValueError(
                        f"A text contains {token.content!r}, which is a control token of the model and not for users "
                        "to write: remove it."
                    )

    def collate(self, items: list[BatchFeature]) -> BatchFeature:
        """
        One batch of several outputs of this processor (with `return_tensors="pt"`): text padded on the tokenizer's
            side,
        videos at their end.
        """
        names = list(dict.fromkeys(name for item in items for name in item))
        text = [name for name in names if name in ("input_ids", "attention_mask")]
        rows = [{name: item[name][row] for name in text} for item in items for row in range(len(item["input_ids"]))]
        batch = dict(self.tokenizer.pad(rows, return_tensors="pt"))
        for name in names:
            values = [item[name] for item in items if name in item]
            if name in ("pixel_values_videos", "frame_features"):
                batch[name] = torch.stack(pad_frames([video for value in values for video in value]))
            elif name in ("pixel_values", "video_num_scenes"):
                batch[name] = torch.cat(values)
            elif name not in text:
                raise ValueError(f"`{name}` cannot be collated; of the processor's outputs {text} and visuals can.")
        return BatchFeature(batch)


def time_instruction(timestamps: list[float], duration: float) -> str:
    """
    The paper's sentence (section 3.3), times in seconds rounded to a tenth.

    Args:
        timestamps (`list[float]`): One a frame that the model sees: of a scene, its representative's.
        duration (`float`): Of the whole video.
    """
    times = ", ".join(f"{timestamp:.1f}" for timestamp in timestamps)
    return f"This video samples {len(timestamps)} frames of a {duration:.1f}-second video at {times} seconds."


def _describe_scenes(indices: torch.Tensor, metadata) -> dict:
    """Frame numbers in the video and times, both `(num_scenes, scene_size)`, and the video's duration in seconds."""
    timestamps = torch.tensor(metadata.timestamps, dtype=torch.float64)
    frame_numbers = torch.as_tensor(list(metadata.frames_indices))
    return {
        "indices": frame_numbers[indices],
        "timestamps": timestamps[indices],
        "duration": float(metadata.duration),
    }


# What `_select` and the loading of frames take of a call's settings; the others are for pixels.
SELECTION_SETTINGS = (
    "num_scenes",
    "scene_size",
    "candidate_fps",
    "min_candidates",
    "max_candidates",
    "selection",
    "init",
    "seed",
    "frame_batch_size",
    "max_feature_bytes",
    "seek_mode",
    "input_data_format",
    "do_convert_rgb",
)

FilaVideoProcessor.register_for_auto_class()

__all__ = ["FilaVideoProcessor", "FilaVideoProcessorKwargs"]
