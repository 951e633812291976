"""
Answers questions about thousands of videos, and goes on where it was broken off.

    fila-video answer-all --records FILE|FOLDER --question "What happens?" --output answers.jsonl

Each row of the output has `id`, `video`, `media` (the clip and the subtitles that its record names), `question`,
`answer`, `error` (of `answer` and `error` one is null) and `settings`, a mark of what answered. Where subtitles found
no room, `subtitles_left_out` counts their lines. The exit status is 0, or 3 where this run added rows with errors,
or 2 where it stopped.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .. import __version__
from ..long_video.engines import WorkerDied, default_workers, run_workers, running
from .options import check_counts, check_options, check_paths, check_questions
from .output import Answered, Output, model_mark, pipeline_settings, plain
from .questions import VideoQuestions, WorkList, chunks
from .workers import MakeWorker, PipelineWorker

if TYPE_CHECKING:
    from ..pipeline_fila_video import VideoTextToTextPipeline

ENGINES = ("local", "ray", "vllm")
ROWS_WITH_ERRORS = 3  # exit status
VLLM_BATCH = 64
SECONDS_BETWEEN_LINES = 60  # of progress, where it does not go to a terminal


@dataclass
class Summary:
    """
    What a run did.

    Args:
        output (`Path`): The file of the answers.
        total (`int`): Questions in the records.
        answered (`int`): Of them, those that this run added to the output.
        failed (`int`): Of those that it added, rows with an error.
    """

    output: Path
    total: int
    answered: int
    failed: int


def answer_all(
    records: str | os.PathLike | WorkList,
    output: str | os.PathLike,
    question: str | None = None,
    *,
    model: "str | os.PathLike | VideoTextToTextPipeline | None" = None,
    engine: str = "local",
    workers: int = 1,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    resume: bool = True,
    retry_errors: bool = False,
    on_error: str = "record",
    progress: bool | Callable[[int, int], None] = True,
    **options: Any,
) -> Summary:
    """
    Answers the questions about many videos. A run goes on when it is started again, however it was broken off:
    nothing is lost and nothing is answered twice.

    Args:
        records (`str`, `os.PathLike` or `WorkList`):
            A file of JSON lines, a JSON array, a Parquet file, or a folder of videos; see [`WorkList`], which may be
            given itself.
        output (`str` or `os.PathLike`):
            A file of JSON lines. Rows are added and brought to the disk as they come, those of a video together.
            Beside it stands `OUTPUT.settings.json`.
        question (`str`, *optional*): What is asked where a record asks nothing itself.
        model (`str`, `os.PathLike` or `VideoTextToTextPipeline`, *optional*):
            Folder or Hub name, which each worker loads; by default the embedded demonstration. Or a pipeline, which
            then answers in this process.
        engine (`str`, *optional*, defaults to `"local"`):
            `"local"`: processes on this machine. `"ray"`: class actors of Ray Data, on the cluster that `ray.init()`
            finds or on this machine. `"vllm"`: vLLM's offline engine.
        workers (`int`, *optional*, defaults to 1):
            Processes or actors, each with a model of its own. Where there are GPUs, they take turns.
        batch_size (`int`, *optional*):
            Answers that are generated side by side: 1 by default, which gives the same answers however often a run is
            broken off. Larger batches may round otherwise. With `"vllm"`, questions that are handed to it at once.
        device (`str`, *optional*): Such as `"cuda"` or `"cpu"`, for all workers.
        dtype (`str`, *optional*): Of the weights, as in `load_model`; not with `"vllm"`.
        resume (`bool`, *optional*, defaults to `True`): Go on with an output that is there; `False` refuses it.
        retry_errors (`bool`, *optional*, defaults to `False`): Ask again where the output's rows have errors.
        on_error (`str`, *optional*, defaults to `"record"`):
            `"record"`: what cannot be answered becomes a row with its `error`. `"raise"`: it ends the run,
            and stands in the way of the next one too.
        progress (`bool` or `Callable[[int, int], None]`, *optional*, defaults to `True`):
            Show rate and time left on standard error; or call a function with the number of rows that were added, at
            first with those that were there, and the number of all with errors in this run.
        **options:
            Those of the pipeline for `generate` and the processor, such as `max_new_tokens` and `num_scenes`; none of
            how its results look, such as `return_full_text`.

    Returns:
        [`Summary`].

    Raises:
        ValueError: If the records or the options are wrong (also `subtitles` that are no track, where there are
            several videos), the output is the records' file, no file of answers, of other settings, of records that
            have changed since or in use, the model cannot be loaded, or, with `on_error="raise"`, at the first row
            that cannot be answered.
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` is one of {', '.join(ENGINES)}, got {engine!r}.")
    if on_error not in ("record", "raise"):
        raise ValueError(f"`on_error` is 'record' or 'raise', got {on_error!r}.")
    source = records.records if isinstance(records, WorkList) else records
    check_paths(records=source, output=output)
    check_questions(question=question)
    if batch_size is None:
        batch_size = VLLM_BATCH if engine == "vllm" else 1
    workers, batch_size = check_counts(workers=workers, batch_size=batch_size)
    is_pipeline = callable(model)  # what else is named is loaded by the workers, each for itself
    check_options(options, model if is_pipeline else None)
    if (dtype, device) != (None, None) and (is_pipeline or engine == "vllm"):
        raise ValueError(
            "`dtype` and `device` are of models that are loaded here; a pipeline and vLLM have their own: leave them "
            "out."
        )
    if (is_pipeline or engine == "vllm") and (workers > 1 or (is_pipeline and engine != "local")):
        raise ValueError("A pipeline answers in this process alone, and vLLM in its own: use one worker.")
    if is_pipeline:
        name = str(model.model.config.name_or_path)
    else:
        name = str(Path(__file__).resolve().parent.parent if model is None else model)
    # What may change an answer. An output that was begun with other settings is refused: it would mix two runs.
    settings = {
        "version": __version__,
        "model": model_mark(name),
        "engine": "vllm" if engine == "vllm" else "transformers",
        "dtype": dtype,
        "question": question,
        "options": plain(options),
    }
    if is_pipeline:
        settings |= pipeline_settings(model)
    if os.path.exists(source) and os.path.exists(output) and os.path.samefile(source, output):
        raise ValueError(f"The output {output} is the file of the records, which it would spoil: name another.")
    work = records if isinstance(records, WorkList) else WorkList(records, question)
    subtitles = {**options, **(options.get("processor_kwargs") or {})}.get("subtitles")
    if subtitles is not None:
        _check_subtitles(subtitles, work)
    with Output(Path(output), settings, resume) as file:
        total = len(work)
        done = file.take_over(work, retry_errors)  # from here on the list holds what is left to ask
        summary = Summary(file.path, total, 0, 0)
        if len(work) == 0:
            return summary
        results = _results(work, model if is_pipeline else name, engine, workers, batch_size, device, dtype, options)
        with _progress(total, done, progress) as advance:
            for videos, rows in results:
                failed = [row for row in rows if row.error is not None]
                if failed and on_error == "raise":
                    # The good answers are kept; without a row, the bad one is asked again by the next run.
                    file.write(videos, [row for row in rows if row.error is None])
                    raise ValueError(f"{failed[0].id}: {failed[0].error}")
                file.write(videos, rows)
                summary.answered, summary.failed = summary.answered + len(rows), summary.failed + len(failed)
                advance(len(rows), summary.failed)
    return summary


def _check_subtitles(subtitles: Any, work: WorkList) -> None:
    """
    Raises:
        ValueError: If they are those of one video, but would be said in several.
    """
    from ..subtitles_fila_video import is_track

    videos = list(islice(work.videos_without_subtitles(), 2))
    if len(videos) > 1 and not is_track(subtitles):
        raise ValueError(
            f"`subtitles` is a file, so of one video, but there are more, such as {videos[0]} and {videos[1]}: put it "
            "into the record of its video, or name a track by its number or language."
        )


def _results(
    work: WorkList,
    model: "str | VideoTextToTextPipeline",
    engine: str,
    workers: int,
    batch_size: int,
    device: str | None,
    dtype: str | None,
    options: dict,
) -> Iterator[tuple[list[VideoQuestions], list[Answered]]]:
    """The videos with their rows, as they are done."""
    groups = chunks(work, batch_size)
    if callable(model):
        worker = PipelineWorker(model, batch_size, options)
        for videos in groups:
            yield videos, worker(videos)
        return
    # Other processes give back the number of what they were sent and their rows, in any order: the videos stay here.
    in_work = {}

    def numbered() -> Iterator[list[VideoQuestions]]:
        for number, videos in enumerate(groups):
            in_work[number] = videos
            yield videos

    # Several models at once would each start a thread for every core.
    threads = max(default_workers() // workers, 1) if workers > 1 else None
    make = MakeWorker(engine, model, device, dtype, batch_size, threads, options)
    engine = "ray" if engine == "ray" else "local"
    with running(engine):
        gpus = int(engine == "ray" and device != "cpu" and _cluster_has_gpus())
        for number, rows, error in run_workers(make, numbered(), engine=engine, workers=workers, gpus=gpus):
            videos = in_work.pop(number)
            if isinstance(error, WorkerDied):  # the engine has found what kills: it costs these videos alone
                asked = (asked for video in videos for asked in video.asked)
                rows = [Answered(each.id, each.question, error=each.error or str(error)) for each in asked]
            elif error is not None:
                raise error
            yield videos, rows


def _cluster_has_gpus() -> bool:
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


@contextlib.contextmanager
def _progress(total: int, done: int, shown: bool | Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere, such as in the log of a cluster, a line from time to time."""
    if callable(shown):
        shown(done, 0)
        yield shown
        return
    start = last = time.monotonic()
    is_terminal = sys.stderr.isatty()
    with tqdm(total=total, initial=done, unit="q", disable=not (shown and is_terminal), smoothing=0.1) as bar:
        new = 0

        def advance(rows: int, failed: int) -> None:
            nonlocal new, last
            new += rows
            if failed:
                bar.set_postfix(errors=failed, refresh=False)
            bar.update(rows)
            now = time.monotonic()
            if shown and not is_terminal and now - last >= SECONDS_BETWEEN_LINES:
                last, rate = now, new / (now - start)
                left = tqdm.format_interval((total - done - new) / rate)
                line = f"fila-video: {done + new} of {total} answered, {rate:.2f} a second, {left} left, "
                print(f"{line}{failed} with errors", file=sys.stderr, flush=True)

        yield advance


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..commands.cli import add_model_arguments, add_subtitle_arguments

    parser.add_argument("--records", required=True, metavar="SOURCE", help="JSON lines, Parquet, or folder of videos")
    parser.add_argument("--question", help="what to ask where a record asks nothing itself")
    parser.add_argument("--output", required=True, metavar="FILE", help="JSON lines; what is there goes on")
    add_model_arguments(parser)
    parser.add_argument("--max-new-tokens", type=int, help="length of an answer at most (default: the model's)")
    add_subtitle_arguments(parser, "of every record, a track's number or")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="what runs the model (default: local)")
    parser.add_argument("--workers", type=int, default=1, help="processes, or Ray's actors (default: 1)")
    parser.add_argument("--batch-size", type=int, help="answers side by side (default: 1; vllm: 64)")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with an output that is there (the default), or refuse it",
    )
    parser.add_argument("--retry-errors", action="store_true", help="ask again where the output's rows have errors")
    parser.add_argument(
        "--on-error", choices=["record", "raise"], default="record", help="a row with the error (default), or the end"
    )


def run(args: argparse.Namespace) -> int:
    """Answers, and says on standard error what was done."""
    from ..commands.cli import announce_demonstration, call_options, check_ending, check_regular, check_writable

    check_regular("--output", args.output, "to which answers are added and from which a run goes on")
    check_writable("--output", args.output, args.records, args.subtitles)
    check_ending("--output", args.output, "JSON lines")
    announce_demonstration(args)
    names = ("model", "engine", "workers", "batch_size", "device", "dtype", "resume", "retry_errors", "on_error")
    settings = {name: getattr(args, name) for name in names}
    done = answer_all(args.records, args.output, args.question, **settings, **call_options(args))
    message = f"{done.answered} of {done.total} questions answered now, {done.failed} with errors: {done.output}"
    print(f"fila-video: {message}", file=sys.stderr)
    return ROWS_WITH_ERRORS if done.failed else 0


__all__ = ["Summary", "add_arguments", "answer_all", "run"]
