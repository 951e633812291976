"""FiLA-Video processor: text, images and videos in, model inputs out; it selects the scenes of each video."""

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.processing_utils import MultiModalData, ProcessorMixin
from transformers.utils import auto_docstring, logging
from transformers.utils.chat_template_utils import _get_template_variables
from transformers.video_utils import VideoMetadata

from .chat_inputs_fila_video import check_control_tokens, check_prompts, last_questions, normalize_chats
from .configuration_fila_video import SHARED_WITH_PROCESSOR, check_shared_settings
from .encoded_video_fila_video import EncodedVideo, encode_video
from .frame_selector_fila_video import FrameSelector
from .question_selection_fila_video import Question
from .scene_selection_fila_video import background_places
from .subtitles_fila_video import subtitles_of_videos
from .video_inputs_fila_video import check_rows, flatten_metadata, flatten_videos, videos_of_rows
from .video_pictures_fila_video import images_of_rows, load_images
from .video_processing_fila_video import (
    READING,
    SETTINGS,
    FilaVideoProcessorKwargs,
    FilaVideoVideoProcessor,
    check_resample,
    collate,
    pad_rows,
    plain_numbers,
    stack_videos,
)
from .video_prompt_fila_video import (
    TIME_SETTINGS,
    AskedVideo,
    TokenCounter,
    VideoPrompt,
    asked_videos,
    describe_scenes,
    prompt_of_question,
    questions_of_videos,
)

logger = logging.get_logger(__name__)

TEMPLATE_ARGUMENTS = {*inspect.signature(ProcessorMixin.apply_chat_template).parameters}
# Of a model's loading, which is handed to a processor too: those of its options that read like a setting.
HANDED_THROUGH = {"device_map", "device_mesh", "tp_size"}


