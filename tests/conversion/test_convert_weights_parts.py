"""A language model and a vision tower become a model to train."""

import json
import tracemalloc

import pytest
import torch
from fila_video import ChatCollator, FilaVideoProcessor
from fila_video.conversion.convert import convert
from fila_video.convert_weights import main
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from helpers.tiny_checkpoints import TEXT, VISION, byte_letters, randomise, tiny_tokenizer
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    SiglipConfig,
    SiglipModel,
    set_seed,
)

TOWER = {name: value for name, value in VISION.items() if name != "vision_use_head"} | {"num_hidden_layers": 3}
SMALL_TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
TEMPLATE = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"


def load(folder) -> FilaVideoForConditionalGeneration:
    model, info = FilaVideoForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def random_model(model):
    set_seed(0)
    randomise(model)
    return model.eval()


def other_tokenizer() -> Qwen2Tokenizer:
    """Of 259 tokens, and none of ChatML."""
    tokenizer = Qwen2Tokenizer(vocab={letter: byte for byte, letter in enumerate(byte_letters())}, merges=[])
    tokenizer.add_tokens(["<s>", "</s>"], special_tokens=True)
    tokenizer.eos_token, tokenizer.chat_template = "</s>", TEMPLATE
    return tokenizer


@pytest.fixture
def qwen2(tmp_path):
    model = random_model(Qwen2ForCausalLM(Qwen2Config(**TEXT)))
    model.save_pretrained(tmp_path / "qwen2")
    tiny_tokenizer().save_pretrained(tmp_path / "qwen2")
    return model


@pytest.fixture
def siglip(tmp_path):
    """A whole SigLIP: a text tower, heads, and one layer more than LLaVA takes."""
    config = SiglipConfig(text_config={**SMALL_TEXT, "vocab_size": 20}, vision_config=TOWER)
    model = random_model(SiglipModel(config))
    model.save_pretrained(tmp_path / "siglip")
    return model


def test_a_qwen2_and_a_siglip_keep_their_weights_and_the_rest_is_new(tmp_path, qwen2, siglip) -> None:
    converted = convert(
        None,
        tmp_path / "out",
        language_model=tmp_path / "qwen2",
        vision_tower=tmp_path / "siglip",
        dtype="float32",
        progress=False,
    )
    model = load(converted)
    config = model.config
    assert config.vision_config.num_hidden_layers == 2 and config.vision_feature_select_strategy == "full"
    assert (config.scene_size, config.merger_type, config.pooling_mode) == (3, "weighted", "bilinear")
    assert (config.newline_position, config.pooling_stride) == ("video", 2)
    for name, value in qwen2.model.state_dict().items():
        assert torch.equal(model.model.language_model.state_dict()[name], value), name
    assert torch.equal(model.lm_head.weight, qwen2.lm_head.weight)
    pixels = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        theirs = siglip.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
        assert (model.encode_frames(pixels) - theirs).abs().max() < 1e-5
    projector = model.model.multi_modal_projector
    assert 0.015 < projector.linear_1.weight.std() < 0.025 and not projector.linear_1.bias.any()
    assert torch.equal(model.model.scene_merger.weight, torch.full((3, 25, 16), 1 / 3))
    assert 0.5 < model.model.image_newline.std() * 32**0.5 < 1.5
    card = (converted / "README.md").read_text()
    for part in ("language model: qwen2", "vision tower: siglip", "`model.multi_modal_projector.linear_1.weight`"):
        assert part in card
    processor = FilaVideoProcessor.from_pretrained(converted)
    assert (processor.num_scenes, processor.add_time_instruction) == (32, True)


