"""Chats and batches as people write them, brought into the one form that the processor and the pipeline read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from itertools import chain, combinations
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging
from transformers.utils.chat_template_utils import Chat, render_jinja_template

from .encoded_video_fila_video import EncodedVideo
from .video_inputs_fila_video import (
    CLIP_KEYS,
    HeldVideo,
    check_columns,
    check_video_keys,
    clip_of,
    decoded,
    flatten_videos,
    row_of_dataset,
    videos_of_rows,
)
from .video_reading_fila_video import VideoFrames, VideoSegment

logger = logging.get_logger(__name__)

ROLES = ("system", "user", "assistant")
# What is a video and can be nothing else; a list may also hold chats.
VIDEO_TYPES = (str, Path, bytes, np.ndarray, torch.Tensor, Image.Image, VideoFrames, VideoSegment, EncodedVideo)
# The keys under which a block of a kind may hold its medium, as transformers and OpenAI name them.
MEDIA_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path", "bytes", "video_url"),
}
# Keys that can hold nothing but media, with the kind of block for each; other clients put some of them beside a text.
KINDS = {"image": "image", "images": "image", "image_url": "image"}
KINDS |= {"video": "video", "videos": "video", "video_url": "video"}
# What other programs call a medium. Blocks that mark its place alone have keys of any other kind.
UNREAD_KEYS = ("file", "base64", "data", "img", "src", "source", "uri", "frames")
# What OpenAI's clients put beside the `content` of an answer.
UNREAD_OF_MESSAGE = ("tool_calls", "function_call", "refusal")


def normalize_chat(messages: Any) -> list[dict]:
    """
    One chat in the form that the template reads; what is given stays as it is.

    A block without a `type` gets the one that its key names, `image_url` and `video_url` become images and videos, and
    a video with `video_start` or `video_end` (seconds) becomes that clip. Keys that hold `None` and texts that are
    empty beside others are left out.

    Args:
        messages (`list[dict]`):
            Each with a `role`, one of "system", "user" and "assistant", and a `content`: a text, or a list of blocks.
            A dictionary that has these as its `messages`, as rows of data sets are, is such a chat too.

    Returns:
        `list[dict]`: Messages whose `content` is a list of blocks of the types text, image and video; of many chat
        templates a text alone would get lost.

    Raises:
        ValueError: If there is no message, one is empty or malformed or has calls of tools, or a text is not valid
        Unicode.
    """
    messages = _messages_of(messages)
    if not isinstance(messages, (list, tuple)):
        raise ValueError(f"A chat is a list of messages, got {_named(messages)}: pass a list.")
    if not messages:
        raise ValueError("A chat has no messages: ask something.")
    chat = [normalize_message(message) for message in messages]
    if not any(_texts(message["content"]) for message in chat if message["role"] == "user"):
        raise ValueError("A chat has no question: add a text to the `content` of a user's message.")
    return chat


def normalize_chats(conversation: Any, template: str | None = None) -> tuple[list[list[dict]], bool]:
    """
    One chat or several in the form of [`normalize_chat`], and whether it was several. Videos are held together:
    segments and frames that were read stay what they are.
    """
    is_batch = (isinstance(conversation, (list, tuple)) or is_column(conversation)) and len(conversation) > 0
    is_batch = is_batch and isinstance(_messages_of(conversation[0]), (list, tuple))
    chats = [normalize_chat(chat) for chat in (conversation if is_batch else [conversation])]
    wanted = _roles_of_strings(template) if isinstance(template, str) else ()
    for message in chain.from_iterable(chats):
        for block in message["content"]:
            if "video" in block:
                block["video"] = HeldVideo(block["video"])
        if message["role"] in wanted and all(block["type"] == "text" for block in message["content"]):
            message["content"] = "".join(_texts(message["content"]))
    return chats, is_batch


def _messages_of(chat: Any) -> Any:
    """The messages in transformers' `Chat`, or in a row of a data set."""
    return chat["messages"] if isinstance(chat, dict) and [*chat] == ["messages"] else getattr(chat, "messages", chat)


