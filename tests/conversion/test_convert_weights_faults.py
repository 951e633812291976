"""Checkpoints that look right and are not, and those made to do harm: one line says what is wrong."""

import json
import os

import pytest
import torch
from fila_video import FilaVideoProcessor
from fila_video.conversion.convert import convert
from fila_video.convert_weights import main
from helpers.tiny_checkpoints import (
    TinyParts,
    llava_hf_tensors,
    llava_next_tensors,
    save_llava_hf,
    save_llava_next,
    save_tensors,
    tiny_onevision,
)
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlavaOnevisionForConditionalGeneration


@pytest.fixture
def source(tmp_path):
    return save_llava_hf(tmp_path / "source", tiny_onevision())


def edit(file, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("model_type", "named"),
    [
        ("llava_next_video2", "is LLaVA-NeXT-Video "),
        ("llava_next", "is LLaVA-NeXT in transformers' layout"),
        ("llava", "is LLaVA 1.5 or LLaVA-Interleave"),
        ("internvl_chat", "is InternVL in its own layout"),
        ("idefics3", "is Idefics3 or SmolVLM 1"),
        ("qwen2_5_vl", r"is Qwen2\.5-VL"),
        ("never_heard_of", "is of `model_type` 'never_heard_of'"),
        (["a", "list"], "is of `model_type`"),
    ],
)
def test_a_relative_is_refused_by_its_name(tmp_path, source, model_type, named) -> None:
    edit(source / "config.json", model_type=model_type)
    with pytest.raises(ValueError, match=f"{named}.*llava-hf/llava-onevision-qwen2") as error:
        convert(source, tmp_path / "out", progress=False)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_another_language_model_in_llava_nexts_layout_is_refused_by_name_and_by_tensors(tmp_path) -> None:
    parts = TinyParts()
    tensors = {name: value for name, value in llava_next_tensors(parts).items() if not name.endswith("q_proj.bias")}
    folder = save_llava_next(tmp_path / "source", parts, tensors)
    with pytest.raises(ValueError, match=r"language model of this LLaVA checkpoint .* is not Qwen2"):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    edit(folder / "config.json", architectures=["LlavaLlamaForCausalLM"])
    with pytest.raises(ValueError, match=r"\(LlavaLlamaForCausalLM\) is not Qwen2"):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)


def test_settings_that_llava_next_ignores_are_ignored_and_named(tmp_path) -> None:
    scaling = {"type": "linear", "factor": 4.0}
    folder = save_llava_next(tmp_path / "source", TinyParts(), rope_scaling=scaling, mm_spatial_pool_stride=4)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    config = json.loads((converted / "config.json").read_text())
    assert config["text_config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 500000.0}
    assert config["pooling_stride"] == 2
    card = (converted / "README.md").read_text()
    assert "`rope_scaling`" in card and "`mm_spatial_pool_stride` (4)" in card


def test_a_checkpoint_without_a_head_is_tied_whatever_it_says(tmp_path) -> None:
    parts = TinyParts(tie=True)
    folder = save_llava_next(tmp_path / "source", parts, tie_word_embeddings=False)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert json.loads((converted / "config.json").read_text())["tie_word_embeddings"] is True
    assert "there is no `lm_head`" in (converted / "README.md").read_text()


def test_a_tower_that_training_left_alone_comes_from_where_it_is(tmp_path) -> None:
    parts = TinyParts()
    tensors = {name: value for name, value in llava_next_tensors(parts).items() if "vision_tower" not in name}
    folder = save_llava_next(tmp_path / "source", parts, tensors)
    with pytest.raises(ValueError, match=r"holds no weights of its vision tower .*say with `--vision-tower`"):
        convert(folder, tmp_path / "out", progress=False)
    tower = {
        f"vision_model.{name.removeprefix('vision_model.')}": value.clone()
        for name, value in parts.vision.state_dict().items()
    }
    save_tensors(tmp_path / "tower", tower)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert (converted / "model.safetensors").exists()


def test_a_converted_model_is_greedy_and_keeps_the_rest(tmp_path, source) -> None:
    settings = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "eos_token_id": [258, 256],
    }
    (source / "generation_config.json").write_text(json.dumps(settings))
    generation = GenerationConfig.from_pretrained(convert(source, tmp_path / "out", progress=False))
    assert generation.do_sample is False and generation.temperature is None and generation.top_k is None
    assert (generation.repetition_penalty, generation.eos_token_id) == (1.1, [258, 256])
    assert generation.max_new_tokens == 512


