"""Words that are spoken: subtitles of files and tracks, and the lines that stand beside each scene of a video."""

import io
import os
import re
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

import av
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .chat_inputs_fila_video import check_control_tokens
from .video_decoding_fila_video import Track
from .video_index_fila_video import index_video
from .video_limits_fila_video import Budget, VideoLimits, VideoReadError
from .video_sources_fila_video import OpenedSource, VideoSegment, can_seek, is_url, source_key, source_name, span_of

logger = logging.get_logger(__name__)

MAX_BYTES = 1 << 24  # of a file of subtitles; those of a film have some 100 KB
MAX_LINES = 200_000
FORMATS = {"WEBVTT": "webvtt", "[Script Info]": "ass", "": "srt"}
# Times are read here, since FFmpeg leaves out what it cannot read, or takes it for words.
TIME = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)(?:[,.](\d{3}))?"
CUE = re.compile(rf"{TIME}\s*-->\s*{TIME}(?:\s+[^\s:%]*+[:%]\S*+)*+", re.ASCII)  # with settings of its place
ASS_TIME = r"\s*(\d{1,4}):([0-5]?\d):([0-5]?\d)[.,:](\d{2,3})\s*"
DIALOGUE = re.compile(rf"(Dialogue:[^,]*,){ASS_TIME},{ASS_TIME}(,.*)", re.ASCII)
EVENT = ("start", "end", "text")  # the fields that are read
DRAWING = re.compile(r"\{[^{}]{0,200}\\p[1-9][^{}]{0,200}\}[^{]*")  # of ASS: a shape, no words
BACKSLASH = re.compile(r"(\{\\(?:[^{}]{0,200}\})?)|\\")  # of words, or in a mark of style
NO_CUE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")  # how blocks of WebVTT begin that are never shown


class SubtitleLine(NamedTuple):
    """A text, and the seconds from the start of the video between which it is shown."""

    start: float
    end: float
    text: str


class Subtitles(tuple):
    """The lines of a video in the order of time, as [`read_subtitles`] gives them."""


def read_subtitles(
    subtitles: Any, video: Any = None, *, limits: VideoLimits | None = None, allow_private_hosts: bool = True
) -> Subtitles:
    """
    Args:
        subtitles (`str`, `Path`, `bytes`, file object or `int`):
            A file in the format SRT, WebVTT or ASS (a path, a URL, its bytes or a binary file), or a track inside of
            `video`: its number among the tracks of subtitles, from 0, or its language as two or three letters, such as
            `"eng"`, of which the first such track is taken. Or what this function returned.
        video (*optional*):
            A path, URL, bytes, a binary file, a `VideoSegment` or a list of them; the times of lines are then those of
            the joined segments. Where its video begins behind its sound, a file of subtitles counts from the sound,
            and the lines returned from the first frame; not so of a URL or of what cannot seek, which is read once.
        limits, allow_private_hosts (*optional*): As of the reader of videos.

    Returns:
        [`Subtitles`], a tuple of [`SubtitleLine`].

    Raises:
        VideoReadError: If there is no such file or track, it is damaged, or a limit is passed.
    """
    if type(subtitles).__name__ == Subtitles.__name__:  # also of another copy of this code
        return subtitles
    access = {"limits": limits, "allow_private_hosts": allow_private_hosts}
    segments = [video] if isinstance(video, VideoSegment) else video
    is_segments = isinstance(segments, (list, tuple)) and all(isinstance(item, VideoSegment) for item in segments)
    segments = segments if is_segments else [VideoSegment(video)]
    if not is_track(subtitles):
        if len(segments) > 1:
            raise ValueError("A file of subtitles belongs to one file, not to several segments: name a track instead.")
        late = _begins_late(segments[0].source, access)
        return Subtitles(_cut(_moved(_lines_of_file(subtitles, access), late), segments[0], 0.0))
    track = subtitles if isinstance(subtitles, str) and subtitles.isalpha() else int(subtitles)
    lines, at, read = [], 0.0, {}  # segments of one file share what was read of it
    followed = {source_key(segment.source) for segment in segments[:-1]}  # their lengths decide what is when
    for segment in segments:
        key, (start, end) = source_key(segment.source), span_of(segment)
        if key not in read:
            read[key] = _lines_of_track(track, segment.source, access, key in followed)
        words, duration = read[key]
        if start >= duration:
            where = f"its segment from {start} to {segment.end} seconds does not lie within its {duration:.3f} seconds"
            raise VideoReadError(f"Cannot read the video {source_name(segment.source)}: {where}.")
        lines += _cut(words, segment, at)
        at += min(end, duration) - start
    return Subtitles(lines)


