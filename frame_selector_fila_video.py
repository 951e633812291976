"""The frame selector: chooses the scenes of a pool of frames, by thumbnails or by a frame encoder's features."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers.video_utils import VideoMetadata

from .encoded_video_fila_video import EncodedVideo
from .question_selection_fila_video import Question, relevant_frames
from .scene_selection_fila_video import scenes_of, select_scenes, thin_pool, unselected_frames
from .video_processing_fila_video import SceneSettings, thumbnails


class Selection(NamedTuple):
    """
    What the selector chose of one video.

    Args:
        inputs (`torch.Tensor`):
            What the model gets of the chosen frames, in the order of the scenes and then of the background: pixels
            without an encoder, patch features with one.
        indices (`torch.LongTensor` of shape `(num_scenes, scene_size)`): The scenes' indices in the pool.
        background (`torch.LongTensor` of shape `(num_background,)`): The background's, ascending.
        scores (`dict[str, torch.Tensor]`, *optional*):
            Where a question chose, the `timestamps` and `values` of all frames that were scored.
    """

    inputs: torch.Tensor
    indices: torch.Tensor
    background: torch.Tensor
    scores: dict[str, torch.Tensor] | None = None


class FrameSelector:
    """
    Selects scenes as equations 1 to 6 do. It is a guest of its processor: copies, pickles and saved files of the
    processor carry neither the frame encoder nor its model.

    Args:
        encoder (`Callable[[torch.Tensor], torch.Tensor]`, *optional*):
            From normalized pixels `(num_frames, 3, height, width)` to patch features `(num_frames, num_patches,
            hidden_size)`. Without one, thumbnails of the frames serve.
        model (`torch.nn.Module`, *optional*):
            Whose method the encoder is. It is held by a weak reference.
        is_bound (`bool`, *optional*, defaults to `False`):
            Whether the encoder is the model's `encode_frames`, looked up when it is needed.
        scorer (`Callable[[torch.Tensor, str], torch.Tensor]`, *optional*):
            From frames, uint8, and a question to one score per frame. By default the model scores.
    """

    def __init__(
        self,
        encoder: Callable | None = None,
        model: torch.nn.Module | None = None,
        is_bound: bool = False,
        scorer: Callable[[torch.Tensor, str], torch.Tensor] | None = None,
    ) -> None:
        self._encoder = encoder
        self._model = (lambda: None) if model is None else weakref.ref(model)
        self._is_bound = is_bound
        self.scorer = scorer

    def __deepcopy__(self, memo: dict) -> "FrameSelector":
        return FrameSelector()

    def __reduce__(self) -> tuple:
        return FrameSelector, ()

    @property
    def model(self) -> torch.nn.Module | None:
        return self._model()

    @property
    def encoder(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        if not self._is_bound:
            return self._encoder
        if self.model is None:
            raise ValueError(
                "The model that the processor was bound to is gone: keep a reference to it, bind another, or set "
                "`processor.frame_encoder = None` to select scenes on thumbnails."
            )
        return self.model.encode_frames

    def select(
        self,
        frames: torch.Tensor | EncodedVideo,
        settings: SceneSettings,
        pixels: Callable[[torch.Tensor, Any], torch.Tensor],
        progress: Callable[[str, int, int], None] | None = None,
        question: Question | None = None,
    ) -> Selection:
        """
        The scenes of one video, and the frames of its background.

        Args:
            frames (`torch.Tensor` of shape `(num_frames, 3, height, width)` or `EncodedVideo`):
                The pool, uint8, or one with the features that `encode` gave.
            settings (`SceneSettings`): How to select.
            pixels (`Callable`): From frames and a device to normalized pixels, as the encoder and the model take them.
            progress (`Callable[[str, int, int], None]`, *optional*): Called with "encoding", frames done and in all.
            question (`Question`, *optional*): What `selection="question"` goes by.
        """
        method, patch_features = settings.selection, None
        has_features = self.encoder is not None or isinstance(frames, EncodedVideo)
        if len(frames) <= settings.num_selected_frames:
            method = "uniform"  # every frame can be taken, in order as in the last training stage: nothing to select
        elif (has_features or settings.uses_whole_pool) and (kept := self.thin(frames, settings)) is not None:
            settings = replace(settings, encoded_candidates=None)
            question = None if question is None else question[kept]
            selected = self.select(frames[kept], settings, pixels, progress, question)
            return selected._replace(indices=kept[selected.indices], background=kept[selected.background])
        num_scenes = settings.num_scenes
        # CODEPATH: DynFocus's key frames are chosen in the model, of all frames.
        if settings.frame_encoding == "cooperative":
            method, num_scenes = "uniform", len(frames)
        if method == "uniform":  # which reads no feature: only the chosen frames are encoded
            features = torch.zeros(len(frames), 1)
        elif not has_features:
            features = _all_thumbnails(frames, settings)
        else:
            features, patch_features = self.encode(frames, settings, settings.max_feature_bytes, pixels, progress)
        scores = None
        if method == "question":
            values = self._scores(question, frames, patch_features, settings, pixels)
            representatives = relevant_frames(
                values,
                question.times,
                features,
                settings.num_scenes,
                diversity=settings.question_diversity,
                spacing=settings.question_spacing,
                context=settings.question_context,
                seed=settings.seed,
            )
            indices = scenes_of(features, representatives, settings.scene_size)
            scores = {"timestamps": question.times, "values": values}
        elif isinstance(frames, EncodedVideo) and settings in frames.chosen:
            indices = frames.chosen[settings]
        else:
            indices = select_scenes(
                features, num_scenes, settings.scene_size, method, init=settings.init, seed=settings.seed
            )
            if isinstance(frames, EncodedVideo):
                frames.chosen[settings] = indices
        background = unselected_frames(indices, len(frames), settings.num_background_frames(len(frames)))
        order = torch.cat([indices.flatten(), background])
        if not has_features:
            return Selection(pixels(frames[order], None), indices, background, scores)
        if patch_features is None:
            order, repeated = order.unique(return_inverse=True)
            patch_features = self.encode(frames[order], settings, float("inf"), pixels, progress)[1]
            order = repeated
        return Selection(patch_features[order.to(patch_features.device)], indices, background, scores)

    def _scores(
        self,
        question: Question,
        frames: torch.Tensor | EncodedVideo,
        patch_features: torch.Tensor | None,
        settings: SceneSettings,
        pixels: Callable,
    ) -> torch.Tensor:
        """How much each frame of a pool has to do with the question, `(num_frames,)`."""
        seen = frames
        if isinstance(frames, EncodedVideo):
            seen = frames.pictures.permute(0, 3, 1, 2) if frames.frames is None else frames.frames
        parts = None
        if patch_features is not None:
            parts = patch_features.split(settings.frame_batch_size)
        elif self.encoder is not None:  # too large to keep: encoded once more
            device = getattr(self.model, "device", None)
            parts = (self.encoder(pixels(batch, device)) for batch in seen.split(settings.frame_batch_size))
        scorer, neutral = self.scorer, settings.neutral_question
        layers = settings.question_layers
        return question.scores(seen, parts, self.model, scorer, neutral, settings.question_tokens, layers)

    def thin(self, frames: torch.Tensor | EncodedVideo, settings: SceneSettings) -> torch.Tensor | None:
        """Which frames of a pool are worth encoding, where `settings.encoded_candidates` keeps fewer than all."""
        num_kept = settings.num_thinned(len(frames))
        return thin_pool(_all_thumbnails(frames, settings), num_kept) if num_kept < len(frames) else None

    @torch.no_grad()
    def encode(
        self,
        frames: torch.Tensor | EncodedVideo,
        settings: SceneSettings,
        max_bytes: float,
        pixels: Callable,
        progress: Callable | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        The representative features `(num_frames, hidden_size)` of equation 1, float32, and the patch features
        `(num_frames, num_patches, hidden_size)` they are the means of, or `None` where these take more than
        `max_bytes`. What an encoded video has of them is taken as it is.
        """
        if isinstance(frames, EncodedVideo):
            if frames.patch_features is not None or max_bytes < float("inf"):
                return frames.frame_features, frames.patch_features
            frames = frames.frames
            if self.encoder is None:
                raise ValueError(
                    "The patch features of this encoded video were too large to keep, so its chosen frames must be "
                    "encoded again: bind the processor to the model, or encode the video with a larger "
                    "`max_feature_bytes`."
                )
        encoder, device = self.encoder, getattr(self.model, "device", None)
        total, done = len(frames), 0
        representatives, patch_features = [], None
        for batch in frames.split(settings.frame_batch_size):
            encoded = encoder(pixels(batch, device))
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


def _all_thumbnails(frames: torch.Tensor | EncodedVideo, settings: SceneSettings) -> torch.Tensor:
    if isinstance(frames, EncodedVideo):
        return frames.thumbnail_features
    return torch.cat([thumbnails(batch) for batch in frames.split(settings.frame_batch_size)])


def describe_scenes(
    indices: torch.Tensor, metadata: VideoMetadata, background: torch.Tensor | None = None
) -> dict[str, Any]:
    """
    Frame numbers in the video and times, both `(num_scenes, scene_size)`, the video's duration in seconds, and as
    `background` the numbers and times of the frames beside them, where there are any, both `(num_background,)`.
    """
    timestamps = torch.tensor(metadata.timestamps, dtype=torch.float64)
    frame_numbers = torch.as_tensor(list(metadata.frames_indices))
    scenes = {
        "indices": frame_numbers[indices],
        "timestamps": timestamps[indices],
        "duration": float(metadata.duration),
    }
    if background is not None and len(background):
        scenes["background"] = {"indices": frame_numbers[background], "timestamps": timestamps[background]}
    return scenes


__all__ = ["FrameSelector", "Selection", "describe_scenes"]
