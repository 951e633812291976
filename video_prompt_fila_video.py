"""
What a prompt asks and says of a video: its question, its scenes as records, and the text that the placeholder becomes,
of as many tokens as the video has embeddings, and the times of its scenes.

    sentence     ■■■■■■■■■ This video samples 3 frames of a 9.0-second video at 1.0, 4.0, 8.0 seconds.
    per_scene    Frame from 00:01:■■■ Frame from 00:04:■■■ Frame from 00:08:■■■
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from string import Formatter
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.video_utils import VideoMetadata

from .configuration_fila_video import check_types, num_cooperative_tokens, num_visual_tokens
from .encoded_video_fila_video import EncodedVideo, pictures_of
from .frame_selector_fila_video import SceneSettings, Selection
from .scene_selection_fila_video import num_selected_scenes
from .subtitles_fila_video import Subtitles, lines_beside_scenes

TIME_SETTINGS = ("time_marks", "time_template", "scene_time")
TIME_MARKS = ("sentence", "llava_video", "per_scene", "none")
SCENE_TIMES = ("representative", "span")
TEMPLATE_FIELDS = ("timestamp", "seconds", "number")
INTRO_FIELDS = ("count", "count_in_words", "seconds", "clock")
WIDEST = 20  # characters and decimals that a format may ask for: a larger number would fill the memory


@dataclass(frozen=True)
class AskedVideo:
    """A video on its way through the processor, with the question that its prompt asks."""

    video: Any
    question: str


def asked_videos(
    videos: list, text: list[str] | None, tokenizer: PreTrainedTokenizerBase, placeholders: tuple[str, str]
) -> list:
    """
    Each video with what its prompt asks: the text behind its placeholder up to the end of the turn, which is the next
    special token that is none of the `placeholders`, the video's and the image's. The videos as they are where the
    prompts do not have one placeholder for each.
    """
    if text is None or not all(isinstance(sample, str) for sample in text):
        return videos
    specials = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    ends = "|".join(re.escape(token) for token in specials if token not in placeholders)
    questions = []
    for sample in text:
        for placeholder in re.finditer(re.escape(placeholders[0]), sample):
            behind = sample[placeholder.end() :]
            turn = re.split(ends, behind, maxsplit=1)[0] if ends else behind
            questions.append(re.sub("|".join(map(re.escape, placeholders)), " ", turn).strip())
    if len(questions) != len(videos):
        return videos
    return [AskedVideo(video, question) for video, question in zip(videos, questions, strict=True)]


def questions_of_videos(given: Any, videos: list) -> list[str]:
    """
    What is asked about each video: what is `given`, for all or one each, or what its prompt asks.

    Raises:
        ValueError: If it is no text, or there is not one for each.
    """
    if given is None:
        return [video.question if isinstance(video, AskedVideo) else "" for video in videos]
    questions = [given] * len(videos) if isinstance(given, str) else given
    if not isinstance(questions, (list, tuple)) or not all(isinstance(text, str) for text in questions):
        raise ValueError(f"`question` is a text, or a list with one for each video, got {given!r}.")
    if len(questions) != len(videos):
        raise ValueError(f"`question` has {len(questions)} questions for {len(videos)} videos: pass one for each.")
    return list(questions)


def describe_scenes(
    selected: Selection,
    metadata: VideoMetadata,
    question: str = "",
    pool: torch.Tensor | EncodedVideo | None = None,
) -> dict[str, Any]:
    """
    What `return_scenes` tells of a video: frame numbers and times of its scenes, both `(num_scenes, scene_size)`, its
    duration in seconds, and as `background` the numbers and times of the frames beside them, where there are any, both
    `(num_background,)`; where a `question` chose, its `scores`; and of a `pool` that is given the scenes' `pictures`.
    """
    timestamps = torch.tensor(metadata.timestamps, dtype=torch.float64)
    numbers = torch.as_tensor(list(metadata.frames_indices))
    indices, background = selected.indices, selected.background
    scenes = {"indices": numbers[indices], "timestamps": timestamps[indices], "duration": float(metadata.duration)}
    if len(background):
        scenes["background"] = {"indices": numbers[background], "timestamps": timestamps[background]}
    if selected.scores is not None:
        scenes["scores"] = {"question": question, **selected.scores}
    if pool is not None:
        order, places = indices.unique(return_inverse=True)
        is_encoded = isinstance(pool, EncodedVideo)
        pictures = pool.pictures[order] if is_encoded else pictures_of(pool[order], metadata)
        scenes["pictures"] = pictures[places]
    return scenes


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
            settings.detail_tokens,
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


@dataclass(frozen=True)
class VideoPrompt:
    r"""
    How the text of a video is made.

    Args:
        time_marks (`str`, *optional*, defaults to `"sentence"`):
            `"sentence"`, the paper's behind the video's tokens (section 3.3); `"llava_video"`, the sentence that
            LLaVA-Video was trained with; `"per_scene"`, a mark before the tokens of each scene; or `"none"`.
        time_template (`str`, *optional*, defaults to `"\nFrame from {timestamp}:"`):
            A mark of `"per_scene"`, as [`str.format`] takes it: `timestamp` is minutes and seconds as in 00:07,
            `seconds` a float, `number` counts the scenes from 1. Where nothing precedes the first mark, line breaks at
            its beginning fall away.
        scene_time (`str`, *optional*, defaults to `"representative"`):
            Whether a mark names the time of the scene's representative or, as in 00:05-00:07, the `"span"` from its
            first frame to its last.
        visual_start, visual_end (`str`, *optional*, defaults to `""`): Around the tokens of each scene.
        video_intro, video_outro (`str`, *optional*, defaults to `""`):
            Around the whole video. The first may name `count` and `count_in_words`, the number of scenes, and
            `seconds` and `clock`, the duration as a float or as in 0:01:30.

    Raises:
        ValueError: If a setting is none that is known, or a template has another field or lacks its mark.
    """

    time_marks: str = "sentence"
    time_template: str = "\nFrame from {timestamp}:"
    scene_time: str = "representative"
    visual_start: str = ""
    visual_end: str = ""
    video_intro: str = ""
    video_outro: str = ""

    def __post_init__(self) -> None:
        check_types(self)
        for name, known in (("time_marks", TIME_MARKS), ("scene_time", SCENE_TIMES)):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        _check_template("video_intro", self.video_intro, INTRO_FIELDS)
        if not _check_template("time_template", self.time_template, TEMPLATE_FIELDS):
            raise ValueError(
                f"`time_template` ({self.time_template!r}) lacks the mark: it must name one of "
                f"{', '.join(f'{{{name}}}' for name in TEMPLATE_FIELDS)}."
            )

    def check_encoding(self, frame_encoding: str) -> None:
        """
        Raises:
            ValueError: If scenes are to be marked that only the model tells apart.
        """
        if frame_encoding == "cooperative" and (
            self.time_marks == "per_scene" or self.visual_start or self.visual_end
        ):
            raise ValueError(
                "With `frame_encoding='cooperative'` only the model knows which tokens are of which frame: "
                "`time_marks='per_scene'`, `visual_start` and `visual_end` cannot be used."
            )

    def text(
        self,
        token: str,
        layout: VideoTokens,
        scenes: dict[str, Any],
        every: int = 1,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> str:
        """
        The text of one video.

        Args:
            token (`str`): What stands for an embedding.
            layout (`VideoTokens`): How many of them stand where.
            scenes (`dict`): What [`describe_scenes`] tells, and where words are spoken, the `subtitles` of each scene.
            every (`int`, *optional*, defaults to 1): Name the first time and every such one after it.
            tokenizer (`PreTrainedTokenizerBase`, *optional*):
                Name fewer times, or none, until none of its tokens is as frequent as `token`.
        """
        for step in (*range(every, len(scenes["timestamps"]) + 1), None):  # in the end no time at all
            text = self._text(token, layout, scenes, step)
            if tokenizer is None:
                break
            # A server that takes the most frequent token for the placeholder must find the placeholder.
            pieces = [piece for piece in text.split(token) if piece]
            ids = tokenizer(pieces, add_special_tokens=False)["input_ids"] if pieces else []
            if max(Counter(chain.from_iterable(ids)).values(), default=0) < layout.total:
                break
        return text

    def _text(self, token: str, layout: VideoTokens, scenes: dict[str, Any], every: int | None) -> str:
        timestamps, duration = scenes["timestamps"].tolist(), scenes["duration"]
        # Where its mark names the time, what is said stands behind the scene, and else behind the sentence.
        said = zip(timestamps, scenes.get("subtitles", [""] * len(timestamps)), strict=True)
        spoken = [f"{self.spoken_head(times)} {words}" if words else "" for times, words in said]
        is_marked = self.time_marks == "per_scene"
        intro = ""
        if self.video_intro:
            count, clock = len(timestamps), timedelta(seconds=int(duration))
            intro = self.video_intro.format(
                count=count, count_in_words=in_words(count), seconds=duration, clock=str(clock)
            )
        pieces = []
        for index, (num_tokens, times, before) in enumerate(zip(layout.each, timestamps, layout.before, strict=True)):
            if before:
                pieces.append(token * before)
            if is_marked and every is not None and index % every == 0:
                mark = self._mark(index + 1, times)
                pieces.append(mark if pieces or intro else mark.lstrip("\n"))
            pieces += [self.visual_start, token * num_tokens, self.visual_end, spoken[index] if is_marked else ""]
        text = intro + "".join(pieces) + token * layout.after + self.video_outro
        if self.time_marks in ("sentence", "llava_video") and every is not None:
            write = llava_video_instruction if self.time_marks == "llava_video" else time_instruction
            # One time a scene, its representative's.
            text += "\n" + write([times[-1] for times in timestamps], duration, every)
        if not is_marked:
            text += "".join(spoken)
        if text.count(token) != layout.total:
            raise ValueError(
                f"{token!r} stands for a video's embeddings: no template or text around them can hold it."
            )
        return text

    def spoken_head(self, times: Sequence[float]) -> str:
        """What stands before the words of a scene."""
        named = self.time_marks in ("sentence", "llava_video")  # else the time stands before the scene, or nowhere
        return f"\nSubtitles at {times[-1]:.1f} seconds:" if named else "\nSubtitles:"

    def add_subtitles(
        self, scenes: dict[str, Any], lines: Subtitles, most_tokens: int, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Gives the record of a video's scenes the `subtitles` of each, and how many lines found no room."""
        times, head = scenes["timestamps"], self.spoken_head(scenes["timestamps"][-1].tolist())  # the longest
        spoken = lines_beside_scenes(lines, times[:, -1].tolist(), most_tokens, tokenizer, head, scenes["duration"])
        scenes["subtitles"], scenes["subtitles_left_out"] = spoken

    def _mark(self, number: int, times: Sequence[float]) -> str:
        ends = (times[0], times[-1]) if self.scene_time == "span" else (times[-1],)
        timestamps = [f"{int(seconds // 60):02d}:{int(seconds % 60):02d}" for seconds in ends]
        return self.time_template.format(timestamp=_Span(timestamps), seconds=_Span(ends), number=number)