def is_track(subtitles: Any) -> bool:
    """Whether subtitles are named as a track of the video: by its number, which tables may have as 0.0 or "0", or by a
    language."""
    if isinstance(subtitles, str):
        return re.fullmatch(r"[A-Za-z]{2,3}|\d+", subtitles) is not None
    return isinstance(subtitles, Real) and not isinstance(subtitles, bool) and float(subtitles).is_integer()


def _cut(lines: list[SubtitleLine], segment: VideoSegment, at: float) -> list[SubtitleLine]:
    """The lines of a segment that begins at `at` seconds; one that its start or end cuts belongs to it."""
    start, end = span_of(segment)
    # A line of no duration is shown where it starts, also at the first moment.
    kept = (line for line in lines if (line.end > start or line.start >= start) and line.start < end)
    by = at - start
    return [line._replace(start=max(line.start, start) + by, end=min(line.end, end) + by) for line in kept]


def _lines_of_file(source: Any, access: dict[str, Any]) -> list[SubtitleLine]:
    limits = access["limits"] or VideoLimits()
    limits = replace(limits, download_bytes=min(limits.download_bytes, MAX_BYTES))
    with OpenedSource(source, kind="subtitles", **access | {"limits": limits}) as opened:
        with opened.open() as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise opened.error(f"they have more than {MAX_BYTES} bytes")
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            text = data.decode(encoding).replace("\ufeff", "")
        except UnicodeDecodeError as error:
            raise opened.error(f"they are not UTF-8 text (byte {error.start}); convert the file") from error
        if text.count("\n") + text.count("\r") > 10 * MAX_LINES:
            raise opened.error(f"they have more than {10 * MAX_LINES} lines of text; split the file")
        kind = next(kind for start, kind in FORMATS.items() if text.lstrip().startswith(start))
        if kind == "srt" and "-->" not in text:
            raise opened.error("they are in none of the formats SRT, WebVTT and ASS")
        text = _with_read_times(re.sub(r"(?<!\r)\r*+\n|\r", "\n", text).split("\n"), kind, opened)
        try:
            with av.open(io.BytesIO(text.encode()), format=kind, metadata_errors="ignore") as container:
                lines = _lines(container, container.streams.subtitles[0], opened)
        except (av.FFmpegError, IndexError) as error:
            raise opened.error(f"they are damaged ({getattr(error, 'strerror', None) or error})") from error
        if not lines:
            raise opened.error(
                f"no line of words can be read of their {len(data)} bytes; pass `None` for no subtitles"
            )
        return lines


class _Cue(NamedTuple):
    """What is shown at a time: the number of its line of times, its start and end in milliseconds, and its words."""

    at: int
    start: int
    end: int
    words: list[str]


def _with_read_times(lines: list[str], kind: str, opened: OpenedSource) -> str:
    """
    The same subtitles, with all times in the one form that FFmpeg reads, and no cue that ends before it begins.

    Raises:
        VideoReadError: If times are damaged.
    """
    cues = _dialogue(lines, opened) if kind == "ass" else _cues(lines, kind, opened)
    backward = [cue for cue in cues if cue.end < cue.start]
    if backward:
        at = backward[0].at
        logger.warning(
            f"The subtitles {opened.name}: {len(backward)} of {len(cues)} cues end before they begin, first that of "
            f"line {at} ({lines[at - 1].strip()[:80]!r}). They are taken as shown at their start only; correct their "
            "times in the file."
        )
    blocks = []
    for number, (at, start, end, words) in enumerate(cues, 1):
        span = [_written(time, kind) for time in (start, max(start, end))]
        if kind == "ass":
            lines[at - 1] = f"{words[0]}{','.join(span)}{words[1]}"
        elif words:
            if kind == "srt":  # as FFmpeg itself writes the backslashes of WebVTT that are none of ASS
                words = [BACKSLASH.sub(lambda found: found[1] or "\\\u2060", line) for line in words]
            blocks.append("\n".join([str(number), " --> ".join(span), *words]))
    if kind == "ass":
        return "\n".join(lines).lstrip() + "\n"
    return "\n\n".join([*(["WEBVTT"] if kind == "webvtt" else []), *blocks]) + "\n\n"


