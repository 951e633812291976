"""What is refused of a call's options before any work: it stands in the way of every answer, or has no effect."""

import os
from numbers import Integral
from typing import Any

# Of the pipeline's own options, those that reach an answer; the others say how results look, or how chats are read.
OF_ANSWERS = {"generate_kwargs", "max_new_tokens", "processor_kwargs", "stop_sequence"}


def check_counts(**counts: Any) -> list[int | None]:
    """
    The counts as Python's own numbers: JSON takes none of NumPy's.

    Raises:
        ValueError: If one that is not `None` is no whole number of at least 1.
    """
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, Integral) or count < 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {count!r}.")
    return [None if count is None else int(count) for count in counts.values()]


def check_paths(**paths: Any) -> None:
    """
    Raises:
        ValueError: If one is no path.
    """
    for name, path in paths.items():
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"`{name}` must be a path, got {path!r:.80}.")


def check_questions(**questions: str | None) -> None:
    """
    Raises:
        ValueError: If one that is not `None` is no text, is empty, or is not valid Unicode.
    """
    for name, question in questions.items():
        if question is None:
            continue
        if not isinstance(question, str):
            raise ValueError(f"`{name}` must be a text, got {question!r}.")
        if not question.strip():
            raise ValueError(f"`{name}` is empty: ask something, or leave it out.")
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"`{name}` is not valid Unicode: character {error.start} is {question[error.start]!r}, half a "
                "surrogate pair or a byte that is not UTF-8. Decode or remove it."
            ) from None


def check_options(options: dict[str, Any], pipe: Any = None) -> None:
    """
    Looks at the pipeline's options, also inside `generate_kwargs` and `processor_kwargs`: with a pipeline over its own
    ones, as they will be taken; without one, those that need no model.

    Raises:
        ValueError: If one has no effect on answers that are text alone, or stands in the way of every answer.
    """
    if not options and pipe is None:
        return
    # Not above: mistakes are told before torch is loaded, where there are no options.
    from ..configuration_fila_video import SHARED_WITH_SCENES, check_shared_settings
    from ..pipeline_fila_video import OPTIONS_OF_PIPELINE, divide_options
    from ..video_limits_fila_video import Budget
    from ..video_processing_fila_video import FilaVideoVideoProcessor, check_resample
    from ..video_prompt_fila_video import TIME_SETTINGS, VideoPrompt
    from ..video_reading_fila_video import check_wanted
    from ..video_sources_fila_video import find_device

    without_effect = OPTIONS_OF_PIPELINE - OF_ANSWERS | {"num_return_sequences", "return_scenes", "timeout", "tools"}
    given = {**options, **(options.get("generate_kwargs") or {}), **(options.get("processor_kwargs") or {})}
    if others := [f"`{name}`" for name in sorted(without_effect) if given.get(name) is not None]:
        raise ValueError(f"The answers are text alone, one a question: leave out {', '.join(others)}.")
    if pipe is None:
        # Settings that the model has too cannot be compared yet.
        reading, video_processor = divide_options(**options)[1], FilaVideoVideoProcessor()
        reading = {name: value for name, value in reading.items() if name not in SHARED_WITH_SCENES}
    else:
        reading, video_processor = pipe.options_of(options)[0]["processor_kwargs"], pipe.processor.video_processor
    reading = {name: value for name, value in reading.items() if value is not None}
    settings = video_processor.scene_settings(**reading)
    if pipe is not None:
        check_shared_settings(pipe.model, pipe.processor, settings)
        if (device := reading.get("hwaccel", video_processor.hwaccel)) is not None:
            find_device(str(device))
    VideoPrompt(**{name: reading[name] for name in TIME_SETTINGS if name in reading})
    Budget(video_processor.access(**reading)["limits"], "a video")
    check_counts(subtitle_tokens=reading.get("subtitle_tokens"))
    check_resample(reading.get("resample"))
    wanted = reading.get("num_frames"), reading.get("fps")
    if wanted != (None, None):
        check_wanted(*wanted)


__all__ = ["check_counts", "check_options", "check_paths", "check_questions"]
