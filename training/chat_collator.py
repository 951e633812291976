"""Rows of chats become batches: what TRL's `SFTTrainer` and a plain `Trainer` need to train on videos."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin

from ..chat_inputs_fila_video import normalize_message
from .parsing import TrainingError

IGNORED = -100


class ChatCollator:
    """
    Reads the images and videos of chats, and labels what the assistant says. A trainer must leave the rows alone:
    `remove_unused_columns=False`, and for TRL `dataset_kwargs={"skip_prepare_dataset": True}`.

    Args:
        processor (`FilaVideoProcessor`):
            The model's. Bound to the model it selects scenes by the model's features, else by thumbnails, which also
            works in a data loader's workers.
        **options:
            Of the processor's call, such as `num_scenes=8`.

    Raises:
        ValueError: If the processor's chat template does not mark what the assistant says.

    Example:

    ```python
    >>> rows = [{"messages": [
    ...     {"role": "user", "content": [{"type": "video", "path": "a.mp4"}, {"type": "text", "text": "What?"}]},
    ...     {"role": "assistant", "content": [{"type": "text", "text": "a green ring"}]},
    ... ]}]
    >>> ChatCollator(processor, num_scenes=8)(rows).keys()
    dict_keys(['input_ids', 'attention_mask', 'pixel_values_videos', 'video_num_scenes', 'labels'])
    ```
    """

    def __init__(self, processor: ProcessorMixin, **options: Any) -> None:
        check_answers_are_marked(processor)
        self.processor, self.options = processor, options

    def __call__(self, rows: list[Mapping[str, Any]]) -> BatchFeature:
        """
        Args:
            rows (`list[Mapping[str, Any]]`):
                Each with `messages`, or with `prompt` and `completion`: lists of messages. Of `messages` every turn of
                the assistant is learned, of a `completion` its own turns alone.

        Returns:
            `BatchFeature`: The model's inputs, padded on the right, and `labels` `(batch_size, sequence_length)`, -100
            where nothing is learned.

        Raises:
            ValueError: If a row has neither form, nothing to learn, or an answer to learn that is empty or has media;
            all say which row of the batch.
        """
        chats, prompts = [], []
        for index, row in enumerate(rows):
            if row.get("messages"):
                chats.append(_without_missing_keys(row["messages"]))
                prompts.append(None)
            elif isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), list):
                prompt = _without_missing_keys(row["prompt"])
                chats.append(prompt + _without_missing_keys(row["completion"]))
                prompts.append(prompt)
            else:
                raise ValueError(
                    f"Row {index} of the batch has the columns {sorted(row)}, but a row needs `messages`, or `prompt` "
                    "and `completion`, each a list of messages. Trainers drop such columns unless "
                    "`remove_unused_columns=False` is set."
                )
            for message in chats[-1][len(prompts[-1] or ()) :]:
                if message["role"] == "assistant":
                    _check_answer(index, message)
        batch = self.processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            return_assistant_tokens_mask=True,
            processor_kwargs={"padding": True, "padding_side": "right"} | self.options,
        )
        learned = torch.as_tensor(batch.pop("assistant_masks")).bool()
        for index, prompt in enumerate(prompts):
            if prompt is not None and any(message["role"] == "assistant" for message in prompt):
                # What the assistant said in the prompt is given: only the turns of the completion are learned.
                given = sum(message["role"] == "assistant" for message in prompt)
                learned[index] &= _turn_numbers(learned[index]) > given
            if not learned[index].any():
                raise ValueError(
                    f"Row {index} of the batch has no turn of the assistant to learn from: its messages have the "
                    f"roles {[message['role'] for message in chats[index]]}."
                )
        for token in (self.processor.image_token_id, self.processor.video_token_id):  # newlines are of the same ids
            learned &= batch["input_ids"] != token
        batch["labels"] = batch["input_ids"].masked_fill(~learned, IGNORED)
        return batch


def check_answers_are_marked(processor: ProcessorMixin) -> None:
    """
    Raises:
        TrainingError: If nothing could be learned, since the chat template does not tell the assistant's words.
    """
    template = processor.chat_template
    template = template.get("default") if isinstance(template, dict) else template
    if not re.search(r"\{%[-+]?\s*generation\b", template or ""):
        raise TrainingError(
            "The chat template of the model marks no answers of the assistant, so that nothing can be learned: in its "
            "chat_template.jinja, put {% generation %} before an answer and {% endgeneration %} behind what ends it."
        )


def _check_answer(index: int, message: dict) -> None:
    blocks = normalize_message(message)["content"]
    if any(block["type"] != "text" for block in blocks):
        raise ValueError(
            f"Row {index} of the batch has an image or a video in a turn of the assistant: media stand in questions, "
            "not in answers."
        )
    if not any(block["text"].strip() for block in blocks):
        raise ValueError(
            f"Row {index} of the batch has a turn of the assistant without words: there is nothing to learn from it."
        )


def _without_missing_keys(messages: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as they were written: `datasets` gives every block the keys of all blocks, with None where unset."""
    cleaned = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [{key: value for key, value in block.items() if value is not None} for block in content]
        cleaned.append({"role": message["role"], "content": content})
    return cleaned


def _turn_numbers(learned: torch.BoolTensor) -> torch.LongTensor:
    """Which run of learned tokens each token of `(sequence_length,)` is in or follows, counted from 1."""
    before = torch.cat([learned.new_zeros(1), learned[:-1]])
    return (learned & ~before).cumsum(0)


__all__ = ["ChatCollator", "check_answers_are_marked"]
