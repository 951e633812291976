"""Where the tokens of a video stand in its text: before, at and behind its scenes."""

from collections.abc import Sequence
from dataclasses import dataclass

from .configuration_fila_video import num_cooperative_tokens, num_visual_tokens
from .scene_selection_fila_video import num_selected_scenes
from .video_processing_fila_video import SceneSettings


@dataclass(frozen=True)
class VideoTokens:
    """
    Args:
        each (`list[int]`): Tokens of each scene.
        before (`list[int]`): How many more stand before each scene and its mark of time.
        after (`int`): And how many behind the last one.
    """

    each: list[int]
    before: list[int]
    after: int

    @property
    def total(self) -> int:
        return sum(self.each) + sum(self.before) + self.after


@dataclass(frozen=True)
class TokenCounter:
    """
    Counts as the model does.

    Args:
        scenes (`SceneSettings`): How frames become scenes, or tokens without any.
        patches_per_side, pooling_mode, pooling_stride, newline_position: The model's.
    """

    scenes: SceneSettings
    patches_per_side: int
    pooling_mode: str
    pooling_stride: int
    newline_position: str

    def of_scenes(self, num_scenes: int) -> int:
        """Of so many scenes, or of an image as one."""
        return num_visual_tokens(
            num_scenes, self.patches_per_side, self.pooling_mode, self.pooling_stride, self.newline_position
        )

    def of_pool(self, num_candidates: int) -> int:
        """Of a video, by the number of its candidate frames alone."""
        settings = self.scenes
        if settings.frame_encoding == "cooperative":
            return self._cooperative(settings.num_thinned(num_candidates))
        num_scenes = num_selected_scenes(num_candidates, settings.num_scenes)
        others = settings.num_background_frames(num_candidates)
        return self.of_scenes(num_scenes) + settings.background_tokens * others

    def _cooperative(self, num_frames: int) -> int:
        settings = self.scenes
        return num_cooperative_tokens(
            num_frames,
            self.patches_per_side,
            settings.num_prototypes,
            settings.key_frames,
            settings.background_tokens,
            self.newline_position,
        )

    def layout(self, num_scenes: int, places: Sequence[int] = ()) -> VideoTokens:
        """
        Where a video's tokens stand.

        Args:
            num_scenes (`int`): Scenes of the video; with `frame_encoding="cooperative"`, its frames.
            places (`Sequence[int]`, *optional*):
                Of each frame beside the scenes, how many scenes stand before it; -1 is padding.
        """
        # CODEPATH: only the model knows which of DynFocus's frames are key frames; their tokens stand in one run.
        if self.scenes.frame_encoding == "cooperative":
            return VideoTokens([self._cooperative(num_scenes)] + [0] * (num_scenes - 1), [0] * num_scenes, 0)
        # CODEPATH: a newline at the end of the video belongs to no scene.
        end = int(self.newline_position == "video")
        each = (self.of_scenes(num_scenes) - end) // num_scenes
        beside = [0] * (num_scenes + 1)
        for place in places:
            if place >= 0:
                beside[place] += self.scenes.background_tokens
        return VideoTokens([each] * num_scenes, beside[:-1], beside[-1] + end)


__all__ = ["TokenCounter", "VideoTokens"]