def test_new_weights_are_those_of_their_seed_and_leave_the_global_one_alone(tmp_path, qwen2, siglip) -> None:
    def tensors(output, seed):
        torch.manual_seed(seed + 100)
        before = torch.random.get_rng_state()
        folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "siglip"}
        converted = convert(None, tmp_path / output, **folders, seed=seed, progress=False)
        assert torch.equal(torch.random.get_rng_state(), before)
        return load_file(converted / "model.safetensors")

    first, again, other = tensors("first", 1), tensors("again", 1), tensors("other", 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} == {
        "model.image_newline",
        "model.multi_modal_projector.linear_1.weight",
        "model.multi_modal_projector.linear_2.weight",
    }


def test_a_clip_loses_its_class_token_and_a_llama_without_spare_rows_gets_some(tmp_path) -> None:
    clip = random_model(CLIPModel(CLIPConfig(text_config={**SMALL_TEXT, "vocab_size": 20}, vision_config=TOWER)))
    clip.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(
        '{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}'
    )
    llama = random_model(LlamaForCausalLM(LlamaConfig(**(TEXT | {"vocab_size": 259}))))
    llama.save_pretrained(tmp_path / "llama")
    other_tokenizer().save_pretrained(tmp_path / "llama")
    arguments = ["--language-model", str(tmp_path / "llama"), "--vision-tower", str(tmp_path / "clip")]
    assert main([*arguments, str(tmp_path / "out"), "--dtype", "float32"]) == 0
    model, processor = load(tmp_path / "out"), FilaVideoProcessor.from_pretrained(tmp_path / "out")
    assert (model.config.image_token_id, model.config.video_token_id) == (259, 260)
    assert model.config.vision_feature_select_strategy == "default"
    pixels = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        theirs = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        assert (model.encode_frames(pixels) - theirs).abs().max() < 1e-5
    for ours, theirs in (
        (model.get_input_embeddings().weight, llama.get_input_embeddings().weight),
        (model.lm_head.weight, llama.lm_head.weight),
    ):
        assert ours.shape == (320, 32) and torch.equal(ours[:259], theirs)
        scales = 1 - 0.01 * torch.arange(61)[:, None]
        assert (ours[259:] - scales * theirs.mean(dim=0)).abs().max() < 1e-6
    assert list(processor.image_processor.image_mean) == [0.1, 0.2, 0.3]
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Who?"}]}]
    assert processor.apply_chat_template(chat) == "[user] <video>\nWho?\n"


def test_a_tower_that_is_no_siglip_must_say_how_its_pixels_are_normalized(tmp_path, qwen2, siglip) -> None:
    clip = CLIPModel(CLIPConfig(text_config={**SMALL_TEXT, "vocab_size": 20}, vision_config=TOWER))
    clip.save_pretrained(tmp_path / "clip")
    options = {"language_model": tmp_path / "qwen2", "progress": False}
    for written in (None, '{"image_mean": [0.4, 0.4, 0.4]}'):
        if written is not None:
            (tmp_path / "clip" / "preprocessor_config.json").write_text(written)
        with pytest.raises(
            FileNotFoundError, match=r"clip has no preprocessor_config\.json.*copy the file of the orig"
        ):
            convert(None, tmp_path / "out", vision_tower=tmp_path / "clip", **options)
    converted = convert(None, tmp_path / "out", vision_tower=tmp_path / "siglip", **options)
    assert list(FilaVideoProcessor.from_pretrained(converted).image_processor.image_std) == [0.5, 0.5, 0.5]


def test_an_adapter_is_no_language_model(tmp_path, siglip) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    folders = {"language_model": tmp_path / "lora", "vision_tower": tmp_path / "siglip"}
    with pytest.raises(ValueError, match=r"lora is an adapter .*: merge it into its base first"):
        convert(None, tmp_path / "out", **folders, progress=False)


