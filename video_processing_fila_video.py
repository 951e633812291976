"""FiLA-Video video processor: from anything that is a video to candidate frames, and from frames to pixels."""

import copy
import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD, PILImageResampling
from transformers.processing_utils import ProcessingKwargs, VideosKwargs
from transformers.utils import auto_docstring, logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .encoded_video_fila_video import EncodedVideo
from .frame_selector_fila_video import SceneSettings
from .video_inputs_fila_video import (
    VIDEO_ENDINGS,
    flatten_metadata,
    flatten_videos,
    is_decoder,
    is_frame_sequence,
    own_classes,
    read_decoder,
)
from .video_pictures_fila_video import are_pictures, open_still_picture, to_uint8_rgb
from .video_pool_fila_video import most_different
from .video_prompt_fila_video import TIME_SETTINGS, VideoPrompt
from .video_reading_fila_video import FrameReader, TimedVideoMetadata, VideoFrames, VideoLimits, check_wanted, staged

logger = logging.get_logger(__name__)

# Settings of a processor that a call may set anew. Where they are documented, they have their types and defaults.
SETTINGS = {field.name: field for field in fields(SceneSettings)}
SETTINGS |= {field.name: field for field in fields(VideoPrompt) if field.name in TIME_SETTINGS}
# And those of reading, which are the video processor's too.
READING = ("limits", "allow_private_hosts", "hwaccel", "num_frames", "fps", "do_sample_frames")
_Settings = TypedDict("_Settings", {name: field.type for name, field in SETTINGS.items()}, total=False)


class FilaVideoVideoProcessorKwargs(VideosKwargs, _Settings, total=False):
    r"""
    The settings of [`SceneSettings`], `time_marks`, `time_template` and `scene_time` of [`VideoPrompt`], and:

    limits (`VideoLimits` or `dict`, *optional*):
        What reading one video or picture may cost; saved with the processor.
    allow_private_hosts (`bool`, *optional*, defaults to `True`):
        Whether URLs may lead to this machine or its private network; services that take URLs set `False`.
    hwaccel (`str`, *optional*):
        The device that decodes video files, such as `"cuda"`; by default the CPU does.
    """

    limits: Any
    allow_private_hosts: bool
    hwaccel: str | None


class FilaVideoProcessorVideosKwargs(FilaVideoVideoProcessorKwargs, total=False):
    r"""
    return_scenes (`bool` or `str`, *optional*, defaults to `False`):
        Also return `scenes`: for each video the `indices` and `timestamps` of its scenes' frames and its `duration`;
        with `"pictures"` also their `pictures`, uint8 `(num_scenes, scene_size, height, width, 3)`, in the video's
        shape and as large as the vision tower sees them, at most 256 pixels wide and high.
    progress (`Callable[[str, int, int], None]`, *optional*):
        A function, called with what is being done ("reading" or "encoding"), the number of frames done and their
        total.
    thin_times (`bool`, *optional*):
        Whether the times of every second, third, ... scene are named, or none, where another token would otherwise be
        as frequent as the placeholder. By default where offsets of replacements are asked for, as vLLM does, which
        finds a video's placeholders as its text's most frequent token.
    question (`str` or `list[str]`, *optional*):
        What `selection="question"` goes by, and the tokens of `frame_encoding="cooperative"`, for all videos or one
        each. By default what the prompt says behind the video up to the end of the turn; of a chat, what its last
        user says. With `return_scenes`, `scenes` has the `scores`: the `question`, the `timestamps` and `values` of
        the frames that were scored.
    subtitles (*optional*):
        What is said: a file of subtitles, or the number or language of a track inside the video, as [`read_subtitles`]
        takes them; for several videos a list, with `None` for those without. The lines spoken during each scene stand
        beside its time. With `return_scenes`, `scenes` has them as `subtitles`, and `subtitles_left_out` counts those
        that found no room.
    subtitle_tokens (`int`, *optional*, defaults to 2048):
        Tokens of all subtitles of a video at most. Whole lines beyond are left out, with a warning: those farthest
        from their scene's representative.
    """

    return_scenes: bool | str
    progress: Any
    thin_times: bool
    question: Any
    subtitles: Any
    subtitle_tokens: int