@auto_docstring
class FilaVideoProcessor(ProcessorMixin):
    valid_processor_kwargs = FilaVideoProcessorKwargs
    skip_tensor_conversion = ["video_metadata", "text_replacement_offsets", "scenes"]

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        video_processor: FilaVideoVideoProcessor | None = None,
        chat_template: str | dict[str, str] | None = None,
        patches_per_side: int = 27,
        pooling_mode: str = "bilinear",
        pooling_stride: int = 2,
        newline_position: str = "video",
        visual_start: str = "",
        visual_end: str = "",
        video_intro: str = "",
        video_outro: str = "",
        **kwargs: Any,
    ) -> None:
        r"""
        patches_per_side (`int`, *optional*, defaults to 27):
            Patches along one side of the vision tower's grid. This and the next three must be the model's.
        pooling_mode (`str`, *optional*, defaults to `"bilinear"`):
            How the model pools a frame's tokens.
        pooling_stride (`int`, *optional*, defaults to 2):
            By how much.
        newline_position (`str`, *optional*, defaults to `"video"`):
            Where the model puts its newline embedding.
        visual_start (`str`, *optional*, defaults to `""`):
            Text before the tokens of each scene and each image.
        visual_end (`str`, *optional*, defaults to `""`):
            And behind them.
        video_intro (`str`, *optional*, defaults to `""`):
            Text before a video, which may name its `{count}` of scenes, also `{count_in_words}`, and its duration as
            `{seconds}` or `{clock}`.
        video_outro (`str`, *optional*, defaults to `""`):
            And behind it.
        """
        self.patches_per_side = patches_per_side
        self.pooling_mode = pooling_mode
        self.pooling_stride = pooling_stride
        self.newline_position = newline_position
        self.visual_start = visual_start
        self.visual_end = visual_end
        self.video_intro = video_intro
        self.video_outro = video_outro
        self.image_token = getattr(tokenizer, "image_token", "<image>")
        self.video_token = getattr(tokenizer, "video_token", "<video>")
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        self._selector = FrameSelector()
        old_time_setting = kwargs.pop("add_time_instruction", None)
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs)
        if old_time_setting is not None:
            self.add_time_instruction = old_time_setting
        # Who holds a processor may call `pipeline("video-text-to-text", model=model, processor=processor)`. Not above:
        # the pipeline imports this module.
        from .pipeline_fila_video import register_task

        register_task()

    @classmethod
    def from_args_and_dict(cls, args: tuple, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        Raises:
            ValueError: If a setting has a value that it cannot have, or the name of one that is given is mistyped.
        """
        # Folders that were saved before have `add_time_instruction` among the processor's own settings.
        old_time_setting = kwargs.pop("add_time_instruction", processor_dict.get("add_time_instruction"))
        loaded = super().from_args_and_dict(args, processor_dict, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        if old_time_setting is not None:
            processor.add_time_instruction = old_time_setting
        processor.video_processor.scene_settings()
        processor._video_prompt()
        check_resample(processor.video_processor.resample)
        known = {*processor.video_processor.valid_kwargs.__annotations__, *inspect.signature(cls).parameters}
        parts = (processor.video_processor, processor.image_processor, processor.tokenizer)
        for name in kwargs.keys() - known - HANDED_THROUGH:
            close = get_close_matches(name, known - {"kwargs"}, n=1, cutoff=0.7)
            if not close or any(hasattr(part, name) for part in parts):
                continue
            if get_close_matches(name, close, cutoff=0.85):
                raise ValueError(f"`{name}` is no setting of a processor: write `{close[0]}`, or leave it out.")
            logger.warning_once(f"`{name}` is no setting of a processor, unlike `{close[0]}`: nothing is read of it.")
        return loaded

    @property
    def add_time_instruction(self) -> bool:
        """Whether a sentence names the times: the older form of `time_marks`."""
        return self.time_marks != "none"

    @add_time_instruction.setter
    def add_time_instruction(self, value: bool) -> None:
        if value != self.add_time_instruction:  # which another sentence fulfills too
            self.time_marks = "sentence" if value else "none"

    def bind(self, model: torch.nn.Module) -> "FilaVideoProcessor":
        """
        Selects scenes on the features of `model`, by its `encode_frames`. The processor holds the model by a weak
        reference, and saving, copying, pickling and printing the processor leave it out. Returns the processor itself.

        The model then gets features that are computed already, from which its vision tower does not learn: to train
        that too, set `frame_encoder` to `None`.

        Raises:
            ValueError: If it has no `encode_frames`, or a setting differs; later, if it is gone when a video comes.
        """
        if not hasattr(model, "encode_frames"):
            raise ValueError(
                f"A {type(model).__name__} is not a FiLA-Video model: it has no `encode_frames`. Of a wrapper, as "
                "of DDP, bind the model inside."
            )
        check_shared_settings(model, self, self)
        self._selector = FrameSelector(model=model, scorer=self._selector.scorer)
        return self

    @property
    def frame_encoder(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """
        What scenes are selected with: a function from normalized pixels `(num_frames, 3, height, width)` to patch
        features `(num_frames, num_patches, hidden_size)`, usually `model.encode_frames`. Without one, thumbnails
        of the frames serve. It is a guest: saving, copying, pickling and printing the processor leave it out.

        Raises:
            ValueError: When it is set to a model's method and a setting differs from the model's.
        """
        return self._selector.encoder

    @frame_encoder.setter
    def frame_encoder(self, encoder: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        model = getattr(encoder, "__self__", None)
        model = model if isinstance(model, torch.nn.Module) else None
        check_shared_settings(model, self, self)
        self._selector = FrameSelector(encoder, model, self._selector.scorer)

    @property
    def question_scorer(self) -> Callable[[torch.Tensor, str], torch.Tensor] | None:
        """
        What scores frames for `selection="question"` in place of the bound model: a function from frames `(num_frames,
        3, height, width)`, uint8, and a question to scores `(num_frames,)`, such as a [`ContrastiveScorer`]. It gets
        frames as the `pictures` of an [`EncodedVideo`] are, whatever form the video has. A guest like `frame_encoder`.
        """
        return self._selector.scorer

    @question_scorer.setter
    def question_scorer(self, scorer: Callable[[torch.Tensor, str], torch.Tensor] | None) -> None:
        self._selector.scorer = scorer

    def __copy__(self) -> "FilaVideoProcessor":
        # With settings of its own. The tokenizer, which is large and has none of them, is the same one.
        return copy.deepcopy(self, {id(self.tokenizer): self.tokenizer})

    def to_dict(self) -> dict[str, Any]:
        # Saving sets it on the object; so a saved and a loaded processor are equal.
        return {**super().to_dict(), "auto_map": {"AutoProcessor": "processing_fila_video.FilaVideoProcessor"}}

    @property
    def model_input_names(self) -> list[str]:
        names = dict.fromkeys([*super().model_input_names, *self.video_processor.model_input_names])
        # What the settings do not give.
        if not self.background_tokens or self.frame_encoding == "cooperative":
            names.pop("video_background_places")
        if self.background_tokens < 2 or self.frame_encoding != "cooperative":
            names.pop("video_question_ids")
        return list(names)

    def _merge_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, Any]]:
        # What the base class gets it copies deeply: a method would tell a copy of its object, and no open file can be.
        nested, apart = kwargs.get("videos_kwargs") or {}, ("progress", "subtitles")
        kept = {name: given[name] for given in (nested, kwargs) for name in apart if name in given}
        kwargs = plain_numbers(kwargs | dict.fromkeys(kwargs.keys() & apart))
        if nested:
            kwargs["videos_kwargs"] = plain_numbers(nested | dict.fromkeys(nested.keys() & apart))
        merged = super()._merge_kwargs(*args, **kwargs)
        videos_kwargs = merged["videos_kwargs"]
        videos_kwargs |= kept
        check_resample(merged["images_kwargs"].get("resample"))
        check_resample(videos_kwargs.get("resample"))
        # vLLM, which keeps a video apart from its text, asks for these offsets; masks do too, with `thin_times=False`.
        is_server = kwargs.get("return_text_replacement_offsets") and videos_kwargs.setdefault("thin_times", True)
        if is_server and videos_kwargs.get("selection", self.selection) == "question":
            raise ValueError(
                "`selection='question'` does not work in a server that keeps a video apart from its question, as vLLM "
                'does: choose another, such as --mm-processor-kwargs \'{"selection": "kmeans"}\'.'
            )
        if is_server and self.frame_encoding == "cooperative":
            raise ValueError(
                "`frame_encoding='cooperative'` cannot be served by vLLM: what it reads of a video depends on the "
                "question, which vLLM does not pass along with it. Serve a model with `frame_encoding='scenes'`."
            )
        return merged

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> tuple[Any, list[str] | None, Any, Any]:
        text = [text] if isinstance(text, str) else text if text is None else list(text)
        # Sanitized texts come from chats, where the rows agree, and may hold tokens that are none.
        count_rows = text is not None and not kwargs.get("sanitize_control_tokens")
        if videos is not None:
            rows = videos_of_rows(videos, len(text)) if count_rows else None
            check_rows(text, rows, self.video_token, "videos")
            videos, tokens = flatten_videos(videos), (self.video_token, self.image_token)
            videos = None if text and not videos else asked_videos(videos, text, self.tokenizer, tokens)
        if images is not None:
            rows = images_of_rows(images, len(text)) if count_rows else None
            check_rows(text, rows, self.image_token, "images")
            rescale = kwargs.get("do_rescale", (kwargs.get("images_kwargs") or {}).get("do_rescale"))
            rescale = self.image_processor.do_rescale if rescale is None else rescale
            access = self.video_processor.access(**((kwargs.get("videos_kwargs") or {}) | kwargs))
            images = load_images(images, rescale, **access)
            images = None if text and not images else images
        return images, text, videos, audio

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        if images is None and text is None and videos is None:
            raise ValueError("Pass at least one of `text`, `images` and `videos`.")
        if audio is not None:
            logger.warning_once("FiLA-Video takes no sound: `audio` is left out.")
        for name, given in (("text", text), ("images", images), ("videos", videos)):
            if given is not None and not given:
                raise ValueError(f"`{name}` is an empty batch: pass at least one of them.")
        if videos is None:  # by which settings are checked otherwise
            settings = (kwargs.get("videos_kwargs") or {}) | kwargs
            self.video_processor.scene_settings(**settings)
            self._video_prompt(**settings)
            subtitles_of_videos(settings.get("subtitles"), [], self.tokenizer, {})
        if text is not None:
            check_prompts(text, {"images": (self.image_token, images), "videos": (self.video_token, videos)})

    def _process_videos(self, videos: list, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        given = {name: value for name, value in kwargs.items() if value is not None}
        return_scenes, return_metadata = given.pop("return_scenes", False), given.pop("return_metadata", False)
        progress, return_tensors = given.pop("progress", None), given.pop("return_tensors", None)
        # Whatever can be refused is refused before anything is read.
        prompt = self._video_prompt(**given)
        if return_scenes not in (True, False, "pictures"):
            raise ValueError(f"`return_scenes` is True, False or 'pictures', got {return_scenes!r}.")
        questions = questions_of_videos(given.pop("question", None), videos)
        videos = [video.video if isinstance(video, AskedVideo) else video for video in videos]
        most_spoken, subtitles = given.pop("subtitle_tokens", 2048), given.pop("subtitles", None)
        metadata = flatten_metadata(given.pop("video_metadata", None), len(videos))
        subtitles = subtitles_of_videos(subtitles, videos, self.tokenizer, self.video_processor.access(**given))
        settings = self.video_processor.scene_settings(**given)
        prompt.check_encoding(settings.frame_encoding)
        check_shared_settings(self._selector.model, self, settings)
        for text in (*questions, settings.asking.neutral_question) if self._selector.scorer is None else ():
            self._check_question(text)

        def pixels(frames: torch.Tensor, device: Any) -> torch.Tensor:
            return self.video_processor.pixels(frames, **{"device": device} | given)

        def scoring_prompt(question: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            self._check_question(question)  # also an encoded video's own neutral one
            render = None if self.chat_template is None else super(FilaVideoProcessor, self).apply_chat_template
            return prompt_of_question(question, self.tokenizer, self.video_token, render)

        rows = []
        for video, info, lines, text in zip(videos, metadata, subtitles, questions, strict=True):
            pool, info, scene_settings = self.video_processor.load_pool(video, info, progress, **given)
            frames = pool.asked_of(self._selector) if isinstance(pool, EncodedVideo) else pool
            if scene_settings.selection == "question" and not text.strip():
                logger.warning_once(
                    "`selection='question'`, but nothing is asked about a video: its scenes are selected by k-means."
                )
                scene_settings = replace(scene_settings, selection="kmeans")
            question = Question(text, torch.tensor(info.timestamps, dtype=torch.float64), scoring_prompt, info)
            selected = self._selector.select(frames, scene_settings, pixels, progress, question)
            scene = describe_scenes(selected, info, text, pool if return_scenes == "pictures" else None)
            if lines is not None:
                prompt.add_subtitles(scene, lines, most_spoken, self.tokenizer)
            rows.append((selected, scene, info, vars(scene_settings)))

        selections, scenes, infos, of_each = map(list, zip(*rows, strict=True))
        processed = stack_videos([selected.inputs for selected in selections], return_tensors)
        processed["video_num_scenes"] = [len(scene["indices"]) for scene in scenes]
        is_cooperative = settings.frame_encoding == "cooperative"
        if settings.background_tokens and not is_cooperative:
            places = [background_places(selected.indices, selected.background) for selected in selections]
            processed["video_background_places"] = pad_rows(places)
        if settings.background_tokens == 2 and is_cooperative:
            if not all(text.strip() for text in questions):
                logger.warning_once("Nothing is asked about a video: all patches of a frame count the same.")
            rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in questions]
            processed["video_question_ids"] = pad_rows([torch.tensor(row, dtype=torch.long) for row in rows])
        told = processed | {"scenes": scenes}  # the text needs them, whoever asked for them
        replacements = [self.replace_video_token(told, index, **given | own) for index, own in enumerate(of_each)]
        processed = told if return_scenes else processed
        processed |= {"video_metadata": infos} if return_metadata else {}
        batch = BatchFeature(processed, return_tensors, skip_tensor_conversion=self.skip_tensor_conversion)
        return batch, replacements

    def encode_video(
        self,
        video: Any,
        video_metadata: VideoMetadata | dict | None = None,
        progress: Callable[[str, int, int], None] | None = None,
        **settings: Any,
    ) -> EncodedVideo:
        """
        Reads a video once, and encodes its candidate frames where there is a frame encoder. What comes back is passed
        like the video, in chats, as `videos` and to the pipeline; each question selects its scenes from it anew.

        Args:
            video: One video, in any form that this processor takes.
            video_metadata (*optional*): Of frames given as they are.
            progress (`Callable[[str, int, int], None]`, *optional*):
                Called with "reading" or "encoding", the frames done and their total.
            **settings:
                Of the pool and the pixels (`candidate_fps`, `num_frames`, ...), which a question cannot set another
                way, nor what a model has too (`scene_size`, ...); and of the selection (`num_scenes`, `selection`,
                ...), which it can. Patch features are kept up to `max_feature_bytes`; above it the frames are, and a
                question's are encoded again.

        Raises:
            ValueError: If it is no video or several, or a setting is unknown; as `VideoReadError` where a file cannot
            be read.
        """
        videos = flatten_videos(video)
        if len(videos) != 1:
            raise ValueError(f"Encode one video at a time, got {len(videos)}.")
        if isinstance(videos[0], EncodedVideo):
            raise ValueError(f"{videos[0]!r} is encoded already.")
        check_shared_settings(self._selector.model, self, self.video_processor.scene_settings(**settings))
        return encode_video(self.video_processor, self._selector, videos[0], video_metadata, progress, settings)

    def _counter(self, **overrides: Any) -> TokenCounter:
        shape = {name: getattr(self, name) for name in SHARED_WITH_PROCESSOR}
        return TokenCounter(self.video_processor.scene_settings(**overrides), **shape)

    def _video_prompt(self, **overrides: Any) -> VideoPrompt:
        """How the text of a video is made: the processor's settings, and a call's over them; others are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(VideoPrompt)}
        values |= {name: overrides[name] for name in TIME_SETTINGS if overrides.get(name) is not None}
        return VideoPrompt(**values)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return self.visual_start + self.image_token * self._counter().of_scenes(1) + self.visual_end

    def replace_video_token(self, video_inputs: dict, video_idx: int, thin_times: bool = False, **kwargs: Any) -> str:
        """
        What a video's placeholder becomes: a token for each of its embeddings, and the times of its scenes.
        `kwargs` may hold a call's `time_marks`, `time_template` and `scene_time`, and the video's [`SceneSettings`].
        """
        prompt = self._video_prompt(**kwargs)
        scenes = video_inputs["scenes"][video_idx]
        num_scenes = len(scenes["timestamps"])
        places = video_inputs.get("video_background_places")
        counter = self._counter(**kwargs)
        layout = counter.layout(num_scenes, () if places is None else places[video_idx].tolist())
        # CODEPATH: of the many frames of DynFocus, as many times are named as there would be scenes.
        is_cooperative = counter.scenes.frame_encoding == "cooperative"
        every = -(-num_scenes // counter.scenes.num_scenes) if is_cooperative else 1
        prompt.check_encoding(counter.scenes.frame_encoding)  # which an encoded video may have of its own
        return prompt.text(self.video_token, layout, scenes, every, self.tokenizer if thin_times else None)

    @property
    def context_length(self) -> int:
        """Tokens that a prompt may have: as many as the tokenizer allows and, where one is bound, the model."""
        config = getattr(self._selector.model, "config", None)
        context = getattr(getattr(config, "text_config", None), "max_position_embeddings", None)
        return min(self.tokenizer.model_max_length, context or self.tokenizer.model_max_length)

    def _check_question(self, question: str) -> None:
        """The model scores a question before its prompt is whole, so it is refused for its own length too."""
        num_tokens = len(self.tokenizer(question, add_special_tokens=False)["input_ids"]) if question else 0
        if num_tokens > self.context_length:
            raise ValueError(
                f"A question takes {num_tokens} tokens, but the model's context has {self.context_length}. Nothing is "
                "truncated: shorten the prompt, `question` or `neutral_question`."
            )

    def _check_special_mm_tokens(self, text: list[str], text_inputs: dict, modalities: list[str]) -> None:
        super()._check_special_mm_tokens(text, text_inputs, modalities)
        masks = text_inputs.get("attention_mask", text_inputs["input_ids"])
        longest = max(int(sum(mask)) if "attention_mask" in text_inputs else len(mask) for mask in masks)
        if longest > self.context_length:
            raise ValueError(
                f"A prompt takes {longest} tokens with its images and videos, but the model's context has "
                f"{self.context_length}. Nothing is truncated: lower `num_scenes`, pass fewer videos or less text."
            )

    def _get_num_multimodal_tokens(
        self, image_sizes: list | None = None, video_sizes: list | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Placeholder tokens of images `(height, width)` and videos `(num_candidates, height, width)` of sizes."""
        counts = {}
        if image_sizes is not None:
            counts["num_image_tokens"] = [self._counter().of_scenes(1)] * len(image_sizes)
            counts["num_image_patches"] = [1] * len(image_sizes)
        if video_sizes is not None:
            counter = self._counter(**kwargs)
            do_sample = kwargs.get("do_sample_frames", self.video_processor.do_sample_frames)
            most = counter.scenes.max_candidates if do_sample else sys.maxsize
            counts["num_video_tokens"] = [counter.of_pool(min(num_frames, most)) for num_frames, *_ in video_sizes]
        return MultiModalData(**counts)

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *args: Any,
        sanitize_control_tokens: bool = False,
        **kwargs: Any,
    ) -> Any:
        """
        Renders chats, and with `tokenize=True` processes them; see `ProcessorMixin.apply_chat_template`.

        Raises:
            ValueError: If there are no messages, a question is empty, or a text contains a control or placeholder
            token. `sanitize_control_tokens=True`, where transformers has it, reads such tokens as plain text instead.
        """
        named = self.chat_template if isinstance(self.chat_template, dict) else {}
        template = chat_template or self.chat_template
        template = named.get("default" if template is named else template, template)
        chats, is_batch = normalize_chats(conversation, template)
        for chat in [] if sanitize_control_tokens else chats:
            check_control_tokens(chat, self.tokenizer)
        if kwargs.pop("load_audio_from_video", False):
            logger.warning_once("FiLA-Video takes no sound: `load_audio_from_video` is left out.")
        # Older transformers take options that are not nested in place of those that are, newer ones over them.
        variables = _get_template_variables(template) if isinstance(template, str) else ()
        flat = kwargs.keys() - TEMPLATE_ARGUMENTS - {*variables}
        options = {**(kwargs.pop("processor_kwargs", None) or {}), **{name: kwargs.pop(name) for name in flat}}
        # A mask asks for offsets, as a server does, but the sentence shall be the one of every other prompt.
        of_chat = {"thin_times": False} if kwargs.get("return_assistant_tokens_mask") else {}
        of_chat |= {"question": questions} if (questions := last_questions(chats)) else {}
        given = {**(options.get("videos_kwargs") or {}), **options}
        options |= {name: value for name, value in of_chat.items() if given.get(name) is None}
        if sanitize_control_tokens:
            if "sanitize_control_tokens" not in TEMPLATE_ARGUMENTS:
                raise ValueError("`sanitize_control_tokens` needs a newer transformers: remove such tokens yourself.")
            kwargs["sanitize_control_tokens"] = True
        chat = chats if is_batch else chats[0]
        return super().apply_chat_template(chat, chat_template, *args, processor_kwargs=options, **kwargs)

    def collate(self, items: list[BatchFeature], padding_side: str | None = None) -> BatchFeature:
        """
        One batch of several outputs of this processor (with `return_tensors="pt"`): text padded on `padding_side`, by
        default the tokenizer's, videos at their end.
        """
        return collate(items, self.tokenizer, padding_side)


# The settings of pool, selection, times and reading belong to the video processor, where a call can override them.
for setting in (*SETTINGS, *READING):
    write = partial(lambda name, self, value: setattr(self.video_processor, name, value), setting)
    setattr(FilaVideoProcessor, setting, property(attrgetter(f"video_processor.{setting}"), write))

FilaVideoProcessor.register_for_auto_class()

if __package__ == "fila_video":
    # The package, not a copy of the Hub's loader: `from_pretrained` finds the video processor by `AutoVideoProcessor`.
    sys.modules[__package__]._register_auto_classes()

__all__ = ["FilaVideoProcessor"]
