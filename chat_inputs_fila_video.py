"""Chats as people write them, brought into the one form that the chat template and the processor read."""

import base64
import binascii
from dataclasses import fields, is_dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .video_inputs_fila_video import clip_of

ROLES = ("system", "user", "assistant")
# The keys under which a block of a kind may hold its medium, as transformers and OpenAI name them.
MEDIA_KEYS = {
    "image": ("image", "url", "path", "base64", "image_url"),
    "video": ("video", "url", "path", "bytes", "video_url"),
}


def normalize_chat(messages: Any) -> list[dict]:
    """
    One chat in the form that the template reads; what is given stays as it is.

    A block without a `type` gets the one that its key names, `image_url` and `video_url` become images and videos, and
    a video with `video_start` or `video_end` (seconds) becomes that clip. Keys that hold `None` and texts that are
    empty beside others are left out.

    Args:
        messages (`list[dict]`):
            Each with a `role`, one of "system", "user" and "assistant", and a `content`: a text, or a list of blocks.

    Returns:
        `list[dict]`: Messages whose `content` is a text, or a list of blocks of the types text, image and video.

    Raises:
        ValueError: If there is no message, one is empty or malformed, or a text is not valid Unicode.
    """
    messages = getattr(messages, "messages", messages)  # transformers' `Chat`
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError("A chat has no messages: ask something.")
    return [_normalize_message(message) for message in messages]


def _fields(item: Any) -> Any:
    """A message or a block that is an object of a dataclass, as the dictionary of its fields."""
    if is_dataclass(item) and not isinstance(item, type):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    return item


def _normalize_message(message: Any) -> dict:
    message = _fields(message)
    if not isinstance(message, dict):
        raise ValueError(f"A message is a dictionary with `role` and `content`, got a {type(message).__name__}.")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise ValueError(f"A role is one of {', '.join(ROLES)}, got {_short(role)}.")
    if content is None:
        content = ""
    elif isinstance(content, dict):
        content = [content]
    if isinstance(content, str):
        check_text(content)
    elif isinstance(content, (list, tuple)):
        content = [_normalize_block(block) for block in content]
        # Some clients put an empty text beside the question.
        if any(block["type"] == "text" and block["text"].strip() for block in content):
            content = [block for block in content if block["type"] != "text" or block["text"]]
    else:
        raise ValueError(f"The `content` of a message is a text or a list of blocks, got a {type(content).__name__}.")
    texts = [content] if isinstance(content, str) else [block["text"] for block in content if block["type"] == "text"]
    if role == "user" and (not content or (texts and not any(text.strip() for text in texts))):
        raise ValueError("A question is empty: ask something.")
    return {**{name: value for name, value in message.items() if value is not None}, "content": content}


def _normalize_block(block: Any) -> dict:
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    block = _fields(block)
    if not isinstance(block, dict):
        raise ValueError(f"A content block is a dictionary with a `type`, got a {type(block).__name__}.")
    block = {name: value for name, value in block.items() if value is not None}
    kind = block.get("type")
    if kind is None:
        named = [name for name in ("text", "image", "image_url", "video", "video_url") if name in block]
        if len(named) != 1:
            raise ValueError(f"A content block needs a `type`: text, image or video; this one has {_keys(block)}.")
        kind = named[0]
    kind = {"image_url": "image", "video_url": "video", "input_text": "text"}.get(kind, kind)
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise ValueError(f"A block of type text holds its text as `text`, got {_short(block.get('text'))}.")
        check_text(block["text"])
        return {**block, "type": "text"}
    if kind not in ("image", "video"):
        raise ValueError(f"A content block is of type text, image or video, got: {_short(kind)}.")
    media = [block[name] for name in MEDIA_KEYS[kind] if name in block]
    if not media:
        return {"type": kind}  # its medium comes by another way
    medium = media[0]
    if isinstance(medium, dict) and set(medium) <= {"url", "detail"} and "url" in medium:
        medium = medium["url"]  # as OpenAI nests it
    if isinstance(medium, str):
        medium = _decoded(medium, kind)
    if kind == "video":
        span = {name: block[name] for name in ("video_start", "video_end") if name in block}
        medium = clip_of({**medium, **span} if isinstance(medium, dict) else {"video": medium, **span})
    return {"type": kind, "url" if isinstance(medium, str) and "://" in medium else kind: medium}


def _decoded(medium: str, kind: str) -> str | bytes:
    """The bytes in a `data:` URL; other names as they are."""
    check_text(medium)
    if not medium.startswith("data:"):
        return medium
    head, comma, data = medium.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it is not base64")
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"Cannot read the {kind} in the URL {medium[:40]!r}...: {error}.") from error


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


def check_control_tokens(chat: list[dict], tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Raises:
        ValueError: If a text of a normalized chat contains a control or placeholder token, which users may not write.
    """
    for message in chat:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        # Blocks of text follow each other without a gap, and could make up a token together.
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        for token in tokenizer.added_tokens_decoder.values():
            if token.special and token.content in text:
                raise ValueError(
                    f"A text contains {token.content!r}, which is a control token of the model and not for users "
                    "to write: remove it."
                )


def _keys(block: dict) -> str:
    return ", ".join(map(_short, block)) or "no keys"


def _short(value: Any) -> str:
    return repr(value)[:80]


__all__ = ["check_control_tokens", "check_text", "normalize_chat"]
