"""Checkpoints of a few thousand random parameters, in the layouts that can be converted."""

import base64
import importlib.util
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    SiglipVisionConfig,
    SiglipVisionModel,
    set_seed,
)

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 20,
    "patch_size": 4,
    "vision_use_head": False,
}
TEXT = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}
SIDE = VISION["image_size"] // VISION["patch_size"]
HF_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'video' %}<video>"
    "{% elif item['type'] == 'text' %}{{ '\n' + item['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As the published ones do it: kinds of blocks one after another, and nothing of what is no block.
SELECTING_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for block in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for block in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + block['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_letters() -> list[str]:
    """The letters that stand for the bytes 0 to 255 in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def qwen2_tokenizer(vocab: dict[str, int], merges: list[tuple[str, str]], *more: str, **named: str) -> Qwen2Tokenizer:
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges, model_max_length=2048, **named)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", *more], special_tokens=True)
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def tiny_tokenizer(*more: str, **named: str) -> Qwen2Tokenizer:
    """
    Qwen2's with nothing but bytes: `<|endoftext|>` 256, `<|im_start|>` 257, `<|im_end|>` 258, then `more`; some of
    them `named`, as attributes of the tokenizer.
    """
    return qwen2_tokenizer({letter: byte for byte, letter in enumerate(byte_letters())}, [], *more, **named)


def qwen_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Qwen2's true vocabulary and merges, from the ranks that the `dashscope` package carries."""
    spec = importlib.util.find_spec("dashscope")
    if spec is None:
        raise ModuleNotFoundError("Qwen2's vocabulary comes with `dashscope`: pip install 'fila-video[test]'.")
    lines = (Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    letters = byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = last_merge(token, rank, ranks)
            merges.append((written(left), written(right)))
    return {written(token): rank for token, rank in ranks.items()}, merges


def last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that byte-pair encoding joins into this one: what is left when lower ranks alone are merged."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
        best = min(range(len(joined)), key=joined.__getitem__)
        assert joined[best] < rank, f"{token!r} is no result of merges"
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]


class TinyParts:
    """The modules of a LLaVA model, each transformers' own or two plain matrices."""

    def __init__(self, tie: bool = False, seed: int = 0, vision: dict = VISION, text: dict = TEXT) -> None:
        set_seed(seed)
        self.vision = SiglipVisionModel(SiglipVisionConfig(**vision)).eval()
        self.text = Qwen2ForCausalLM(Qwen2Config(**text, tie_word_embeddings=tie)).eval()
        for module in (self.vision, self.text):
            randomise(module)
        width, hidden = vision["hidden_size"], text["hidden_size"]
        self.projector = {
            "0.weight": torch.randn(hidden, width) * 0.2,
            "0.bias": torch.randn(hidden) * 0.2,
            "2.weight": torch.randn(hidden, hidden) * 0.2,
            "2.bias": torch.randn(hidden) * 0.2,
        }
        self.newline = torch.randn(hidden)

    def project(self, pixels: torch.Tensor) -> torch.Tensor:
        """Frames `(num_frames, 3, height, width)` to `(num_frames, num_patches, text_hidden_size)`."""
        features = self.vision(pixels, output_hidden_states=True).hidden_states[-1]
        hidden = torch.nn.functional.linear(features, self.projector["0.weight"], self.projector["0.bias"])
        hidden = torch.nn.functional.gelu(hidden)
        return torch.nn.functional.linear(hidden, self.projector["2.weight"], self.projector["2.bias"])


@torch.no_grad()
def randomise(module: torch.nn.Module) -> None:
    """Every parameter random, also biases and norms: what is mixed up must show."""
    for parameter in module.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if parameter.ndim == 1 else 0.0))


def llava_next_tensors(parts: TinyParts, newline: bool = True) -> dict[str, torch.Tensor]:
    tensors = dict(parts.text.state_dict())
    if parts.text.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    for name, value in parts.vision.state_dict().items():
        tensors[f"model.vision_tower.vision_tower.vision_model.{name.removeprefix('vision_model.')}"] = value
    for name, value in parts.projector.items():
        tensors[f"model.mm_projector.{name}"] = value
    if newline:
        tensors["model.image_newline"] = parts.newline
    return {name: value.contiguous().clone() for name, value in tensors.items()}


def save_llava_next(
    folder: Path, parts: TinyParts, tensors: dict | None = None, tokenizer=None, shards: int = 2, **settings
) -> Path:
    """A LLaVA-NeXT checkpoint, its vision tower's configuration in the folder `tower` beside it."""
    folder.mkdir(parents=True)
    text = parts.text.config
    config = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": parts.vision.config.hidden_size,
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_patch_merge_type": "spatial_unpad",
        "tie_word_embeddings": text.tie_word_embeddings,
        "rope_theta": text.rope_parameters["rope_theta"],
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "image_aspect_ratio": "anyres_max_9",
        "image_token_index": 151646,
    }
    config |= {name: getattr(text, name) for name in TEXT if name != "rope_parameters"} | settings
    (folder / "config.json").write_text(json.dumps(config))
    save_tensors(folder, llava_next_tensors(parts) if tensors is None else tensors, shards)
    (tokenizer or tiny_tokenizer()).save_pretrained(folder)
    tower = SiglipVisionConfig(
        **(parts.vision.config.to_dict() | {"num_hidden_layers": VISION["num_hidden_layers"] + 1})
    )
    tower.save_pretrained(folder.parent / "tower")
    return folder


def tiny_onevision(tie: bool = False, seed: int = 0) -> LlavaOnevisionForConditionalGeneration:
    set_seed(seed)
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION),
        text_config=Qwen2Config(**TEXT, tie_word_embeddings=tie),
        image_token_index=259,
        video_token_index=260,
        tie_word_embeddings=tie,
    )
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    randomise(model)
    return model


def llava_hf_tensors(model: LlavaOnevisionForConditionalGeneration, version: int) -> dict[str, torch.Tensor]:
    """The tensors as transformers 4 or 5 names them on disk."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if version == 4:
            name = f"language_model.{name}" if name.startswith("lm_head") else name.removeprefix("model.")
            name = name.replace("language_model.", "language_model.model.") if "lm_head" not in name else name
            if name.startswith("vision_tower.") and "vision_model." not in name:
                name = name.replace("vision_tower.", "vision_tower.vision_model.")
        tensors[name] = value.contiguous().clone()
    return tensors


def save_llava_hf(
    folder: Path,
    model: LlavaOnevisionForConditionalGeneration,
    version: int = 4,
    tensors: dict | None = None,
    template: str = HF_TEMPLATE,
) -> Path:
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    save_tensors(folder, llava_hf_tensors(model, version) if tensors is None else tensors, 2)
    tiny_tokenizer("<image>", "<video>").save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    pixels = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.5, 0.7], "size": {"height": 20, "width": 20}}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    GenerationConfig(eos_token_id=258, pad_token_id=256, do_sample=True, temperature=0.7).save_pretrained(folder)
    return folder


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> None:
    """In so many safetensors files, with an index where there are several."""
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[shard::shards]
        save_file({name: tensors[name] for name in chosen}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