class _Span(tuple):
    """One value or two; in a template each is written as its format says, and equal ones once."""

    def __format__(self, spec: str) -> str:
        return "-".join(dict.fromkeys(format(value, spec) for value in self))


def _check_template(name: str, template: str, known: tuple[str, ...]) -> list[str]:
    """The fields that a template names."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
        named = [field for _, field, _, _ in parts]
        for _, field, spec, _ in parts:
            sizes = [int(digits) for digits in re.findall(r"\d+", spec)]
            if "{" in spec or max(sizes, default=0) > WIDEST:
                raise ValueError(f"the format `{spec}` of {{{field}}} may have numbers up to {WIDEST} and no fields")
        # A format such as `:d` may not fit its field: tried here, before a video is read.
        if set(named) <= set(known):
            times = {"seconds": 1.0, "timestamp": "00:01", "clock": "0:00:01", "count_in_words": "one"}
            template.format(**times, number=1, count=1)
        if any(conversion for _, _, _, conversion in parts):
            raise ValueError("a field takes a format after a colon, and no conversion")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"`{name}` ({template!r}) is no template: {error}.") from error
    unknown = [field for field in named if field not in known]
    if unknown:
        raise ValueError(
            f"`{name}` ({template!r}) names {{{unknown[0]}}}, but it can name only "
            f"{', '.join(f'{{{field}}}' for field in known)}."
        )
    return named


def prompt_of_question(
    question: str, tokenizer: PreTrainedTokenizerBase, video_token: str, render: Callable | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The prompt that asks a question about a pool: token ids before the video and behind it, and which of the latter are
    the question's, bool. It has no sentence with times, so that none of them counts as asked. `render` is
    `apply_chat_template`, where there is a template.

    Raises:
        ValueError: If the chat template changes the question.
    """
    prompt = f"{video_token}\n{question}\n"
    if render is not None:
        chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        prompt = render(chat, tokenize=False, add_generation_prompt=True)
    before, _, behind = prompt.partition(video_token)
    head, found, tail = behind.partition(question)
    if not found:
        raise ValueError(f"The chat template does not show a question as it is: {question[:80]!r} is not in it.")
    before, head, asked, tail = (
        torch.tensor(tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [], dtype=torch.long)
        for piece in (before, head, question, tail)
    )
    is_question = torch.zeros(len(head) + len(asked) + len(tail), dtype=torch.bool)
    is_question[len(head) : len(head) + len(asked)] = True
    return before, torch.cat([head, asked, tail]), is_question


