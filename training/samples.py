"""One record becomes one training sample: chat, frames, token ids, and labels on the assistant's turns alone."""

import bisect
import random
import re
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..chat_inputs_fila_video import check_control_tokens, last_question
from ..long_video.annotations import without_nan
from ..long_video.records import TIME_PLACEHOLDER, record_source
from ..processing_fila_video import FilaVideoProcessor
from .chat_collator import IGNORED, check_answers_are_marked
from .data import RecordSet
from .settings import AnswerNoise, Sampling, TrainingError
from .unseen_pairs import UnseenPairs

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACEHOLDER = re.compile(r"(<image>|<video>)\n?")


class SampleEncoder:
    """
    Encodes records in the data loader's workers.

    Args:
        processor (`FilaVideoProcessor`):
            The model's `FilaVideoProcessor`, without a frame encoder.
        sampling (`Sampling`):
            Which frames are taken.
        seed (`int`, *optional*, defaults to `0`):
            Decides what `sampling` leaves open.
        isolate_turns (`bool`, *optional*, defaults to `False`):
            Each question with its answer sees the system's and the visual tokens and itself alone, as if it were the
            only one.
        answer_noise (`AnswerNoise`, *optional*):
            Which words of the answers are others in `input_ids`, though not in `labels`.
        unseen_pairs (`UnseenPairs`, *optional*):
            Words that never come together, of which one is no choice beside the other.

    Raises:
        TrainingError: If `sampling` cannot be, the chat template marks no answers, or a noisy word is no one token.
    """

    def __init__(
        self,
        processor: FilaVideoProcessor,
        sampling: Sampling,
        seed: int = 0,
        isolate_turns: bool = False,
        answer_noise: AnswerNoise | None = None,
        unseen_pairs: UnseenPairs | None = None,
    ) -> None:
        self.processor, self.sampling, self.seed, self.isolate_turns = processor, sampling, seed, isolate_turns
        self.answer_noise, self.unseen_pairs = answer_noise or AnswerNoise(), unseen_pairs
        check_answers_are_marked(processor)
        self._check_sampling()
        self._noisy_ids = [_word_id(processor.tokenizer, word) for word in self.answer_noise.words]
        self._uses_whole_pool = processor.video_processor.scene_settings().uses_whole_pool

    def __call__(self, record: dict, records: RecordSet, key: tuple[int, int, int]) -> dict:
        """
        Returns:
            `input_ids` and `labels` `(length,)`, -100 where nothing is learned; `turn_starts` (with isolated turns:
            the prefix ends at the first); with unseen pairs `left_out` `(num_left_out, 2)`, positions of labels with a
            token that is no choice there; and of the visuals `pixel_values` `(num_images, 3, height, width)`,
            `pixel_values_videos` `(num_videos, num_frames, 3, height, width)`, `video_num_scenes` `(num_videos,)`, and
            as the encoding of frames needs them `video_background_places` `(num_videos, num_background)` and
            `video_question_ids` `(num_videos, num_tokens)`, padded with -1.

        Raises:
            ValueError: If the record is no such chat, or a medium cannot be read.
        """
        chat, images, videos = read_chat(record, records)
        inputs, replacements = self._visuals(images, videos, key, last_question(chat))
        chats = split_turns(chat) if self.isolate_turns else [chat]
        rows = [self._tokens(chat, replacements) for chat in chats]
        ids, labels, starts = (*rows[0], []) if len(rows) == 1 else join_turns(rows)
        ids = self._with_noise(ids, labels, random.Random(f"noise {self.seed} {key}"))
        if all(label == IGNORED for label in labels):
            raise ValueError("the conversation has no turn of the assistant to learn from")
        longest = self.processor.tokenizer.model_max_length
        if len(ids) > longest:
            raise ValueError(f"the sample takes {len(ids)} tokens, but the model's context has {longest}")
        if self.unseen_pairs is not None:
            left_out = self.unseen_pairs.left_out(ids, labels)
            inputs["left_out"] = torch.tensor(left_out, dtype=torch.long).reshape(-1, 2)
        return {**inputs, "input_ids": torch.tensor(ids), "labels": torch.tensor(labels), "turn_starts": starts}

    def _visuals(self, images: list, videos: list, key: tuple, question: str) -> tuple[dict, dict[str, list[str]]]:
        """The model's visual inputs, and what stands for each placeholder: of the images first, then of the videos."""
        inputs, replacements = {}, {"image": [], "video": []}
        if images:
            inputs["pixel_values"] = self.processor(images=images, return_tensors="pt")["pixel_values"]
            replacements["image"] = [self.processor.replace_image_token(inputs, index) for index in range(len(images))]
        if videos:
            settings = self._draw(key)
            outputs = self.processor(
                videos=videos, question=question, return_scenes=True, return_tensors="pt", **settings
            )
            inputs |= {
                name: outputs[name] for name in self.processor.video_processor.model_input_names if name in outputs
            }
            replacements["video"] = [
                self.processor.replace_video_token(outputs, index) for index in range(len(videos))
            ]
        return inputs, replacements

    def _check_sampling(self) -> None:
        """Before the first sample is drawn, which may be long after the start."""
        reads = [name for name in ("num_frames", "fps") if getattr(self.processor.video_processor, name) is not None]
        if reads and (pool := self._pool()):
            raise TrainingError(
                f"`sampling.{next(iter(pool))}` has no effect where the processor has `{reads[0]}`, which says what "
                "is read: leave one of them out."
            )
        for selection in self._selections():
            try:
                self.processor.video_processor.scene_settings(selection=selection, **self._pool())
            except ValueError as error:
                raise TrainingError(f"`sampling`: {error}") from error
            if selection == "question" and self.processor.frame_encoding == "scenes":
                raise TrainingError(
                    "`sampling.selection` cannot be question in training, where frames are chosen before the model "
                    "sees them: take another one."
                )

    def _selections(self) -> list[str]:
        selection = self.sampling.selection
        return selection if isinstance(selection, list) else [selection]

    def _pool(self) -> dict:
        pool = {name: getattr(self.sampling, name) for name in ("candidate_fps", "min_candidates", "max_candidates")}
        return {name: value for name, value in pool.items() if value is not None}

    def num_scenes(self, key: tuple[int, int, int]) -> int:
        """How many scenes a video of that sample has at most."""
        return self._draw(key)["num_scenes"]

    def _draw(self, key: tuple) -> dict:
        """The settings of one sample; the same record in the same epoch draws the same."""
        generator = random.Random(f"{self.seed} {key}")
        sampling, processor = self.sampling, self.processor
        settings = {}
        for name in ("num_scenes", "selection"):
            value = getattr(sampling, name)
            value = getattr(processor, name) if value is None else value
            if isinstance(value, dict):  # log-uniform
                value = round(value["min"] * (value["max"] / value["min"]) ** generator.random())
            settings[name] = generator.choice(value) if isinstance(value, list) else value
        pool = self._pool()
        if not pool and settings["selection"] == "uniform" and not self._uses_whole_pool:
            return settings | {"num_frames": settings["num_scenes"] * processor.scene_size}
        return settings | pool

    def _with_noise(self, ids: list[int], labels: list[int], generator: random.Random) -> list[int]:
        """The token ids, in which a share of the noisy words that are learned is another of them."""
        if not self.answer_noise.share:
            return ids
        return [
            generator.choice([other for other in self._noisy_ids if other != token])
            if token in self._noisy_ids and label != IGNORED and generator.random() < self.answer_noise.share
            else token
            for token, label in zip(ids, labels, strict=True)
        ]

    def _tokens(self, chat: list[dict], replacements: dict[str, list[str]]) -> tuple[list[int], list[int]]:
        """Token ids and labels of one chat, as `processor.apply_chat_template` would give them."""
        processor = self.processor
        check_control_tokens(chat, processor.tokenizer)
        (text,), (spans,) = render_jinja_template(
            [chat],
            chat_template=processor.chat_template,
            return_assistant_tokens_mask=True,
            **processor.tokenizer.special_tokens_map,
        )
        tokens = {"image": processor.image_token, "video": processor.video_token}
        text, spans = _expand(text, spans, replacements, tokens)
        bos = processor.tokenizer.bos_token
        encoded = processor.tokenizer(
            text, return_offsets_mapping=True, add_special_tokens=bos is None or not text.startswith(bos)
        )
        ids, labels = encoded["input_ids"], [IGNORED] * len(encoded["input_ids"])
        begins = [begin for begin, _ in encoded["offset_mapping"]]
        visual = (processor.image_token_id, processor.video_token_id)  # newlines are of the same ids
        for start, end in spans:
            for at in range(bisect.bisect_left(begins, start), bisect.bisect_left(begins, end)):
                labels[at] = IGNORED if ids[at] in visual else ids[at]
        return ids, labels