def _named(value: Any) -> str:
    return f"{type(value).__name__}{' with ' + ', '.join(map(str, value)) if isinstance(value, dict) else ''}"


@lru_cache(maxsize=32)
def _roles_of_strings(template: str) -> tuple[str, ...]:
    """Whose messages a chat template wants as strings: of blocks, it writes Python's form of a list, or fails."""
    tokens = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")
    # Some templates know no system.
    for roles in (("system", "user", "assistant"), ("user", "assistant")):
        words = {role: f"words of {role}" for role in roles}
        for wanted in chain.from_iterable(combinations(roles, count) for count in range(len(roles) + 1)):
            blocks = {role: [{"type": "text", "text": text}] for role, text in words.items() if role not in wanted}
            chat = [{"role": role, "content": blocks.get(role, text)} for role, text in words.items()]
            with suppress(Exception):  # whatever it refuses here, it refuses when it is used
                ((written,), *_) = render_jinja_template(conversations=[chat], chat_template=template, **tokens)
                if all(text in written for text in words.values()) and "'type': 'text'" not in written:
                    return wanted
    return ()


def _fields(item: Any) -> Any:
    """A message or a block that is an object of a dataclass, as the dictionary of its fields."""
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    return item


def normalize_message(message: Any) -> dict:
    """One message of [`normalize_chat`]."""
    message = _fields(message)
    if not isinstance(message, dict):
        raise ValueError(f"A message is a dictionary with `role` and `content`, got {type(message).__name__}.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise ValueError(f"A role is one of {', '.join(ROLES)}, got {_short(role)}.")
    for name, kind in KINDS.items():
        if not _is_empty(message.get(name)):
            raise ValueError(
                f"A message has `{name}` beside its `content`: put it into the `content`, as {_example(kind)}."
            )
    for name in UNREAD_OF_MESSAGE:
        if message.get(name):
            raise ValueError(
                f"A message has `{name}`, of which nothing is read: put what was said into its `content`."
            )
    if isinstance(content, (str, dict, NoneType)):
        content = ["" if content is None else content]
    if not isinstance(content, (list, tuple)):
        raise ValueError(f"The `content` of a message is a text or a list of blocks, got {type(content).__name__}.")
    content = [_normalize_block(block) for block in content]
    texts = _texts(content)
    if any(text.strip() for text in texts):
        # Some clients put an empty text beside the question.
        content = [block for block in content if block["type"] != "text" or block["text"]]
    elif role == "user" and (texts or not content):
        raise ValueError("A question is empty: ask something.")
    return {**{name: value for name, value in message.items() if value is not None}, "content": content}


def _texts(content: str | list[dict]) -> list[str]:
    """The texts in the content of a message."""
    return [content] if isinstance(content, str) else [block["text"] for block in content if block["type"] == "text"]


def _normalize_block(block: Any) -> dict:
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    block = _fields(block)
    if not isinstance(block, dict):
        raise ValueError(f"A content block is a dictionary with a `type`, got {type(block).__name__}.")
    block = {name: value for name, value in block.items() if value is not None}
    kind = block.get("type")
    if kind is None:
        named = [name for name in ("text", "image", "image_url", "video", "video_url") if name in block]
        if len(named) != 1:
            keys = ", ".join(map(_short, block)) or "no keys"
            raise ValueError(f"A content block needs a `type`: text, image or video; this one has {keys}.")
        kind = named[0]
    kind = {"image_url": "image", "video_url": "video", "input_text": "text"}.get(kind, kind)
    if kind not in ("text", "image", "video"):
        raise ValueError(f"A content block is of type text, image or video, got: {_short(kind)}.")
    for name, other in (*KINDS.items(), ("text", "text")):  # what belongs into another block would be lost
        if name not in (kind, f"{kind}_url") and not _is_empty(block.get(name)):
            raise ValueError(
                f"A block of type {kind} also has `{name}`: put it into a block of its own, as {_example(other)}."
            )
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise ValueError(f"A block of type text holds its text as `text`, got {_short(block.get('text'))}.")
        check_text(block["text"])
        return {**block, "type": "text"}
    media = [block[name] for name in MEDIA_KEYS[kind] if name in block]
    if not media:
        if unread := [name for name in UNREAD_KEYS if not _is_empty(block.get(name))]:
            raise ValueError(
                f"A block of type {kind} has no {kind}: nothing is read from its {', '.join(map(_short, unread))}. "
                f"Give it as {_example(kind)}."
            )
        return {"type": kind}  # its medium comes by another way
    if kind == "image" and len(media) > 1:
        named = " and ".join(f"`{name}`" for name in MEDIA_KEYS["image"] if name in block)
        raise ValueError(f"An image has one source, but this one has {named}: leave out all but one.")
    if kind == "image":
        for name in block.keys() - {*MEDIA_KEYS["image"], "type", "detail"}:
            logger.warning_once(f"`{name}` of an image is not read; pass options to the processor or the pipeline.")
    medium = media[0]
    if isinstance(medium, dict) and set(medium) <= {"url", "detail"} and "url" in medium:
        medium = medium["url"]  # as OpenAI nests it
    if isinstance(medium, str):
        check_text(medium)
        medium = decoded(medium, kind)
    if kind == "video":
        check_video_keys(block)
        span = {name: block[name] for name in CLIP_KEYS if name in block}
        medium = clip_of({**medium, **span} if isinstance(medium, dict) else {"video": medium, **span})
    return {"type": kind, "url" if isinstance(medium, str) and "://" in medium else kind: medium}


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (str, list, tuple)) and not value)


