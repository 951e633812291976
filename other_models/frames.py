"""
The frames worth showing to any video model of transformers: this package's reader, pool and selection in front of it.

The processors of these models take a video's frames with a `VideoMetadata`, and find the times of the frames as
`frames_indices / fps`. What is returned here makes these the true times, also where the frame rate of a file varies.
"""

from collections.abc import Callable
from fractions import Fraction
from numbers import Integral
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..frame_selector_fila_video import SceneSettings
from ..question_selection_fila_video import Question, relevant_frames
from ..scene_selection_fila_video import frame_weights, select_scenes
from ..video_inputs_fila_video import flatten_videos, is_decoder, is_frame_sequence, read_decoder, resized
from ..video_pictures_fila_video import open_still_picture
from ..video_pool_fila_video import thumbnails
from ..video_processing_fila_video import FilaVideoVideoProcessor
from ..video_reading_fila_video import VideoFrames, VideoLimits, read_frames, staged
from .choice import unread

CANDIDATES_SIZE = (64, 64)  # of candidates that are only looked at as thumbnails
ENCODED_SIZE = (384, 384)  # of those that an encoder gets
ENCODED_AT_ONCE = 16
CLOCK = 1_000_000  # ticks a second that number the frames of a video without a constant rate
SAME_TIME = 5e-7  # seconds