class FilaVideoProcessorKwargs(ProcessingKwargs, total=False):
    videos_kwargs: FilaVideoProcessorVideosKwargs


# transformers 5.18 reads it of every class of this kind, and a TypedDict inherits none.
FilaVideoProcessorKwargs._defaults = {}


@auto_docstring
class FilaVideoVideoProcessor(BaseVideoProcessor):
    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_STANDARD_MEAN
    image_std = IMAGENET_STANDARD_STD
    size = {"height": 384, "width": 384}
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    # Servers hand metadata over only where this is set. Frames that are given are the pool, thinned above its limit.
    do_sample_frames = True
    limits = None
    allow_private_hosts = True
    hwaccel = None
    valid_kwargs = FilaVideoVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_num_scenes", "video_background_places", "video_question_ids"]

    def scene_settings(self, **overrides: Any) -> SceneSettings:
        """The processor's own settings of pool and selection, and a call's over them; other settings are left out."""
        names = [field.name for field in fields(SceneSettings)]
        values = {name: overrides[name] for name in names if overrides.get(name) is not None}
        return SceneSettings(**{name: getattr(self, name) for name in names} | values)

    def access(self, **overrides: Any) -> dict[str, Any]:
        """The limits of reading and the hosts that URLs may lead to: the processor's own, and a call's over them."""
        names = ("limits", "allow_private_hosts")
        access = {name: getattr(self, name) if overrides.get(name) is None else overrides[name] for name in names}
        if isinstance(access["limits"], dict):  # as they are saved
            access["limits"] = VideoLimits.of(access["limits"])
        return access

    def to_dict(self) -> dict[str, Any]:
        output = plain_numbers(super().to_dict())
        if is_dataclass(self.limits):
            output["limits"] = asdict(self.limits)
        return output

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs: Any
    ) -> np.ndarray:
        """
        Which of the frames given as they are to take.

        Args:
            metadata (`VideoMetadata`): `total_num_frames`, and `fps` where the rate is needed.
            num_frames (`int`, *optional*): So many, evenly from the first to the last.
            fps (`float`, *optional*): Those shown at 0, 1 / fps, 2 / fps, ... seconds, none twice.

        Returns:
            `np.ndarray` of ascending indices of the frames given. With neither argument all of them, or
            `max_candidates` of them, evenly.

        Raises:
            ValueError: If both arguments are given, more frames are asked for than there are, or `metadata.fps` is
            missing.
        """
        numbers = metadata.frames_indices
        total = metadata.total_num_frames if numbers is None else len(numbers)
        if num_frames is not None and fps is not None:
            raise ValueError("`num_frames` and `fps` are mutually exclusive arguments, please use only one!")
        if fps is not None:
            if not metadata.fps:
                raise ValueError(
                    "To sample frames by `fps`, `video_metadata` must have the `fps` of the frames given."
                )
            times = np.arange(total) / metadata.fps if numbers is None else np.array(metadata.timestamps)
            wanted = np.arange(times[0], times[-1] + 1 / metadata.fps - 1e-6, 1 / fps)
            return np.unique(np.searchsorted(times, wanted + 1e-6, side="right") - 1)
        if num_frames is None:
            num_frames = min(self.scene_settings(**kwargs).max_candidates, total)
        if not 1 <= num_frames <= total:
            raise ValueError(f"Cannot take {num_frames} frames of a video of {total}: ask for 1 to {total}.")
        return np.linspace(0, total - 1, num_frames).round().astype(int)

    def load_video(
        self,
        video: Any,
        metadata: VideoMetadata | dict | None = None,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        do_sample_frames: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> tuple[torch.Tensor, VideoMetadata]:
        """
        The candidate frames of one video.

        Args:
            video:
                What [`read_frames`] reads (path, URL, bytes, file, segments), the `VideoFrames` that it returned, a
                picture or the path or bytes of one, or frames: a list of pictures, or an array or tensor
                `(num_frames, height, width, channels)` or channels first, with 1, 3 or 4 channels, uint8 or floats in
                [0, 1].
            metadata (`VideoMetadata` or `dict`, *optional*):
                Of frames given as they are. Without it they count as taken at `candidate_fps`.
            num_frames, fps (*optional*): Instead of the pool: so many frames, or so many a second.
            do_sample_frames (`bool`, *optional*):
                Whether to thin out frames that are given: to `num_frames` or `fps` where asked for, else to
                `max_candidates`. `False` takes all. Files are always sampled.

        Returns:
            `tuple`: a uint8 tensor `(num_frames, 3, height, width)`, at the size of the settings where a file was
            read, and the metadata, whose `timestamps` are the frames' times in seconds.

        Raises:
            ValueError: If the frames, the metadata or the settings are no such thing; as `VideoReadError` where a
            file cannot be read.
        """
        if num_frames is None and fps is None:
            num_frames, fps = self.num_frames, self.fps if self.num_frames is None else None
        else:
            check_wanted(num_frames, fps)
        check_resample(settings.get("resample", self.resample))
        first = video[0] if isinstance(video, (list, tuple)) and video else None
        if do_sample_frames and isinstance(first, (str, Path, bytes)):
            raise ValueError(
                "Sampling frames from a list of images is not supported! Set `do_sample_frames=False` to use them all."
            )
        do_sample_frames = self.do_sample_frames if do_sample_frames is None else do_sample_frames
        scene_settings, video = self.scene_settings(**settings), own_classes(video)
        if metadata is not None and not is_frame_sequence(video):
            raise ValueError("`video_metadata` is of frames that are given; what is read has its own: leave it out.")
        if isinstance(video, VideoFrames):
            if video.frames.dtype != np.uint8 or video.frames.ndim != 4 or video.frames.shape[3] != 3:
                raise ValueError(
                    "`frames` of `VideoFrames` are uint8 of shape (num_frames, height, width, 3), got "
                    f"{video.frames.dtype} of shape {video.frames.shape}: pass others as an array."
                )
            frames = torch.from_numpy(video.frames).permute(0, 3, 1, 2)
            metadata = _complete_metadata(video.metadata, len(frames), scene_settings.candidate_fps)
            if len(video.timestamps) != len(frames):
                raise ValueError(
                    f"These `VideoFrames` have {len(video.timestamps)} `timestamps`, but {len(frames)} frames: there "
                    "is one for each."
                )
        else:
            if not is_frame_sequence(video):
                picture = open_still_picture(video, self.access(**settings)["limits"])
                if picture is None:
                    return self._read(video, num_frames, fps, progress, scene_settings, settings)
                video = picture
            loading = {"input_data_format": settings.get("input_data_format"), **self.access(**settings)}
            loading["do_convert_rgb"] = settings.get("do_convert_rgb", self.do_convert_rgb)
            shape = getattr(video, "shape", ())
            is_picture = loading["input_data_format"] is not None or len(shape) != 3 or shape[2] in (1, 3, 4)
            if not is_picture and shape[0] in (3, 4):
                raise ValueError(
                    f"An array of shape {tuple(shape)} may be {shape[0]} gray frames or one picture of {shape[0]} "
                    f"channels: give it four dimensions, {(*shape, 1)} or {(1, *shape)}."
                )
            names = [Path(item) for item in video if isinstance(item, (str, Path))] if are_pictures(video) else []
            if film := next((name for name in names if name.suffix.lower() in VIDEO_ENDINGS), None):
                raise ValueError(
                    f"A list as one video holds its pictures, but {film.name} is a film: pass it alone, or each of "
                    "several as a video of its own."
                )
            # Of many pictures, those that are thinned out are not loaded.
            frames = list(video) if are_pictures(video) else to_uint8_rgb(video, **loading)
            if metadata is None and fps is not None and do_sample_frames and len(frames) > 1:
                raise ValueError("To sample frames by `fps`, pass `video_metadata` with the `fps` of these frames.")
            metadata = _complete_metadata(metadata, len(frames), scene_settings.candidate_fps)
        if do_sample_frames:
            chosen = self.sample_frames(metadata, num_frames=num_frames, fps=fps, **settings)
            if len(chosen) < len(frames):
                metadata.frames_indices = [metadata.frames_indices[index] for index in chosen]
                frames = [frames[index] for index in chosen] if isinstance(frames, list) else frames[chosen]
        return to_uint8_rgb(frames, **loading) if isinstance(frames, list) else frames, metadata

    def load_pool(
        self,
        video: Any,
        metadata: VideoMetadata | dict | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        **settings: Any,
    ) -> tuple[torch.Tensor | EncodedVideo, VideoMetadata, SceneSettings]:
        """
        The candidate frames of one video as [`load_video`] gives them, or an `EncodedVideo` as it is; their metadata;
        and how scenes are selected from them: by the processor's settings, those of an encoded video and the call's.
        """
        reading = staged(progress, "reading")
        if type(video).__name__ == EncodedVideo.__name__:  # also of the processor's copy of this code, which goes on
            if metadata is not None:
                raise ValueError(f"{video!r} has its own metadata: leave out `video_metadata`.")
            return video, video.metadata, self.scene_settings(**video.settings_of_question(self, settings))
        if metadata is None and is_frame_sequence(video):
            logger.warning_once(
                "Frames were passed without `video_metadata`: the prompt names times as if they had been taken at "
                "`candidate_fps` frames a second."
            )
        return *self.load_video(video, metadata, progress=reading, **settings), self.scene_settings(**settings)

    def _read(
        self,
        source: Any,
        num_frames: int | None,
        fps: float | None,
        progress: Callable[[int, int], None] | None,
        pool: SceneSettings,
        settings: dict[str, Any],
    ) -> tuple[torch.Tensor, VideoMetadata]:
        size = get_size_dict(settings.get("size") or dict(self.size), default_to_square=self.default_to_square)
        exact_size = settings.get("do_resize", self.do_resize) and size.get("height") and size.get("width")
        size = (size["height"], size["width"]) if exact_size else None
        if num_frames is None and fps is None:
            num_frames = pool.wanted
        is_pool, is_spread = callable(num_frames), False
        if is_decoder(source):
            read = read_decoder(source, num_frames, fps, size, progress)
        else:
            reading = {"size": size, "seek_mode": pool.seek_mode, "progress": progress, **self.access(**settings)}
            reading["hwaccel"] = self.hwaccel if settings.get("hwaccel") is None else settings["hwaccel"]
            with FrameReader(source, num_frames=num_frames, fps=fps, **reading) as reader:
                is_spread = is_pool and reader.total > pool.max_candidates
                if is_spread:
                    kept = most_different(iter(reader), pool.max_candidates, reader.metadata)
                    read = VideoFrames(*kept, reader.metadata)
                else:
                    read = reader.read()
        read.metadata.pool = "spread" if is_spread else "even" if is_pool else "given"
        return torch.from_numpy(read.frames).permute(0, 3, 1, 2), read.metadata

    def pixels(self, frames: torch.Tensor, device: torch.device | str | None = None, **settings: Any) -> torch.Tensor:
        """
        Frames `(num_frames, 3, height, width)`, uint8, resized and normalized: what [`preprocess`] makes of a video's
        frames, without its loading.

        Args:
            device (*optional*): Where to work; by default where the frames are.
            **settings: Over the processor's own; those that are not of pixels are left out.
        """
        values = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        values |= {name: value for name, value in settings.items() if name in values and value is not None}
        values = self._standardize_kwargs(**values | {"return_tensors": "pt"})
        self._validate_preprocess_kwargs(**values)
        return self._preprocess(videos=[frames.to(device)], **values)["pixel_values_videos"][0]

    def _decode_and_sample_videos(
        self, videos: Any, video_metadata: Any = None, do_sample_frames: Any = None, sample_indices_fn: Any = None
    ) -> tuple[Any, Any]:
        # `preprocess` has loaded them item by item; the base class would judge a batch by its first video.
        return videos, video_metadata

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """
        Reads, resizes and normalizes videos.

        Args:
            videos: One video or a nested list of them; what [`load_video`] takes.
            **kwargs: Any of `FilaVideoVideoProcessorKwargs`, and `return_tensors`.

        Returns:
            `BatchFeature` with `pixel_values_videos`, of shape `(num_videos, num_frames, 3, height, width)` where
            `return_tensors` is set and a list of `(num_frames, 3, height, width)` otherwise.
        """
        kwargs = plain_numbers(kwargs)
        names = (self.valid_kwargs.__annotations__.keys() & kwargs.keys()) - {"video_metadata"}
        loading = {name: kwargs[name] for name in names if kwargs[name] is not None}
        videos = flatten_videos(videos)
        if not videos:
            raise ValueError("`videos` is empty: pass at least one video.")
        metadata = flatten_metadata(kwargs.pop("video_metadata", None), len(videos))
        loaded = [self.load_video(video, info, **loading) for video, info in zip(videos, metadata, strict=True)]
        kwargs |= {"do_sample_frames": False, "do_convert_rgb": False, "input_data_format": "channels_first"}
        output = super().preprocess([frames for frames, _ in loaded], **kwargs)
        if kwargs.get("return_metadata", self.return_metadata):
            output["video_metadata"] = [info for _, info in loaded]
        return output


def plain_numbers(options: dict[str, Any]) -> dict[str, Any]:
    """Options with Python's own numbers: neither the checks of transformers nor JSON take those of NumPy."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
    return {name: plain_numbers(value) if isinstance(value, dict) else value for name, value in plain.items()}


def check_resample(value: Any) -> None:
    """
    Raises:
        ValueError: If a filter of resizing is a number that names none.
    """
    if isinstance(value, int) and value not in {*PILImageResampling}:
        names = ", ".join(f"{known.value} ({known.name})" for known in PILImageResampling)
        raise ValueError(f"`resample` must be one of {names}, got {value}.")


def _complete_metadata(metadata: VideoMetadata | dict | None, num_frames: int, default_fps: float) -> VideoMetadata:
    """The metadata of frames given as they are, a copy, with a number and a time for each of them."""
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, VideoMetadata):
        unknown = metadata.keys() - {field.name for field in fields(TimedVideoMetadata)}
        if unknown:
            raise ValueError(f"`video_metadata` knows no {', '.join(sorted(unknown))}.")
        metadata = TimedVideoMetadata(**{"total_num_frames": None, **metadata})
    metadata = copy.copy(metadata)
    for name in ("total_num_frames", "fps", "duration"):
        value = getattr(metadata, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value)):
            raise ValueError(f"`video_metadata` must have a finite number as `{name}`, got {value!r}.")
    if metadata.frames_indices is None:
        if metadata.total_num_frames not in (None, num_frames):
            raise ValueError(
                f"`video_metadata` has {metadata.total_num_frames} frames in all, but {num_frames} were passed: add "
                "`frames_indices` that number them."
            )
        metadata.frames_indices = list(range(num_frames))
    try:
        numbers = [int(number) for number in metadata.frames_indices]
    except (TypeError, ValueError, OverflowError) as error:
        given = metadata.frames_indices
        raise ValueError(f"`video_metadata` must have whole numbers as `frames_indices`, got {given!r}.") from error
    metadata.frames_indices, numbered = numbers, len(numbers)
    if numbered != num_frames:
        raise ValueError(f"`video_metadata` has {numbered} `frames_indices`, but {num_frames} frames were passed.")
    for before, after in itertools.pairwise([0, *numbers]):
        if after < before:
            raise ValueError(
                f"`video_metadata` must have ascending `frames_indices`, from 0, got {after} behind {before}."
            )
    if metadata.total_num_frames is not None and numbers and numbers[-1] >= metadata.total_num_frames:
        raise ValueError(
            f"`video_metadata` has {metadata.total_num_frames} frames in all, numbered from 0, but the number "
            f"{numbers[-1]} in its `frames_indices`."
        )
    times = getattr(metadata, "frame_times", None)
    if times and (timed := sum(number in times for number in numbers)) < numbered:
        raise ValueError(
            f"`video_metadata` has the `frame_times` of {timed} of its {numbered} `frames_indices`: give those of all "
            "of them, or none."
        )
    if metadata.total_num_frames is None:
        metadata.total_num_frames = max(numbers, default=-1) + 1
    if metadata.fps is None:
        metadata.fps = metadata.total_num_frames / metadata.duration if metadata.duration else default_fps
    if not metadata.fps > 0:
        raise ValueError(f"`video_metadata` must have a positive `fps`, got {metadata.fps}.")
    if metadata.duration is None:
        metadata.duration = metadata.total_num_frames / metadata.fps
    metadata.fps, metadata.duration = float(metadata.fps), float(metadata.duration)  # no fraction is made of NumPy's
    return metadata


def pad_frames(videos: list[torch.Tensor]) -> list[torch.Tensor]:
    """Videos `(num_frames, ...)` with zeros behind the shorter ones, so that they stack."""
    longest = max(len(video) for video in videos)
    return [torch.cat([video, video.new_zeros(longest - len(video), *video.shape[1:])]) for video in videos]


def stack_videos(videos: list[torch.Tensor], return_tensors: str | None = None) -> dict[str, list[torch.Tensor]]:
    """
    What the model gets of each video's frames, under the name of the model's argument.

    Args:
        videos (`list[torch.Tensor]`):
            Pixels `(num_frames, channels, height, width)`, or features `(num_frames, num_patches, hidden_size)`.
        return_tensors (`str`, *optional*): What they will become; `"np"` knows no bfloat16.

    Raises:
        ValueError: If some are features and others are not.
    """
    kinds = {"frame_features" if video.ndim == 3 else "pixel_values_videos" for video in videos}
    if len(kinds) > 1:
        raise ValueError(
            "Of these videos some were encoded by a model and others are not: bind the processor to that model "
            "(`processor.bind(model)`), or encode all of them."
        )
    if return_tensors == "np":
        videos = [video.float().cpu() for video in videos]
    # What was saved comes from the CPU, what was encoded just now may be on a GPU.
    device = next((video.device for video in videos if video.device.type != "cpu"), videos[0].device)
    return {kinds.pop(): pad_frames([video.to(device) for video in videos])}


def collate(
    items: list[BatchFeature], tokenizer: PreTrainedTokenizerBase, padding_side: str | None = None
) -> BatchFeature:
    """See [`FilaVideoProcessor.collate`]."""
    names = list(dict.fromkeys(name for item in items for name in item))
    text = [name for name in names if name in ("input_ids", "attention_mask")]
    rows = [{name: item[name][row] for name in text} for item in items for row in range(len(item["input_ids"]))]
    device = items[0]["input_ids"].device  # which the tokenizer forgets
    padded = tokenizer.pad(rows, padding_side=padding_side, return_tensors="pt")
    batch = {name: value.to(device) for name, value in padded.items()}
    for name in names:
        values = [item[name] for item in items if name in item]
        if name in ("pixel_values_videos", "frame_features"):
            batch[name] = torch.stack(pad_frames([video for value in values for video in value]))
        elif name in ("pixel_values", "video_num_scenes"):
            batch[name] = torch.cat(values)
        elif name in ("video_background_places", "video_question_ids"):
            batch[name] = pad_rows([row for value in values for row in value])
        elif name not in text:
            raise ValueError(f"`{name}` cannot be collated; of the processor's outputs {text} and visuals can.")
    return BatchFeature(batch)


def pad_rows(rows: list[torch.Tensor]) -> torch.Tensor:
    """1-D tensors as the rows of one, with -1 behind the shorter ones."""
    return nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True, padding_value=-1)


for setting, field in SETTINGS.items():
    setattr(FilaVideoVideoProcessor, setting, field.default)

FilaVideoVideoProcessor.register_for_auto_class()

__all__ = [
    "READING",
    "SETTINGS",
    "FilaVideoProcessorKwargs",
    "FilaVideoProcessorVideosKwargs",
    "FilaVideoVideoProcessor",
    "FilaVideoVideoProcessorKwargs",
    "check_resample",
    "collate",
    "pad_frames",
    "pad_rows",
    "plain_numbers",
    "stack_videos",
]
