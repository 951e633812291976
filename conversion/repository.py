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
from .files import find_file, foreign, read_json, read_text
from .recipes import Recipe

VIDEO_TOKEN = "<video>"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json", "vocab.txt"),
    *("special_tokens_map.json", "tokenizer.model", "chat_template.jinja"),
)
GENERATION_SETTINGS = ("bos_token_id", "eos_token_id", "pad_token_id", "repetition_penalty", "max_new_tokens")
MAX_NEW_TOKENS = 512
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


def load_tokenizer(folder: Path, text_config: PreTrainedConfig, recipe: Recipe) -> PreTrainedTokenizerBase:
    """
    A checkpoint's tokenizer with the tokens of images and videos, whose ids are the next free ones where it had none.
    Its longest prompt is the recipe's `max_length`, where that is given, and never longer than the language model's
    context.

    Raises:
        FileNotFoundError: If there is no vocabulary.
        ValueError: If a control token that the source needs is none of its tokens, or its longest prompt no number.
    """
    if not any(find_file(folder / name) for name in VOCABULARY_FILES):
        raise FileNotFoundError(f"{folder} has no tokenizer: one of {', '.join(VOCABULARY_FILES)} is needed.")
    with tempfile.TemporaryDirectory() as staging:
        # Beside the language model's own configuration: that of the whole checkpoint may be of a type nobody knows.
        text_config.save_pretrained(staging)
        for name in TOKENIZER_FILES:
            if find_file(folder / name):
                shutil.copyfile(folder / name, Path(staging, name))
        with foreign(folder / "tokenizer_config.json", "and the files beside it describe no tokenizer"):
            # The processor looks for the token of images under this name. Padded left, for several prompts at once.
            own = {} if recipe.image_token == "<image>" else {"image_token": recipe.image_token}
            tokenizer = AutoTokenizer.from_pretrained(staging, padding_side="left", **own)
            known = tokenizer.get_vocab().keys()
            names = (recipe.image_token, VIDEO_TOKEN)
            tokens = [AddedToken(token, special=True, normalized=False) for token in names]
            tokenizer.add_tokens(tokens, special_tokens=True)
    missing = [token for token in recipe.control_tokens if token not in known]
    if missing:
        raise ValueError(
            f"{folder}: the tokenizer has no {' and no '.join(missing)}, which {recipe.layout} needs. Are its files "
            "of this checkpoint?"
        )
    longest = recipe.max_length or tokenizer.model_max_length
    if not isinstance(longest, int | float) or longest < 1:
        raise ValueError(f"{folder / 'tokenizer_config.json'}: `model_max_length` cannot be {longest!r}.")
    tokenizer.model_max_length = min(longest, getattr(text_config, "max_position_embeddings", longest))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def chat_template(folder: Path, tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> str:
    """
    The chat template: this project's own where the recipe says so (`recipe.chatml`) and the tokenizer has ChatML's
    tokens; the one of the checkpoint if it knows videos; else the recipe's, or the language model's with placeholders
    for what is no text.

    Raises:
        ValueError: If there is none.
    """
    is_chatml = {"<|im_start|>", "<|im_end|>"} <= tokenizer.get_vocab().keys()
    own = None if recipe.chatml and is_chatml else _saved_template(folder) or tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if own and not isinstance(own, str):
        raise ValueError(f"{folder}: the chat template is a {type(own).__name__}, but must be a text.")
    if own and VIDEO_TOKEN in own:
        return own
    if recipe.template is not None:
        return recipe.template
    if not own and not is_chatml:
        raise ValueError(f"{folder}: the tokenizer has no chat template. Add it there as chat_template.jinja.")
    # This project's own is what LLaVA-NeXT trained its Qwen2 models on.
    return FLATTEN_CONTENT + own if own else (ROOT / "chat_template.jinja").read_text(encoding="utf-8")


def _saved_template(folder: Path) -> str | None:
    if template := read_text(folder / "chat_template.jinja"):
        return template
    for name in ("chat_template.json", "processor_config.json"):
        if template := read_json(folder / name).get("chat_template"):
            return template
    return None


def build_processor(
    config: FilaVideoConfig,
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    pixels: dict,
    recipe: Recipe,
    as_source: bool,
) -> FilaVideoProcessor:
    """
    The processor that belongs to a model. `pixels` may hold `image_mean` and `image_std`, 0.5 by default; `as_source`
    chooses frames as the source does: evenly, each exactly where it is due.
    """
    pixels = {
        "size": {"height": config.frame_side, "width": config.frame_side},
        "image_mean": pixels.get("image_mean", [0.5, 0.5, 0.5]),
        "image_std": pixels.get("image_std", [0.5, 0.5, 0.5]),
    }
    for name in ("image_mean", "image_std"):
        value = pixels[name]
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(each, int | float) for each in value):
            raise ValueError(f"The source's `{name}` must be three numbers, one a color channel, got {value!r}.")
    selection = {"num_scenes": recipe.num_scenes, "scene_size": config.scene_size}
    selection["background_tokens"] = config.background_tokens
    # As the source tells times where every scene is a frame, as in its training. With several frames a scene
    # LLaVA-Video's sentence ("uniformly sampled") would not be true, and the paper's takes its place.
    is_untrue = recipe.time_marks == "llava_video" and config.scene_size > 1
    selection["time_marks"] = "sentence" if is_untrue else recipe.time_marks
    if recipe.time_template is not None:
        selection["time_template"] = recipe.time_template
    if as_source:
        selection |= {"selection": "uniform", "seek_mode": "exact"}
        selection |= {"even_frames": recipe.even_frames, "candidate_fps": recipe.candidate_fps}
        if recipe.crops:
            # Frames are read whole then. A pool of scenes, which is larger, is scaled to squares while it is read.
            selection |= {"do_center_crop": True, "crop_size": pixels["size"]}
            selection["size"] = {"shortest_edge": config.frame_side}
    # Room for all scenes, however large they are.
    wanted = selection["num_scenes"] * selection["scene_size"]
    selection["max_candidates"] = max(FilaVideoVideoProcessor.max_candidates, wanted)
    tokenizer.chat_template = template
    return FilaVideoProcessor(
        image_processor=SiglipImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=FilaVideoVideoProcessor(**pixels | selection),
        chat_template=template,
        patches_per_side=config.patches_per_side,
        pooling_mode=config.pooling_mode,
        pooling_stride=config.pooling_stride,
        newline_position=config.newline_position,
        **recipe.texts,
    )