def test_a_vision_tower_with_other_names_than_siglips_is_taken(tmp_path, qwen2) -> None:
    sizes = {name: TOWER[name] for name in ("hidden_size", "num_attention_heads", "image_size", "patch_size")}
    dino = random_model(Dinov2Model(Dinov2Config(**sizes, num_hidden_layers=3)))
    dino.save_pretrained(tmp_path / "dino")
    pixels = '{"image_mean": [0.4, 0.4, 0.4], "image_std": [0.2, 0.2, 0.2]}'
    (tmp_path / "dino" / "preprocessor_config.json").write_text(pixels)
    folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "dino"}
    model = load(convert(None, tmp_path / "out", **folders, dtype="float32", progress=False))
    pixels = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        theirs = dino(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        assert (model.encode_frames(pixels) - theirs).abs().max() < 1e-5


def test_a_tower_with_layers_without_end_is_refused_before_it_is_built(tmp_path, qwen2) -> None:
    settings = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 10**7, "image_size": 28}
    (tmp_path / "dino").mkdir()
    (tmp_path / "dino" / "config.json").write_text(json.dumps(settings))
    folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "dino"}
    tracemalloc.start()
    with pytest.raises(ValueError, match="`num_hidden_layers` must be at most 1000, got 10000000"):
        convert(None, tmp_path / "out", **folders, progress=False)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


def test_answers_are_learned_by_a_qwen2_whose_own_template_marks_none(tmp_path, qwen2, siglip) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "qwen2")
    folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "siglip"}
    processor = FilaVideoProcessor.from_pretrained(convert(None, tmp_path / "out", **folders, progress=False))
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "It rains."}]
    batch = ChatCollator(processor)([{"messages": chat}])
    assert processor.tokenizer.decode(batch["input_ids"][batch["labels"] != -100]) == "It rains.<|im_end|>"


def test_a_tied_language_model_stays_tied(tmp_path, siglip) -> None:
    model = random_model(Qwen2ForCausalLM(Qwen2Config(**TEXT, tie_word_embeddings=True)))
    model.save_pretrained(tmp_path / "qwen2")
    tiny_tokenizer().save_pretrained(tmp_path / "qwen2")
    folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "siglip"}
    converted = load(convert(None, tmp_path / "out", **folders, progress=False))
    assert converted.lm_head.weight is converted.get_input_embeddings().weight


def test_a_language_model_without_a_chat_template_is_refused(tmp_path, siglip) -> None:
    random_model(LlamaForCausalLM(LlamaConfig(**TEXT))).save_pretrained(tmp_path / "llama")
    vocab = {letter: byte for byte, letter in enumerate(byte_letters())}
    Qwen2Tokenizer(vocab=vocab, merges=[]).save_pretrained(tmp_path / "llama")
    folders = {"language_model": tmp_path / "llama", "vision_tower": tmp_path / "siglip"}
    with pytest.raises(ValueError, match=r"has no chat template. Add it there as chat_template.jinja"):
        convert(None, tmp_path / "out", **folders, progress=False)
    assert not (tmp_path / "out").exists()


def test_a_language_model_is_no_vision_tower(tmp_path, qwen2) -> None:
    folders = {"language_model": tmp_path / "qwen2", "vision_tower": tmp_path / "qwen2"}
    with pytest.raises(ValueError, match="is no vision tower that can be used: its `image_size` is None"):
        convert(None, tmp_path / "out", **folders, progress=False)


def test_both_parts_are_needed(tmp_path, qwen2, capsys) -> None:
    assert main(["--language-model", str(tmp_path / "qwen2"), str(tmp_path / "out")]) == 2
    assert "both `--language-model` and `--vision-tower`" in capsys.readouterr().err


def test_new_values_are_drawn_without_seeding_an_accelerator_or_the_caller(
    tmp_path, qwen2, siglip, monkeypatch
) -> None:
    for seed in ("cuda.manual_seed_all", "mps.manual_seed", "xpu.manual_seed_all"):
        monkeypatch.setattr(f"torch.{seed}", lambda *_, seed=seed: pytest.fail(f"torch.{seed} was called"))
    before = torch.get_rng_state()
    convert(
        None, tmp_path / "out", language_model=tmp_path / "qwen2", vision_tower=tmp_path / "siglip", progress=False
    )
    assert torch.equal(torch.get_rng_state(), before)
