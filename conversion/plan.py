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
"""What a conversion will write: everything is read and checked before the first byte, except the weights' values."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import prod
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GenerationConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.modeling_utils import PreTrainedModel

from ..configuration_fila_video import FilaVideoConfig
from ..modeling_fila_video import FilaVideoForConditionalGeneration
from ..processing_fila_video import FilaVideoProcessor
from .files import StoredTensor, read_checkpoint, read_json
from .layouts import (
    LLAVA_NEXT,
    PARTS,
    Recipe,
    compare,
    detect_layout,
    llava_hf_recipe,
    llava_next_recipe,
    parts_recipe,
    rename,
    rename_language,
    rename_vision,
    tower_config,
    unused_reason,
)
from .repository import (
    build_processor,
    chat_template,
    generation_config,
    load_tokenizer,
    pixel_settings,
)

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

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """A tensor of the converted model, in pieces of some rows each."""
        shape, dtype = self.tensors[name]
        if name in self.new:
            yield torch.atleast_1d(self.new[name]).to(dtype)
            return
        total, rows = 0, 0
        for piece in self.stored[name].pieces():
            if rows == 0 and shape and shape[0] > self.stored[name].shape[0]:
                total = torch.zeros(shape[1:], dtype=torch.float64)
            if isinstance(total, torch.Tensor):
                total += piece.sum(dim=0, dtype=torch.float64)
            rows += piece.shape[0]
            yield _cast(piece, dtype, name)
        if isinstance(total, torch.Tensor):
            # Rows for tokens that the vocabulary did not have: the mean of those it has.
            yield (total / rows).to(dtype).expand(shape[0] - rows, *shape[1:])


def plan_conversion(
    folders: dict[str, Path], overrides: dict, dtype: torch.dtype, seed: int, allow_bin: bool
) -> Conversion:
    """Reads everything but the weights, and checks that they fit."""
    if "checkpoint" in folders:
        main = folders["checkpoint"]
        recipe, renamed = _whole_checkpoint(main, folders.get("vision tower"), allow_bin)
    else:
        main = folders["language model"]
        recipe, renamed = _two_parts(main, folders["vision tower"], allow_bin)
    text_config = recipe.model["text_config"]
    tokenizer = load_tokenizer(main, text_config, recipe.max_length)
    _place_tokens(recipe, tokenizer)
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
    shapes = {name: shape for name, (shape, _) in targets.items()}
    if recipe.grown_from is not None:
        shapes |= {name: (recipe.grown_from, *shapes[name][1:]) for name in (HEAD, EMBEDDING) if name in shapes}
    found = {name: (stored.name, stored.shape) for name, stored in renamed.items()}
    new, dropped = compare(shapes, found, recipe.new, lambda name: unused_reason(name, config))
    for reason, names in dropped.items():
        recipe.remarks.append(f"Left out: {reason} ({len(names)} tensors).")

    order = {name: position for position, name in enumerate(renamed)}
    strict = model._keep_in_fp32_modules_strict
    tensors = {}
    for name in sorted(targets, key=lambda name: order.get(name, -1)):
        shape, kind = targets[name]
        keep = not kind.is_floating_point or any(part in name for part in strict)
        tensors[name] = (shape, kind if keep else dtype)
    template = chat_template(main, tokenizer, recipe.layout)
    pixels = pixel_settings(folders.get("vision tower", main))
    processor = build_processor(config, tokenizer, template, pixels, recipe.processor)
    initial = initial_tensors(model, new, seed)
    return Conversion(config, recipe, processor, generation_config(main, tokenizer), renamed, initial, tensors)


def _whole_checkpoint(folder: Path, tower: Path | None, allow_bin: bool) -> tuple[Recipe, dict[str, StoredTensor]]:
    stored = read_checkpoint(folder, allow_bin)
    layout = detect_layout(stored)
    config = read_json(folder / "config.json")
    if not config:
        raise FileNotFoundError(f"{folder} has no config.json.")
    renamed = _renamed(stored, lambda name: rename(name, layout))
    if layout == LLAVA_NEXT:
        shapes = {name: tensor.shape for name, tensor in renamed.items()}
        return llava_next_recipe(config, shapes, None if tower is None else tower_config(str(tower))), renamed
    if tower is not None:
        raise ValueError(
            "`--vision-tower` is for LLaVA-NeXT checkpoints: llava-hf's have its configuration with them."
        )
    return llava_hf_recipe(config, pixel_settings(folder)), renamed


def _two_parts(language: Path, vision: Path, allow_bin: bool) -> tuple[Recipe, dict[str, StoredTensor]]:
    text_config, vision_config = AutoConfig.from_pretrained(language), tower_config(str(vision))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text_config)
        tower = AutoModel.from_config(vision_config)
    heads = [name for name, module in model.named_modules() if module is model.get_output_embeddings()]
    in_memory, tower_in_memory = _names_in_memory(model), _names_in_memory(tower)
    renamed = _renamed(
        read_checkpoint(language, allow_bin),
        lambda name: rename_language(in_memory(name), model.base_model_prefix, heads[0]),
    ) | _renamed(
        read_checkpoint(vision, allow_bin), lambda name: rename_vision(tower_in_memory(name), tower.base_model_prefix)
    )
    return parts_recipe(text_config, vision_config), renamed


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


def _place_tokens(recipe: Recipe, tokenizer):
    """The ids of `<image>` and `<video>`, which must have rows in the embedding."""
    text_config: PreTrainedConfig = recipe.model["text_config"]
    ids = {name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("image", "video")}
    for name, token_id in ids.items():
        theirs = recipe.model.setdefault(f"{name}_token_id", token_id)
        if theirs != token_id:
            raise ValueError(
                f"The configuration says that <{name}> is token {theirs}, but the tokenizer that it is {token_id}. "
                "Are they of the same checkpoint?"
            )
    rows, needed = text_config.vocab_size, max(ids.values()) + 1
    if needed <= rows:
        return
    if recipe.layout != PARTS:
        raise ValueError(f"The tokenizer needs {needed} rows in the embedding, but the checkpoint has {rows}.")
    recipe.grown_from = rows
    text_config.vocab_size = -(-needed // 64) * 64
    recipe.remarks.append(
        f"The vocabulary had no spare rows: the embedding grew from {rows} to {text_config.vocab_size} rows, by their "
        "mean."
    )


def _drop_tied_head(renamed: dict[str, StoredTensor], recipe: Recipe):
    """Some checkpoints also save a head that is the embedding."""
    head = renamed.pop(HEAD, None)
    if head is None or EMBEDDING not in renamed:
        return
    embedding = renamed[EMBEDDING]
    pairs = zip(head.pieces(), embedding.pieces(), strict=False)
    if head.shape != embedding.shape or not all(torch.equal(ours, theirs) for ours, theirs in pairs):
        raise ValueError(
            f"The configuration ties the head to the embedding, but {head.name} differs from {embedding.name}: set "
            "`tie_word_embeddings` to false in its config.json if the head is meant to be its own."
        )
    recipe.remarks.append("Left out: the head, which is the embedding (1 tensor).")


@torch.no_grad()
def initial_tensors(model: FilaVideoForConditionalGeneration, names: list[str], seed: int) -> dict[str, torch.Tensor]:
    """
    The first values of parameters, as the model itself initialises them.

    Args:
        model (`FilaVideoForConditionalGeneration`): On the meta device; the parameters' modules leave it.
        names (`list[str]`): Of the parameters.
        seed (`int`): Of what is random; the global state is left as it was.
    """
    tensors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
            module = model.get_submodule(owner)
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
            for name in names:
                if name.rpartition(".")[0] == owner:
                    tensors[name] = getattr(module, name.rpartition(".")[2]).detach()
    return tensors


def _cast(piece: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    cast = piece.to(dtype)
    if dtype == torch.float16 and not torch.equal(cast.isfinite(), piece.isfinite()):
        raise ValueError(f"'{name}' has values that float16 cannot hold: use bfloat16 or float32.")
    return cast


__all__ = ["Conversion", "initial_tensors", "plan_conversion"]