def _example(kind: str) -> str:
    return f'{{"type": "{kind}", "{kind}": …}}'


def check_text(text: str) -> None:
    """
    Raises:
        ValueError: If a text is not valid Unicode: half a surrogate pair, or bytes of another encoding.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"A text is not valid Unicode: character {error.start} is {text[error.start]!r}, half a surrogate pair or "
            "a byte that is not UTF-8. Decode or remove it."
        ) from error


def check_prompts(text: list[str], media: dict[str, tuple[str, list | None]]) -> None:
    """
    Args:
        text (`list[str]`): The prompts.
        media (`dict`): Under `"images"` and `"videos"`, their placeholder and what was passed of them.

    Raises:
        ValueError: If a prompt is empty or no text, or the prompts have another number of placeholders.
    """
    for sample in text:
        if not isinstance(sample, str):
            raise ValueError(f"`text` must be a string or a list of strings, got {type(sample).__name__} in it.")
        check_text(sample)
        if not sample.strip():
            raise ValueError("`text` has an empty prompt: ask something.")
    for name, (token, given) in media.items():
        found, passed = sum(sample.count(token) for sample in text), len(given or [])
        if found != passed:
            raise ValueError(
                f"The total number of {token} tokens in the prompts should be the same as the number of {name} "
                f"passed: found {found} {token} tokens and {passed} {name}."
            )


def last_questions(chats: list[list[dict]]) -> list[str]:
    """For each video of normalized chats what the last user says, which no prompt tells in every template."""
    questions = []
    for chat in chats:
        blocks = [block for message in chat if not isinstance(message["content"], str) for block in message["content"]]
        questions += [last_question(chat)] * sum(block["type"] == "video" for block in blocks)
    return questions


def last_question(chat: list[dict]) -> str:
    """What the last user of a normalized chat says."""
    asked = [message["content"] for message in chat if message["role"] == "user"]
    content = asked[-1] if asked else ""
    if isinstance(content, str):
        return content.strip()
    # Blocks of text follow each other without a gap.
    return "".join(block["text"] if block["type"] == "text" else " " for block in content).strip()


def check_control_tokens(chat: list[dict], tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ValueError: If a text of a normalized chat contains a control or placeholder token, which users may not write.
    """
    for message in chat:
        # Blocks of text follow each other without a gap, and could make up a token together.
        text = "".join(_texts(message["content"]))
        for token in _control_tokens(tokenizer):
            if token in text:
                raise ValueError(
                    f"A text contains {token!r}, which is a control token of the model and not for users to write: "
                    "remove it."
                )


