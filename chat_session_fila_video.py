"""
What a pipeline offers beside single calls. Answers as a stream of events, which can be closed at any time; and chats:
several questions about the same videos, which are encoded once and stay in the key-value cache between turns.
"""

import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Pipeline, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, TextStreamer
from transformers.cache_utils import Cache

from .chat_inputs_fila_video import check_control_tokens, without_control_tokens
from .configuration_fila_video import VIDEO_INPUTS
from .encoded_video_fila_video import HANDLING, PIXEL_SETTINGS, POOL_SETTINGS, EncodedVideo
from .frame_selector_fila_video import SceneSettings
from .layer_compression_fila_video import CACHE_ARGUMENT as CACHE
from .subtitles_fila_video import SubtitleLine, Subtitles, subtitles_of_videos
from .video_inputs_fila_video import flatten_metadata, flatten_videos
from .video_processing_fila_video import plain_numbers

FORMAT = "fila_video.chat.1"
SAVING = ".saving-"  # begins the name of what is half written
# A chat has one answer a turn, and the next turn goes on from its cache.
REFUSED = {"num_beams": (None, 1), "num_return_sequences": (None, 1), "use_cache": (None, True)}
REFUSED |= {"cache_implementation": (None,), "use_mtp": (None, False), "assistant_early_exit": (None,)}
REFUSED |= dict.fromkeys(("assistant_model", "prompt_lookup_num_tokens", "cache", "past_key_values"), (None,))
# Nor has it results, which these shape.
OF_RESULTS = ("return_full_text", "return_tensors", "return_type", "clean_up_tokenization_spaces")
OF_RESULTS += ("skip_special_tokens", "continue_final_message", "on_error")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` frames are through a `stage`, "reading" or "encoding"."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Text:
    """The next piece of the answer."""

    piece: str


@dataclass(frozen=True)
class Result:
    """The whole answer; with `scenes` of each video, as `return_scenes` gives them, where there are any."""

    answer: str
    scenes: list[dict[str, Any]] | None


class Cancelled(Exception):
    """Raised where the work stands when nobody listens any more."""


class Listener(StoppingCriteria):
    """
    The end of a stream where events come in, from another thread.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): Of the model that answers.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.is_cancelled = threading.Event()
        self.streamer = _Pieces(tokenizer, self.events)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs: Any) -> torch.BoolTensor:
        """Whether `generate` shall stop behind this token."""
        return torch.full((len(input_ids),), self.is_cancelled.is_set(), dtype=torch.bool, device=input_ids.device)

    def check(self) -> None:
        if self.is_cancelled.is_set():
            raise Cancelled

    def options(self, given: dict[str, Any], generating: dict[str, Any]) -> dict[str, Any]:
        """
        A call's options with these ears among them; `generating` is what `generate` gets, of the call and before it.

        Raises:
            ValueError: If the call has ears of its own.
        """
        for name in ("streamer", "progress"):
            if given.get(name) is not None:
                raise ValueError(f"`{name}` is what a stream is in place of: leave it out, its events say the same.")
        criteria = StoppingCriteriaList([*(generating.get("stopping_criteria") or []), self])

        # A function, since transformers copies options deeply.
        def progress(stage: str, done: int, total: int) -> None:
            self.check()
            self.events.put(Progress(stage, done, total))

        return {**given, "streamer": self.streamer, "progress": progress, "stopping_criteria": criteria}


class _Pieces(TextStreamer):
    def __init__(self, tokenizer: PreTrainedTokenizerBase, events: queue.SimpleQueue) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.events = events

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self.events.put(Text(text))


def stream_of(
    work: Callable[[Listener], Result], tokenizer: PreTrainedTokenizerBase
) -> Generator[Progress | Text | Result, None, None]:
    """
    Runs `work` in a thread of its own and gives its events as they come, the `Result` that it returns last. An error
    in it is raised here. When the generator is closed, the work ends at its next frame or token.
    """
    listener = Listener(tokenizer)

    def run() -> None:
        try:
            listener.events.put(work(listener))
        except BaseException as error:
            listener.events.put(error)

    threading.Thread(target=run, daemon=True, name="fila-video answer").start()
    try:
        while True:
            event = listener.events.get()
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, Result):
                return
    finally:
        listener.is_cancelled.set()


@contextmanager
def letting_go(*calls: dict[str, Any]) -> Iterator[Any]:
    """
    The streamer that the last of these calls' options names, if any: where an error breaks off the answer, whoever
    waits for its text is let go.
    """
    streamer = None
    for options in calls:
        streamer = {**(options.get("generate_kwargs") or {}), **options}.get("streamer", streamer)
    try:
        yield streamer
    except BaseException:
        let_go(streamer)
        raise


def let_go(streamer: Any) -> None:
    """Lets go whoever waits for the text of an answer that does not come. A `TextStreamer` prints: nobody waits."""
    if streamer is not None and type(streamer) is not TextStreamer:
        streamer.end()


class ChatSession:
    """
    A conversation about videos, made by `pipe.chat(video)`. A later question costs its own tokens only: what was read
    before lies in the key-value cache. Where the processor selects other scenes for a question
    (`selection="question"`, or a setting given with it), or its words change the visual tokens
    (`frame_encoding="cooperative"`), the prompt is read anew with those, which `rebuilds` counts. Sessions of one
    pipeline share its model and nothing else, and may run in threads of their own.

    Args:
        pipe (`VideoTextToTextPipeline`): Its model and processor answer.
        videos (`list[EncodedVideo]`): What the conversation is about.
        system (`str`, *optional*): A system message, instead of the chat template's.
        options (`dict`, *optional*): Of the processor and of `generate`, for every question.

    Attributes:
        messages (`list[dict]`): What was said, `role` and `content` as text.
        scenes (`list[dict]`, *optional*):
            What the last answer was given on: for each video `indices`, `timestamps`, `duration` and `pictures`.
        rebuilds (`int`): How often a turn after the first had to read the whole prompt.
        tokens_read (`int`): Tokens of the prompt that the last turn read; the others were in the cache.
    """

    def __init__(
        self,
        pipe: Pipeline,
        videos: list[EncodedVideo],
        system: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.videos, self.options = videos, dict(options or {})
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self.scenes: list[dict[str, Any]] | None = None
        self.rebuilds = self.tokens_read = 0
        self._pipe = pipe
        self._lock = threading.Lock()
        self._cache: Cache | None = None
        self._cached_ids = torch.empty(0, dtype=torch.long)  # the tokens that the cache holds
        self._cached_visuals: list[torch.Tensor] = []  # which frames they show, and for which question
        self._generation_options({})

    def __repr__(self) -> str:
        turns = sum(message["role"] == "assistant" for message in self.messages)
        videos = "".join(f", {video!r}" for video in self.videos)
        return f"ChatSession({turns} answers, {len(self._cached_ids)} tokens in the cache{videos})"

    def ask(self, question: str, /, **options: Any) -> str:
        """
        The answer to the next question.

        Args:
            question (`str`):
                Text alone, not by its name; the videos stand before the first question, and no image can follow.
            **options:
                Of the processor and of `generate`, over those of the session. `question="..."` is the processor's:
                what `selection="question"` goes by instead.

        Raises:
            ValueError: If the question is empty, no text or has control tokens, the conversation is longer than the
            model's context, or an option is unknown or cannot be used in a chat. The conversation is then as before.
        """
        with letting_go(self._pipe._forward_params, self.options, options):
            return self._turn(question, options).answer

    def stream(self, question: str, /, **options: Any) -> Generator[Progress | Text | Result, None, None]:
        """
        The same as a stream of `Progress`, `Text` and one `Result`. Closing it ends the answer at its next token, and
        the question counts as not asked.
        """
        return stream_of(lambda listener: self._turn(question, options, listener), self._pipe.tokenizer)

    def _turn(self, question: str, options: dict[str, Any], listener: Listener | None = None) -> Result:
        if not isinstance(question, str):
            raise ValueError(
                f"A question in a chat is text, got {type(question).__name__}: pictures and videos are given to "
                "`pipe.chat`, before the first question, or to the pipeline itself with the whole chat."
            )
        with self._lock:
            if listener is not None:
                listener.check()
                generating = self._pipe.options_of(self.options, options)[1]["generate_kwargs"]
                options = listener.options(options, generating)
            encoding, generating = self._generation_options(options)
            messages = [*self.messages, {"role": "user", "content": question}]
            prompt = self._pipe._encode(self._with_videos(messages), **encoding)
            pipe, model = self._pipe, self._pipe.model
            with pipe.device_placement(), pipe.get_inference_context()():
                inputs = pipe._ensure_tensor_on_device(dict(prompt["model_inputs"]), device=pipe.device)
                visuals = _visuals_of(prompt["scenes"], inputs.get("video_question_ids"))
                num_known = self._keep_known(inputs["input_ids"][0].cpu(), visuals)
                if num_known:  # and the visuals are among it
                    inputs = {name: value for name, value in inputs.items() if name not in VIDEO_INPUTS}
                    generating[CACHE] = self._cache
                try:
                    output = model.generate(**inputs, **generating)
                except BaseException:
                    self._cache = None  # which layers have read what is not known
                    raise
            num_prompt, sequence = inputs["input_ids"].shape[1], output.sequences[0].cpu()
            self._cache, self.tokens_read = output[CACHE], num_prompt - num_known
            # Without the last token, which was written and never read.
            self._cached_ids = sequence[: int(self._cache.get_seq_length())]
            self._cached_visuals = visuals
            if listener is not None:
                listener.check()
            answer = pipe.tokenizer.decode(sequence[num_prompt:], skip_special_tokens=True)
            self.messages = [*messages, {"role": "assistant", "content": answer}]
            self.scenes = prompt["scenes"]
            return Result(answer, self.scenes)

    def _keep_known(self, ids: torch.LongTensor, visuals: list[torch.Tensor]) -> int:
        """Cuts the cache down to what it shares with a prompt `(num_tokens,)`, and returns how many tokens that is."""
        if self._cache is None:  # before the first answer, or since an error in a later one
            self.rebuilds += bool(len(self._cached_ids))
            return 0
        # The last token is always read: what follows it comes out of reading it.
        shared = min(len(ids) - 1, len(self._cached_ids))
        differs = (ids[:shared] != self._cached_ids[:shared]).nonzero()
        known = int(differs[0]) if len(differs) else shared
        video_tokens = (ids == self._pipe.model.config.video_token_id).nonzero()
        # A placeholder looks the same whatever it stands for, so the frames are compared too. All of a prompt's videos
        # must be known, since `generate` takes all or none.
        same = len(visuals) == len(self._cached_visuals) and all(map(torch.equal, visuals, self._cached_visuals))
        if same and known and (not len(video_tokens) or known > int(video_tokens[-1])):
            try:
                self._cache.crop(known - len(self._cached_ids))
                return known
            except (ValueError, RuntimeError):  # a sliding window has forgotten what came before
                pass
        self._cache = None
        self.rebuilds += 1
        return 0

    def _with_videos(self, messages: list[dict]) -> list[dict]:
        videos, found = [{"type": "video", "video": video} for video in self.videos], []
        for message in messages:
            content = message["content"]
            if message["role"] == "assistant":
                # An answer may spell a control token, which nobody took out of it and which must not become one.
                content = without_control_tokens(content, self._pipe.tokenizer)
            elif message["role"] == "user":
                content, videos = [*videos, {"type": "text", "text": content}], []
            found.append({"role": message["role"], "content": content})
        return found

    def _generation_options(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Options of one turn, for `_encode` of the pipeline and for `generate`."""
        pipe = self._pipe
        encoding, forward, _ = pipe.options_of(self.options, options)
        given = {**self.options, **options}
        if unknown := [name for name in OF_RESULTS if given.get(name) is not None]:
            raise ValueError(f"A chat has no results to shape: leave out {', '.join(map(repr, unknown))}.")
        encoding.pop("on_error", None)
        encoding["processor_kwargs"]["return_scenes"] = "pictures"
        given = pipe.generation_arguments(forward["generate_kwargs"])
        configs = (given.get("generation_config"), pipe.model.generation_config)
        for name, allowed in REFUSED.items():
            found = [given.get(name), *(getattr(config, name, None) for config in configs)]
            value = next((value for value in found if value is not None), None)
            if not any(value is known or value == known for known in allowed):
                raise ValueError(
                    "A chat goes on from its key-value cache with one answer a turn, so it knows no "
                    f"`{name}={value}`: leave it out, or ask by the pipeline itself."
                )
        fixed = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True, "return_dict_in_generate": True}
        return encoding, {**given, **fixed}

    def save(self, folder: str | Path) -> None:
        """
        Writes `chat.json` and each video into a folder: a new or empty one, or one of a saved chat, which is replaced.
        `pipe.resume_chat` goes on from there, in any process; its first question reads the whole prompt once more.

        Raises:
            ValueError: If the session has options that are not plain values, or the folder holds anything else.
        """
        with self._lock:
            record = {"format": FORMAT, "messages": self.messages, "videos": len(self.videos)}
            try:
                record["options"] = plain_numbers(self.options)
                text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
            except TypeError as error:
                raise ValueError(f"The options of this chat cannot be saved: {error}.") from error
            folder = Path(folder)
            names = _files_of(record)
            outdated = _files_to_replace(folder, names) - set(names)
            folder.mkdir(parents=True, exist_ok=True)
            killed = [*folder.glob(f"{SAVING}*")]
            with tempfile.TemporaryDirectory(prefix=SAVING, dir=folder) as half:
                for video, name in zip(self.videos, names, strict=False):
                    video.save(Path(half, name))
                Path(half, "chat.json").write_text(text, encoding="utf-8")
                # Killed from here on, it leaves no chat rather than old words about new videos.
                before, replaced = Path(half, "before", "chat.json"), []
                before.parent.mkdir()
                with suppress(FileNotFoundError):
                    os.replace(folder / "chat.json", before)
                try:
                    for name in names:
                        os.replace(Path(half, name), folder / name)
                        replaced.append(name)
                except OSError:
                    if not replaced and before.exists():
                        os.replace(before, folder / "chat.json")
                    raise
            for name in outdated:
                (folder / name).unlink(missing_ok=True)
            for half in killed:
                shutil.rmtree(half, ignore_errors=True)


def _files_of(record: dict[str, Any]) -> list[str]:
    return [*(f"video_{number}.safetensors" for number in range(record["videos"])), "chat.json"]


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / "chat.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no chat that was saved: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{folder / 'chat.json'} is no chat of this version, whose format is {FORMAT}.")
    return record


def _files_to_replace(folder: Path, names: list[str]) -> set[str]:
    """The files of the chat that a folder holds. Others may lie beside them, but are not written over."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return set()
    try:
        places = [folder]
        if any(folder.glob(f"{SAVING}*")) and not (folder / "chat.json").exists():
            # A save was killed: the files are those of its chat, or of the one that was there before.
            places = [file.parent for file in folder.glob(f"{SAVING}*/**/chat.json")]
        there = {name for place in places for name in _files_of(_read_record(place))}
        for name in set(names) - there:
            if (folder / name).exists():
                raise ValueError(f"{folder / name} is not of the chat that was saved there.")
        return there
    except ValueError as error:
        raise ValueError(
            f"Nothing is saved: name a new or an empty folder, or one of a saved chat. {error}"
        ) from error


def _visuals_of(scenes: list[dict[str, Any]] | None, question_ids: torch.Tensor | None) -> list[torch.Tensor]:
    """What tells the visual tokens of a prompt from those of another: their frames, and the question they are for."""
    visuals = []
    for video in scenes or []:
        visuals += [video["indices"]] + ([video["background"]["indices"]] if "background" in video else [])
    # CODEPATH: DynFocus's cooperative encoding attends with the question, which changes the tokens of every frame.
    return visuals if question_ids is None else [*visuals, question_ids.cpu()]


class Conversations:
    """What [`VideoTextToTextPipeline`] offers beside single questions."""

    def chat(
        self,
        videos: Any = None,
        system: str | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        **options: Any,
    ) -> ChatSession:
        """
        A conversation about a video, which is read and encoded now and not again; see [`ChatSession`].

        Args:
            videos (*optional*): One or several, in any form, also encoded already.
            system (`str`, *optional*): A system message, instead of the chat template's.
            progress (`Callable[[str, int, int], None]`, *optional*): As for [`FilaVideoProcessor.encode_video`].
            **options:
                Of the processor and of `generate`, for every question; those of pool and scenes for the reading too.
                `subtitles` are read now, also those of a track, and saved with the conversation.
        """
        first = videos[0] if isinstance(videos, (list, tuple)) and videos else videos
        if isinstance(first, dict) and not first.keys().isdisjoint(("role", "messages")):
            raise ValueError("`pipe.chat` takes videos, before any question: pass a chat to the pipeline itself.")
        if system is not None:  # told now, and not after the videos were read
            if not isinstance(system, str):
                raise ValueError(f"`system` is the text of a system message, got {type(system).__name__}.")
            check_control_tokens([{"content": system}], self.tokenizer)
        found = [] if videos is None else flatten_videos(videos)
        given = self.options_of(options)[0]["processor_kwargs"]
        spoken = given.get("subtitles")
        if spoken is not None:  # tracks are in the files, which are read now
            access = self.processor.video_processor.access(**given)
            spoken = subtitles_of_videos(spoken, found, self.tokenizer, access)
        described = flatten_metadata(given.get("video_metadata"), len(found))
        names = {*PIXEL_SETTINGS, *POOL_SETTINGS, *HANDLING, *SceneSettings.__dataclass_fields__}
        reading = {name: given[name] for name in names & given.keys()}
        encode = partial(self.processor.encode_video, progress=progress, **reading)
        # Nested as in chats, so that a list of picture files is one video.
        encoded = [
            video if isinstance(video, EncodedVideo) and metadata is None else encode([[video]], metadata)
            for video, metadata in zip(found, described, strict=True)
        ]
        done = {"subtitles", "video_metadata"}
        nested = options.get("processor_kwargs") or {}
        options = {name: value for name, value in options.items() if name not in done}
        options["processor_kwargs"] = {name: value for name, value in nested.items() if name not in done}
        if spoken is not None:  # now that it is known when the videos end
            options["subtitles"] = subtitles_of_videos(spoken, encoded, self.tokenizer, {})
        return ChatSession(self, encoded, system, options)

    def resume_chat(self, folder: str | Path, check_source: bool = True) -> ChatSession:
        """
        A conversation that `chat.save(folder)` wrote.

        Args:
            check_source (`bool`, *optional*, defaults to `True`): As for [`EncodedVideo.load`].

        Raises:
            ValueError: If the folder holds none, or a video's file has changed.
        """
        record = _read_record(folder := Path(folder))
        videos = [EncodedVideo.load(folder / name, check_source).to(self.device) for name in _files_of(record)[:-1]]
        options = record["options"]
        if (spoken := options.get("subtitles")) is not None:
            options["subtitles"] = [one if one is None else Subtitles(map(SubtitleLine._make, one)) for one in spoken]
        session = ChatSession(self, videos, options=options)
        session.messages = record["messages"]
        return session


__all__ = [
    "Cancelled",
    "ChatSession",
    "Conversations",
    "Listener",
    "Progress",
    "Result",
    "Text",
    "let_go",
    "letting_go",
    "stream_of",
]
