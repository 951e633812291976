"""The tokenizer and the chat template of a converted model, with Qwen2's true vocabulary."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fila_video import FilaVideoProcessor
from fila_video.conversion.convert import convert
from fila_video.conversion.recipes import Recipe
from fila_video.conversion.repository import chat_template
from helpers.tiny_checkpoints import (
    HF_TEMPLATE,
    TEXT,
    TinyParts,
    qwen2_tokenizer,
    qwen_vocabulary,
    save_llava_hf,
    save_llava_next,
    tiny_onevision,
    tiny_tokenizer,
)
from safetensors.torch import load_file
from transformers import AutoTokenizer

# What stands in the tokenizer files of Qwen2-7B-Instruct.
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QUESTION = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens?"}]}]
PROMPT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<video>\nWhat happens?<|im_end|>\n<|im_start|>assistant\n"
)
TEXTS = [
    "What happens in this video?",
    "It's 12:30 \u2014 we'll see\u2026",
    "\u8bf7\u63cf\u8ff0\u8fd9\u6bb5\u89c6\u9891\u3002",
    "caf\u00e9 \U0001f3ac \u041f\u0440\u0438\u0432\u0435\u0442",
    "  two  spaces\n\n\tand tabs ",
    "def f(x):\n    return x**2",
]


@pytest.fixture(scope="session")
def true_tokenizer_folder(tmp_path_factory) -> Path:
    vocab, merges = qwen_vocabulary()
    tokenizer = qwen2_tokenizer(vocab, merges)
    tokenizer.chat_template = QWEN2_TEMPLATE
    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def true_conversion(true_tokenizer_folder, tmp_path_factory) -> Path:
    """A LLaVA-NeXT checkpoint with the 152064 rows and the tokenizer of Qwen2-7B, converted."""
    folder = tmp_path_factory.mktemp("conversion")
    parts = TinyParts(text=TEXT | {"vocab_size": 152064})
    source = save_llava_next(
        folder / "source",
        parts,
        tokenizer=AutoTokenizer.from_pretrained(true_tokenizer_folder),
        shards=1,
        max_position_embeddings=32768,
        tokenizer_model_max_length=16384,
    )
    return convert(source, folder / "out", vision_tower=folder / "tower", progress=False)


def test_the_true_vocabulary_keeps_its_ids_and_gains_two_placeholders(true_conversion) -> None:
    tokenizer = AutoTokenizer.from_pretrained(true_conversion)
    ids = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<image>": 151646, "<video>": 151647}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    assert len(tokenizer) == 151648
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (151645, 151643)
    config = json.loads((true_conversion / "config.json").read_text())
    assert (config["image_token_id"], config["video_token_id"]) == (151646, 151647)
    assert config["text_config"]["vocab_size"] == 152064
    assert tokenizer.padding_side == "left"
    assert tokenizer.model_max_length == 16384


def test_the_true_vocabulary_encodes_as_published(true_conversion) -> None:
    tokenizer = AutoTokenizer.from_pretrained(true_conversion)
    # Ids that Qwen2's documentation and configuration files print.
    assert tokenizer.encode("Hello world!") == [9707, 1879, 0]
    assert tokenizer.encode("system\n") == [8948, 198]
    assert tokenizer.encode("user\n") == [872, 198]
    assert tokenizer.encode("assistant\n") == [77091, 198]
    assert tokenizer.encode("<video>") == [151647]


def test_encoding_agrees_with_tiktoken_on_the_same_ranks(true_conversion) -> None:
    import base64
    import importlib.util

    import tiktoken

    file = Path(importlib.util.find_spec("dashscope").submodule_search_locations[0], "resources", "qwen.tiktoken")
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, file.read_bytes().splitlines())}
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    theirs = tiktoken.Encoding("qwen", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    ours = AutoTokenizer.from_pretrained(true_conversion)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == text


def test_a_llava_next_prompt_has_the_bytes_it_was_trained_on(true_conversion) -> None:
    processor = FilaVideoProcessor.from_pretrained(true_conversion)
    prompt = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert prompt == PROMPT
    ids = processor.tokenizer.encode(prompt)
    # <|im_start|>system\n ... <|im_end|>\n <|im_start|>user\n <video> \n
    assert ids[:3] == [151644, 8948, 198]
    assert ids[ids.index(151645) + 1 : ids.index(151647) + 2] == [198, 151644, 872, 198, 151647, 198]
    assert ids[-3:] == [151644, 77091, 198]


def test_qwen2s_own_template_gives_the_same_bytes_once_it_knows_videos(true_tokenizer_folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(true_tokenizer_folder)
    template = chat_template(true_tokenizer_folder, tokenizer, Recipe("a language model", {}))
    assert template.endswith(QWEN2_TEMPLATE)
    options = {"chat_template": template, "tokenize": False, "add_generation_prompt": True}
    assert tokenizer.apply_chat_template(QUESTION, **options) == PROMPT


def test_a_conversation_with_a_system_message_and_an_answer_is_rendered_once_each(true_conversion) -> None:
    processor = FilaVideoProcessor.from_pretrained(true_conversion)
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "Same place?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": "Why?"},
    ]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<image>\n<video>\nSame place?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_answers_of_a_conversation_can_be_masked_for_training(true_conversion) -> None:
    tokenizer = AutoTokenizer.from_pretrained(true_conversion)
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "It rains."}]
    output = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True, tokenize=True)
    answer = [token for token, mask in zip(output["input_ids"], output["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(answer) == "It rains.<|im_end|>"


def test_a_llava_hf_source_keeps_its_own_template(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    processor = FilaVideoProcessor.from_pretrained(convert(folder, tmp_path / "out", progress=False))
    assert processor.chat_template == HF_TEMPLATE
    prompt = processor.apply_chat_template(QUESTION, add_generation_prompt=True)
    assert prompt == "<|im_start|>user <video>\nWhat happens?<|im_end|><|im_start|>assistant\n"


def test_a_llava_next_checkpoint_without_a_generation_config_stops_at_the_end_of_a_turn(true_conversion) -> None:
    generation = json.loads((true_conversion / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [151645] and generation["pad_token_id"] == 151643


def test_a_checkpoint_without_a_vocabulary_is_refused(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer: one of tokenizer.json, vocab.json"):
        convert(folder, tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_tokenizer_that_is_not_the_configurations_is_refused(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    tiny_tokenizer("<other>", "<image>", "<video>").save_pretrained(folder)
    with pytest.raises(ValueError, match="<image> is token 259, but the tokenizer that it is 260"):
        convert(folder, tmp_path / "out", progress=False)


def test_an_embedding_without_spare_rows_grows_for_the_placeholders(tmp_path) -> None:
    tokenizer = tiny_tokenizer(*(f"<more{index}>" for index in range(5)))
    parts = TinyParts()
    folder = save_llava_next(tmp_path / "source", parts, tokenizer=tokenizer)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", dtype="float32", progress=False)
    ours, theirs = load_file(converted / "model.safetensors")["lm_head.weight"], parts.text.lm_head.weight
    assert ours.shape == (320, 32) and torch.equal(ours[:264], theirs)
    scales = 1 - 0.01 * torch.arange(56)[:, None]
    assert (ours[264:] - scales * theirs.mean(dim=0)).abs().max() < 1e-6
    assert len(ours[264:].bfloat16().unique(dim=0)) == 56  # or no model could tell these tokens apart
    assert "grew from 264 to 320 rows" in (converted / "README.md").read_text()


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path) -> None:
    tokenizer = tiny_tokenizer(*(f"<more{index}>" for index in range(6)))
    folder = save_llava_next(tmp_path / "source", TinyParts(), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="the tokenizer has 265 tokens, but the embedding 264 rows"):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)


def test_a_tokenizer_of_two_files_is_read_like_one(true_tokenizer_folder, tmp_path) -> None:
    source = save_llava_next(tmp_path / "source", TinyParts(text=TEXT | {"vocab_size": 152064}), shards=1)
    shutil.copy(true_tokenizer_folder / "tokenizer_config.json", source)
    vocab, merges = qwen_vocabulary()
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(vocab))
    (source / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    added = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
    (source / "added_tokens.json").write_text(json.dumps(added))
    converted = convert(source, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.encode("Hello world!<video>") == [9707, 1879, 0, 151647]
