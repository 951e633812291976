"""Vision towers of a source: their configuration without unused parts, and what they give for a picture."""

from math import isqrt
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, AutoModel
from transformers.configuration_utils import PreTrainedConfig

from ..configuration_fila_video import FilaVideoConfig
from .files import MAX_LAYERS, foreign, read_json

BACKBONE_SETTINGS = ("out_features", "out_indices", "stage_names")


def tower_config(folder: Path) -> PreTrainedConfig:
    """
    The configuration of a vision tower without its last layer and its head: LLaVA's "layer -2".

    Raises:
        ValueError: If it has no square grid of patches.
    """
    settings = read_json(folder / "config.json")
    # Of a model like CLIP its vision half alone: the text half would warn of token ids that nobody uses here.
    model_type = settings.get("model_type")
    if isinstance(settings.get("vision_config"), dict):
        settings = {"model_type": f"{model_type}_vision_model", **settings["vision_config"]}
        model_type = settings["model_type"]
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise ValueError(f"{folder} is no vision tower that is known: its `model_type` is {model_type!r}.")
    with foreign(folder / "config.json", f"describes no {model_type}"):
        config = without_head(CONFIG_MAPPING[model_type].from_dict(settings))
    for name in ("image_size", "patch_size", "num_hidden_layers", "hidden_size"):
        value = getattr(config, name, None)
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{folder} is no vision tower that can be used: its `{name}` is {value}, but must be a single "
                "positive number."
            )
    # Built anew, because backbones derive the names of their stages from the number of layers.
    settings = {name: value for name, value in config.to_dict().items() if name not in BACKBONE_SETTINGS}
    return type(config).from_dict(settings | {"num_hidden_layers": config.num_hidden_layers - 1})


def without_head(config: PreTrainedConfig) -> PreTrainedConfig:
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False
    return config


def so400m_config(shapes: dict[str, tuple[int, ...]], name: str | None) -> PreTrainedConfig:
    """
    The configuration of SigLIP so400m/14-384 without its last layer; LLaVA-NeXT saves the tower's name alone.

    Raises:
        ValueError: If the tensors are not this tower's.
    """
    patches = shapes.get("model.vision_tower.embeddings.patch_embedding.weight")
    positions = shapes.get("model.vision_tower.embeddings.position_embedding.weight")
    if patches not in (None, (1152, 3, 14, 14)) or positions not in (None, (729, 1152)):
        side = isqrt(positions[0]) if positions else None
        raise ValueError(
            f"The vision tower ('{name}', patch embedding {patches}, {side} x {side} patches) is not SigLIP "
            "so400m/14-384: say with `--vision-tower` where its configuration is (`fila-video convert SOURCE OUTPUT "
            "--vision-tower FOLDER`; then OUTPUT is the model to name)."
        )
    return FilaVideoConfig().vision_config


@torch.no_grad()
def feature_select_strategy(config: PreTrainedConfig) -> str:
    """
    Whether a tower gives its patches alone (`"full"`) or a class token first (`"default"`), found by running it on the
    meta device.

    Raises:
        ValueError: If it gives any other number of tokens.
    """
    check_depth(config)
    with foreign(Path("config.json"), f"describes no {config.model_type} that can be built"), torch.device("meta"):
        tower = AutoModel.from_config(config)
        pixels = torch.empty(1, getattr(config, "num_channels", 3), config.image_size, config.image_size)
        num_tokens = tower(pixels).last_hidden_state.shape[1]
    num_patches = (config.image_size // config.patch_size) ** 2
    if num_tokens not in (num_patches, num_patches + 1):
        raise ValueError(
            f"The vision tower ({config.model_type}) gives {num_tokens} tokens a picture, but its grid has "
            f"{num_patches} patches: only one class token can be dropped."
        )
    return "full" if num_tokens == num_patches else "default"


def check_depth(config: PreTrainedConfig) -> None:
    """Refuses a number of layers that would take hours to build."""
    depth = config.num_hidden_layers
    if not isinstance(depth, int) or not 1 <= depth <= MAX_LAYERS:
        raise ValueError(f"`num_hidden_layers` of the {config.model_type} must be 1 to {MAX_LAYERS}, got {depth!r}.")


__all__ = ["check_depth", "feature_select_strategy", "so400m_config", "tower_config", "without_head"]