def _dialogue(lines: list[str], opened: OpenedSource) -> list[_Cue]:
    """The cues of ASS; their words are what stands before the times, and behind them."""
    cues: list[_Cue] = []
    names: list[str] = []  # of the fields of a line, where they are not the usual ones
    for at, line in enumerate(lines, 1):
        _check_cues(cues, at, opened)
        dialogue, example = line.strip(), "Dialogue: 0,0:00:01.00,0:00:02.50,Default,,0,0,0,,Words"
        kind, _, values = dialogue.partition(":")
        if kind == "Format":
            names = [name.strip().lower() for name in values.split(",")]
            is_usual = len(names) == 10 and (*names[1:3], names[-1]) == EVENT
            if is_usual or not {*EVENT} <= {*names}:  # the latter of styles
                names = []
            elif names[-1] != "text":
                raise opened.error(f"line {at} puts other fields behind the text, {line.strip()[:80]!r}: put it last")
        elif kind == "Dialogue" and names:
            fields = dict(zip(names, map(str.strip, values.split(",", len(names) - 1)), strict=False))
            begun, ended, words = (fields.get(name, "") for name in EVENT)
            dialogue = f"Dialogue: 0,{begun},{ended},Default,,0,0,0,,{words}"
            usual = dict(zip(EVENT, ("0:00:01.00", "0:00:02.50", "Words"), strict=True))
            example = f"Dialogue: {','.join(usual.get(name, '') for name in names)}"
        found = DIALOGUE.fullmatch(dialogue)
        if found is not None:
            head, *times, rest = found.groups()
            cues.append(_Cue(at, _milliseconds(times[:4]), _milliseconds(times[4:]), [head, rest]))
        elif line.strip().startswith("Dialogue"):
            raise _damaged(opened, at, line, example)
    return cues


def _cues(lines: list[str], kind: str, opened: OpenedSource) -> list[_Cue]:
    """The cues of SRT and WebVTT, without their numbers, names and notes."""
    is_vtt = kind == "webvtt"
    example = "00:00:01.000 --> 00:00:02.500" if is_vtt else "00:00:01,000 --> 00:00:02,500"
    cues: list[_Cue] = []
    # The line before; of a block that is not shown the first line; the cue's number, and the line that announces one.
    before, hidden, counter, announced = "", "", 0, 0
    for at, line in enumerate(map(str.strip, lines), 1):
        _check_cues(cues, at, opened)
        is_first, is_due, number = bool(line) and not before, not before or before.isdecimal(), before
        found, before = CUE.fullmatch(line), line
        if is_first:
            is_hidden = is_vtt and (NO_CUE.match(line) or (not cues and line.startswith("WEBVTT")))
            hidden = line if is_hidden else ""
        if hidden and not (found is not None and hidden.startswith("WEBVTT")):
            continue
        if found is not None:
            if number.isdecimal() and not is_vtt and not announced:  # it goes on otherwise than by one
                counter = int(number[:9])
                if cues:
                    cues[-1].words.pop()
            times = found.groups()
            cues.append(_Cue(at, _milliseconds(times[:4]), _milliseconds(times[4:]), []))
            hidden, announced = "", 0
        elif (announced and (line or is_vtt)) or _is_like_times(line, is_due):
            raise _damaged(opened, at if line else announced, lines[(at if line else announced) - 1], example)
        elif is_first and (is_vtt or (line.isdecimal() and int(line[:9]) == counter + 1)):
            announced, counter = at, counter + 1
        elif line and cues:
            cues[-1].words.append(line)
        elif line and not line.isdecimal():
            raise _damaged(opened, at, line, example)
    if announced:
        raise _damaged(opened, announced, lines[announced - 1], example)
    return cues


