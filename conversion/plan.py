"""What a conversion will write: everything is read and checked before the first byte, except the weights' values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import prod
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerBase
from transformers.configuration_utils import PreTrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.modeling_utils import PreTrainedModel

from ..configuration_fila_video import FilaVideoConfig, num_visual_tokens
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..processing_fila_video import FilaVideoProcessor
from ..video_processing_fila_video import FilaVideoVideoProcessor
from .files import WEIGHT_DTYPES, StoredTensor, foreign, read_checkpoint, read_json
from .layouts import (
    compare,
    find_layout,
    parts_recipe,
    rename,
    rename_language,
    rename_vision,
    unused_reason,
)
from .recipes import Recipe, pixel_settings, require_pixels
from .repository import VIDEO_TOKEN, build_processor, chat_template, generation_config, load_tokenizer
from .templates import trainable
from .towers import check_depth, tower_config

ROOM_FOR_TEXT = 1024
HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"


@dataclass
class Conversion:
    """All that is decided before anything is written."""

    config: FilaVideoConfig
    recipe: Recipe
    processor: FilaVideoProcessor
    generation_config: GenerationConfig
    stored: dict[str, StoredTensor]
    new: dict[str, torch.Tensor]
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]

    @property
    def num_bytes(self) -> int:
        return sum(prod(shape) * dtype.itemsize for shape, dtype in self.tensors.values())

    def tensor(self, name: str) -> torch.Tensor:
        """
        A tensor of the converted model.

        Raises:
            ValueError: If a value of it is no finite number, or none that the wanted type can hold.
        """
        shape, dtype = self.tensors[name]
        if name in self.new:
            return self.new[name].to(dtype)
        stored = self.stored[name]
        source = stored.load()
        tensor = source.to(dtype, copy=True, memory_format=torch.contiguous_format)
        if not tensor.isfinite().all():
            if source.isfinite().all():
                raise ValueError(f"'{stored.name}' has values that {dtype} cannot hold: use bfloat16 or float32.")
            raise ValueError(f"'{stored.name}' in {stored.file} has values that are no finite numbers.")
        if tuple(tensor.shape) != shape:
            # Rows for tokens that the vocabulary did not have: the mean of those it has, scaled differently for each
            # token, so that the model can tell them apart.
            scales = 1 - 0.01 * torch.arange(shape[0] - len(tensor))
            tensor = torch.cat([tensor, torch.outer(scales, source.mean(dim=0, dtype=torch.float32)).to(dtype)])
        return tensor


def plan_conversion(
    folders: dict[str, Path],
    *,
    overrides: dict,
    dtype: torch.dtype,
    as_source: bool,
    seed: int,
    allow_bin: bool,
) -> Conversion:
    """
    Reads everything but the values of the weights, and checks that they fit.

    Args:
        folders (`dict`): The folders of a `"checkpoint"`, or of a `"language model"`; and of a `"vision tower"`.
        overrides (`dict`): Settings of the model's configuration that are asked for instead of the source's.
        dtype (`torch.dtype`): Of the weights.
        as_source (`bool`): Whether the processor shall choose frames as the source does.
        seed (`int`): Of tensors that start new.
        allow_bin (`bool`): Whether `.bin` weights may be read.

    Raises:
        ValueError: If the layout is unknown, or something does not fit.
        FileNotFoundError: If weights, tokenizer or configuration are not there.
    """
    main = folders.get("checkpoint") or folders["language model"]
    # What is there: the tensors by the names that they will have, and a recipe that says what else is known of them.
    if "checkpoint" in folders:
        recipe, renamed = _whole_checkpoint(main, folders.get("vision tower"), allow_bin)
    else:
        recipe, renamed = _two_parts(main, folders["vision tower"], allow_bin)
    if "pooling_mode" in overrides and recipe.model.get("pooling_mode") == "pixel_shuffle":
        raise ValueError(
            f"`--pooling {overrides['pooling_mode']}` is not for {recipe.layout}, whose projector takes a pixel "
            "shuffle: leave it out."
        )
    text_config = recipe.model["text_config"]
    check_depth(text_config)
    check_depth(recipe.model["vision_config"])
    longest = getattr(text_config, "max_position_embeddings", None)
    for name, value in (("max_position_embeddings", longest), ("tokenizer_model_max_length", recipe.max_length)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{main / 'config.json'}: `{name}` must be a positive number of tokens, got {value!r}.")
    tokenizer = load_tokenizer(main, text_config, recipe)
    _place_tokens(recipe, tokenizer, main)

    # What is needed: the model itself tells its tensors, on the meta device, where they take no memory.
    with foreign(main / "config.json", "and the options given describe no model that can be built"):
        config = FilaVideoConfig(**(recipe.model | overrides))
        for each in (config, config.text_config, config.vision_config):
            each.dtype = dtype
        config.architectures = [FilaVideoForConditionalGeneration.__name__]
        with torch.device("meta"):
            model = FilaVideoForConditionalGeneration(config)
    targets = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del targets[HEAD]
        _drop_tied_head(renamed, recipe)
    # Both are held against each other. Where the vocabulary grew, the source has its own, smaller number of rows.
    shapes = {name: shape for name, (shape, _) in targets.items()}
    if recipe.grown_from is not None:
        shapes |= {name: (recipe.grown_from, *shapes[name][1:]) for name in (HEAD, EMBEDDING) if name in shapes}
    found = {name: (stored.name, stored.shape) for name, stored in renamed.items()}
    new, dropped = compare(shapes, found, recipe.new, lambda name: unused_reason(name, config))
    for reason, names in dropped.items():
        recipe.remarks.append(f"Left out: {reason} ({len(names)} tensors).")
    for name in targets.keys() & renamed.keys():
        if renamed[name].dtype not in WEIGHT_DTYPES.values():
            raise ValueError(
                f"'{renamed[name].name}' in {renamed[name].file} is of type {renamed[name].dtype}; only weights of "
                f"type {', '.join(WEIGHT_DTYPES.values())} can be converted. Convert the checkpoint that is not "
                "quantized."
            )

    # What will be written.
    _fit_context(recipe, config, tokenizer.model_max_length)
    # In the source's order, so that each of its files is read once from front to back.
    order = {name: position for position, name in enumerate(renamed)}
    strict = model._keep_in_fp32_modules_strict
    tensors = {}
    for name in sorted(targets, key=lambda name: order.get(name, -1)):
        shape, kind = targets[name]
        keep = not kind.is_floating_point or any(part in name for part in strict)
        tensors[name] = (shape, kind if keep else dtype)
    template = chat_template(main, tokenizer, recipe)
    if recipe.turns is not None:
        template = trainable(template, recipe.turns)
    sees = folders.get("vision tower", main)
    pixels = pixel_settings(sees)
    require_pixels(pixels, config.vision_config.model_type, sees)
    processor = build_processor(config, tokenizer, template, pixels, recipe, as_source)
    initial = initial_tensors(model, new, seed)
    return Conversion(config, recipe, processor, generation_config(main, tokenizer), renamed, initial, tensors)


def _whole_checkpoint(folder: Path, tower: Path | None, allow_bin: bool) -> tuple[Recipe, dict[str, StoredTensor]]:
    config = read_json(folder / "config.json")
    stored = read_checkpoint(folder, allow_bin)
    layout = find_layout(str(folder), config, stored)
    renamed = _renamed(stored, lambda name: rename(name, layout))
    if layout.needs_tower_config and not any(name.startswith("model.vision_tower.") for name in renamed):
        # Training left the tower as it was, and did not save it.
        if tower is None:
            raise ValueError(
                f"{folder} holds no weights of its vision tower ({config.get('mm_vision_tower')}): say with "
                "`--vision-tower` where they are."
            )
        renamed |= _vision_tensors(tower, allow_bin)
    shapes = {name: tensor.shape for name, tensor in renamed.items()}
    return layout.recipe(folder, config, shapes, tower), renamed


def _two_parts(language: Path, vision: Path, allow_bin: bool) -> tuple[Recipe, dict[str, StoredTensor]]:
    with foreign(language / "config.json", "describes no causal language model"):
        text_config = AutoConfig.from_pretrained(language)
        check_depth(text_config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(text_config)
    heads = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    in_memory = _names_in_memory(model)
    renamed = _renamed(
        read_checkpoint(language, allow_bin),
        lambda name: rename_language(in_memory(name), model.base_model_prefix, heads[0]),
    )
    recipe = parts_recipe(text_config, tower_config(vision))
    return recipe, renamed | _vision_tensors(vision, allow_bin)


def _vision_tensors(folder: Path, allow_bin: bool) -> dict[str, StoredTensor]:
    config = tower_config(folder)
    check_depth(config)
    with foreign(folder / "config.json", "describes no vision tower that can be built"), torch.device("meta"):
        tower = AutoModel.from_config(config)
    in_memory, own = _names_in_memory(tower), tower.state_dict().keys()
    return _renamed(
        read_checkpoint(folder, allow_bin),
        lambda name: rename_vision(in_memory(name), tower.base_model_prefix, own),
    )


def _renamed(stored: dict[str, StoredTensor], rename: Callable[[str], str]) -> dict[str, StoredTensor]:
    renamed = {}
    for name, tensor in stored.items():
        if (other := renamed.setdefault(rename(name), tensor)) is not tensor:
            raise ValueError(f"'{other.name}' and '{name}' are the same tensor in two layouts: remove one of them.")
    return renamed


def _names_in_memory(model: PreTrainedModel) -> Callable[[str], str]:
    """Some models of transformers name their parameters otherwise than their files do; it knows how."""
    renamings = [each for each in get_model_conversion_mapping(model) if not isinstance(each, WeightConverter)]
    return lambda name: reduce(lambda renamed, renaming: renaming.rename_source_key(renamed)[0], renamings, name)


def _place_tokens(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The ids of `<image>` and `<video>`; the embedding grows where it has no rows to spare for them."""
    text_config: PreTrainedConfig = recipe.model["text_config"]
    tokens = {"image": recipe.image_token, "video": VIDEO_TOKEN}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()}
    for name, token_id in ids.items():
        theirs = recipe.model.setdefault(f"{name}_token_id", token_id)
        if theirs != token_id:
            raise ValueError(
                f"The configuration says that {tokens[name]} is token {theirs}, but the tokenizer that it is "
                f"{token_id}. Are they of the same checkpoint?"
            )
    rows, needed = text_config.vocab_size, len(tokenizer)
    if needed <= rows:
        return
    without_ours = needed - sum(token_id >= rows for token_id in ids.values())
    if without_ours > rows:
        raise ValueError(
            f"{folder}: the tokenizer has {without_ours} tokens, but the embedding {rows} rows. Are they of the same "
            "checkpoint?"
        )
    recipe.grown_from = rows
    text_config.vocab_size = -(-needed // 64) * 64
    recipe.remarks.append(
        f"The vocabulary had no spare rows: the embedding grew from {rows} to {text_config.vocab_size} rows, by their "
        "mean, scaled a little differently for each."
    )


def _fit_context(recipe: Recipe, config: FilaVideoConfig, longest: int) -> None:
    """
    As many scenes as the context holds beside the question, the answer, to which half of a short one belongs, and the
    tokens of all other frames of a full pool.
    """
    each = num_visual_tokens(
        1, config.patches_per_side, config.pooling_mode, config.pooling_stride, config.newline_position
    )
    # A mark and the tokens around a scene take about so many.
    each += 16 if recipe.time_marks == "per_scene" else 0
    room = max(longest - ROOM_FOR_TEXT, longest // 2)

    def tokens(scenes: int) -> int:
        others = max(FilaVideoVideoProcessor.max_candidates - scenes * config.scene_size, 0)
        return scenes * each + others * config.background_tokens

    numbers = range(recipe.num_scenes, 0, -1)
    fitting = next((scenes for scenes in numbers if tokens(scenes) <= room), min(numbers, key=tokens))
    if tokens(fitting) > room:
        recipe.remarks.append(
            f"A full pool takes {tokens(fitting)} tokens of the {room} that the language model's context has for "
            "videos: set the processor's `max_candidates` lower for long ones."
        )
    if fitting < recipe.num_scenes:
        recipe.remarks.append(
            f"{fitting} scenes instead of {recipe.num_scenes}: the language model's context has {longest} tokens."
        )
        recipe.num_scenes = fitting


def _drop_tied_head(renamed: dict[str, StoredTensor], recipe: Recipe) -> None:
    """Some checkpoints also save a head that is the embedding."""
    head = renamed.pop(HEAD, None)
    if head is None or EMBEDDING not in renamed:
        return
    # Some say that they are tied and are not: their values are read here, before anything is written.
    embedding = renamed[EMBEDDING]
    if head.shape != embedding.shape or not torch.equal(head.load(), embedding.load()):
        raise ValueError(
            f"The configuration ties the head to the embedding, but {head.name} differs from {embedding.name}: set "
            "`tie_word_embeddings` to false in its config.json if the head is meant to be its own."
        )
    recipe.remarks.append("Left out: the head, which is the embedding (1 tensor).")


@torch.no_grad()
def initial_tensors(model: FilaVideoForConditionalGeneration, names: list[str], seed: int) -> dict[str, torch.Tensor]:
    """
    The first values of parameters, as the model itself initializes them: it is on the meta device, which their modules
    leave. The global random states, also those of accelerators, are left as they were.
    """
    with torch.random.fork_rng(devices=[]):
        # The CPU's, where the values are drawn: `torch.manual_seed` would seed every accelerator too.
        torch.random.default_generator.manual_seed(seed)
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
            module = model.get_submodule(owner)
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
    return {name: model.get_parameter(name).detach() for name in names}


__all__ = ["Conversion", "initial_tensors", "plan_conversion"]
