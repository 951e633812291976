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
"""Everything in a converted repository that is no weight: processor, tokenizer, chat template, code, model card."""

import re
import shutil
import tempfile
from pathlib import Path

from transformers import AddedToken, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, SiglipImageProcessor
from transformers.configuration_utils import PreTrainedConfig
from transformers.dynamic_module_utils import get_relative_import_files

from ..configuration_fila_video import AUTO_MAP, CUSTOM_PIPELINES, FilaVideoConfig
from ..processing_fila_video import FilaVideoProcessor
from ..video_processing_fila_video import FilaVideoVideoProcessor
from .files import read_json
from .layouts import LLAVA_NEXT

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "vocab.txt"),
    *("special_tokens_map.json", "tokenizer.model", "chat_template.jinja"),
)
SAMPLING_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")

# Turns lists of texts, images and videos into strings, for the chat templates of language models.
FLATTEN_CONTENT = """\
{%- set flat = namespace(messages=[], content='') -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}
{%- set flat.content = message['content'] -%}
{%- else -%}
{%- set flat.content = '' -%}
{%- for item in message['content'] or [] -%}
{%- if item['type'] == 'image' -%}{%- set flat.content = flat.content + '<image>\\n' -%}
{%- elif item['type'] == 'video' -%}{%- set flat.content = flat.content + '<video>\\n' -%}
{%- elif item['type'] == 'text' -%}{%- set flat.content = flat.content + item['text'] -%}
{%- else -%}{{- raise_exception('A content block is of type text, image or video, got: ' + item['type']|string) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- set flat.messages = flat.messages + [dict(message, content=flat.content)] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""
ROOT = Path(__file__).resolve().parent.parent


def load_tokenizer(
    folder: Path, text_config: PreTrainedConfig, max_length: int | None = None
) -> PreTrainedTokenizerBase:
    """
    A checkpoint's tokenizer with `<image>` and `<video>`, whose ids are the next free ones where it had none. Its
    longest prompt is `max_length` where that is given, and never longer than the language model's context.

    Raises:
        FileNotFoundError: If there is no vocabulary.
    """
    if not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise FileNotFoundError(f"{folder} has no tokenizer: one of {', '.join(VOCABULARY_FILES)} is needed.")
    with tempfile.TemporaryDirectory() as staging:
        # Beside the language model's own configuration: that of the whole checkpoint may be of a type nobody knows.
        text_config.save_pretrained(staging)
        for name in TOKENIZER_FILES:
            if (folder / name).is_file():
                shutil.copy(folder / name, staging)
        # Left, for answers to several prompts at once.
        tokenizer = AutoTokenizer.from_pretrained(staging, padding_side="left")
    tokens = [AddedToken(token, special=True, normalized=False) for token in (IMAGE_TOKEN, VIDEO_TOKEN)]
    tokenizer.add_tokens(tokens, special_tokens=True)
    longest = max_length or tokenizer.model_max_length
    tokenizer.model_max_length = min(longest, getattr(text_config, "max_position_embeddings", longest))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def chat_template(folder: Path, tokenizer: PreTrainedTokenizerBase, layout: str) -> str:
    """
    The chat template: LLaVA-NeXT's own; the one of the checkpoint if it knows videos; else the language model's, with
    placeholders for what is no text.

    Raises:
        ValueError: If there is none.
    """
    is_chatml = {"<|im_start|>", "<|im_end|>"} <= tokenizer.get_vocab().keys()
    own = None if layout == LLAVA_NEXT and is_chatml else _saved_template(folder) or tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own and VIDEO_TOKEN in own:
        return own
    if not own and not is_chatml:
        raise ValueError(f"{folder}: the tokenizer has no chat template. Add it there as chat_template.jinja.")
    # This project's own is what LLaVA-NeXT trained its Qwen2 models on.
    return FLATTEN_CONTENT + own if own else (ROOT / "chat_template.jinja").read_text(encoding="utf-8")


def _saved_template(folder: Path) -> str | None:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        if template := read_json(folder / name).get("chat_template"):
            return template
    return None


def pixel_settings(folder: Path) -> dict:
    """Settings of the processor that made the pixels of a checkpoint's videos, or else of its images."""
    nested = read_json(folder / "processor_config.json")
    for settings in (
        read_json(folder / "video_preprocessor_config.json"),
        nested.get("video_processor", {}),
        read_json(folder / "preprocessor_config.json"),
        nested.get("image_processor", {}),
    ):
        if "image_mean" in settings:
            return settings
    return {}


