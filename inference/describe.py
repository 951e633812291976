"""
The time line of a film of hours: its chapters, each described with its span, and a summary made from them.

    fila-video describe FILM.mp4 --output film.txt

The ending of the output says its form: `.txt`, `.json`, `.srt`, `.vtt`, or `.chapters` for the lines that YouTube
takes. What is done lies in `OUTPUT.work` until the output is written, and a command that was broken off goes on from
there.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..commands.files import replacing
from ..long_video.json_records import read_own_lines
from .description import (
    FEWEST_OF_YOUTUBE,
    FORMATS,
    SHORTEST,
    Chapter,
    VideoDescription,
    check_form,
    check_youtube,
    clock,
    words_of,
)
from .options import check_counts, check_options, check_paths, check_questions
from .output import differences, model_mark, pipeline_settings
from .questions import WorkList

if TYPE_CHECKING:
    from ..pipeline_fila_video import VideoTextToTextPipeline

QUESTION = "Describe what happens in this part of the video."
SUMMARY_QUESTION = "These are the parts of a video in their order, each with its time. Summarize the whole video."
POOL = ("candidate_fps", "min_candidates", "max_candidates", "seek_mode")  # settings that chapters are found with
GAP_FRAMES = 32  # that are looked at between two candidate frames, to find the cut
ANSWER_ROOM = 512  # tokens of the context that a summary leaves free for its answer, which may be longer
CHAT_ROOM = 64  # and for what a chat has around the text
EMPTY = "the model's answer is empty"  # and would be once more
# What a folder of work holds.
PLAN, RECORDS, ANSWERS = "plan.json", "records.jsonl", "answers.jsonl"
WORK_FILES = {RECORDS}
WORK_FILES |= {name for file in (PLAN, ANSWERS, f"{ANSWERS}.settings.json") for name in (file, f".{file}.tmp")}


def describe_video(
    video: str | os.PathLike,
    *,
    model: "str | os.PathLike | VideoTextToTextPipeline | None" = None,
    device: str | None = None,
    dtype: str | None = None,
    chapters: int | None = None,
    shortest: float = SHORTEST,
    question: str = QUESTION,
    summary_question: str = SUMMARY_QUESTION,
    work: str | os.PathLike | None = None,
    form: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> VideoDescription:
    """
    Describes a film along its line of time. Its chapters are stretches whose frames look alike; each is read and
    asked about as a clip of its own, with scenes of its own, so that the length of the film has no limit.

    Args:
        video (`str` or `os.PathLike`): Path or URL.
        model (`str`, `os.PathLike` or `VideoTextToTextPipeline`, *optional*):
            Folder or Hub name, by default the embedded demonstration; or a pipeline.
        device (`str`, *optional*): Such as `"cuda"` or `"cpu"`.
        dtype (`str`, *optional*): Of the weights, as in `load_model`.
        chapters (`int`, *optional*): How many; by default as many as the film shows.
        shortest (`float`, *optional*, defaults to 10.0): Seconds of a chapter at least.
        question, summary_question (`str`, *optional*): What is asked about each chapter, and about all of them.
        work (`str` or `os.PathLike`, *optional*):
            A folder that keeps what is done. A call that was broken off goes on from there. One about another video is
            refused, and so is one with another model or other settings than those of what is done: of the chapters at
            first, and once one is described also of the answers. A folder that holds anything else is refused too. By
            default nothing is kept.
        form (`str`, *optional*):
            What the description is for, as [`VideoDescription.to`] names it: chapters that it cannot have are refused
            before they are described.
        progress (`Callable[[str, int, int], None]`, *optional*):
            Called with "reading", "encoding" or "describing", what is done and its total.
        **options:
            Those of the pipeline for `generate` and the processor, such as `max_new_tokens` and `num_scenes`; none of
            how its results look, such as `return_full_text`.

    Returns:
        [`VideoDescription`]. A chapter that cannot be read or described has its `error`.

    Raises:
        ValueError: If the video is a picture or a folder of them or cannot be read as a whole, there is no room for so
        many chapters, there is no such form or it cannot have those that were found, a question is empty, is not valid
        Unicode or has control tokens, an option is unknown or wrong, or `work` is of another call or holds anything
        else.
    """
    chapters, shortest = _check(chapters, shortest, question, summary_question)
    check_paths(video=video)
    if form is not None:
        check_form(form)
    check_options(options)
    if (dtype, device) != (None, None) and callable(model):
        raise ValueError(
            "`dtype` and `device` are of a model that is loaded here; a pipeline has its own: leave them out."
        )
    from ..chat_inputs_fila_video import check_control_tokens
    from ..commands.loading import load_pipeline
    from ..subtitles_fila_video import lines_within, read_subtitles
    from ..video_pictures_fila_video import open_still_picture
    from ..video_sources_fila_video import OpenedSource, source_name

    if os.fspath(video)[:5].lower() == "data:":
        raise ValueError("A film is named by a path or a URL of the web, this is a `data:` URL: write it to a file.")
    if os.path.isdir(video) or open_still_picture(os.fspath(video)) is not None:
        raise ValueError(
            f"{video} is {'a folder' if os.path.isdir(video) else 'a still picture'}, and chapters are parts of a "
            "film: name a video file or a URL. About pictures, ask with `fila-video answer`."
        )

    with ExitStack() as finally_:
        if work is None:
            work = finally_.enter_context(tempfile.TemporaryDirectory(prefix="fila-video-"))
        work = Path(work)
        work.mkdir(exist_ok=True)
        _check_work(work)
        pipe = model if callable(model) else load_pipeline(model, device, dtype)
        check_options(options, pipe)
        reading = pipe._sanitize_parameters(**options)[0].get("processor_kwargs", {})
        # What would stand in the way of every chapter is refused before the film is read.
        for text in (question, summary_question):
            check_control_tokens([{"role": "user", "content": text}], pipe.processor.tokenizer)
        _check_summary(pipe, summary_question, options)
        scenes = pipe.processor.video_processor.scene_settings(**reading)
        access = pipe.processor.video_processor.access(**reading)
        source = str(video)
        if "://" in source:  # also file://; it is read chapter by chapter, and fetched once
            opened = finally_.enter_context(OpenedSource(source, **access))
            source = opened.path
        words = None
        if reading.get("subtitles") is not None:
            words = read_subtitles(reading["subtitles"], source, **access)
        settings = {"video": str(video), "size": os.path.getsize(source) if os.path.exists(source) else None}
        settings |= {"chapters": chapters, "shortest": shortest}
        # The plan alone stands in the way of other settings until the first answer is written.
        settings["model"] = model_mark(str(pipe.model.config.name_or_path))
        settings |= {name: value for name, value in pipeline_settings(pipe).items() if name != "pipeline"}
        settings |= {name: getattr(scenes, name) for name in POOL}
        spans = _plan(pipe, source, settings, work / PLAN, reading, progress)
        description = VideoDescription(str(video), spans[-1][1], [Chapter(*span) for span in spans])
        if form == "youtube":
            check_youtube(description.chapters)
        if words is not None:  # the chapters are clips, which leave out what is said outside of them
            lines_within(words, description.duration, source_name(str(video)))
        _describe_chapters(pipe, source, description, question, work, options, progress)
        if any(each.text for each in description.chapters):
            description.summary = _summarize(pipe, description.chapters, summary_question, options)
    return description


def _check_work(work: Path) -> None:
    """
    Raises:
        ValueError: If a folder of work holds anything else, which would be written over or removed.
    """
    found = {file.name for file in work.iterdir() if not file.name.startswith(".")}  # such as `.DS_Store`
    # The plan comes first: without one, other files of these names are somebody else's.
    if others := sorted(found - (WORK_FILES if PLAN in found else set())):
        raise ValueError(
            f"{work} is for work that was begun, but holds {others[0]}, which is none: remove it, or name another "
            "output or folder."
        )


def _check(chapters: Any, shortest: Any, question: Any, summary_question: Any) -> tuple[int | None, float]:
    """The number of chapters and the seconds of the shortest as Python's own, for the plan is written as JSON."""
    (chapters,) = check_counts(chapters=chapters)
    if isinstance(shortest, bool) or not isinstance(shortest, Real) or not 0 < shortest < float("inf"):
        raise ValueError(f"`shortest` must be positive, a number of seconds, got {shortest!r}.")
    check_questions(question=question, summary_question=summary_question)
    return chapters, float(shortest)