def _word_id(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """The one token of a word within a sentence."""
    ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise TrainingError(f"The words of `answer_noise` must be one token each, but {word!r} has {len(ids)}.")
    return ids[0]


def _expand(
    text: str, spans: list[tuple[int, int]], replacements: dict[str, list[str]], tokens: dict[str, str]
) -> tuple[str, list[tuple[int, int]]]:
    """The text with the visuals' own tokens in the placeholders' place, and the spans moved with it."""
    pattern = re.compile("|".join(f"(?P<{name}>{re.escape(token)})" for name, token in tokens.items()))
    used, pieces, at = dict.fromkeys(tokens, 0), [], 0
    ends, shifts, shift = [], [0], 0
    for found in pattern.finditer(text):
        name = found.lastgroup
        new = replacements[name][used[name]]
        used[name] += 1
        pieces += [text[at : found.start()], new]
        at = found.end()
        shift += len(new) - len(found[0])
        ends.append(at)
        shifts.append(shift)
    pieces.append(text[at:])
    moved = [tuple(place + shifts[bisect.bisect_right(ends, place)] for place in span) for span in spans]
    return "".join(pieces), moved


def read_chat(record: dict, records: RecordSet) -> tuple[list[dict], list, list]:
    """
    A record as a chat, and its images and videos, in the order of their placeholders.

    Raises:
        ValueError: If it is no chat, or has another number of placeholders than of media.
    """
    if not isinstance(record, dict):
        raise ValueError(f"the record is no object but of the type {type(record).__name__}")
    record = without_nan(record)
    images, segments = _media(record, "image", records), record.get("segments")
    if segments:
        _check_segments(segments)
        videos = [record_source(record, records.media, records.joined)]
    else:
        videos = _media(record, "video", records)
    turns = record.get("conversations") or record.get("messages")
    if not isinstance(turns, (list, tuple)) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("`conversations` must be a list of turns with `from` and `value`")
    turns = [(_given(turn, "from", "role"), _given(turn, "value", "content")) for turn in turns]
    placed, chat = {"image": 0, "video": 0}, []
    for role, text in turns:
        if not isinstance(role, str) or role not in ROLES or not isinstance(text, str):
            raise ValueError(f"a turn is of human, gpt or system and has a text, got {role!r} and {str(text)[:80]!r}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"a turn of {role} holds half a surrogate pair, no character: {text[:80]!r}") from None
        if ROLES[role] == "assistant":
            if found := _PLACEHOLDER.search(text):
                raise ValueError(f"a turn of {role} holds {found[1]}: media stand in questions, not in answers")
            if not text.strip():
                raise ValueError(f"a turn of {role} has no words: there is nothing to learn from it")
        if segments and ROLES[role] == "user":  # the processor writes the sentence itself
            text = text.replace(f"{TIME_PLACEHOLDER}\n", "")
        if TIME_PLACEHOLDER in text:
            raise ValueError(
                f"the text of {role} holds {TIME_PLACEHOLDER}, which can only be a line of a question, and that in a "
                "record with `segments`"
            )
        chat.append({"role": ROLES[role], "content": _blocks(text, bool(images), placed)})
    total = {"image": len(images), "video": len(videos)}
    if placed == {"image": 0, "video": 0} and sum(total.values()):
        # LLaVA's sets leave the placeholder out at times; the medium then comes first.
        first = next((message for message in chat if message["role"] == "user"), None)
        if first is not None:
            first["content"][:0] = [{"type": "image"}] * len(images) + [{"type": "video"}] * len(videos)
            placed = total
    if placed != total:
        raise ValueError(
            f"the text has {placed['image']} placeholders of images and {placed['video']} of videos, but the record "
            f"has {total['image']} images and {total['video']} videos"
        )
    return chat, images, videos


def _given(fields: dict, *names: str) -> Any:
    """The first of them that is not `None`: `datasets` gives every turn the keys of all turns."""
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _check_segments(segments: Any) -> None:
    if not isinstance(segments, (list, tuple)) or not all(isinstance(item, dict) for item in segments):
        raise ValueError("`segments` must be a list of objects with `file`, `start` and `end`")
    kinds = {"file": str, "start": (int, float, NoneType), "end": (int, float, NoneType)}
    for number, item in enumerate(segments, 1):
        for name, kind in kinds.items():
            if name not in item:
                raise ValueError(f"segment {number} has no `{name}`")
            if not isinstance(item[name], kind):
                raise ValueError(f"`{name}` of segment {number} cannot be {item[name]!r}")
        if not item["file"].strip():
            raise ValueError(f"`file` of segment {number} is an empty name")


def _blocks(text: str, has_images: bool, placed: dict[str, int]) -> list[dict]:
    """A turn's text and placeholders. `<image>` stands for a video too, where a record has no images."""
    blocks, at = [], 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > at:
            blocks.append({"type": "text", "text": text[at : found.start()]})
        kind = "image" if found[1] == "<image>" and has_images else "video"
        placed[kind] += 1
        blocks.append({"type": kind})
        at = found.end()
    if at < len(text):
        blocks.append({"type": "text", "text": text[at:]})
    return blocks


def _media(record: dict, kind: str, records: RecordSet) -> list[Any]:
    """What a record names as `image` or `video`, or as a list of them; paths lie under the set's folder of media."""
    named = (record.get(name) for name in (kind, f"{kind}s"))
    # With a blank name or none, some sets mark records of words alone, or of the other key.
    blank = lambda value: value is None or value == [] or (isinstance(value, str) and not value.strip())  # noqa: E731
    found = next((value for value in named if not blank(value)), [])
    media = []
    for item in found if isinstance(found, (list, tuple)) else [found]:
        if isinstance(item, dict) and ("bytes" in item or "path" in item):  # what `datasets` gives undecoded
            item = item["bytes"] if item.get("bytes") is not None else item.get("path")
        if item is None or (isinstance(item, str) and not item.strip()):
            raise ValueError(f"`{kind}` holds an empty name: {str(found)[:80]}")
        if isinstance(item, str) and "://" not in item:
            item = _find(item, str(record.get("data_source") or ""), records.media)
        media.append(item)
    return media


def _find(name: str, data_source: str, folder: Path) -> str:
    """The file in the folder of media, or, as LLaVA-Video-178K lays them out, in its source's folder there."""
    for path in (folder / name, folder / data_source / name):
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f"there is no file {str(folder / name)!r}")


def split_turns(chat: list[dict]) -> list[list[dict]]:
    """
    One chat a question, each with what stands before the first question and with the media.

    Raises:
        ValueError: If questions and answers do not take turns, or media come after the first question's text.
    """
    system = [message for message in chat[:1] if message["role"] == "system"]
    turns = chat[len(system) :]
    roles = [message["role"] for message in turns]
    if roles != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise ValueError("with isolated turns, a question and its answer take turns")
    kinds = [block["type"] for block in turns[0]["content"]]
    count = next((index for index, kind in enumerate(kinds) if kind == "text"), len(kinds))
    later = [block["type"] for message in turns[1:] for block in message["content"]]
    if {"image", "video"} & set(kinds[count:] + later):
        raise ValueError("with isolated turns, images and videos must come before the first question's text")
    media = turns[0]["content"][:count]
    chats = [[*system, *turns[:2]]]
    for question, answer in zip(turns[2::2], turns[3::2], strict=True):
        chats.append([*system, {**question, "content": media + question["content"]}, answer])
    return chats


def join_turns(rows: list[tuple[list[int], list[int]]]) -> tuple[list[int], list[int], list[int]]:
    """
    Rows that begin alike as one: what they share once, then the rest of each.

    Returns:
        Token ids, labels, and where each row's own part begins. It begins before the row's first label, since its
        first token is foretold by nothing that stands before it.
    """
    shared = min(len(ids) for ids, _ in rows)
    first = rows[0][0]
    for ids, labels in rows:
        learned = next((at for at, label in enumerate(labels) if label != IGNORED), len(labels))
        shared = min(shared, max(learned - 1, 0))
        shared = next((at for at in range(shared) if ids[at] != first[at]), shared)
    ids, labels, starts = list(first[:shared]), [IGNORED] * shared, []
    for row_ids, row_labels in rows:
        starts.append(len(ids))
        ids += row_ids[shared:]
        labels += row_labels[shared:]
    return ids, labels, starts


__all__ = ["IGNORED", "SampleEncoder", "join_turns", "read_chat", "split_turns"]