def build_processor(
    config: FilaVideoConfig, tokenizer: PreTrainedTokenizerBase, template: str, pixels: dict, settings: dict
) -> FilaVideoProcessor:
    """
    The processor that belongs to a model.

    Args:
        config (`FilaVideoConfig`): The model's.
        tokenizer (`PreTrainedTokenizerBase`): With `<image>` and `<video>`.
        template (`str`): The chat template.
        pixels (`dict`): May hold `image_mean` and `image_std`, 0.5 by default.
        settings (`dict`): `num_scenes` and `add_time_instruction`.
    """
    side = config.vision_config.image_size
    pixels = {
        "size": {"height": side, "width": side},
        "image_mean": pixels.get("image_mean", [0.5, 0.5, 0.5]),
        "image_std": pixels.get("image_std", [0.5, 0.5, 0.5]),
    }
    selection = {"num_scenes": settings["num_scenes"], "scene_size": config.scene_size}
    # Room for all scenes, however large they are.
    selection["max_candidates"] = max(
        FilaVideoVideoProcessor.max_candidates, selection["num_scenes"] * selection["scene_size"]
    )
    tokenizer.chat_template = template
    return FilaVideoProcessor(
        image_processor=SiglipImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=FilaVideoVideoProcessor(**pixels, **selection),
        chat_template=template,
        patches_per_side=config.patches_per_side,
        pooling_mode=config.pooling_mode,
        pooling_stride=config.pooling_stride,
        newline_position=config.newline_position,
        add_time_instruction=settings["add_time_instruction"],
    )


def generation_config(folder: Path, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """A checkpoint's own generation settings, or greedy decoding that stops where a turn ends."""
    if (folder / "generation_config.json").is_file():
        config = GenerationConfig.from_pretrained(folder)
    else:
        ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
        ends = [end for end in dict.fromkeys(ends) if end is not None and end != tokenizer.unk_token_id]
        config = GenerationConfig(eos_token_id=ends or [tokenizer.eos_token_id])
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    try:
        config.validate(strict=True)
    except ValueError:
        # Older releases saved settings of sampling beside `do_sample=False`, where they do nothing; newer ones refuse.
        for name in SAMPLING_SETTINGS:
            setattr(config, name, getattr(GenerationConfig(), name))
        config.validate(strict=True)
    return config


def code_files() -> list[Path]:
    """The files of code that a repository needs: what `auto_map` and `custom_pipelines` name, and their siblings."""
    references = [*AUTO_MAP.values(), *(pipeline["impl"] for pipeline in CUSTOM_PIPELINES.values())]
    files = {ROOT / f"{reference.split('.')[0]}.py" for reference in references}
    siblings = {Path(found) for file in files for found in get_relative_import_files(file)}
    return sorted(files | siblings)


def source_licence(folder: Path) -> str | None:
    """What a checkpoint's model card gives as its licence."""
    card = folder / "README.md"
    front_matter = (
        re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL) if card.is_file() else None
    )
    found = re.search(r"^license:\s*(\S+)\s*$", front_matter[1], re.MULTILINE) if front_matter else None
    return found[1] if found else None


def model_card(
    title: str,
    sources: dict[str, str],
    base_models: list[str],
    licence: str | None,
    config: FilaVideoConfig,
    facts: dict,
) -> str:
    """
    The README of a converted repository.

    Args:
        title (`str`): Its first line.
        sources (`dict`): For each part of the weights, where it comes from.
        base_models (`list[str]`): Those of the sources that are Hub ids.
        licence (`str`, *optional*): Of the sources.
        config (`FilaVideoConfig`): The model's.
        facts (`dict`): `layout`, `dtype`, `num_scenes`, `add_time_instruction`, `new` (tensors' names), `remarks`.
    """
    front = ["library_name: transformers", "pipeline_tag: video-text-to-text", "tags:", "- fila-video", "- long-video"]
    front += [f"license: {licence}"] if licence else []
    front += ["base_model:", *(f"- {name}" for name in base_models)] if base_models else []
    rows = {
        "frames in a scene": f"{config.scene_size}, merged by `{config.merger_type}`",
        "scenes of a video": facts["num_scenes"],
        "pooling": f"`{config.pooling_mode}`, stride {config.pooling_stride}",
        "newline": f"`{config.newline_position}`",
        "timestamps in the prompt": "yes" if facts["add_time_instruction"] else "no",
        "weights": facts["dtype"],
    }
    lines = ["---", *front, "---", "", f"# {title}", ""]
    lines += ["A FiLA-Video model, converted from existing weights; it was not trained further.", ""]
    lines += ["## Where the weights come from", ""]
    lines += [f"- {part}: {source}" for part, source in sources.items()]
    lines += [f"- Layout of the source: {facts['layout']}."]
    lines += [f"- New, not from the source: {', '.join(f'`{name}`' for name in facts['new']) or 'nothing'}."]
    lines += [f"- {remark}" for remark in facts["remarks"]]
    if config.merger_type == "weighted":
        lines += ["- The scene merger is untrained: it averages the frames of a scene until it is fine-tuned."]
    lines += ["- The sources' licences hold for this repository too.", "", "## Settings", "", "| setting | value |"]
    lines += [
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items()),
        "",
        "## Use",
        "",
        "```python",
    ]
    lines += ["from transformers import pipeline", ""]
    lines += ['pipe = pipeline("video-text-to-text", model=".", trust_remote_code=True)  # or this repository\'s id']
    lines += ['messages = [{"role": "user", "content": [{"type": "video", "path": "video.mp4"},']
    lines += ['                                         {"type": "text", "text": "What happens?"}]}]']
    lines += ['print(pipe(text=messages, max_new_tokens=64)[0]["generated_text"])', "```", ""]
    return "\n".join(lines)


__all__ = [
    "build_processor",
    "chat_template",
    "code_files",
    "generation_config",
    "load_tokenizer",
    "model_card",
    "pixel_settings",
    "source_licence",
]
