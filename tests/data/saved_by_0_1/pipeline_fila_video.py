# Copyright 2026 The FiLA-Video authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The `video-text-to-text` pipeline: a video and a question in, text out."""

from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText
from transformers.generation import GenerationConfig
from transformers.modeling_outputs import ModelOutput
from transformers.pipelines import PIPELINE_REGISTRY, ImageTextToTextPipeline, Pipeline
from transformers.pipelines.image_text_to_text import ReturnType
from transformers.utils.chat_template_utils import Chat

from .processing_fila_video import FilaVideoProcessorKwargs
from .video_inputs_fila_video import flatten_videos, videos_of_rows
from .video_reading_fila_video import VideoFrames, VideoSegment

TASK = "video-text-to-text"

# What `generate` takes besides the fields of a `GenerationConfig`.
GENERATE_ARGUMENTS = {
    "assistant_model",
    "assistant_tokenizer",
    "custom_generate",
    "generation_config",
    "logits_processor",
    "negative_prompt_attention_mask",
    "negative_prompt_ids",
    "prefix_allowed_tokens_fn",
    "stopping_criteria",
    "streamer",
    "synced_gpus",
    "tokenizer",
    "use_model_defaults",
} | {name for name in vars(GenerationConfig()) if not name.startswith("_") and name != "transformers_version"}

# What is a video and can be nothing else; a list may also hold chats.
VIDEO_TYPES = (str, Path, bytes, np.ndarray, torch.Tensor, Image.Image, VideoFrames, VideoSegment)


