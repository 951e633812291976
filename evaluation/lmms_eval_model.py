"""
FiLA-Video as a model of lmms-eval, which finds it by its entry point; see lmms_eval.md.

    python -m lmms_eval --model fila_video --model_args pretrained=FOLDER,num_scenes=32 --tasks videomme --batch_size 4
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.api.task import ConfigurableMessagesTask
from lmms_eval.protocol import ChatMessages
from loguru import logger
from tqdm import tqdm

from ..commands.loading import load_model
from ..encoded_video_fila_video import HANDLING, PIXEL_SETTINGS, POOL_SETTINGS, EncodedVideo
from ..frame_selector_fila_video import SceneSettings
from ..pipeline_fila_video import VideoTextToTextPipeline

# What is decided when a video is encoded; the rest when it is asked about.
ENCODING = {*PIXEL_SETTINGS, *POOL_SETTINGS, *HANDLING, *SceneSettings.__dataclass_fields__}
PLACEHOLDERS = re.compile("<image>|<video>")
# Of a task's settings for generation, those that `generate` takes. The rest is of other models.
GENERATE = ("max_new_tokens", "num_beams", "repetition_penalty", "min_new_tokens")
SAMPLING = ("temperature", "top_p", "top_k")


class FilaVideo(lmms):
    """
    Answers lmms-eval's requests, for tasks that ask by chats.

    Questions about one video follow each other, and it is read and encoded once for all of them. A request whose video
    cannot be read, or whose prompt does not fit, is logged and answered by an empty text; the run goes on.

    Args:
        pretrained (`str`, *optional*): Folder or Hub name of the model; by default the embedded demonstration.
        device (`str`, *optional*): Such as `"cuda"`; by default accelerate's, one for each process.
        batch_size (`int`, *optional*, defaults to 1): Questions answered at once.
        max_batch_size (*optional*): Of lmms-eval; not used.
        on_error (`str`, *optional*, defaults to `"record"`):
            `"raise"` ends the run at the first request that cannot be answered.
        **settings: Of the processor: `num_scenes`, `selection`, `candidate_fps` and others.

    Raises:
        ValueError: If there is no such model, or a setting is unknown.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str | None = None,
        device: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        on_error: str = "record",
        **settings: Any,
    ) -> None:
        super().__init__()
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"`batch_size` must be a positive number, got {batch_size!r}.")
        if on_error not in ("record", "raise"):
            raise ValueError(f"`on_error` is 'record' or 'raise', got {on_error!r}.")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        if device is None or self._world_size > 1:
            device = str(self.accelerator.device)
        self.model, self.processor = load_model(pretrained, device)
        self.pipeline = VideoTextToTextPipeline(model=self.model, processor=self.processor, device=self.model.device)
        self.pipeline._sanitize_parameters(processor_kwargs=None, **settings)  # an unknown name is said before the run
        self.batch_size, self.on_error, self.settings = int(batch_size), on_error, settings
        self._encoded: dict[str, tuple[Any, EncodedVideo]] = {}  # each beside the video that it is of
        self._ignored: set[str] = set()

    def generate_until(self, requests: list[Instance]) -> list[str]:
        rows = [self._row(request) for request in requests]
        return self._answer_all([(chat, options) for chat, options in rows], "answers")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Every round is one question with its own visuals, as the task makes it of the answers before."""
        answers = []
        for request in tqdm(requests, disable=self.rank != 0, desc="rounds"):
            _, doc_to_messages, options, doc_id, task, split = request.args
            doc, given, info, turn = self.task_dict[task][split][doc_id], [], None, doc_to_messages
            messages = turn(doc)
            while True:
                given += self._answer_all([(self._chat(messages), options)], None)
                following = turn(doc, round_idx=len(given), previous_output=list(given), previous_round_info=info)
                if not (isinstance(following, tuple) and len(following) == 4):
                    break
                messages, is_over, _, info = following
                if is_over:
                    break
            answers.append(given)
        return answers

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """
        For each request a pair as its `text`: the loss of its continuation, the mean of its tokens' negative
        log-probabilities, as lmms-eval's own models give it and its tasks take the smallest of; and whether it is what
        would be generated.
        """
        found = []
        for request in tqdm(requests, disable=self.rank != 0, desc="likelihoods"):
            context, target, doc_to_visual, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            continuation = target if isinstance(target, str) else target(doc)
            chat = self._chat(ConfigurableMessagesTask._build_user_turn(doc_to_visual(doc), context))
            try:
                found.append(self._likelihood(self._with_encoded(chat), continuation))
            except (ValueError, OSError) as error:
                self._record(error)
                found.append((float("inf"), False))
        # lmms-eval 0.7.3 makes a string of a plain pair, which its tasks cannot read.
        return [GenerationResult(pair) for pair in found]

    @torch.no_grad()
    def _likelihood(self, chat: list[dict], continuation: str) -> tuple[float, bool]:
        inputs = self.processor.apply_chat_template(
            chat,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs=dict(self.settings),
        ).to(self.model.device, dtype=self.model.dtype)
        tokens = self.processor.tokenizer(continuation, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if not tokens.numel():
            raise ValueError("A continuation is empty: there is nothing whose likelihood could be told.")
        tokens = tokens.to(self.model.device)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], tokens], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        logits = self.model(**inputs).logits[0, -tokens.shape[1] - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, tokens[0]).item()
        return loss, bool((logits.argmax(-1) == tokens[0]).all())

    def _row(self, request: Instance) -> tuple[list[dict], dict]:
        _, doc_to_messages, options, doc_id, task, split = request.args
        return self._chat(doc_to_messages(self.task_dict[task][split][doc_id])), options

    def _chat(self, messages: list[dict]) -> list[dict]:
        """A chat of lmms-eval in the processor's form, pictures standing where `<image>` is in the text."""
        chat = ChatMessages(messages=messages).to_hf_messages()
        for message in chat:
            blocks = message["content"]
            if any(block["type"] == "audio" for block in blocks):
                logger.warning("FiLA-Video takes no sound: it is left out.")
                blocks = [block for block in blocks if block["type"] != "audio"]
            message["content"] = self._in_place(blocks)
        return chat

    def _in_place(self, blocks: list[dict]) -> list[dict]:
        """
        Blocks whose media stand at the placeholders of their texts, if there is one for each. Else the placeholders
        are words of the text like others, in round brackets, since they are control tokens here.
        """
        media = [block for block in blocks if block["type"] != "text"]
        texts = [block["text"] for block in blocks if block["type"] == "text"]
        named = [found.strip("<>") for text in texts for found in PLACEHOLDERS.findall(text)]
        if not named:
            return blocks
        if named != [block["type"] for block in media]:
            plain = [PLACEHOLDERS.sub(lambda found: f"({found[0].strip('<>')})", text) for text in texts]
            return [*media, *({"type": "text", "text": text} for text in plain)]
        placed, waiting = [], iter(media)
        for text in texts:
            pieces = PLACEHOLDERS.split(text)
            for number, piece in enumerate(pieces):
                if piece:
                    placed.append({"type": "text", "text": piece})
                if number < len(pieces) - 1:
                    placed.append(next(waiting))
        return placed

    def _answer_all(self, rows: list[tuple[list[dict], dict]], what: str | None) -> list[str]:
        """Answers in the order of the rows; those of one video, with equal settings, are asked together."""
        order = sorted(range(len(rows)), key=lambda row: (repr(rows[row][1]), _videos_of(rows[row][0])))
        answers: list[str] = [""] * len(rows)
        bar = tqdm(total=len(rows), disable=what is None or self.rank != 0, desc=what)
        for batch in self._batches(order, rows):
            options, until = self._options(rows[batch[0]][1])
            chats, good = [], []
            for row in batch:
                try:
                    chats.append(self._with_encoded(rows[row][0]))
                    good.append(row)
                except (ValueError, OSError) as error:
                    self._record(error)
            records = self._ask(chats, options) if chats else []
            for row, (record,) in zip(good, records, strict=True):
                if record.get("error") is not None:
                    logger.warning(f"A request is answered by an empty text: {record['error']}")
                answers[row] = _cut(record["generated_text"] or "", until)
            bar.update(len(batch))
        bar.close()
        return answers

    def _batches(self, order: list[int], rows: list[tuple[list[dict], dict]]) -> Iterator[list[int]]:
        batch: list[int] = []
        for row in order:
            if batch and (len(batch) == self.batch_size or rows[batch[0]][1] != rows[row][1]):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _ask(self, chats: list[list[dict]], options: dict) -> list[list[dict]]:
        settings = {**self.settings, **options, "return_full_text": False, "on_error": self.on_error}
        return self.pipeline(text=chats, batch_size=min(self.batch_size, len(chats)), **settings)

    def _with_encoded(self, chat: list[dict]) -> list[dict]:
        """A chat whose videos are encoded. Those of the chat before are kept, so that the next question finds them."""
        kept, messages = {}, []
        for message in chat:
            blocks = []
            for block in message["content"]:
                if block["type"] == "video":
                    key = _key(block)
                    kept[key] = self._encoded.get(key) or kept.get(key) or (block["video"], self._encode(block))
                    block = {"type": "video", "video": kept[key][1]}
                blocks.append(block)
            messages.append({**message, "content": blocks})
        self._encoded = kept
        return messages

    def _encode(self, block: dict) -> EncodedVideo:
        spans = {name: block[name] for name in ("video_start", "video_end") if block.get(name) is not None}
        video = {"video": block["video"], **spans} if spans else block["video"]
        return self.processor.encode_video(
            video, **{name: self.settings[name] for name in ENCODING & set(self.settings)}
        )

    def _record(self, error: Exception) -> None:
        if self.on_error == "raise":
            raise error
        logger.warning(f"A request is answered by an empty text: {error}")

    def _options(self, given: dict) -> tuple[dict, list[str]]:
        """Of a task's settings those of `generate`, and the texts at which an answer ends."""
        options = {name: given[name] for name in GENERATE if given.get(name) is not None}
        if "max_gen_toks" in given:
            options.setdefault("max_new_tokens", given["max_gen_toks"])
        sampling = {name: given[name] for name in SAMPLING if given.get(name) is not None}
        options["do_sample"] = bool(given.get("do_sample", sampling.get("temperature", 0) > 0))
        if sampling.get("temperature") == 0:
            options["do_sample"] = False
        if options["do_sample"]:
            options |= sampling
        until = given.get("until") or []
        until = [text for text in ([until] if isinstance(until, str) else until) if text]
        if until:
            options |= {"stop_strings": until, "tokenizer": self.processor.tokenizer}
        ignored = set(given) - {*GENERATE, *SAMPLING, "max_gen_toks", "do_sample", "until"} - self._ignored
        if ignored:
            self._ignored |= ignored
            logger.info(f"Settings of the task that are not used here: {', '.join(sorted(ignored))}.")
        return options, until