def without_control_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A text of the model's own, with a space in what it spells of control tokens, which is then plain text."""
    for token in _control_tokens(tokenizer):
        spaced = f"{token[:1]} {token[1:]}"
        text = text.replace(token, "" if token in spaced else spaced)
    return text


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


class NumberedInput:
    """One of several inputs, with its number from 0, so that an error can name it, and options for it alone."""

    def __init__(self, number: int, content: Any) -> None:
        self.number, self.content = number, content
        self.options: dict[str, Any] = {}


class _Rows(Dataset):
    """The inputs that `make` gives of the rows of something that has a length, read when their turn comes."""

    def __init__(self, rows: Sequence, make: Callable[[Any], Any]) -> None:
        self.rows, self.make = rows, make

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> NumberedInput:
        try:
            return NumberedInput(index, self.make(self.rows[index]))
        except (ValueError, OSError) as error:  # which is this row's alone, and is raised or noted with it
            return NumberedInput(index, error)
        except RuntimeError as error:  # of torchcodec, which opens the videos of a column
            return NumberedInput(index, ValueError(f"The row cannot be read: {error}"))


def _ask(text: str, video: Any) -> dict[str, Any]:
    return {"videos": video, "text": text}


def is_column(values: Any) -> bool:
    """Whether it is a column of `datasets`, which is no list but like one."""
    return isinstance(values, Sequence) and not isinstance(values, (*VIDEO_TYPES, list, tuple, bytearray, memoryview))


def _is_iterator(values: Any) -> bool:
    return isinstance(values, Iterator) and not hasattr(values, "read")  # a file, too, gives its lines


def _streamed(values: Any) -> Any:
    """What can only be gone through, such as a column of a streamed dataset, as an iterator; others as they are."""
    is_sized = hasattr(values, "__len__") or isinstance(values, VIDEO_TYPES)
    has_rows = getattr(values, "column_names", None) is not None or hasattr(values, "read")
    return iter(values) if isinstance(values, Iterable) and not is_sized and not has_rows else values


def _each(values: Any, make: Callable[[Any], Any]) -> Any:
    """What [`Pipeline.__call__`] takes of several inputs: a list, a generator or a dataset of numbered ones."""
    if isinstance(values, (list, tuple)):
        return [NumberedInput(number, make(value)) for number, value in enumerate(values)]
    if _is_iterator(values):
        return (NumberedInput(number, make(value)) for number, value in enumerate(values))
    return _Rows(values, make)


def _same(value: Any) -> Any:
    return value


def chat_of_input(inputs: Any) -> tuple[list[dict], Any]:
    """
    The messages of one input, and the prompt that the result repeats.

    Raises:
        ValueError: If it is neither a chat, nor a question, nor a dictionary of `videos` and `text`.
    """
    inputs = inputs if isinstance(inputs, Chat) else _messages_of(inputs)
    if isinstance(inputs, (list, tuple)) and not inputs:
        raise ValueError("A chat has no messages: ask something.")
    if isinstance(inputs, (list, tuple)) and isinstance(inputs[0], dict) and "role" in inputs[0]:
        inputs = Chat(list(inputs))
    if isinstance(inputs, Chat):
        *before, last = inputs.messages
        if last["role"] == "assistant":
            last = normalize_message(last)
            begun = [block for block in last["content"] if block["type"] != "text" or block["text"]]
            # The base class continues the last block of a message.
            if begun and begun[-1]["type"] != "text":
                raise ValueError("An answer that is begun ends with a text, which the model goes on with: add one.")
            # An empty answer is not begun.
            inputs = Chat([*before, {**last, "content": begun}] if begun or not before else before)
        return inputs.messages, inputs
    if isinstance(inputs, str):
        inputs = {"text": inputs}
    if isinstance(inputs, dict) and "role" in inputs:
        raise ValueError(
            "A chat is a list of messages, and this is one message: pass `[message]`. Generators give chats."
        )
    if not isinstance(inputs, dict) or not isinstance(inputs.get("text"), str):
        raise ValueError(
            "An input is a chat, a question, or a dictionary with `videos` and a question as `text`, got "
            f"{_named(inputs)}."
        )
    if not inputs["text"].strip():
        raise ValueError("The question is empty: ask something.")
    unknown = inputs.keys() - {"videos", "text", "subtitles"}
    if unknown:
        raise ValueError(
            f"An input has `videos`, `text` and `subtitles`, but this one also has {', '.join(sorted(unknown))}."
        )
    videos = [] if inputs.get("videos") is None else flatten_videos(inputs["videos"])
    if not videos and "videos" in inputs:
        raise ValueError("There is no video in `videos`: leave it out to ask without one.")
    content = [{"type": "video", "video": video} for video in videos] + [{"type": "text", "text": inputs["text"]}]
    return [{"role": "user", "content": content}], inputs["text"]