class VideoTextToTextPipeline(ImageTextToTextPipeline):
    """
    Answers questions about videos with a FiLA-Video model, built on transformers' image-text-to-text pipeline: its
    results have the same shape, and its options (`return_full_text`, `return_tensors`, `stop_sequence`, ...) mean the
    same. The pipeline sets `processor.frame_encoder` to the model's own, as the paper selects scenes.

    ```python
    >>> pipe = pipeline("video-text-to-text", model="path/to/FiLA-Video", trust_remote_code=True)
    >>> pipe("video.mp4", text="What happens in this video?", max_new_tokens=64, return_full_text=False)
    [{"input_text": "What happens in this video?", "generated_text": "..."}]
    ```
    """

    _load_video_processor = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.processor is None:
            raise ValueError(
                "The pipeline needs a processor: pass `processor=AutoProcessor.from_pretrained(..., "
                "trust_remote_code=True)` along with a loaded model."
            )
        self.processor.frame_encoder = self.model.encode_frames

    def check_model_type(self, supported_models):
        # The base class knows the library's own models by name. Ours is known by what the pipeline needs of it, also
        # where peft wraps it.
        if not hasattr(self.model, "encode_frames"):
            raise ValueError(f"A {type(self.model).__name__} is no FiLA-Video model: it has no `encode_frames`.")

    def __call__(self, videos: Any = None, text: Any = None, **kwargs) -> list:
        """
        Args:
            videos: What the questions are about: a path, URL, bytes, a file object, an array, or a list of pictures; a
                list of these (or of lists of them) where `text` is a list of as many questions, or one question about
                all of them; a generator or dataset of them where one question is about each. Instead of `videos` and
                `text` also a chat, a list of chats, or a list, generator or dataset of chats and of
                dictionaries with `videos` and `text`.
            text (`str` or `list`): The question, the questions, a chat or chats.
            **kwargs:
                Options of `generate` (`max_new_tokens`, `do_sample`, `streamer`, ...), of the processor (`num_scenes`,
                `selection`, `num_frames`, ...), and of the pipeline (`batch_size`, `return_full_text`,
                `return_scenes`, `return_tensors`, ...). `return_scenes=True` adds `scenes` to every result: a
                dictionary a video, with `indices`, `timestamps` and `duration`.

        Returns:
            A list with a dictionary an answer (`input_text` and `generated_text`), or for several inputs a list of
            such lists.

        Raises:
            ValueError: If there is nothing to answer, the questions and videos differ in number, a text contains
                control tokens, or an option is unknown.
        """
        if text is None:
            if videos is None or (isinstance(videos, (list, tuple)) and not videos):
                raise ValueError("There is nothing to answer: pass a video with `text=`, or a chat.")
            first = videos[0] if isinstance(videos, (list, tuple)) else videos
            if isinstance(first, VIDEO_TYPES):
                raise ValueError("There is a video but no question: pass it as `text=`.")
            return Pipeline.__call__(self, videos, **kwargs)
        if videos is None:
            if isinstance(text, (list, tuple)) and not text:
                raise ValueError("`text` is an empty batch: pass at least one question.")
            return Pipeline.__call__(self, text, **kwargs)
        if isinstance(text, str):
            if isinstance(videos, GeneratorType):
                return Pipeline.__call__(self, ({"videos": video, "text": text} for video in videos), **kwargs)
            if isinstance(videos, Dataset):
                return Pipeline.__call__(self, _Asked(videos, text), **kwargs)
            return Pipeline.__call__(self, {"videos": videos, "text": text}, **kwargs)
        if not isinstance(text, (list, tuple)):
            raise ValueError(f"`text` must be a string, a list of strings or a chat, got a {type(text).__name__}.")
        if not text:
            raise ValueError("`text` is an empty batch: pass at least one question.")
        if isinstance(text[0], (dict, list, tuple)):
            raise ValueError("Videos belong into a chat's `content`: pass the chat alone, or plain questions.")
        if videos_of_rows(videos, len(text)) is None:
            videos = flatten_videos(videos)
        if len(videos) != len(text):
            raise ValueError(f"`videos` has {len(videos)} videos and `text` {len(text)} questions: pass one for each.")
        pairs = [{"videos": video, "text": question} for video, question in zip(videos, text, strict=True)]
        return Pipeline.__call__(self, pairs, **kwargs)

    def _sanitize_parameters(self, generate_kwargs=None, processor_kwargs=None, return_scenes=None, **kwargs):
        generate_kwargs, processor_kwargs = dict(generate_kwargs or {}), dict(processor_kwargs or {})
        videos_kwargs = FilaVideoProcessorKwargs.__annotations__["videos_kwargs"].__annotations__
        pipeline_kwargs = {}
        for name, value in kwargs.items():
            if name in PIPELINE_ARGUMENTS:
                pipeline_kwargs[name] = value
                continue
            destination = generate_kwargs if name in GENERATE_ARGUMENTS else processor_kwargs
            if destination is processor_kwargs and name not in videos_kwargs:
                raise ValueError(
                    f"`{name}` is an option neither of `generate`, nor of the processor, nor of the pipeline."
                )
            if name in destination:
                raise ValueError(f"`{name}` is given twice, as an option and inside a dictionary: use one of them.")
            destination[name] = value
        if return_scenes:
            processor_kwargs["return_scenes"] = True
        return super()._sanitize_parameters(
            generate_kwargs=generate_kwargs or None, processor_kwargs=processor_kwargs or None, **pipeline_kwargs
        )

    def preprocess(self, inputs, continue_final_message=None, processor_kwargs=None, **template_kwargs):
        messages, prompt = _as_chat(inputs)
        if continue_final_message is None:
            continue_final_message = messages[-1]["role"] == "assistant"
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
        return {"model_inputs": model_inputs.to(dtype=self.dtype), "text": prompt, "scenes": scenes}

    def _forward(self, model_inputs, generate_kwargs=None):
        inputs, prompts, scenes = model_inputs["model_inputs"], model_inputs["text"], model_inputs["scenes"]
        if isinstance(inputs, list):
            inputs = self.processor.collate(inputs)
        generate_kwargs = dict(generate_kwargs or {})
        if not hasattr(self, "_prepare_generate_kwargs") and "generation_config" not in generate_kwargs:
            # Older transformers pass a config beside the arguments, about which `generate` warns: arguments alone.
            settings = self.generation_config.to_diff_dict()
            settings = {name: settings[name] for name in GENERATE_ARGUMENTS & settings.keys()}
            if {**settings, **generate_kwargs}.get("max_new_tokens") is not None:
                settings.pop("max_length", None)
            generate_kwargs = {**settings, **generate_kwargs, "generation_config": None}
        outputs = super()._forward({**inputs, "text": prompts}, generate_kwargs)
        sequences = outputs["generated_sequence"]
        batch_size = len(inputs["input_ids"])
        if sequences.ndim == 2 and len(sequences) > batch_size:  # several answers to a prompt
            outputs["generated_sequence"] = sequences.unflatten(0, (batch_size, -1))
        return ModelOutput(**outputs, scenes=scenes)

    def postprocess(self, model_outputs, return_type=ReturnType.FULL_TEXT, **kwargs):
        sequences = model_outputs["generated_sequence"]
        sequences = sequences.flatten(0, 1) if sequences.ndim == 3 else sequences
        prompt = model_outputs["prompt_text"]
        outputs = {
            "generated_sequence": sequences,
            "prompt_text": [prompt] * len(sequences),
            "input_ids": model_outputs["input_ids"].expand(len(sequences), -1),
        }
        records = super().postprocess(outputs, return_type=return_type, **kwargs)
        if model_outputs.get("scenes") is not None:
            records = [{**record, "scenes": model_outputs["scenes"]} for record in records]
        return records

    def save_pretrained(self, save_directory, **kwargs):
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)


