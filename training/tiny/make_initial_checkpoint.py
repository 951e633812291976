"""
Makes what the tiny default checkpoint is trained from: a SigLIP vision tower and a Qwen2 language model at small size,
untrained, with their own tokenizer. Equal versions of the libraries write equal files.

    python -m fila_video.training.tiny.make_initial_checkpoint OUTPUT [--look-back]
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, Qwen2Config, Qwen2Tokenizer, SiglipImageProcessor, SiglipVisionConfig
from transformers.image_utils import PILImageResampling
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from ...configuration_fila_video import FilaVideoConfig
from ...modeling_fila_video import FilaVideoForConditionalGeneration
from ...processing_fila_video import FilaVideoProcessor
from ...video_processing_fila_video import FilaVideoVideoProcessor
from .look_back import look_back
from .tokenizer_corpus import corpus

CHAT_TEMPLATE = Path(__file__).resolve().parent.parent.parent / "chat_template.jinja"
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
VOCAB_SIZE = 2048
CONTEXT = 4096
FRAME_SIZE = 64
PATCH_SIZE = 16


def train_tokenizer() -> Qwen2Tokenizer:
    """
    Qwen2's tokenizer with a vocabulary of 2,048 entries, learned on [`corpus`]; the special tokens come first.

    Raises:
        ValueError: If the corpus has too few words for the vocabulary.
    """
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(corpus(), trainer)
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>"},
        padding_side="left",
        model_max_length=CONTEXT,
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    if len(tokenizer) != VOCAB_SIZE:
        raise ValueError(f"The corpus gives {len(tokenizer)} tokens, but {VOCAB_SIZE} are wanted: add text to it.")
    return tokenizer


def build_config(tokenizer: Qwen2Tokenizer) -> FilaVideoConfig:
    """The small sizes: 16 patches a frame, pooled to one token; room for 32 scenes and a long conversation."""
    vision = SiglipVisionConfig(
        image_size=FRAME_SIZE,
        patch_size=PATCH_SIZE,
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=3,
        num_attention_heads=3,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return FilaVideoConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids(tokenizer.image_token),
        video_token_id=tokenizer.convert_tokens_to_ids(tokenizer.video_token),
        pooling_mode="average",
        pooling_stride=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def build_model(
    config: FilaVideoConfig, seed: int = 42, looks_back: bool = False
) -> FilaVideoForConditionalGeneration:
    """The untrained model in float32, with the same weights for the same seed; see [`look_back`] for its heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FilaVideoForConditionalGeneration(config)
    if looks_back:
        look_back(model)
    model.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        do_sample=False,
        max_new_tokens=64,
    )
    return model


def build_processor(config: FilaVideoConfig, tokenizer: Qwen2Tokenizer) -> FilaVideoProcessor:
    """The processor that fits `config`: frames of the vision tower's size with values in [-1, 1]."""
    pixels = {
        "size": {"height": FRAME_SIZE, "width": FRAME_SIZE},
        "resample": PILImageResampling.BICUBIC,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    # Of this world's questions the first layer finds what they name; see "Events that are asked about" in evaluation.
    question = {"question_layers": "first", "neutral_question": "What can be seen?"}
    video_processor = FilaVideoVideoProcessor(**pixels, scene_size=config.scene_size, **question)
    return FilaVideoProcessor(
        image_processor=SiglipImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=video_processor,
        chat_template=CHAT_TEMPLATE.read_text(encoding="utf-8"),
        patches_per_side=config.patches_per_side,
        pooling_mode=config.pooling_mode,
        pooling_stride=config.pooling_stride,
        newline_position=config.newline_position,
    )


def make_initial_checkpoint(output: str | Path, seed: int = 42, looks_back: bool = False) -> None:
    """Writes the checkpoint's [`FILES`] into the folder `output`; the code that lies beside them stays as it is."""
    tokenizer = train_tokenizer()
    config = build_config(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        build_model(config, seed, looks_back).save_pretrained(folder)
        build_processor(config, tokenizer).save_pretrained(folder)
        Path(output).mkdir(parents=True, exist_ok=True)
        for name in FILES:
            shutil.copyfile(Path(folder, name), Path(output, name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the untrained tiny checkpoint.")
    parser.add_argument("output", help="the folder to write it to")
    parser.add_argument("--seed", type=int, default=42, help="of the weights (default: 42)")
    parser.add_argument("--look-back", action="store_true", help="with heads that look at the tokens before")
    args = parser.parse_args()
    make_initial_checkpoint(args.output, args.seed, args.look_back)