def select_frames(
    video: Any,
    num_frames: int,
    *,
    question: str | None = None,
    selection: str | Callable[..., Any] | None = None,
    scorer: Callable[[torch.Tensor, str], torch.Tensor] | None = None,
    encoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
    size: tuple[int, int] | None = None,
    candidate_fps: float | None = None,
    max_candidates: int | None = None,
    candidates_size: tuple[int, int] | None = None,
    seed: int | None = None,
    seek_mode: str | None = None,
    video_metadata: VideoMetadata | dict | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    limits: VideoLimits | None = None,
    allow_private_hosts: bool = True,
) -> tuple[np.ndarray, VideoMetadata]:
    """
    Chooses the frames of a video that a model of transformers shall see. Pass both results to its processor, with
    `videos=[frames]`, `video_metadata=[metadata]` and `do_sample_frames=False`. An option that has no effect with the
    selection is an error: with `"uniform"` and a function, all of the candidates.

    Args:
        video:
            A path, a URL, bytes, a binary file, [`VideoSegment`]s, a folder of pictures, torchcodec's `VideoDecoder`,
            or frames as they are. A file is read twice: small candidates, then the chosen frames.
        num_frames (`int`):
            Frames to choose; a video with fewer gives all it has.
        question (`str`, *optional*):
            What will be asked: the frames are those that a scorer finds most relevant to it.
        selection (`str` or `Callable`, *optional*, defaults to `"farthest"`, with a question to `"question"`):
            How to choose them from the candidates, see [`select_scenes`]; `"uniform"`: every n-th frame from the first
            one on, as transformers samples by default; or the model's own sampling, a function from the video's
            `VideoMetadata` and `num_frames` to frame numbers, such as `processor.video_processor.sample_frames`.
        scorer (`Callable[[torch.Tensor, str], torch.Tensor]`, *optional*):
            From candidates `(n, 3, height, width)`, uint8, and a question to scores `(n,)`, such as a
            [`ContrastiveScorer`]; with a question only.
        encoder (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            From candidates `(n, 3, height, width)`, uint8, to their features `(n, dim)` or `(n, num_patches, dim)`. By
            default thumbnails are compared. Not with a question, for which the scorer compares.
        size (`tuple[int, int]`, *optional*):
            Height and width of the frames returned; by default those of the video.
        candidate_fps (`float`, *optional*, defaults to 1.0):
            Candidates a second, at least 96 and `num_frames` in all where the video has as many.
        max_candidates (`int`, *optional*, defaults to 512):
            Candidates of a long video: of those at `candidate_fps` the ones that differ most from their neighbors.
        candidates_size (`tuple[int, int]`, *optional*):
            Height and width of the candidates of a file: (384, 384) for an encoder or a scorer, else (64, 64) by
            default.
        seed (`int`, *optional*, defaults to 42):
            Seed of k-means, for `"kmeans"` and `"kmeans_dissimilar"`.
        seek_mode (`str`, *optional*, defaults to `"auto"`):
            How candidates are read, see [`read_frames`]. The chosen frames are always exact.
        video_metadata (`VideoMetadata` or `dict`, *optional*):
            Of frames given as they are; without it they count as taken at `candidate_fps`, whatever the selection.
        progress (`Callable[[str, int, int], None]`, *optional*):
            Called with what is being done ("reading" or "encoding"), the number of frames done and their total.
        limits ([`VideoLimits`], *optional*):
            What reading the video may cost.
        allow_private_hosts (`bool`, *optional*, defaults to `True`):
            Whether a URL may lead to this machine or its private network.

    Returns:
        `tuple`: the frames in the order of time, `(num_frames, height, width, 3)`, uint8; and their `VideoMetadata`,
        whose `frames_indices / fps` are their times in seconds. The indices number the video's frames, or, where its
        rate is not constant, microseconds.

    Raises:
        VideoReadError: If the video cannot be read.
        ValueError: If another argument is wrong.
    """
    if selection is None:
        selection = "farthest" if question is None else "question"
    _check_question(num_frames, question, selection, scorer)
    # A frame is a scene of one.
    pool = {"num_scenes": num_frames, "scene_size": 1}
    pool |= {"selection": "uniform" if callable(selection) else selection}
    given = {"candidate_fps": candidate_fps, "max_candidates": max_candidates, "seed": seed, "seek_mode": seek_mode}
    given = {name: value for name, value in given.items() if value is not None}
    pool |= given
    settings = SceneSettings(**pool)
    videos = flatten_videos(video)
    if len(videos) != 1:
        raise ValueError(f"Frames are selected from one video at a time, got {len(videos)}.")
    video = videos[0]
    others = {"encoder": encoder, "candidates_size": candidates_size}
    given |= {name: value for name, value in others.items() if value is not None}
    _check_read(selection, given, settings, is_frame_sequence(video) or isinstance(video, VideoFrames))
    access = {"limits": limits, "allow_private_hosts": allow_private_hosts}
    reading = staged(progress, "reading")

    # The two ways to choose: by the times alone, which gives numbers of the video's frames; or by what candidates
    # show, which gives their places among them.
    def own_sampling(metadata: VideoMetadata) -> np.ndarray:
        count = min(num_frames, metadata.total_num_frames)
        if not callable(selection):
            return np.arange(count) * metadata.total_num_frames // count
        return np.asarray(selection(metadata, num_frames=count))

    def choose(candidates: torch.Tensor, times: list[float]) -> np.ndarray:
        if len(candidates) <= num_frames:
            return np.arange(len(candidates))
        features = _features(candidates, encoder, progress)
        if question is None:
            weights = frame_weights(thumbnails(candidates)) if selection == "farthest" else None
            how = {"seed": settings.seed, "weights": weights}
            return select_scenes(features, num_frames, 1, selection, **how).flatten().numpy()
        asked = Question(question, torch.tensor(times))
        scores = asked.scores(candidates, None, None, scorer, settings.neutral_question, settings.question_tokens)
        how = {"diversity": settings.question_diversity, "spacing": settings.question_spacing}
        return relevant_frames(scores, asked.times, features, num_frames, **how).numpy()

    by_time = settings.selection == "uniform"
    processor = FilaVideoVideoProcessor()
    is_given = is_frame_sequence(video) or isinstance(video, VideoFrames)
    if not is_given and (still := open_still_picture(video, limits)) is not None:
        video, is_given = still, True
    if is_given:  # the candidates are the frames themselves, and nothing is read again
        # `None`: thinned as the processor does by itself. `True` would be refused of a folder's list of pictures.
        do_sample = False if by_time else None
        frames, metadata = processor.load_video(video, video_metadata, do_sample_frames=do_sample, **pool, **access)
        if by_time:
            chosen = own_sampling(VideoMetadata(len(frames), metadata.sampled_fps, duration=metadata.duration))
        else:
            chosen = choose(frames, metadata.timestamps)
        frames = resized(frames[torch.from_numpy(chosen).long()], size)
        seconds = np.array(metadata.timestamps)[chosen]
        metadata.frames_indices = [metadata.frames_indices[number] for number in chosen]
        return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy(), _timed(metadata, seconds)

    if video_metadata is not None:
        raise ValueError("`video_metadata` describes frames that are given as they are: a file has its own.")
    wanted: dict[str, Any] = {"num_frames": own_sampling}
    if not by_time:
        height, width = candidates_size or (CANDIDATES_SIZE if encoder is None and scorer is None else ENCODED_SIZE)
        small = {"size": {"height": height, "width": width}, "progress": reading}
        candidates, metadata = processor.load_video(video, **small, **pool, **access)
        chosen = choose(candidates, metadata.timestamps)
        wanted = {"times": [metadata.timestamps[number] for number in chosen]}
        numbers = np.array(metadata.frames_indices)[chosen]
    # Now at full size: what was chosen, by its time, or of a decoder by its number.
    if is_decoder(video):
        read = read_decoder(video, own_sampling if by_time else (lambda _: numbers), size=size, progress=reading)
    else:
        read = read_frames(video, size=size, progress=reading, **wanted, **access)
    return read.frames, _timed(read.metadata, read.timestamps)