PIPELINE_ARGUMENTS = {
    "timeout",
    "return_full_text",
    "return_tensors",
    "return_type",
    "clean_up_tokenization_spaces",
    "stop_sequence",
    "continue_final_message",
    "skip_special_tokens",
    "tools",
}


class _Asked(Dataset):
    """A dataset of videos, with one question about each."""

    def __init__(self, videos: Dataset, text: str):
        self.videos, self.text = videos, text

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        return {"videos": self.videos[index], "text": self.text}


def _as_chat(inputs: Any) -> tuple[list[dict], Any]:
    """The messages of one input, and the prompt that the result repeats."""
    if isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], dict) and "role" in inputs[0]:
        inputs = Chat(list(inputs))
    if isinstance(inputs, Chat):
        *_, last = inputs.messages
        if last["role"] == "assistant" and isinstance(last["content"], str):
            # The base class continues the last block of a message.
            last = {**last, "content": [{"type": "text", "text": last["content"]}]}
            inputs = Chat([*inputs.messages[:-1], last])
        return inputs.messages, inputs
    if isinstance(inputs, str):
        inputs = {"text": inputs}
    if not isinstance(inputs, dict) or not isinstance(inputs.get("text"), str):
        raise ValueError(
            "An input is a chat, a question, or a dictionary with `videos` and a question as `text`, got "
            f"{type(inputs).__name__}{' with ' + ', '.join(inputs) if isinstance(inputs, dict) else ''}."
        )
    if not inputs["text"].strip():
        raise ValueError("The question is empty: ask something.")
    unknown = inputs.keys() - {"videos", "text"}
    if unknown:
        raise ValueError(f"An input has `videos` and `text`, but this one also has {', '.join(sorted(unknown))}.")
    videos = [] if inputs.get("videos") is None else flatten_videos(inputs["videos"])
    content = [{"type": "video", "video": video} for video in videos] + [{"type": "text", "text": inputs["text"]}]
    return [{"role": "user", "content": content}], inputs["text"]


def register_task():
    """Lets `pipeline("video-text-to-text", model=loaded_model, processor=processor)` find this class."""
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK, pipeline_class=VideoTextToTextPipeline, pt_model=AutoModelForImageTextToText, type="multimodal"
        )


__all__ = ["VideoTextToTextPipeline", "register_task"]
