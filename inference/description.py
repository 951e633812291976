"""What is told of a film: its chapters and a summary, in each form that they are written in."""

import json
from dataclasses import asdict, dataclass

SHORTEST = 10.0  # seconds of a chapter: YouTube takes none that is shorter
FEWEST_OF_YOUTUBE = 3
FORMATS = {".txt": "text", ".json": "json", ".srt": "srt", ".vtt": "vtt", ".chapters": "youtube"}


@dataclass
class Chapter:
    """A part of a film: its seconds, and its description, or why there is none."""

    start: float
    end: float
    text: str | None = None
    error: str | None = None


@dataclass
class VideoDescription:
    """
    What is seen in a film, and when.

    Args:
        video (`str`): Its path or URL.
        duration (`float`): Seconds.
        chapters (`list[Chapter]`): In the order of time; each begins where the one before it ends.
        summary (`str`, *optional*): Of the whole film; `None` where no chapter could be described.
    """

    video: str
    duration: float
    chapters: list[Chapter]
    summary: str | None = None

    def to_text(self) -> str:
        """The summary, and a paragraph a chapter."""
        parts = [self.summary or "", *(f"{_span(each)}\n{words_of(each)}" for each in self.chapters)]
        return "\n\n".join(filter(None, parts)) + "\n"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def to_srt(self) -> str:
        """Subtitles in the format SubRip: a chapter a line."""
        return "".join(
            f"{number}\n{_stamp(each.start, ',')} --> {_stamp(each.end, ',')}\n{words_of(each)}\n\n"
            for number, each in enumerate(self.chapters, 1)
        )

    def to_vtt(self) -> str:
        """The same in the format WebVTT, with the summary as a note."""
        escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
        lines = (
            f"{_stamp(each.start, '.')} --> {_stamp(each.end, '.')}\n{words_of(each).translate(escape)}\n\n"
            for each in self.chapters
        )
        note = f"NOTE {' '.join(self.summary.split()).replace('-->', '->')}\n\n" if self.summary else ""
        return f"WEBVTT\n\n{note}{''.join(lines)}"

    def to_youtube(self) -> str:
        """
        Lines that YouTube makes chapters of, in a video's description.

        Raises:
            ValueError: If it would take none: there must be three chapters or more, none shorter than ten seconds.
        """
        check_youtube(self.chapters)
        return "".join(f"{clock(each.start)} {words_of(each)}\n" for each in self.chapters)

    def to(self, form: str) -> str:
        """
        In one of the forms text, json, srt, vtt and youtube.

        Raises:
            ValueError: If it is none of them.
        """
        check_form(form)
        return getattr(self, f"to_{form}")()


def check_form(form: str) -> None:
    """
    Raises:
        ValueError: If a description is written in no such form.
    """
    if form not in FORMATS.values():
        raise ValueError(f"`form` is one of {', '.join(FORMATS.values())}, got {form!r}.")


def check_youtube(chapters: list[Chapter]) -> None:
    """
    Raises:
        ValueError: If YouTube would take none of the chapters.
    """
    short = [each for each in chapters if int(each.end) - int(each.start) < SHORTEST]
    if len(chapters) < FEWEST_OF_YOUTUBE or short:
        raise ValueError(
            f"YouTube takes three chapters or more of at least {SHORTEST:g} seconds; here are "
            f"{len(chapters)}, {len(short)} of them shorter."
        )


def words_of(chapter: Chapter) -> str:
    return " ".join((chapter.text or f"(not described: {chapter.error})").split())


def clock(seconds: float) -> str:
    """Whole seconds that have begun, so that a jump there never lands before the chapter's own second."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _span(chapter: Chapter) -> str:
    return f"{clock(chapter.start)} - {clock(chapter.end)}"


def _stamp(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02d}:{whole // 60000 % 60:02d}:{whole // 1000 % 60:02d}{point}{whole % 1000:03d}"


__all__ = [
    "FEWEST_OF_YOUTUBE",
    "FORMATS",
    "SHORTEST",
    "Chapter",
    "VideoDescription",
    "check_form",
    "check_youtube",
    "clock",
    "words_of",
]