def time_instruction(timestamps: Sequence[float], duration: float, every: int = 1) -> str:
    """
    The paper's sentence (section 3.3), times in seconds rounded to a tenth.

    Args:
        timestamps (`Sequence[float]`): One a frame that the model sees: of a scene, its representative's.
        duration (`float`): Of the whole video.
        every (`int`, *optional*, defaults to 1): Name the first time and every such one after it.
    """
    times = ", ".join(f"{timestamp:.1f}" for timestamp in timestamps[::every])
    which = "" if every == 1 else f", one in {every}"
    return f"This video samples {len(timestamps)} frames of a {duration:.1f}-second video{which} at {times} seconds."


def llava_video_instruction(timestamps: Sequence[float], duration: float, every: int = 1) -> str:
    """The sentence that LLaVA-Video was trained with; see [`time_instruction`]."""
    times = ",".join(f"{timestamp:.2f}s" for timestamp in timestamps[::every])
    which = "These frames" if every == 1 else f"One in {every} of these frames"
    return (
        f"The video lasts for {duration:.2f} seconds, and {len(timestamps)} frames are uniformly sampled from it. "
        f"{which} are located at {times}.Please answer the following questions related to this video."
    )


def in_words(number: int) -> str:
    """A number from 0 to 999,999 as English spells it: 164 is "one hundred and sixty-four"."""
    if not 0 <= number < 1_000_000:
        raise ValueError(f"Only 0 to 999,999 can be spelled, got {number}.")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        return f"{_SMALL[number // 100]} hundred" + (f" and {in_words(number % 100)}" if number % 100 else "")
    thousands, rest = divmod(number, 1000)
    joint = "" if not rest else " and " if rest < 100 else ", "
    return f"{in_words(thousands)} thousand{joint}{in_words(rest) if rest else ''}"


_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

__all__ = [
    "TIME_SETTINGS",
    "AskedVideo",
    "TokenCounter",
    "VideoPrompt",
    "VideoTokens",
    "asked_videos",
    "describe_scenes",
    "in_words",
    "llava_video_instruction",
    "prompt_of_question",
    "time_instruction",
]