def _plan(
    pipe: "VideoTextToTextPipeline",
    source: str,
    settings: dict,
    file: Path,
    reading: dict,
    progress: Callable[[str, int, int], None] | None,
) -> list[tuple[float, float]]:
    """The seconds of the chapters, kept in `file`."""
    import numpy as np
    import torch

    from ..video_pool_fila_video import thumbnails
    from ..video_reading_fila_video import VideoSegment, read_frames
    from .chapters import chapter_starts, cut_between

    if file.exists():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["settings"] != settings:
            raise ValueError(
                f"{file.parent} holds the work on another video or with other settings "
                f"({differences(kept['settings'], settings)}): remove it, or name another folder."
            )
        return [tuple(span) for span in kept["spans"]]
    pool = {name: settings[name] for name in POOL}
    access = pipe.processor.video_processor.access(**reading)
    # The patch features of a frame serve no later question: none are kept.
    own = {name: reading[name] for name in ("frame_batch_size", "hwaccel") if reading.get(name) is not None}
    hwaccel = own.get("hwaccel", pipe.processor.video_processor.hwaccel)
    # Chapters are cut from all candidates, also where few of them would be shown.
    encoded = pipe.processor.encode_video(
        source, progress=progress, max_feature_bytes=1, selection="kmeans", **own, **pool, **access
    )
    times, duration = np.array(encoded.timestamps), float(encoded.metadata.duration)
    # What the model sees, things above all, and what a thumbnail shows, places above all: both weigh the same.
    seen = [values.float().cpu().numpy() for values in (encoded.frame_features, encoded.thumbnail_features)]
    seen = [(values - values.mean(axis=0)) / max(float(values.std(axis=0).sum()), 1e-6) for values in seen]
    # Whole milliseconds, as spans are given in: rounded later, a chapter would be shorter than asked for.
    shortest, begins = settings["shortest"], times.round(3)
    firsts = chapter_starts(np.concatenate(seen, axis=1), begins, round(duration, 3), settings["chapters"], shortest)
    starts = [0.0]
    for first in firsts[1:]:
        gap = VideoSegment(source, float(times[first - 1]), min(float(times[first]) + 0.001, duration))
        read = read_frames(gap, num_frames=_most_of_gap, size=(64, 64), hwaccel=hwaccel, **access)
        if len(read.timestamps) < 2:
            starts.append(float(begins[first]))
            continue
        small = thumbnails(torch.from_numpy(read.frames).permute(0, 3, 1, 2)).numpy()
        cut = float(times[first - 1]) + cut_between(small, read.timestamps)
        # Before `first`, where the limit was kept, there may be too little left of the chapter that ends here.
        starts.append(round(max(cut, starts[-1] + shortest), 3))
    spans = list(zip(starts, [*starts[1:], round(duration, 3)], strict=True))
    with replacing(file) as unfinished:
        unfinished.write_text(json.dumps({"settings": settings, "spans": spans}), encoding="utf-8")
    return spans


