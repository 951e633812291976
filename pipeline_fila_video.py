"""The `video-text-to-text` pipeline: a video and a question in, text out."""

import inspect
from collections.abc import Generator, Iterator
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from types import GeneratorType
from typing import Any, get_args

import torch
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import ModelOutput
from transformers.pipelines import PIPELINE_REGISTRY, ImageTextToTextPipeline, Pipeline
from transformers.pipelines.image_text_to_text import ReturnType
from transformers.utils.chat_template_utils import Chat

from .chat_inputs_fila_video import NumberedInput, chat_of_input, is_column, pipeline_inputs
from .chat_session_fila_video import Conversations, Listener, Progress, Result, Text, let_go, letting_go, stream_of
from .subtitles_fila_video import Subtitles, is_track
from .video_processing_fila_video import FilaVideoProcessorVideosKwargs

TASK = "video-text-to-text"
# Whose options are whose. `generate` takes two tokenizers without naming them.
GENERATION_SETTINGS = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - {
    "transformers_version"
}
OPTIONS_OF_GENERATE = {*inspect.signature(GenerationMixin.generate).parameters, "tokenizer", "assistant_tokenizer"}
OPTIONS_OF_GENERATE -= {"self", "inputs", "kwargs"}
OPTIONS_OF_PIPELINE = {*inspect.signature(ImageTextToTextPipeline._sanitize_parameters).parameters}
# `timeout` is of media that the base class loads.
OPTIONS_OF_PIPELINE -= {"self", "kwargs", "timeout"}
OPTIONS_OF_PROCESSOR = FilaVideoProcessorVideosKwargs.__annotations__
# Options of `generate` that are numbers: it does not look at them, and breaks far inside or once the video is read.
# Whole ones with the least that they can be.
WHOLE = dict.fromkeys(("max_new_tokens", "max_length", "num_beams", "num_return_sequences", "prefill_chunk_size"), 1)
WHOLE |= dict.fromkeys(("min_new_tokens", "min_length", "no_repeat_ngram_size", "top_k"), 0)
NUMBERS = {"max_time", "temperature", "length_penalty", "repetition_penalty", "top_p", "min_p", "typical_p"}
NUMBERS |= {"epsilon_cutoff", "eta_cutoff"}
# What an option stands in place of, as the processor and `generate` have it.
EXCLUDES = {"num_frames": {"fps"}, "fps": {"num_frames"}, "generation_config": GENERATION_SETTINGS}
EXCLUDES |= {"max_length": {"max_new_tokens"}, "max_new_tokens": {"max_length"}}