def test_as_source_takes_its_frames_as_the_source_does(tmp_path) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts(), mm_newline_position="grid", add_time_instruction=True)
    arguments = [str(folder), str(tmp_path / "out"), "--vision-tower", str(tmp_path / "tower"), "--as-source"]
    assert main([*arguments, "--scene-size", "3"]) == 2
    assert main(arguments) == 0
    processor = FilaVideoProcessor.from_pretrained(tmp_path / "out")
    video = processor.video_processor
    assert (video.num_scenes, video.scene_size, video.selection, video.seek_mode) == (64, 1, "uniform", "exact")
    assert video.time_marks == "llava_video"
    usual = convert(folder, tmp_path / "usual", vision_tower=tmp_path / "tower", progress=False)
    assert FilaVideoProcessor.from_pretrained(usual).video_processor.time_marks == "sentence"


def link_license(source) -> None:
    (source.parent / "secret").write_text("secret")
    (source / "LICENSE").symlink_to(source.parent / "secret")


def link_template(source) -> None:
    (source.parent / "secret").write_text("secret")
    (source / "chat_template.jinja").symlink_to(source.parent / "secret")


def index(weight_map):
    return lambda source: (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def outside(source) -> None:
    save_file({"image_newline": torch.zeros(32)}, source.parent / "outside.safetensors")
    index({"image_newline": "../outside.safetensors"})(source)


def nothing_but(name, text):
    return lambda source: (source / name).write_text(text)


def config(part=None, **changes):
    def change(source) -> None:
        content = json.loads((source / "config.json").read_text())
        (content if part is None else content[part]).update(changes)
        (source / "config.json").write_text(json.dumps(content))

    return change


def weights(change):
    def write(source) -> None:
        for file in source.glob("model*"):
            file.unlink()
        tensors = llava_hf_tensors(tiny_onevision(), 4)
        name = "language_model.model.norm.weight"
        save_tensors(source, tensors | {name: change(tensors[name])})

    return write


HOSTILE = {
    "license link": (link_license, "is a link to a file outside"),
    "template link": (link_template, "is a link to a file outside"),
    "index of pickles": (index({"image_newline": "weights.bin"}), r"names 'weights.bin', which is no .safetensors"),
    "index that leaves": (outside, r"names '../outside.safetensors', which is no .safetensors file beside it"),
    "absolute index": (index({"image_newline": "/tmp/a.safetensors"}), "names '/tmp/a.safetensors'"),
    "index of numbers": (index({"image_newline": 5}), "names 5, which is no"),
    "weight map that is a list": (index(["a"]), "has no `weight_map`"),
    "index that is a list": (nothing_but("model.safetensors.index.json", "[]"), "must hold a JSON object"),
    "config that is a list": (nothing_but("config.json", "[]"), "config.json must hold a JSON object"),
    "deep config": (nothing_but("config.json", "[" * 100_000), "is no whole JSON file"),
    "tokenizer config that is a list": (nothing_but("tokenizer_config.json", "[]"), "describe no tokenizer"),
    "hidden size 0": (config("text_config", hidden_size=0), "config.json"),
    "negative length": (config("text_config", max_position_embeddings=-5), "`max_position_embeddings` must be"),
    "a function as activation": (config("text_config", hidden_act="os.system"), "config.json and the options given"),
    "no heads": (config("text_config", num_attention_heads=0), "config.json"),
    "layers without end": (config("text_config", num_hidden_layers=10**9), "num_hidden_layers"),
    "sizes that are text": (config("vision_config", hidden_size="large"), "config.json describes no"),
    "patches of nothing": (config("vision_config", patch_size=0), "config.json"),
    "layers of vision": (config(vision_feature_layer=[1, 2]), "takes the features of one layer"),
    "eos nowhere": (nothing_but("generation_config.json", '{"eos_token_id": -4}'), "`eos_token_id` cannot be -4"),
    "means of text": (nothing_but("preprocessor_config.json", '{"image_mean": "red"}'), "must be three numbers"),
    "nan": (weights(lambda value: value * float("nan")), "no finite numbers"),
    "integers": (weights(lambda value: value.to(torch.int64)), "is of type I64"),
    "complex numbers": (weights(lambda value: value.to(torch.complex64)), "is of type C64"),
    "float8": (weights(lambda value: value.to(torch.float8_e4m3fn)), "is of type F8_E4M3.*not quantized"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_checkpoint_is_one_line_and_leaves_nothing(tmp_path, source, case) -> None:
    spoil, message = HOSTILE[case]
    spoil(source)
    with pytest.raises(ValueError, match=message) as error:
        convert(source, tmp_path / "out", progress=False)
    assert "\n" not in str(error.value)
    assert not {path.name for path in tmp_path.iterdir()} - {"source", "secret", "outside.safetensors"}


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, 5])
@pytest.mark.parametrize(
    ("file", "name", "right"),
    [
        ("config.json", "rope_parameters", dict),
        ("config.json", "architectures", list),
        ("tokenizer_config.json", "model_max_length", int),
    ],
)
def test_settings_of_another_kind_are_named(tmp_path, file, name, right, value) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    edit(folder / file, **{name: value})
    if isinstance(value, right):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
        return
    with pytest.raises(ValueError, match=rf"{name}") as error:
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert file in str(error.value) and "\n" not in str(error.value)


def test_a_quantized_checkpoint_is_called_so_before_its_weights_are_compared(tmp_path, source) -> None:
    edit(source / "config.json", quantization_config={"quant_method": "fp8"})
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"source is quantized, .*\(fp8\): convert the checkpoint that is not"):
        convert(source, tmp_path / "out", progress=False)