class FilaVideoSimple(FilaVideo):
    """The same for tasks that give a text and visuals (`--force_simple`): all that ask for likelihoods do."""

    is_simple = True

    def _row(self, request: Instance) -> tuple[list[dict], dict]:
        context, options, doc_to_visual, doc_id, task, split = request.args
        visuals = doc_to_visual(self.task_dict[task][split][doc_id])
        return self._chat(ConfigurableMessagesTask._build_user_turn(visuals, context)), options

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        raise NotImplementedError("Several rounds are asked by chats: leave out --force_simple.")


def _key(block: dict) -> str:
    """
    Tells a video from others: by its path or its parts, or frames that are given by the object itself, which stays
    in memory beside what is encoded, since their texts look alike.
    """
    try:
        video = json.dumps(block["video"])
    except TypeError:
        video = f"object {id(block['video'])}"
    return repr((video, block.get("video_start"), block.get("video_end")))


def _videos_of(chat: list[dict]) -> str:
    return repr([_key(block) for message in chat for block in message["content"] if block["type"] == "video"])


def _cut(text: str, until: list[str]) -> str:
    for stop in until:
        text = text.split(stop)[0]
    return text.strip()


def manifest() -> Any:
    """What lmms-eval asks the entry point for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    module = __name__
    return ModelManifest("fila_video", f"{module}.{FilaVideoSimple.__name__}", f"{module}.{FilaVideo.__name__}")


__all__ = ["FilaVideo", "FilaVideoSimple", "manifest"]