def _check_question(
    num_frames: int,
    question: str | None,
    selection: str | Callable[..., Any],
    scorer: Callable[[torch.Tensor, str], torch.Tensor] | None,
) -> None:
    """Refuses what [`SceneSettings`] does not: arguments that do not go with each other."""
    if isinstance(num_frames, bool) or not isinstance(num_frames, Integral) or num_frames < 1:
        raise ValueError(f"`num_frames` must be a whole number of at least 1, got {num_frames!r}.")
    if question is None and scorer is not None:
        raise ValueError("A `scorer` needs a `question`: pass what will be asked, or leave it out.")
    if (selection == "question") != (question is not None and bool(question.strip())):
        raise ValueError(
            "`selection='question'` and `question` belong together: pass what will be asked, and no other selection."
        )
    if question is not None and scorer is None:
        raise ValueError("A question needs a `scorer`, such as `ContrastiveScorer('google/siglip-base-patch16-384')`.")


def _check_read(
    selection: str | Callable[..., Any], given: dict[str, Any], settings: SceneSettings, are_pictures: bool
) -> None:
    """Refuses options without an effect, and a pool that is too small for the frames to choose."""
    goes_by, names = unread(selection, given, are_pictures)
    if names:
        how = "A function as `selection`" if callable(selection) else f"`selection={selection!r}`"
        raise ValueError(f"{how} {goes_by}: leave out {', '.join(f'`{name}`' for name in names)}.")
    if settings.selection != "uniform" and settings.num_scenes > settings.max_candidates:
        raise ValueError(
            f"`num_frames` {settings.num_scenes} is more than `max_candidates` {settings.max_candidates}: raise the "
            "latter."
        )


def _features(
    candidates: torch.Tensor, encoder: Callable | None, progress: Callable[[str, int, int], None] | None
) -> torch.Tensor:
    """`(num_candidates, dim)`, float32; the mean of its patches' features stands for a frame (equation 1)."""
    features = []
    for batch in candidates.split(ENCODED_AT_ONCE):
        with torch.no_grad():
            encoded = thumbnails(batch) if encoder is None else encoder(batch)
        if encoded.ndim not in (2, 3) or len(encoded) != len(batch):
            raise ValueError(
                f"The encoder must give ({len(batch)}, dim) or ({len(batch)}, num_patches, dim) for {len(batch)} "
                f"frames, got {tuple(encoded.shape)}."
            )
        features.append((encoded.mean(dim=1) if encoded.ndim == 3 else encoded).float())
        if progress is not None and encoder is not None:
            progress("encoding", sum(map(len, features)), len(candidates))
    return torch.cat(features)


def _timed(metadata: VideoMetadata, seconds: np.ndarray) -> VideoMetadata:
    """
    The metadata of frames shown at `seconds`, as plain numbers, which survive the copies that processors make.

    The numbers of the frames are kept where they give the times at a constant rate, that of the file as a fraction.
    """
    duration, total = float(metadata.duration), metadata.total_num_frames
    fps, numbers = float(Fraction(metadata.fps).limit_denominator(1001)), [int(n) for n in metadata.frames_indices]
    if not fps or np.abs(np.array(numbers) / fps - seconds).max() > SAME_TIME:
        fps, numbers, total = float(CLOCK), np.rint(seconds * CLOCK).astype(int).tolist(), round(duration * CLOCK)
    return VideoMetadata(
        total_num_frames=total,
        fps=fps,
        width=metadata.width,
        height=metadata.height,
        duration=duration,
        video_backend=metadata.video_backend,
        frames_indices=numbers,
    )


__all__ = ["select_frames"]