def pipeline_inputs(videos: Any, text: Any) -> Any:
    """
    The arguments of a call of the pipeline as one input, or as several that are numbered.

    Args:
        videos, text: As [`VideoTextToTextPipeline.__call__`] describes them.

    Returns:
        One chat or dictionary with `videos` and `text`; or a list, a generator or a `Dataset` of `NumberedInput`.

    Raises:
        ValueError: If there is nothing to answer, or videos and questions differ in number.
    """
    videos, text = _streamed(videos), _streamed(text)
    if (isinstance(text, (list, tuple)) or is_column(text)) and not len(text):
        raise ValueError("`text` is an empty batch: pass at least one question.")
    if text is None or videos is None:
        inputs = videos if text is None else text
        is_many = isinstance(inputs, (list, tuple)) or is_column(inputs)
        if inputs is None or (is_many and not len(inputs)):
            raise ValueError("There is nothing to answer: pass a video with `text=`, or a chat.")
        columns = getattr(inputs, "column_names", None)
        if columns is not None:
            check_columns(columns)
            return _each(inputs if hasattr(inputs, "__len__") else iter(inputs), row_of_dataset)
        # One chat is a list of messages, several inputs are a list too: the first item tells which.
        first = inputs[0] if is_many else inputs
        if text is None and isinstance(first, VIDEO_TYPES):
            raise ValueError("There is a video but no question: pass one as `text=`, alone if it is about no video.")
        is_chat = isinstance(first, dict) and "role" in first and not is_column(inputs)
        is_many = is_many or _is_iterator(inputs) or isinstance(inputs, Dataset)
        return _each(inputs, _same) if is_many and not is_chat else inputs
    if isinstance(text, str):
        if isinstance(videos, (list, tuple)) and videos and isinstance(videos[0], dict) and "role" in videos[0]:
            raise ValueError("A chat holds its own question: pass the chat alone, or videos with `text`.")
        if _is_iterator(videos) or is_column(videos) or isinstance(videos, Dataset):
            return _each(videos, partial(_ask, text))
        return {"videos": videos, "text": text}
    if not isinstance(text, (list, tuple)) and not is_column(text):
        raise ValueError(f"`text` must be a string, a list of strings or a chat, got {type(text).__name__}.")
    if isinstance(text[0], (dict, list, tuple)):
        raise ValueError("Videos belong into a chat's `content`: pass the chat alone, or plain questions.")
    if not is_column(videos) and videos_of_rows(videos, len(text)) is None:
        videos = flatten_videos(videos)
    if len(videos) != len(text):
        raise ValueError(f"`videos` has {len(videos)} videos and `text` {len(text)} questions: pass one for each.")
    return [NumberedInput(number, _ask(*pair)) for number, pair in enumerate(zip(text, videos, strict=True))]


def _short(value: Any) -> str:
    return repr(value)[:80]


__all__ = [
    "NumberedInput",
    "chat_of_input",
    "check_control_tokens",
    "check_prompts",
    "check_text",
    "is_column",
    "last_question",
    "last_questions",
    "normalize_chat",
    "normalize_chats",
    "normalize_message",
    "pipeline_inputs",
    "without_control_tokens",
]