def _most_of_gap(metadata: Any) -> int:
    return min(metadata.total_num_frames, GAP_FRAMES)


def _describe_chapters(
    pipe: "VideoTextToTextPipeline",
    source: str,
    description: VideoDescription,
    question: str,
    work: Path,
    options: dict,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Asks about each chapter as a clip: what is answered already lies in the output of `answer_all`."""
    from .answer_all import answer_all

    records, output = work / RECORDS, work / ANSWERS
    with open(records, "w", encoding="utf-8") as file:
        for number, chapter in enumerate(description.chapters):
            span = {"video_start": chapter.start, "video_end": chapter.end}
            file.write(json.dumps({"id": str(number), "video": os.path.abspath(source), **span}) + "\n")
    done = 0

    def advance(rows: int, failed: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress("describing", done, len(description.chapters))

    asked = WorkList(records, question)
    asked.compares_videos = False  # the plan has done so, and what a URL was fetched to has another name each time
    answer_all(asked, output, question, model=pipe, progress=advance, retry_errors=True, **options)
    for row in read_own_lines(output):
        chapter = description.chapters[int(row["id"])]
        chapter.text, chapter.error = row["answer"], row["error"]
        if chapter.error is None and not chapter.text.strip():
            chapter.text, chapter.error = None, EMPTY


def _generation(pipe: "VideoTextToTextPipeline", options: dict) -> dict:
    return pipe._sanitize_parameters(**options)[1].get("generate_kwargs") or {}


def _summary_room(pipe: "VideoTextToTextPipeline", options: dict) -> int:
    """Tokens that the question of a summary and what it is of may take."""
    given, context = _generation(pipe, options), pipe.processor.context_length
    if given.get("max_new_tokens") is None:  # else it holds, and not the length of all
        context = min(given.get("max_length") or context, context)
    # The limit of an answer is no length that it will have.
    answer = min(given.get("max_new_tokens") or ANSWER_ROOM, ANSWER_ROOM)
    return context - answer - CHAT_ROOM


def _check_summary(pipe: "VideoTextToTextPipeline", question: str, options: dict) -> None:
    """
    Raises:
        ValueError: If the question alone leaves no room for what a summary is of.
    """
    room, taken = _summary_room(pipe, options), len(pipe.processor.tokenizer(question)["input_ids"])
    if taken >= room:
        raise ValueError(
            f"The summary has no room: `summary_question` takes {taken} tokens, and {max(room, 0)} of the context's "
            f"{pipe.processor.context_length} are left for it and the chapters. Shorten the question, lower "
            "`max_new_tokens`, or raise `max_length` where it is set."
        )


def _summarize(pipe: "VideoTextToTextPipeline", chapters: list[Chapter], question: str, options: dict) -> str:
    """A summary of the chapters' texts; of more than the context holds, a summary of summaries."""
    from ..chat_inputs_fila_video import without_control_tokens

    generation, room = _generation(pipe, options), _summary_room(pipe, options)

    def prompt(lines: list[str]) -> str:
        return question + "\n\n" + "\n".join(lines)

    def fits(lines: list[str]) -> bool:
        return len(pipe.processor.tokenizer(prompt(lines))["input_ids"]) <= room

    def ask(lines: list[str]) -> str:
        # The pipeline's own subtitles are a track of the film, which is not asked about here.
        (record,) = pipe(text=prompt(lines), return_full_text=False, subtitles=None, **generation)
        return record["generated_text"]

    spans = [(each.start, each.end, words_of(each)) for each in chapters if each.text]
    while True:
        plain = [without_control_tokens(text, pipe.processor.tokenizer) for *_, text in spans]
        lines = [f"{clock(start)} - {clock(end)}: {text}" for (start, end, _), text in zip(spans, plain, strict=True)]
        if len(lines) == 1 or fits(lines):
            return ask(lines)
        groups, at = [], 0
        while at < len(lines):
            size = 1
            while at + size < len(lines) and fits(lines[at : at + size + 1]):
                size += 1
            groups.append((at, at + size))
            at += size
        if len(groups) == len(lines):
            raise ValueError(
                f"The summary has no room: two chapters' texts take more than the {room} tokens that the context "
                "has for them. Lower `max_new_tokens`."
            )
        spans = [(spans[a][0], spans[b - 1][1], " ".join(ask(lines[a:b]).split())) for a, b in groups]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..commands.cli import add_common_arguments, add_subtitle_arguments

    add_common_arguments(parser)
    add_subtitle_arguments(parser)
    parser.add_argument("--output", metavar="FILE", help="where to; its ending says the form (default: text, shown)")
    parser.add_argument("--format", choices=FORMATS.values(), help="the form, where the ending does not say it")
    parser.add_argument("--chapters", type=int, help="how many (default: as many as the film shows)")
    parser.add_argument("--shortest", type=float, default=SHORTEST, help="seconds of a chapter at least (default: 10)")
    parser.add_argument("--question", default=QUESTION, help="what to ask about each chapter")
    parser.add_argument("--summary-question", default=SUMMARY_QUESTION, help="what to ask about all of them")
    parser.add_argument("--max-new-tokens", type=int, help="length of an answer at most (default: the model's)")


def run(args: argparse.Namespace) -> int:
    """Writes the description; the exit status is 3 where a chapter could not be described."""
    from ..commands.cli import (
        announce_demonstration,
        call_options,
        check_ending,
        check_regular,
        check_subtitles,
        check_video,
        check_writable,
    )

    if args.output is not None:
        check_regular("--output", args.output, "beside which the work is kept; without --output, text is shown")
        check_writable("--output", args.output, args.video, args.subtitles)
        if Path(args.output).suffix.lower() not in FORMATS:
            check_ending("--output", args.output, "a description")
    ending = Path(args.output or "").suffix.lower()
    form = args.format or FORMATS.get(ending)
    if FORMATS.get(ending, form) != form:
        raise ValueError(
            f"--format {form} contradicts --output {args.output}, whose ending says {FORMATS[ending]}: leave out "
            "--format, or name another ending."
        )
    if form is None:
        if args.output is not None:
            raise ValueError(f"--output {args.output}: its ending is none of {', '.join(FORMATS)}; or pass --format.")
        form = "text"
    _check(args.chapters, args.shortest, args.question, args.summary_question)
    if form == "youtube" and args.chapters is not None and args.chapters < FEWEST_OF_YOUTUBE:
        raise ValueError(
            f"--chapters {args.chapters}: YouTube takes {FEWEST_OF_YOUTUBE} chapters or more; name another --format."
        )
    check_subtitles(args)
    check_video(args.video)
    work = None if args.output is None else f"{args.output}.work"
    # Beside a film of this name lie the film's own subtitles. Of a run that was killed at its end, the work is there.
    if work is not None and os.path.exists(args.output) and not os.path.exists(os.path.join(work, PLAN)):
        raise ValueError(f"--output {args.output} is there already: name another file, or remove it.")
    from ..commands.loading import Progress, quiet

    quiet()
    announce_demonstration(args)
    names = ("model", "device", "dtype", "chapters", "shortest", "question", "summary_question")
    settings = {name: getattr(args, name) for name in names} | {"form": form}
    description = describe_video(args.video, work=work, progress=Progress(), **settings, **call_options(args))
    text = description.to(form)
    if args.output is None:
        sys.stdout.write(text)
    else:
        # The work goes last: killed before, the same command finds all answers in it. It stays for chapters that may
        # be described another time.
        with replacing(args.output) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
        if any(each.error not in (None, EMPTY) for each in description.chapters):
            return 3
        for name in sorted(WORK_FILES, key=PLAN.__eq__):  # the plan last, by which the rest is known
            Path(work, name).unlink(missing_ok=True)
        with suppress(OSError):  # something else is there
            os.rmdir(work)
    return 3 if any(each.error for each in description.chapters) else 0


__all__ = ["Chapter", "VideoDescription", "add_arguments", "describe_video", "run"]
