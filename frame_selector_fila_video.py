"""The frame selector: chooses the scenes of a pool of frames, by thumbnails or by a frame encoder's features."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from .configuration_fila_video import check_key_frames, check_types
from .encoded_video_fila_video import EncodedVideo, pictures_of
from .question_selection_fila_video import DIVERSITIES, LAYERS, Question, relevant_frames
from .scene_merging_fila_video import compute_device
from .scene_selection_fila_video import (
    INITS,
    METHODS,
    frame_weights,
    scenes_of,
    select_scenes,
    thin_pool,
    unselected_frames,
)
from .video_pool_fila_video import EVEN_FRAMES, even_numbers, thumbnails

XCOMP = {
    "question_layers": "middle",
    "neutral_question": "",
    "question_spacing": 0.0,
    "question_context": 0.0,
    "question_min_rise": 0.0,
    "question_tokens": 16,
}


@dataclass(frozen=True)
class SceneSettings:
    """
    How the pool of a video is made and scenes are selected from it: a processor's settings, with those of a call over
    them ([`FilaVideoVideoProcessor.scene_settings`]).

    Args:
        candidate_fps (`float`, *optional*, defaults to 1.0): Candidate frames a second of video.
        min_candidates (`int`, *optional*, defaults to 96):
            Candidate frames of a short video, at least `num_scenes * scene_size` and never more than it has.
        max_candidates (`int`, *optional*, defaults to 512):
            Candidate frames of a long video: of those at `candidate_fps`, the ones that differ most from their
            neighbors in time. `uniform` and `bsm` selection, which go by time, take theirs evenly.
        encoded_candidates (`int`, *optional*):
            Candidate frames that go through the frame encoder, where there is one: those that differ most by their
            thumbnails, at least `num_scenes * scene_size`. By default all. Not for `uniform` and `bsm` selection. With
            `background_tokens`, these frames are also the background's, whether there is a frame encoder or not.
        seek_mode (`str`, *optional*, defaults to `"auto"`):
            `"auto"` takes, but for the first and the last candidate, the keyframe nearest to a candidate's time where
            it is less than half their spacing away; `"exact"` always the frame shown at that time; `"keyframe"` always
            the nearest keyframe. The times are those of the frames taken.
        even_frames (`str`, *optional*, defaults to `"ends"`):
            Which frames of a file `uniform` selection takes: from its first to its last (`"ends"`), the `"middles"` of
            equal parts (InternVL), or by `"rate"` (SmolVLM2): `candidate_fps` a second, at most all that scenes take.
        num_scenes (`int`, *optional*, defaults to 32):
            Scenes kept for a video, at most one per candidate frame. A pool of up to `num_scenes * scene_size` is
            taken whole, in the order of time, whatever the selection.
        scene_size (`int`, *optional*, defaults to 3): Frames in a scene. Must be the model's.
        selection (`str`, *optional*, defaults to `"kmeans"`):
            How scenes are selected: `"kmeans"`, `"kmeans_dissimilar"`, `"farthest"`, `"prototypes"`, `"uniform"`,
            `"bsm"`, or `"question"`: by what is asked, for which the processor is bound to a model or has a scorer.
        init (`str`, *optional*, defaults to `"k-means++"`):
            Initial centers of k-means: `"k-means++"` or the paper's `"random"`.
        seed (`int`, *optional*, defaults to 42): Seed of the initial centers.
        frame_batch_size (`int`, *optional*, defaults to 16): Frames that go through the frame encoder at once.
        max_feature_bytes (`float`, *optional*, defaults to 1 GiB):
            Patch features of a video's candidates are kept up to this size; above it the chosen frames are encoded
            again.
        question_diversity (`str`, *optional*, defaults to `"top"`):
            How frames are chosen by their scores: `"top"`, `"clusters"` or `"coverage"`, see [`relevant_frames`];
            or `"xcomp"`: the highest scores with XComp's own settings, whatever the others say (the middle layers, 16
            tokens a frame, no neutral question, spacing, context or least rise).
        neutral_question (`str`, *optional*, defaults to `""`):
            A question such as "What can be seen?" with which a frame's scores are compared: what they give it is taken
            off. With `"first"` layers this finds more; with `"middle"` ones it did harm from 8 scenes on.
        question_spacing (`float`, *optional*, defaults to 3.0):
            Seconds around a frame with a better score from which no second representative is taken. Not for
            `"coverage"`.
        question_context (`float`, *optional*, defaults to 0.0):
            Seconds on either side of a frame with a high score within which the moments right before and after it
            become scenes too, for questions that name one thing and ask for the next; 0 for none.
        question_min_rise (`float`, *optional*, defaults to 0.0):
            Makes `num_scenes` a ceiling. A frame becomes a representative only if its score rises above the median of
            the pool by at least this share of the best one's rise: with 0.3, one frame far above all others takes one
            scene, and scores that are about equal take all. 0 for always `num_scenes`.
        question_tokens (`int`, *optional*, defaults to 16):
            Tokens per frame while the language model scores, never more than it reads of a scene.
        question_layers (`str`, *optional*, defaults to `"middle"`):
            Layers of the language model whose attention counts: the `"middle"` ones, as in XComp, or only the
            `"first"`, which sees words and frames as they are and takes next to no time. Which is better depends on
            the model.
        frame_encoding (`str`, *optional*, defaults to `"scenes"`):
            `"scenes"`, or `"cooperative"`, which gives the model every frame of the (thinned) pool. Must be the
            model's, as the next three. With the latter, a sentence names at most `num_scenes` times.
        background_tokens (`int`, *optional*, defaults to 0):
            Tokens for frames of the pool that are in no scene, or with `"cooperative"` for every frame, 0 to 2. The
            former are as many as the pool has beyond `num_scenes * scene_size`, which are all of them where no scene
            shows a frame twice and no scene is left out; otherwise they are spread evenly over those.
        num_prototypes (`int`, *optional*, defaults to 25):
            With `"cooperative"`: the frames of which the key frames are chosen.
        key_frames (`int` or `float`, *optional*, defaults to 0.8):
            With `"cooperative"`: how many of them are, or which share.
        detail_tokens (`int`, *optional*):
            With `"cooperative"`: tokens that a key frame has beside those of every frame, where it is not the model's
            usual number. Must be the model's.

    Raises:
        ValueError: If a setting is of another type or out of its range, or a name is unknown.
    """

    # the pool
    candidate_fps: float | int = 1.0
    min_candidates: int = 96
    max_candidates: int = 512
    encoded_candidates: int | None = None
    seek_mode: str = "auto"
    even_frames: str = "ends"
    # scenes
    num_scenes: int = 32
    scene_size: int = 3
    selection: str = "kmeans"
    init: str = "k-means++"
    seed: int = 42
    frame_batch_size: int = 16
    max_feature_bytes: int | float = 1 << 30
    # scenes by a question
    question_diversity: str = "top"
    neutral_question: str = ""
    question_spacing: float | int = 3.0
    question_context: float | int = 0.0
    question_min_rise: float | int = 0.0
    question_tokens: int = 16
    question_layers: str = "middle"
    # what the model encodes beside or instead of scenes
    frame_encoding: str = "scenes"
    background_tokens: int = 0
    num_prototypes: int = 25
    key_frames: int | float = 0.8
    detail_tokens: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        counts = ("num_scenes", "scene_size", "min_candidates", "max_candidates", "frame_batch_size")
        optional = ("encoded_candidates", "detail_tokens")
        for name in (*counts, "question_tokens", "num_prototypes", *optional):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1{' or `None`' * (name in optional)}, got {value}.")
        known_values = {
            "selection": (*METHODS, "question"),
            "init": INITS,
            "question_diversity": (*DIVERSITIES, "xcomp"),
            "question_layers": LAYERS,
            "even_frames": EVEN_FRAMES,
            "seek_mode": ("exact", "keyframe", "auto"),
            "frame_encoding": ("scenes", "cooperative"),
        }
        for name, known in known_values.items():
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown `{name}` {getattr(self, name)!r}: use one of {', '.join(known)}.")
        if self.frame_encoding == "cooperative" and self.scene_size != 1:
            raise ValueError(
                f"`frame_encoding='cooperative'` takes frames one by one: set `scene_size` ({self.scene_size}) to 1."
            )
        check_key_frames(self.num_prototypes, self.key_frames)
        if self.background_tokens not in (0, 1, 2):
            raise ValueError(f"`background_tokens` must be 0, 1 or 2, got {self.background_tokens!r}.")
        if not -(2**31) <= self.seed < 2**31:
            raise ValueError(f"`seed` must be a whole number of 32 bits, for FAISS takes no other, got {self.seed}.")
        if not 0 < self.candidate_fps < float("inf"):
            raise ValueError(f"`candidate_fps` must be a positive number, got {self.candidate_fps}.")
        for name in ("question_spacing", "question_context", "max_feature_bytes"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` cannot be negative, got {getattr(self, name)}.")
        if not 0 <= self.question_min_rise <= 1:
            raise ValueError(f"`question_min_rise` is a share from 0 to 1, got {self.question_min_rise}.")

    @property
    def num_selected_frames(self) -> int:
        """Frames that all scenes need."""
        return self.num_scenes * self.scene_size

    def num_candidates(self, duration: float | None) -> int:
        """
        Frames in the pool of a video of `duration` seconds: `candidate_fps` a second, at least `min_candidates` and as
        many as all scenes need, but never more than `max_candidates`. `uniform` selection takes what the scenes need,
        unless the other frames count too.
        """
        wanted = max(round((duration or 0) * self.candidate_fps), self.min_candidates, self.num_selected_frames)
        takes_all = self.selection != "uniform" or self.uses_whole_pool
        return min(wanted if takes_all else self.num_selected_frames, self.max_candidates)

    @property
    def asking(self) -> "SceneSettings":
        """The same with what `question_diversity="xcomp"` stands for: XComp's settings and nothing beyond it."""
        return replace(self, question_diversity="top", **XCOMP) if self.question_diversity == "xcomp" else self

    @property
    def uses_whole_pool(self) -> bool:
        """Whether the model sees more of the pool than the scenes."""
        return self.background_tokens > 0 or self.frame_encoding == "cooperative"

    def num_thinned(self, num_candidates: int) -> int:
        """Frames of a pool that are left where `encoded_candidates` thins it."""
        if self.encoded_candidates is None or self.selection in ("uniform", "bsm"):
            return num_candidates
        return min(num_candidates, max(self.encoded_candidates, self.num_selected_frames))

    def num_background_frames(self, num_candidates: int) -> int:
        """
        Frames beside the scenes that have background tokens: those of the thinned pool beyond the
        `num_scenes * scene_size` that scenes can hold. A function of the pool's size alone.
        """
        if not self.background_tokens or self.frame_encoding == "cooperative":
            return 0
        return max(self.num_thinned(num_candidates) - self.num_selected_frames, 0)

    def num_dense(self, duration: float | None) -> int | None:
        """
        Frames to look at, `candidate_fps` a second, where the pool keeps the most different of them; `None` where it
        is spaced evenly: the video fits, or the selection goes by time alone (`uniform`, `bsm`).
        """
        dense = round((duration or 0) * self.candidate_fps)
        by_time = self.selection in ("uniform", "bsm") or self.max_candidates < 3
        return None if by_time or dense <= self.num_candidates(duration) else dense

    def wanted(self, metadata: VideoMetadata) -> int | np.ndarray:
        """The pool of a video, as [`read_frames`] takes it: how many frames, evenly by time, or their numbers."""
        count = self.num_dense(metadata.duration) or self.num_candidates(metadata.duration)
        if self.selection != "uniform" or self.even_frames == "ends":
            return count
        total = metadata.total_num_frames
        rate = metadata.fps or total / metadata.duration
        return even_numbers(total, rate, count, self.even_frames, self.candidate_fps)


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
            Whose method the encoder is, held by a weak reference. Alone, its `encode_frames` is the encoder.
        scorer (`Callable[[torch.Tensor, str], torch.Tensor]`, *optional*):
            From the pool's pictures, uint8, as an `EncodedVideo` has them but channels first, and a question to one
            score per frame. By default the model scores.
    """

    def __init__(
        self,
        encoder: Callable | None = None,
        model: torch.nn.Module | None = None,
        scorer: Callable[[torch.Tensor, str], torch.Tensor] | None = None,
    ) -> None:
        self._encoder = encoder
        self._model = None if model is None else weakref.ref(model)
        self.scorer = scorer

    def __deepcopy__(self, memo: dict) -> "FrameSelector":
        return FrameSelector()

    def __reduce__(self) -> tuple:
        return FrameSelector, ()

    @property
    def model(self) -> torch.nn.Module | None:
        return None if self._model is None else self._model()

    @property
    def encoder(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        if self._encoder is not None or self._model is None:
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
            settings = replace(settings, encoded_candidates=None)  # what is left counts as the whole pool
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
            features = thumbnails(frames)
        else:
            features, patch_features = self.encode(frames, settings, settings.max_feature_bytes, pixels, progress)
        scores = None
        if method == "question":
            indices, values = self._select_by(question, frames, features, patch_features, settings.asking, pixels)
            scores = {"timestamps": question.times, "values": values}
        elif isinstance(frames, EncodedVideo) and settings in frames.chosen:
            indices = frames.chosen[settings]
        else:
            weights = frame_weights(_thumbnails_of(frames)) if method == "farthest" else None
            how = {"init": settings.init, "seed": settings.seed, "weights": weights}
            indices = select_scenes(features, num_scenes, settings.scene_size, method, **how)
            if isinstance(frames, EncodedVideo):
                frames.chosen[settings] = indices
        background = unselected_frames(indices, len(frames), settings.num_background_frames(len(frames)))
        order = torch.cat([indices.flatten(), background])
        if not has_features:
            return Selection(pixels(frames[order], None), indices, background, scores)
        if patch_features is None:  # too large to keep, or nothing had to be seen to choose: each chosen frame once
            distinct, order = order.unique(return_inverse=True)
            patch_features = self.encode(frames[distinct], settings, float("inf"), pixels, progress)[1]
        return Selection(patch_features[order.to(patch_features.device)], indices, background, scores)

    def _select_by(
        self,
        question: Question,
        frames: torch.Tensor | EncodedVideo,
        features: torch.Tensor,
        patch_features: torch.Tensor | None,
        settings: SceneSettings,
        pixels: Callable,
    ) -> tuple[torch.LongTensor, torch.Tensor]:
        """The scenes that a question chooses, and how much each frame has to do with it, `(num_frames,)`."""
        is_encoded, seen, parts = isinstance(frames, EncodedVideo), None, None
        if self.scorer is not None:
            seen = (frames.pictures if is_encoded else pictures_of(frames, question.metadata)).permute(0, 3, 1, 2)
        elif patch_features is not None:
            parts = patch_features.split(settings.frame_batch_size)
        elif self.encoder is not None:  # too large to keep: encoded once more
            device, frames = compute_device(self.model), frames.frames if is_encoded else frames
            parts = (self.encoder(pixels(batch, device)) for batch in frames.split(settings.frame_batch_size))
        how = (settings.neutral_question, settings.question_tokens, settings.question_layers)
        values = question.scores(seen, parts, self.model, self.scorer, *how)
        representatives = relevant_frames(
            values,
            question.times,
            features,
            settings.num_scenes,
            diversity=settings.question_diversity,
            spacing=settings.question_spacing,
            context=settings.question_context,
            min_rise=settings.question_min_rise,
            init=settings.init,
            seed=settings.seed,
        )
        return scenes_of(features, representatives, settings.scene_size), values

    def thin(self, frames: torch.Tensor | EncodedVideo, settings: SceneSettings) -> torch.Tensor | None:
        """Which frames of a pool are worth encoding, where `settings.encoded_candidates` keeps fewer than all."""
        num_kept = settings.num_thinned(len(frames))
        return thin_pool(_thumbnails_of(frames), num_kept) if num_kept < len(frames) else None

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
                    "The patch features of this encoded video were too large to keep, so frames must be encoded "
                    "again: bind the processor to the model, or encode with a larger `max_feature_bytes`."
                )
        encoder, device = self.encoder, compute_device(self.model)
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


def _thumbnails_of(frames: torch.Tensor | EncodedVideo) -> torch.Tensor:
    return frames.thumbnail_features if isinstance(frames, EncodedVideo) else thumbnails(frames)


__all__ = ["FrameSelector", "SceneSettings", "Selection"]