def generation_config(folder: Path, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """
    Greedy decoding that stops where a turn ends. Of a checkpoint's own settings those are kept that do not sample: its
    recipes all decode greedily, whatever was left in this file by its language model.

    Raises:
        ValueError: If a setting is none that can be used.
    """
    file = folder / "generation_config.json"
    settings = {name: value for name, value in read_json(file).items() if name in GENERATION_SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, value in settings.items():
        if name == "repetition_penalty":
            good = isinstance(value, int | float) and value > 0
        elif name == "max_new_tokens":
            good = isinstance(value, int) and value > 0
        else:
            ids = value if isinstance(value, list) and name == "eos_token_id" else [value]
            good = all(isinstance(token, int) and 0 <= token < len(tokenizer) for token in ids)
        if not good:
            raise ValueError(f"{file}: `{name}` cannot be {value!r}.")
    turn = tokenizer.convert_tokens_to_ids("<|im_end|>") if "<|im_end|>" in tokenizer.get_vocab() else None
    ends = settings.get("eos_token_id")
    if ends is None:
        ends = [end for end in dict.fromkeys((turn, tokenizer.eos_token_id)) if end is not None]
        settings["eos_token_id"] = ends or [tokenizer.eos_token_id]
    elif turn is not None and "<|im_end|>" in (tokenizer.chat_template or ""):
        # The file of a language model that knew no chats names the end of a text alone.
        known = ends if isinstance(ends, list) else [ends]
        settings["eos_token_id"] = ends if turn in known else [turn, *known]
    settings.setdefault("pad_token_id", tokenizer.pad_token_id)
    settings.setdefault("max_new_tokens", MAX_NEW_TOKENS)
    return GenerationConfig(do_sample=False, **settings)


def code_files() -> list[Path]:
    """
    The files of code that a repository needs: what `auto_map` and `custom_pipelines` name, and their siblings; and the
    handler of Inference Endpoints, with the packages it needs.
    """
    references = [*AUTO_MAP.values(), *(pipeline["impl"] for pipeline in CUSTOM_PIPELINES.values())]
    files = {ROOT / f"{reference.split('.')[0]}.py" for reference in references}
    siblings = {Path(found) for file in files for found in get_relative_import_files(file)}
    return sorted(files | siblings | {ROOT / "handler.py", ROOT / "requirements.txt"})


def source_license(folder: Path) -> str | None:
    """What a checkpoint's model card gives as its license; `None` where it cannot be read or gives none."""
    card = find_file(folder / "README.md")
    text = card.read_text(encoding="utf-8", errors="replace") if card else ""
    front_matter = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*([\w.-]+)\s*$", front_matter[1], re.MULTILINE) if front_matter else None
    return found[1] if found else None


def copy_licenses(folder: Path, output: Path, suffix: str = "") -> None:
    """Copies the license and notice files of a checkpoint, the files alone."""
    for file in sorted((*folder.glob("LICENSE*"), *folder.glob("NOTICE*"))):
        if find_file(file):
            shutil.copyfile(file, output / f"{file.name}{suffix}")


__all__ = [
    "build_processor",
    "chat_template",
    "code_files",
    "copy_licenses",
    "generation_config",
    "load_tokenizer",
    "source_license",
]