def _check_cues(lines: Sequence, at: int, opened: OpenedSource) -> None:
    """Raises where there are too many, or where reading them up to the line `at` took too long."""
    if len(lines) > MAX_LINES:
        raise opened.error(f"its subtitles have more than {MAX_LINES} lines; split the file")
    if at % 4096 == 0:
        opened.budget.spend()


def _is_like_times(line: str, is_due: bool) -> bool:
    """Whether a line that no times can be read of is one of times, where such a line may be due."""
    if "-->" in line:
        return is_due or re.search(r"\d:\d", line) is not None
    return is_due and len(re.findall(r"\d:\d+:\d", line[:200])) > 1


def _damaged(opened: OpenedSource, at: int, line: str, example: str) -> Exception:
    return opened.error(
        f"damaged at line {at}: {line.strip()[:80]!r} stands where the times of a cue belong, which are written as in "
        f"{example!r}; correct that line"
    )


def _milliseconds(time: Sequence[str | None]) -> int:
    hours, minutes, seconds, fraction = time
    return ((int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(f"{fraction or 0:0<3}")


def _written(milliseconds: int, kind: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    mark = "," if kind == "srt" else "."
    return f"{clock}.{fraction // 10:02d}" if kind == "ass" else f"{clock}{mark}{fraction:03d}"


def _lines_of_track(track: int | str, source: Any, access: dict[str, Any], is_followed: bool) -> tuple[list, float]:
    """The lines of a track of subtitles, and the seconds of its video."""
    if not _is_file(source):
        raise ValueError(
            f"Subtitles are named as the track {track!r} of the video, but a {type(source).__name__} has no tracks: "
            "pass a file of subtitles, or what `read_subtitles` gives of the video's file."
        )
    with OpenedSource(source, **access) as opened, opened.container() as container:
        streams = container.streams.subtitles
        if isinstance(track, int):
            found = streams[track : track + 1] if track >= 0 else ()
        else:
            found = [stream for stream in streams if (stream.language or "").lower() == track.lower()][:1]
        if not found:
            there = [f"{number} ({stream.language or 'no language'})" for number, stream in enumerate(streams)]
            there = f"its tracks of subtitles are {', '.join(there)}" if there else "there are none in it"
            raise opened.error(f"it has no subtitles {track!r}; {there}")
        if found[0].codec_context is None:
            raise opened.error(f"its subtitles {track!r} are of a kind that the installed PyAV does not decode")
        try:
            lines = _lines(container, found[0], opened)
        except av.FFmpegError as error:
            raise opened.error(f"its subtitles {track!r} are damaged ({error.strerror or error})") from error
        start, duration = 0.0, float("inf")
        # As the reader counts them, for which the limits hold anew.
        opened.budget = Budget(opened.budget.limits, opened.budget.name, is_url(source))
        with nullcontext() if is_followed else suppress(VideoReadError), closing(Track(opened)) as pictures:
            index = index_video(pictures)  # without a video, its own times hold
            start, duration = float(index.times[0] * index.time_base), index.duration
    return _moved(lines, start), duration


def _moved(lines: list[SubtitleLine], start: float) -> list[SubtitleLine]:
    """The lines as counted from `start` seconds on; what is over by then is left out."""
    kept = (line for line in lines if line.end > start or line.start >= start)
    return [line._replace(start=line.start - start, end=line.end - start) for line in kept]


def _begins_late(source: Any, access: dict[str, Any]) -> float:
    """How many seconds the video of a file begins behind its sound, with which files of subtitles are counted."""
    is_once = hasattr(source, "read") and not can_seek(source)
    if not _is_file(source) or is_once or is_url(source):  # nothing is read or downloaded that could not be once more
        return 0.0
    with suppress(VideoReadError), OpenedSource(source, **access) as opened, opened.container() as container:
        stream = container.streams[opened.find_stream(container)]
        if None not in (stream.start_time, container.start_time):
            return max(0.0, float(stream.start_time * stream.time_base) - container.start_time / av.time_base)
    return 0.0


def _is_file(source: Any) -> bool:
    is_named = isinstance(source, (str, bytes, bytearray, memoryview))
    return is_named or hasattr(source, "__fspath__") or hasattr(source, "read")


def _lines(container: av.container.InputContainer, stream: Any, opened: OpenedSource) -> list[SubtitleLine]:
    lines = []
    for packet in container.demux():  # all of them, so that the limits of time hold between two lines
        is_line = packet.stream_index == stream.index
        opened.budget.spend(packets=is_line)
        if not is_line or packet.pts is None:
            continue
        start = float(packet.pts * packet.time_base)
        end = start + float((packet.duration or 0) * packet.time_base)
        for piece in packet.decode():
            if piece.type not in (b"ass", b"text"):
                raise opened.error("its subtitles are pictures, not text")
            text = _plain((piece.ass or piece.text).decode("utf-8", "replace"), stream.codec_context.name)
            if lines and lines[-1].text == text and start <= lines[-1].end + 0.1:
                lines[-1] = lines[-1]._replace(end=max(end, lines[-1].end))  # shown on, as live captions are
            elif text:
                lines.append(SubtitleLine(start, end, text))
        _check_cues(lines, 0, opened)
    return sorted(lines)


def _plain(event: str, codec: str) -> str:
    """The text of what FFmpeg decodes all formats to: a line of ASS, with its marks of style."""
    text = re.sub(DRAWING, "", event.split(",", 8)[-1])
    # Of ASS itself, everything in braces is a mark or a comment, unless a backslash stands before it. Behind the last
    # brace each would be sought to the end of the text.
    marked, brace, rest = text.rpartition("}")
    marks = r"(?<!\\)\{[^}]*\}" if codec in ("ass", "ssa") else r"\{\\[^}]*\}"
    text = re.sub(marks, "", marked + brace) + rest
    # Of SRT, FFmpeg writes the first alone. Before U+2060 is gone, which stands in those that are words.
    text = re.sub(r"\\N" if codec in ("srt", "subrip") else r"\\[Nnh]", " ", text)
    text = text.replace("\\{{}", "{").replace("\\{", "{").replace("\\}", "}").replace("\u2060", "")
    return " ".join(text.split())


class SpokenLines(NamedTuple):
    """What is said during each scene, and how many of the lines found no room."""

    texts: list[str]
    num_left_out: int


def lines_within(lines: Sequence[SubtitleLine], duration: float | None, name: str = "the video") -> Subtitles:
    """
    Leaves out the lines that begin after the end of a video, where its seconds are known, and warns of them: nothing
    of it is seen beside them.
    """
    kept = Subtitles(line for line in lines if not duration or line.start < duration)
    if len(kept) < len(lines):
        first = min(line.start for line in lines if line.start >= duration)
        logger.warning(
            f"{len(lines) - len(kept)} of {len(lines)} lines of subtitles are left out: they begin after the end of "
            f"{name}, the first at {first:.3f} seconds, while its duration is {duration:.3f} seconds. Pass the "
            "subtitles of this video, or correct their times."
        )
    return kept


def lines_beside_scenes(
    lines: Sequence[SubtitleLine],
    representatives: Sequence[float],
    max_tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    head: str,
    duration: float | None = None,
) -> SpokenLines:
    """
    Gives each line to a scene: to the one whose representative is nearest to the line's middle, so that scenes border
    on each other halfway between their representatives. Where not all lines fit, whole lines are left out, those
    farthest from their scene's representative first: every scene keeps the core of what was said.

    Args:
        lines (`Sequence[SubtitleLine]`): Of the whole video.
        representatives (`Sequence[float]`): Seconds of each scene's representative, ascending.
        max_tokens (`int`): Of all lines with their heads.
        tokenizer (`PreTrainedTokenizerBase`): Counts them.
        head (`str`): What stands before the lines of a scene.
        duration (`float`, *optional*): Seconds of the video; see [`lines_within`].

    Raises:
        ValueError: If `max_tokens` is under 1.
    """
    if max_tokens < 1:
        raise ValueError(f"`subtitle_tokens` must be at least 1, got {max_tokens}.")
    lines = sorted(lines_within(lines, duration))
    placed = []
    for number, line in enumerate(lines):
        middle = (line.start + line.end) / 2
        scene = min(range(len(representatives)), key=lambda index: abs(representatives[index] - middle))
        placed.append((abs(representatives[scene] - middle), number, scene))
    texts = [*(f" {line.text}" for line in lines), head]
    *costs, head_cost = map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])
    kept: list[list[int]] = [[] for _ in representatives]
    used = 0
    for _, number, scene in sorted(placed):
        used += costs[number] + (0 if kept[scene] else head_cost)
        if used > max_tokens:
            break
        kept[scene].append(number)
    texts = [" ".join(lines[number].text for number in sorted(numbers)) for numbers in kept]
    num_left_out = len(lines) - sum(map(len, kept))
    if num_left_out:
        logger.warning(
            f"{num_left_out} of {len(lines)} lines of subtitles are left out: `subtitle_tokens` is {max_tokens}. "
            "Those nearest to the scenes' times are kept."
        )
    return SpokenLines(texts, num_left_out)


def subtitles_of_videos(
    subtitles: Any, videos: list, tokenizer: PreTrainedTokenizerBase, access: dict[str, Any]
) -> list[Subtitles | None]:
    """
    Reads the subtitles of each video of a call: one given for each, one of a single video, or the same track of all.

    Raises:
        ValueError: If there is no video, not one for each, or a text contains a control token of the model; as
        `VideoReadError` where they cannot be read.
    """
    if subtitles is not None and not videos:
        raise ValueError("Subtitles need a video: pass it, or `subtitles=None` for a question without one.")
    given = [subtitles] * len(videos)
    if isinstance(subtitles, (list, tuple)) and type(subtitles).__name__ != Subtitles.__name__:
        if len(subtitles) != len(videos):
            raise ValueError(
                f"`subtitles` are given for {len(subtitles)} videos, but {len(videos)} were passed: give one for "
                "each, `None` for those without."
            )
        given = list(subtitles)
    elif len(videos) > 1 and subtitles is not None and not is_track(subtitles):
        raise ValueError(
            f"{source_name(subtitles) if isinstance(subtitles, str) else 'One file'} cannot be the subtitles of "
            f"{len(videos)} videos: pass a list with one for each."
        )
    found = []
    for subtitles, video in zip(given, videos, strict=True):
        if subtitles is None:
            found.append(None)
            continue
        # Of an `EncodedVideo`, from the files that it was made of.
        names = [source["name"] for source in getattr(video, "sources", ())]
        lost = [name for name in names if "://" not in name and not os.path.isabs(name)]
        if lost and is_track(subtitles):
            raise ValueError(
                f"Subtitles are named as the track {subtitles!r} of the video, but {video!r} was made of {lost[0]}, "
                "which it does not keep: pass a file of subtitles, or what `read_subtitles` gives of the video."
            )
        known = (source["name"] for source in getattr(video, "sources", ()) if source["size"])
        gone = [name for name in known if not os.path.exists(name)]
        if gone and not is_track(subtitles) and type(subtitles).__name__ != Subtitles.__name__:
            logger.warning_once(
                f"Whether {gone[0]} begins behind its sound, by which files of subtitles count, cannot be seen any "
                "more: they are taken as counted from its first frame."
            )
        lines = read_subtitles(subtitles, getattr(video, "segments", video), **access)
        if hasattr(video, "segments"):
            lines = lines_within(lines, video.metadata.duration, source_name(video.sources[0]["name"]))
        try:
            check_control_tokens([{"content": "\n".join(line.text for line in lines)}], tokenizer)
        except ValueError as error:
            raise ValueError(f"Subtitles cannot be used: {error}") from error
        found.append(lines)
    return found


__all__ = [
    "SpokenLines",
    "SubtitleLine",
    "Subtitles",
    "is_track",
    "lines_beside_scenes",
    "lines_within",
    "read_subtitles",
    "subtitles_of_videos",
]