class VideoTextToTextPipeline(Conversations, ImageTextToTextPipeline):
    """
    Answers questions about videos with a FiLA-Video model, built on transformers' image-text-to-text pipeline: its
    results have the same shape, and its options (`return_full_text`, `return_tensors`, `stop_sequence`, ...) mean the
    same. The pipeline sets `processor.frame_encoder` to the model's own, as the paper selects scenes, and its copies
    and pickles have theirs.

    ```python
    >>> pipe = pipeline("video-text-to-text", model="path/to/FiLA-Video", trust_remote_code=True)
    >>> pipe("video.mp4", text="What happens in this video?", max_new_tokens=64, return_full_text=False)
    [{"input_text": "What happens in this video?", "generated_text": "..."}]
    ```
    """

    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own_lengths = {name: kwargs.get(name) for name in ("max_length", "max_new_tokens", "generation_config")}
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(
                "The pipeline needs a processor: pass `processor=AutoProcessor.from_pretrained(..., "
                "trust_remote_code=True)` along with a loaded model."
            )
        own = self._preprocess_params["processor_kwargs"]
        spoken = own.get("subtitles")
        if spoken is not None and not is_track(spoken):
            raise ValueError(
                "A file or lines of subtitles belong to one video, not to all that a pipeline will answer about: pass "
                "them with the call. The number or the language of a track can be set for all."
            )
        for name in ("question", "video_metadata"):
            if _is_list(own.get(name)):
                raise ValueError(f"A list as `{name}` belongs to the videos of one call: pass it with that call.")

    @property
    def processor(self) -> Any:
        return self._processor

    @processor.setter
    def processor(self, processor: Any) -> None:
        # Whichever comes selects scenes as the paper does, by the model that answers.
        if processor is not None:
            self.check_model_type(None)
            processor.frame_encoder = self.model.encode_frames
        self._processor = processor

    def __getstate__(self) -> dict[str, Any]:
        # A copy of a processor leaves its guests behind. That of a pipeline selects by its own copy of them.
        guests = {name: getattr(self.processor, name) for name in ("frame_encoder", "question_scorer")}
        return {**self.__dict__, "guests": guests}

    def __setstate__(self, state: dict[str, Any]) -> None:
        guests = state.pop("guests")
        self.__dict__.update(state)
        for name, guest in guests.items():
            setattr(self.processor, name, guest)

    def check_model_type(self, supported_models: Any) -> None:
        # The base class knows the library's own models by name. Ours is known by what the pipeline needs of it, also
        # where peft wraps it.
        if not hasattr(self.model, "encode_frames"):
            raise ValueError(f"A {type(self.model).__name__} is not a FiLA-Video model: it has no `encode_frames`.")

    def __call__(self, videos: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """
        Args:
            videos:
                What the questions are about: a path, URL, bytes, a file object, an array, or a list of opened
                pictures; a list of these (or of lists of them) where `text` is a list of as many questions, or one
                question about all of them; an iterator, a dataset or a column of `datasets` where one question is
                about each. Instead of `videos` and `text` also a chat, a list of messages, which a dictionary may hold
                as its `messages`; a list, iterator, dataset or column of chats, and of dictionaries with `videos`,
                `text` and *optional* `subtitles`; or a dataset of `datasets` with the columns `video` (or `videos`)
                and `text`, for clips `video_start` and `video_end` in seconds, and `subtitles`.
            text (`str` or `list`): The question, the questions, a chat or chats.
            **kwargs:
                Options of `generate` (`max_new_tokens`, `do_sample`, `streamer`, ...), of the processor (`num_scenes`,
                `selection`, `num_frames`, ...), and of the pipeline (`batch_size`, `return_full_text`,
                `return_tensors`, ...), over those that it was made with. `return_scenes=True` adds `scenes` to every
                result: a dictionary a video, with `indices`, `timestamps` and `duration`; `return_scenes="pictures"`
                also adds the `pictures` of its frames. `on_error="record"` gives an input that cannot be read a row in
                its place, `[{"input_text": ..., "generated_text": None, "error": ...}]`, instead of raising. Of
                several inputs, a list of `subtitles` or `video_metadata` has those of each, `None` for those
                without, and a list as `question` one for each; an input's own `subtitles` go over these.

        Returns:
            A list with a dictionary an answer (`input_text` and `generated_text`), or for several inputs a list of
            such lists; of an iterator or a dataset, an iterator of them.

        Raises:
            ValueError: If there is nothing to answer, the questions and videos differ in number, a text contains
                control tokens, an option is unknown or of a wrong type, one file of subtitles is given for several
                inputs, or the processor encodes by another model.
        """
        with letting_go(self._forward_params, kwargs) as streamer:
            inputs = pipeline_inputs(videos, text)
            _share_out(inputs, {**(kwargs.get("processor_kwargs") or {}), **kwargs})
            answers = Pipeline.__call__(self, inputs, **kwargs)
        return answers if streamer is None or isinstance(answers, list) else _ending(answers, streamer)

    def stream(
        self, videos: Any = None, text: Any = None, **kwargs: Any
    ) -> Generator[Progress | Text | Result, None, None]:
        """
        Answers one question as [`__call__`] does, and yields what happens on the way: `Progress(stage, done, total)`
        while frames are read and encoded, `Text(piece)` as the answer is written, and `Result(answer, scenes)` last.
        Closing the generator ends the work at its next frame or token; an error is raised in it.

        Args:
            videos, text: One question, as for a call.
            **kwargs: As for a call, without `streamer` and `progress`.
        """

        def work(listener: Listener) -> Result:
            inputs = pipeline_inputs(videos, text)
            is_chat = isinstance(inputs, (list, tuple)) and isinstance(inputs[0], dict)
            if not is_chat and not isinstance(inputs, (dict, str, Chat)):
                raise ValueError("A stream answers one question: pass one video or chat, or call the pipeline.")
            for name in ("batch_size", "num_workers", "on_error", "return_full_text", "return_tensors", "return_type"):
                if name in kwargs:
                    raise ValueError(f"A stream gives the text of one answer: leave out `{name}`.")
            encoding, forward, _ = self.options_of(kwargs)
            options = {**listener.options(kwargs, forward["generate_kwargs"]), "return_full_text": False}
            options["return_scenes"] = encoding["processor_kwargs"].get("return_scenes", True)
            answer, *others = Pipeline.__call__(self, inputs, **options)
            if others:
                raise ValueError("A stream gives one answer: leave out `num_return_sequences`.")
            listener.check()
            return Result(answer["generated_text"], answer.get("scenes"))

        return stream_of(work, self.tokenizer)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        return self.options_of(kwargs)

    def options_of(self, *calls: dict[str, Any]) -> tuple[dict, dict, dict]:
        """
        What `preprocess` (`processor_kwargs`, ...), `_forward` (`generate_kwargs`) and `postprocess` get of options:
        those of the first call over the pipeline's own, those of the next over these, name by name. For `postprocess`
        without the pipeline's own.
        """
        # The base class merges too, but lets the `processor_kwargs` of a call replace all those of the pipeline. While
        # it asks for the pipeline's own, there are none.
        encoding = {"processor_kwargs": {}, **getattr(self, "_preprocess_params", {})}
        if hasattr(self, "_preprocess_params"):
            self._check_encoder()
        merged = encoding, {"generate_kwargs": {}, **getattr(self, "_forward_params", {})}, {}
        for options in calls:
            merged = tuple(map(_options_over, merged, self._options_by_owner(**options)))
        settings = merged[0]["processor_kwargs"]
        merged[0]["processor_kwargs"] = {name: value for name, value in settings.items() if value is not None}
        return merged

    def _options_by_owner(self, on_error: str | None = None, **options: Any) -> tuple[dict, dict, dict]:
        if on_error not in (None, "raise", "record"):
            raise ValueError(f"`on_error` is 'raise' or 'record', got {on_error!r}.")
        generate_kwargs, processor_kwargs, pipeline_kwargs = divide_options(**options)
        preprocess_params, forward_params, postprocess_params = super()._sanitize_parameters(
            generate_kwargs=generate_kwargs or None, processor_kwargs=processor_kwargs or None, **pipeline_kwargs
        )
        if on_error is not None:
            preprocess_params["on_error"] = on_error
        return preprocess_params, forward_params, postprocess_params

    def _check_encoder(self) -> None:
        """
        Raises:
            ValueError: If the processor selects scenes with another model than the one that answers.
        """
        bound = getattr(self.processor.frame_encoder, "__self__", None)
        # peft's wrapper hands out the method of what it wraps.
        own = getattr(self.model.encode_frames, "__self__", self.model)
        if isinstance(bound, torch.nn.Module) and bound is not own:
            raise ValueError(
                "The processor selects scenes with another model than this pipeline's, as where a second pipeline has "
                "bound it: give each pipeline a processor of its own, such as `copy.copy(processor)`."
            )

    def preprocess(self, inputs: Any, on_error: str = "raise", **kwargs: Any) -> dict[str, Any]:
        number, own = None, {}
        self._check_encoder()  # again: an iterator's inputs come late
        if isinstance(inputs, NumberedInput):
            number, own, inputs = inputs.number, inputs.options, inputs.content
        text = inputs.get("text") if isinstance(inputs, dict) else None
        if isinstance(inputs, dict) and inputs.get("subtitles") is not None:
            own = {**own, "subtitles": inputs["subtitles"]}
        kwargs["processor_kwargs"] = {**(kwargs.get("processor_kwargs") or {}), **own}
        try:
            if isinstance(inputs, Exception):  # a row that could not be read
                raise inputs
            return self._encode(inputs, **kwargs)
        except (ValueError, OSError) as error:
            if number is not None:  # bytes, for one, have no name that a message could give
                error.args = (f"Input {number}: {error}",)
            if on_error == "raise":
                raise
            return {"model_inputs": None, "text": text, "scenes": None, "error": str(error)}

    def _encode(
        self,
        inputs: Any,
        continue_final_message: bool | None = None,
        processor_kwargs: dict | None = None,
        **template_kwargs: Any,
    ) -> dict[str, Any]:
        messages, prompt = chat_of_input(inputs)
        is_begun = messages[-1]["role"] == "assistant"
        if continue_final_message and not is_begun:
            raise ValueError(
                "`continue_final_message` needs a chat that ends with an answer, which is begun: add one."
            )
        if continue_final_message is None:
            continue_final_message = is_begun
        model_inputs = self.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=not continue_final_message,
            continue_final_message=continue_final_message,
            processor_kwargs=dict(processor_kwargs or {}),
            **template_kwargs,
        )
        scenes = model_inputs.pop("scenes", None)
        # Wrapped, so that the base class leaves batching to the processor: it would pad videos as if they were text.
        return {"model_inputs": model_inputs.to(dtype=self.dtype), "text": prompt, "scenes": scenes, "error": None}

    def _ensure_tensor_on_device(self, inputs: Any, device: torch.device) -> Any:
        # The times of scenes are for people: they stay, since MPS knows no float64.
        is_time = isinstance(inputs, torch.Tensor) and inputs.dtype == torch.float64
        return inputs if is_time else super()._ensure_tensor_on_device(inputs, device)

    def _forward(self, model_inputs: dict[str, Any], generate_kwargs: dict | None = None) -> ModelOutput:
        # The base class gives lists for batches, even of one; what failed has no inputs.
        is_batch = isinstance(model_inputs["error"], list)
        given = model_inputs if is_batch else {name: [value] for name, value in model_inputs.items()}
        inputs, prompts, scenes, errors = (given[name] for name in ("model_inputs", "text", "scenes", "error"))
        good = [row for row, error in enumerate(errors) if error is None]
        sequences, ids = [None] * len(errors), [None] * len(errors)
        if not good:
            let_go((generate_kwargs or {}).get("streamer"))
        else:
            batch = (
                self.processor.collate([inputs[row] for row in good], padding_side="left") if is_batch else inputs[0]
            )
            # Newer transformers prepare the arguments once more, which changes nothing.
            arguments = self.generation_arguments(generate_kwargs or {})
            generated = super()._forward({**batch, "text": [prompts[row] for row in good]}, arguments)
            answers = generated["generated_sequence"].unflatten(0, (len(good), -1))  # several answers to a prompt
            for row, answer, tokens in zip(good, answers, generated["input_ids"], strict=True):
                sequences[row], ids[row] = answer, tokens
        outputs = {"generated_sequence": sequences, "input_ids": ids, "prompt_text": prompts}
        outputs |= {"scenes": scenes, "error": errors}
        return ModelOutput(outputs if is_batch else {name: rows[0] for name, rows in outputs.items()})

    def generation_arguments(self, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
        """What `generate` gets of a call's arguments: those, over the pipeline's own and the model's."""
        # `stop_strings`, wherever they are set, are looked for in the text.
        generate_kwargs = {"tokenizer": self.tokenizer, **generate_kwargs}
        # Whoever is asked first and sets a length decides. Where that is `max_length` alone, the `max_new_tokens` that
        # it stands over, the pipeline's own or the model's, is set aside: `generate` would follow it instead.
        given = [generate_kwargs] + ([] if "generation_config" in generate_kwargs else [self._own_lengths])
        asked = [(one, vars(one.get("generation_config") or GenerationConfig())) for one in given]
        for options in chain.from_iterable(asked):
            if options.get("max_new_tokens") is not None:
                break
            if options.get("max_length") is not None:
                generate_kwargs["max_new_tokens"] = None
                break
        if hasattr(self, "_prepare_generate_kwargs"):
            return self._prepare_generate_kwargs(generate_kwargs)
        if "generation_config" in generate_kwargs:
            return generate_kwargs
        # Older transformers pass a config beside the arguments, about which `generate` warns: arguments alone.
        settings = self.generation_config.to_diff_dict()
        settings = {name: settings[name] for name in GENERATION_SETTINGS & settings.keys()}
        if {**settings, **generate_kwargs}.get("max_new_tokens") is not None:
            settings.pop("max_length", None)
        return {**settings, **generate_kwargs, "generation_config": None}

    def postprocess(
        self, model_outputs: ModelOutput, return_type: ReturnType = ReturnType.FULL_TEXT, **kwargs: Any
    ) -> list[dict[str, Any]]:
        prompt = model_outputs["prompt_text"]
        if model_outputs["error"] is not None:
            return [{"input_text": prompt, "generated_text": None, "error": model_outputs["error"]}]
        sequences = model_outputs["generated_sequence"].flatten(0, -2)  # the base class adds a batch of one to a row's
        outputs = {
            "generated_sequence": sequences,
            "prompt_text": [prompt] * len(sequences),
            "input_ids": model_outputs["input_ids"].flatten().expand(len(sequences), -1),
        }
        records = super().postprocess(outputs, return_type=return_type, **kwargs)
        if model_outputs["scenes"] is not None:
            records = [{**record, "scenes": model_outputs["scenes"]} for record in records]
        return records

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


def divide_options(
    generate_kwargs: dict | None = None,
    processor_kwargs: dict | None = None,
    return_scenes: bool | str | None = None,
    **options: Any,
) -> tuple[dict, dict, dict]:
    """
    The options of `generate`, of the processor and of the pipeline, whose names tell whose they are.

    Raises:
        ValueError: If one is unknown, given twice, or of a wrong type.
    """
    generate_kwargs, processor_kwargs = dict(generate_kwargs or {}), dict(processor_kwargs or {})
    pipeline_kwargs = {}
    for name, value in options.items():
        if name in GENERATION_SETTINGS | OPTIONS_OF_GENERATE:
            destination = generate_kwargs
        elif name in OPTIONS_OF_PIPELINE:
            destination = pipeline_kwargs
        elif name in OPTIONS_OF_PROCESSOR:
            destination = processor_kwargs
        else:  # mistyped: it would be lost
            raise ValueError(
                f"`{name}` is an option neither of `generate`, nor of the processor, nor of the pipeline."
            )
        if name in destination:
            raise ValueError(f"`{name}` is given twice, as an option and inside a dictionary: use one of them.")
        destination[name] = value
    if return_scenes is not None:
        processor_kwargs["return_scenes"] = return_scenes
    generate_kwargs = {name: _plain(name, value) for name, value in generate_kwargs.items()}
    _check_generation(generate_kwargs | pipeline_kwargs)
    processor_kwargs = {name: _typed(name, value) for name, value in processor_kwargs.items()}
    return generate_kwargs, processor_kwargs, pipeline_kwargs


def _typed(name: str, value: Any) -> Any:
    """
    An option of the processor, a number as the type that it reads: NumPy has its own, and JSON may have 4.0 for 4.

    Raises:
        ValueError: If the value is of another type.
    """
    if value is None or name not in OPTIONS_OF_PROCESSOR:
        return value
    kind = OPTIONS_OF_PROCESSOR[name]
    kinds = {kind, *get_args(kind), *chain.from_iterable(map(get_args, get_args(kind)))}
    if isinstance(value, Real) and not isinstance(value, bool):
        is_whole = isinstance(value, Integral) or (float not in kinds and float(value).is_integer())
        value = int(value) if is_whole and int in kinds else float(value) if float in kinds else value
    # Of several videos, those that are read have no metadata of their own.
    checked = [each for each in value if each is not None] if name == "video_metadata" and _is_list(value) else value
    try:
        validate_typed_dict(FilaVideoProcessorVideosKwargs, {name: checked})
    except StrictDataclassError as error:
        raise ValueError(f"`{name}` cannot be {value!r}: {error.__cause__ or error}.") from error
    return value


def _plain(name: str, value: Any) -> Any:
    """A number for `generate` as Python's own, since NumPy has its own, and JSON may have 4.0 for 4."""
    if not _is_number(value) or name not in {*WHOLE, *NUMBERS}:
        return value
    return int(value) if name in WHOLE and float(value).is_integer() else float(value)


def _check_generation(options: dict[str, Any]) -> None:
    """
    Raises:
        ValueError: If an option of `generate` is of a wrong type, or an empty text would end every answer.
    """
    for name, value in options.items():
        items = list(value) if _is_list(value) else None
        if name in NUMBERS:
            wanted, is_right = "a number", _is_number(value)
        elif name in WHOLE:
            wanted = f"a whole number of at least {WHOLE[name]}"
            is_right = _is_number(value) and isinstance(value, Integral) and value >= WHOLE[name]
        elif name == "generation_config":
            wanted, is_right = "a `GenerationConfig`", isinstance(value, GenerationConfig)
            _check_generation(vars(value) if is_right else {})
        elif name in ("suppress_tokens", "begin_suppress_tokens"):
            wanted = "a list of whole numbers"
            is_right = items is not None and all(isinstance(item, Integral) for item in items)
        elif name in ("stop_strings", "stop_sequence"):
            wanted = "a text that is not empty" + (", or a list of them" if name == "stop_strings" else "")
            texts = items if items is not None and name == "stop_strings" else [value]
            is_right = bool(texts) and all(isinstance(text, str) and text for text in texts)
        elif name == "exponential_decay_length_penalty":
            wanted = "two numbers: from which token on, and by how much"
            is_right = items is not None and len(items) == 2 and all(map(_is_number, items))
        elif name == "sequence_bias":
            wanted = "a dictionary, or a list of pairs of tokens and a number"
            pairs = isinstance(value, dict) or items
            is_right = pairs is True or (bool(pairs) and all(_is_list(pair) and len(pair) == 2 for pair in pairs))
        elif name == "early_stopping":
            wanted, is_right = "true, false or 'never'", any(value == known for known in (True, False, "never"))
        else:
            continue
        if value is not None and not is_right:
            raise ValueError(f"`{name}` must be {wanted}, got {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _options_over(before: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options over those before, also within the dictionaries `processor_kwargs` and `generate_kwargs`."""
    merged = {**before, **options}
    for name in {"processor_kwargs", "generate_kwargs"} & before.keys():
        given = options.get(name) or {}
        excluded = set().union(*(EXCLUDES.get(option, ()) for option, value in given.items() if value is not None))
        kept = {option: value for option, value in before[name].items() if option not in excluded}
        merged[name] = {**kept, **given}
    return merged


def _is_list(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) or is_column(value)
    return is_list and type(value).__name__ != Subtitles.__name__  # the lines of one video


def _share_out(inputs: Any, options: dict[str, Any]) -> None:
    """
    Gives each of several inputs its own of the `question`, `subtitles` and `video_metadata` that are lists.

    Raises:
        ValueError: If there is not one for each, or one file of subtitles for all.
    """
    is_stream = isinstance(inputs, (Generator, Dataset))
    if not is_stream and not (isinstance(inputs, list) and inputs and isinstance(inputs[0], NumberedInput)):
        return
    for name in ("question", "subtitles", "video_metadata"):
        value = options.get(name)
        is_list, is_spoken = _is_list(value), name == "subtitles"
        if value is None or not (is_list or (is_spoken and not is_track(value))):
            continue
        if is_stream:
            instead = "each input's own as `subtitles` in its dictionary or row" if is_spoken else "one for all"
            raise ValueError(
                f"`{name}` for a generator or a dataset, whose inputs are not counted, cannot be "
                f"{'a list' if is_list else 'one file'}: pass {instead}."
            )
        if len(inputs) == 1 and not (is_list and len(value) == 1 and _is_list(value[0])):
            continue  # one for each of its videos
        if not is_list or len(value) != len(inputs):
            raise ValueError(
                f"`{name}` {f'has {len(value)} entries' if is_list else 'is one file'} for {len(inputs)} inputs: pass "
                f"a list with one for each{'' if name == 'question' else ', `None` for those without'}."
            )
        for each, one in zip(inputs, value, strict=True):
            each.options[name] = one


def _ending(answers: Iterator, streamer: Any) -> GeneratorType:
    """The answers, whose streamer ends where they break off."""
    with letting_go({"streamer": streamer}):
        yield from answers


def register_task() -> None:
    """Lets `pipeline("video-text-to-text", model=loaded_model, processor=processor)` find this class."""
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK, pipeline_class=VideoTextToTextPipeline, pt_model=AutoModelForImageTextToText, type="multimodal"
        )


__all__ = ["VideoTextToTextPipeline", "divide_options", "register_task"]