def test_a_language_model_of_experts_is_refused_before_its_weights_are_read(tmp_path, source) -> None:
    text = json.loads((source / "config.json").read_text())["text_config"]
    edit(source / "config.json", text_config={**text, "num_experts": 8})
    (source / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"The language model of .*source has experts"):
        convert(source, tmp_path / "out", progress=False)


def test_an_answer_ends_with_its_turn_where_the_language_model_knew_texts_alone(tmp_path, source) -> None:
    (source / "generation_config.json").write_text('{"eos_token_id": 256, "max_new_tokens": 2048}')
    generation = GenerationConfig.from_pretrained(convert(source, tmp_path / "out", progress=False))
    assert generation.eos_token_id == [258, 256]


@pytest.mark.parametrize("has_config", [True, False])
def test_an_adapter_is_to_be_merged_first(tmp_path, has_config) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    for file in (*folder.glob("model*"), *([] if has_config else [folder / "config.json"])):
        file.unlink()
    save_file({"base_model.model.lora_A.weight": torch.zeros(4, 4)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"source is an adapter \(adapter_config\.json\): merge it into its base"):
        convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)


def test_one_file_of_weights_counts_and_an_index_beside_it_does_not_as_in_transformers(
    tmp_path, source, caplog
) -> None:
    later = {name: value + 1 for name, value in llava_hf_tensors(tiny_onevision(), 4).items()}
    save_tensors(source, later)
    both = convert(source, tmp_path / "both", dtype="float32", progress=False)
    theirs = LlavaOnevisionForConditionalGeneration.from_pretrained(source).lm_head.weight
    assert torch.equal(load_file(both / "model.safetensors")["lm_head.weight"], theirs)
    assert torch.equal(theirs, later["language_model.lm_head.weight"])
    assert "model.safetensors is read, as transformers does" in caplog.text
    for shard in source.glob("model-0*"):
        shard.unlink()
    without_shards = convert(source, tmp_path / "without", dtype="float32", progress=False)
    assert torch.equal(load_file(without_shards / "model.safetensors")["lm_head.weight"], theirs)


def test_a_card_and_a_license_that_cannot_be_read_do_not_stop_a_conversion(tmp_path, source) -> None:
    (source / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff\xfe")
    (source / "LICENSE").mkdir()
    (source / "NOTICE").write_text("a notice")
    converted = convert(source, tmp_path / "out", progress=False)
    assert "license: mit" in (converted / "README.md").read_text()
    assert (converted / "NOTICE").read_text() == "a notice" and not (converted / "LICENSE").exists()


def test_links_within_the_cache_of_the_hub_are_followed(tmp_path, source) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(source.iterdir()):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    assert (convert(snapshot, tmp_path / "out", progress=False) / "model.safetensors").exists()
