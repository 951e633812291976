"""What is refused of a call's options before any work: it stands in the way of every answer, or has no effect."""

from numbers import Integral
from typing import Any

# Of the pipeline's own options, those that reach an answer; the others say how results look, or how chats are read.
OF_ANSWERS = {"generate_kwargs", "max_new_tokens", "processor_kwargs", "stop_sequence"}


def check_counts(**counts: Any) -> None:
    """
    Raises:
        ValueError: If one that is not `None` is no whole number of at least 1.
    """
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, Integral) or count < 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {count!r}.")


def check_questions(**questions: str | None) -> None:
    """
    Raises:
        ValueError: If one that is not `None` is empty, or is not valid Unicode.
    """
    for name, question in questions.items():
        if question is None:
            continue
        if not question.strip():
            raise ValueError(f"`{name}` is empty: ask something, or leave it out.")
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"`{name}` is not valid Unicode: character {error.start} is {question[error.start]!r}, half a "
                "surrogate pair or a byte that is not UTF-8. Decode or remove it."
            ) from None


def check_options(options: dict[str, Any]) -> None:
    """
    Looks at the pipeline's options, also inside `generate_kwargs` and `processor_kwargs`.

    Raises:
        ValueError: If one has no effect on answers that are text alone, or `max_new_tokens` is no length.
    """
    if not options:
        return
    # Not above: mistakes are told before torch is loaded, where there are no options.
    from ..pipeline_fila_video import OPTIONS_OF_PIPELINE

    without_effect = OPTIONS_OF_PIPELINE - OF_ANSWERS | {"num_return_sequences", "return_scenes", "timeout", "tools"}
    given = {**options, **(options.get("generate_kwargs") or {}), **(options.get("processor_kwargs") or {})}
    if others := [f"`{name}`" for name in sorted(without_effect) if given.get(name) is not None]:
        raise ValueError(f"The answers are text alone, one a question: leave out {', '.join(others)}.")
    check_counts(max_new_tokens=given.get("max_new_tokens"))


__all__ = ["check_counts", "check_options", "check_questions"]
