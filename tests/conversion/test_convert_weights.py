"""Converted checkpoints compute what their sources compute, and are whole repositories."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fila_video import FilaVideoProcessor
from fila_video.commands.cli import main as command_line
from fila_video.configuration_fila_video import FilaVideoConfig
from fila_video.conversion.convert import convert
from fila_video.conversion.layouts import compare, find_layout, rename, unused_reason
from fila_video.convert_weights import main
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from helpers.llava_next_reference import visual_reference
from helpers.tiny_checkpoints import (
    SIDE,
    TinyParts,
    llava_hf_tensors,
    llava_next_tensors,
    save_llava_hf,
    save_llava_next,
    tiny_onevision,
)
from helpers.video_files import make_video
from safetensors import safe_open
from safetensors.torch import load_file

VIDEO_ID = 260
TEXT_IDS = [104, 105, 257, 33]
NEWLINES = ("one_token", "grid", "frame", "no_token")


def load(folder: Path, **kwargs) -> FilaVideoForConditionalGeneration:
    model, info = FilaVideoForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **kwargs)
    assert not any(info.values()), info
    return model.eval()


def random_pixels(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_frames, 3, 20, 20, generator=torch.Generator().manual_seed(seed))


def ids_around(num_tokens: int) -> torch.Tensor:
    return torch.tensor([[*TEXT_IDS, *[VIDEO_ID] * num_tokens, *TEXT_IDS[::-1]]])


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@torch.no_grad()
@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("version", [4, 5])
def test_the_logits_of_a_llava_hf_checkpoint_are_those_of_transformers(tmp_path, same_logits, version, tie) -> None:
    source = tiny_onevision(tie)
    folder = save_llava_hf(tmp_path / "source", source, version)
    model = load(convert(folder, tmp_path / "out", scene_size=1, dtype="float32", progress=False))
    pixels, ids = random_pixels(4)[None], ids_around(4 * 9 + 1)
    theirs = source(input_ids=ids, pixel_values_videos=pixels).logits
    ours = model(input_ids=ids, pixel_values_videos=pixels).logits
    same_logits(f"LLaVA-OneVision of transformers {version}", ours, theirs)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tie


@torch.no_grad()
def test_what_transformers_itself_saves_is_converted_to_the_same_logits(tmp_path, same_logits) -> None:
    source = tiny_onevision(tie=True)
    folder = save_llava_hf(tmp_path / "source", source)
    for file in folder.glob("model*"):
        file.unlink()
    source.save_pretrained(folder)
    model = load(convert(folder, tmp_path / "out", scene_size=1, dtype="float32", progress=False))
    pixels, ids = random_pixels(2)[None], ids_around(2 * 9 + 1)
    theirs = source(input_ids=ids, pixel_values_videos=pixels).logits
    ours = model(input_ids=ids, pixel_values_videos=pixels).logits
    same_logits("LLaVA-OneVision as transformers saves it", ours, theirs)


@torch.no_grad()
@pytest.mark.parametrize(
    ("pooling", "newline", "tie"),
    [
        *((pooling, newline, False) for pooling in ("bilinear", "average", "max") for newline in NEWLINES),
        ("bilinear", "one_token", True),
    ],
)
def test_the_logits_of_a_llava_next_checkpoint_are_those_of_its_parts(
    tmp_path, same_logits, pooling, newline, tie
) -> None:
    parts = TinyParts(tie)
    folder = save_llava_next(
        tmp_path / "source",
        parts,
        mm_newline_position=newline,
        mm_spatial_pool_mode=pooling,
        mm_spatial_pool_stride=2,
    )
    converted = convert(
        folder,
        tmp_path / "out",
        vision_tower=tmp_path / "tower",
        scene_size=1,
        dtype="float32",
        progress=False,
    )
    model = load(converted)
    pixels = random_pixels(3)
    visual = visual_reference(parts, pixels, pooling, newline)
    embeddings = parts.text.get_input_embeddings()(torch.tensor(TEXT_IDS))
    theirs = parts.text(inputs_embeds=torch.cat([embeddings, visual, embeddings.flip(0)])[None]).logits
    ours = model(input_ids=ids_around(len(visual)), pixel_values_videos=pixels[None]).logits
    same_logits(f"LLaVA-NeXT's own, {pooling} pooling, newline {newline}", ours, theirs)
    assert FilaVideoProcessor.from_pretrained(converted)._counter().of_scenes(3) == len(visual)


@torch.no_grad()
@pytest.mark.parametrize("merger", ["weighted", "mean", "attention"])
def test_equal_frames_in_a_scene_answer_as_one_frame(tmp_path, merger) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    one = load(convert(folder, tmp_path / "one", scene_size=1, dtype="float32", progress=False))
    three = load(convert(folder, tmp_path / "three", scene_size=3, merger=merger, dtype="float32", progress=False))
    pixels, ids = random_pixels(4)[None], ids_around(4 * 9 + 1)
    thrice = pixels.repeat_interleave(3, dim=1)
    expected = one(input_ids=ids, pixel_values_videos=pixels).logits
    assert largest_difference(three(input_ids=ids, pixel_values_videos=thrice).logits, expected) < 1e-5
    # The frames of a scene do count.
    thrice[:, 0] += 1
    assert largest_difference(three(input_ids=ids, pixel_values_videos=thrice).logits, expected) > 1e-3


def test_a_converted_model_survives_saving_and_loading(tmp_path) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    first = load(convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False))
    first.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again").state_dict()
    state = first.state_dict()
    assert state.keys() == again.keys()
    for name, tensor in state.items():
        assert tensor.dtype == again[name].dtype and torch.equal(tensor, again[name]), name


def test_a_converted_model_has_background_tokens_where_they_are_asked_for(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    plain = load(convert(folder, tmp_path / "plain", dtype="float32", progress=False))
    frames = torch.randn(1, 8, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    (expected,) = plain.get_video_features(frames[:, :6]).pooler_output
    for number in (1, 2):
        out = convert(folder, tmp_path / str(number), background_tokens=number, dtype="float32", progress=False)
        model, processor = load(out), FilaVideoProcessor.from_pretrained(out)
        assert processor.background_tokens == model.config.background_tokens == number
        with torch.no_grad():
            (tokens,) = model.get_video_features(frames, video_background_places=torch.tensor([[0, 2]])).pooler_output
        torch.testing.assert_close(tokens[number : -number - 1], expected[:-1])
        mean = model.model.multi_modal_projector(model.encode_frames(frames[0, 6:]).mean(1))
        torch.testing.assert_close(tokens[[0, -2]], mean)
        assert ("model.background_encoder.query" in (out / "README.md").read_text()) == (number == 2)
    with pytest.raises(ValueError, match=r"`--as-source`.*`--background-tokens` \(1\)"):
        convert(folder, tmp_path / "no", background_tokens=1, as_source=True)


def test_weights_become_bfloat16_and_the_merger_stays_exact(tmp_path) -> None:
    parts = TinyParts()
    folder = save_llava_next(tmp_path / "source", parts)
    model = load(convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False))
    merger = model.model.scene_merger.weight
    assert merger.dtype == torch.float32 and merger.shape == (3, SIDE**2, 16)
    assert torch.equal(merger, torch.full_like(merger, 1 / 3))
    others = {name: value for name, value in model.state_dict().items() if "scene_merger" not in name}
    assert {value.dtype for value in others.values()} == {torch.bfloat16}
    expected = parts.text.lm_head.weight.to(torch.bfloat16)
    assert torch.equal(model.lm_head.weight, expected)
    assert model.config.dtype == model.config.text_config.dtype == torch.bfloat16


def test_shards_are_of_the_size_asked_for_and_whole(tmp_path) -> None:
    source = tiny_onevision()
    folder = save_llava_hf(tmp_path / "source", source)
    one = convert(folder, tmp_path / "one", progress=False)
    many = convert(folder, tmp_path / "many", max_shard_bytes=20_000, progress=False)
    index = json.loads((many / "model.safetensors.index.json").read_text())
    files = sorted(many.glob("*.safetensors"))
    assert len(files) > 3 and {file.name for file in files} == set(index["weight_map"].values())
    assert {file.stat().st_mode for file in files} == {(many / "config.json").stat().st_mode}  # others may read them
    tensors = {}
    for file in files:
        shard = load_file(file)
        assert len(shard) == 1 or sum(tensor.nbytes for tensor in shard.values()) <= 20_000
        assert all(index["weight_map"][name] == file.name for name in shard)
        tensors |= shard
    whole = load_file(one / "model.safetensors")
    assert whole.keys() == tensors.keys() and all(torch.equal(whole[name], tensors[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    load(many)


def test_settings_follow_a_onevision_source(tmp_path) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    config, processor = load(converted).config, FilaVideoProcessor.from_pretrained(converted)
    assert (config.pooling_mode, config.pooling_stride, config.newline_position) == ("bilinear", 2, "video")
    assert (config.scene_size, config.merger_type) == (3, "weighted")
    assert config.text_config.rope_parameters["rope_theta"] == 500000.0
    assert (processor.num_scenes, processor.scene_size, processor.add_time_instruction) == (32, 3, False)


@pytest.mark.parametrize("pooling", [None, "average"])
def test_settings_follow_a_llava_video_source(tmp_path, pooling) -> None:
    settings = {"mm_newline_position": "grid", "mm_spatial_pool_mode": "bilinear", "add_time_instruction": True}
    folder = save_llava_next(tmp_path / "source", TinyParts(), **settings)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", pooling=pooling, progress=False)
    config, processor = load(converted).config, FilaVideoProcessor.from_pretrained(converted)
    assert (config.pooling_mode, config.newline_position) == (pooling or "bilinear", "grid")
    assert (processor.pooling_mode, processor.newline_position) == (pooling or "bilinear", "grid")
    assert (processor.num_scenes, processor.add_time_instruction) == (64, True)


def test_settings_follow_a_llava_hf_source(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    converted = convert(folder, tmp_path / "out", progress=False)
    model, processor = load(converted), FilaVideoProcessor.from_pretrained(converted)
    config = model.config
    assert (config.pooling_mode, config.pooling_stride, config.newline_position) == ("bilinear", 2, "video")
    assert (config.image_token_id, config.video_token_id) == (259, 260)
    assert (processor.num_scenes, processor.add_time_instruction) == (32, False)
    assert list(processor.video_processor.image_mean) == list(processor.image_processor.image_mean) == [0.4, 0.5, 0.6]
    generation = model.generation_config
    assert (generation.do_sample, generation.temperature, generation.max_new_tokens) == (False, None, 512)
    assert generation.eos_token_id == 258


def test_large_scenes_have_room_among_the_candidates(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    processor = FilaVideoProcessor.from_pretrained(convert(folder, tmp_path / "out", scene_size=20, progress=False))
    assert processor.max_candidates == 32 * 20


def test_sampling_settings_that_do_nothing_do_not_stop_a_conversion(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.2, "eos_token_id": 258}')
    generation = load(convert(folder, tmp_path / "out", progress=False)).generation_config
    assert not generation.do_sample and generation.temperature in (None, 1.0) and generation.eos_token_id == 258


def test_a_source_without_a_newline_embedding_gets_none(tmp_path) -> None:
    parts = TinyParts()
    tensors = llava_next_tensors(parts, newline=False)
    folder = save_llava_next(tmp_path / "source", parts, tensors, mm_patch_merge_type="spatial")
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    assert load(converted).config.newline_position == "none"
    assert "no newline embedding" in (converted / "README.md").read_text()


def test_buffers_and_unused_tensors_are_left_out_and_named_in_the_card(tmp_path) -> None:
    parts = TinyParts(tie=True)
    tensors = llava_next_tensors(parts)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tower = "model.vision_tower.vision_tower.vision_model"
    last = {name: value for name, value in tensors.items() if name.startswith(f"{tower}.encoder.layers.1.")}
    tensors |= {name.replace("layers.1.", "layers.2."): value.clone() for name, value in last.items()}
    tensors[f"{tower}.head.probe"] = torch.ones(1, 1, 16)
    del tensors[f"{tower}.post_layernorm.weight"]
    folder = save_llava_next(tmp_path / "source", parts, tensors)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", dtype="float32", progress=False)
    model = load(converted)
    assert torch.equal(model.model.vision_tower.post_layernorm.weight, torch.ones(16))
    card = (converted / "README.md").read_text()
    for part in ("the head, which is the embedding", "buffers", "the vision tower's last layer (16 tensors)"):
        assert part in card
    assert "`model.vision_tower.post_layernorm.weight`" in card


def test_files_of_pickles_are_read_when_asked_for(tmp_path) -> None:
    parts = TinyParts()
    folder = save_llava_next(tmp_path / "source", parts)
    expected = convert(folder, tmp_path / "expected", vision_tower=tmp_path / "tower", progress=False)
    for file in folder.glob("model*"):
        file.unlink()
    torch.save(llava_next_tensors(parts), folder / "pytorch_model.bin")
    arguments = [str(folder), str(tmp_path / "out"), "--vision-tower", str(tmp_path / "tower")]
    assert main(arguments) == 2
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--allow-bin"]) == 0
    theirs, ours = (load_file(path / "model.safetensors") for path in (expected, tmp_path / "out"))
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)


LOADS = """
import sys
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, AutoVideoProcessor
from transformers import GenerationConfig, pipeline
for auto in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor,
             AutoVideoProcessor, AutoTokenizer, AutoImageProcessor):
    loaded = auto.from_pretrained(sys.argv[1], trust_remote_code=True)
    print(type(loaded).__module__.split(".")[0], type(loaded).__name__)
print(GenerationConfig.from_pretrained(sys.argv[1]).eos_token_id)
print(type(pipeline("video-text-to-text", model=sys.argv[1], trust_remote_code=True)).__name__)
"""


def test_a_converted_folder_loads_by_every_auto_class_with_its_own_code(tmp_path) -> None:
    folder = save_llava_next(tmp_path / "source", TinyParts())
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    done = subprocess.run([sys.executable, "-c", LOADS, converted], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = "transformers_modules FilaVideoForConditionalGeneration"
    assert done.stdout.splitlines() == [
        "transformers_modules FilaVideoConfig",
        *[model] * 3,
        "transformers_modules FilaVideoProcessor",
        "transformers_modules FilaVideoVideoProcessor",
        "transformers Qwen2Tokenizer",
        "transformers SiglipImageProcessor",
        "[258]",
        "VideoTextToTextPipeline",
    ]


def test_the_script_runs_from_a_clone_that_is_not_installed(tmp_path) -> None:
    root = Path(__file__).resolve().parent.parent.parent
    clone = tmp_path / "clone"
    clone.mkdir()
    others = (root / "chat_template.jinja", root / "requirements.txt")
    for file in (*root.glob("*.py"), *root.glob("conversion/*.py"), *others):
        (clone / file.relative_to(root)).parent.mkdir(exist_ok=True)
        (clone / file.relative_to(root)).write_bytes(file.read_bytes())
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    command = [sys.executable, "clone/convert_weights.py", str(folder), "out", "--scene-size", "1", "--merger", "mean"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out is ready" in done.stdout and "Converting: 100%" in done.stderr
    model = load(tmp_path / "out")
    assert (model.config.scene_size, model.config.merger_type) == (1, "mean")
    # What Inference Endpoints look for.
    for name in ("handler.py", "requirements.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (root / name).read_bytes()


def test_the_command_line_converts_as_the_script_does(tmp_path, capsys) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    assert command_line(["convert", str(folder), str(tmp_path / "out"), "--merger", "attention"]) == 0
    assert load(tmp_path / "out").config.merger_type == "attention"
    assert command_line(["convert", str(folder), str(tmp_path / "out")]) == 2
    assert "out exists: choose another folder" in capsys.readouterr().err


def test_the_file_written_holds_no_name_of_this_machine(tmp_path) -> None:
    folder = save_llava_hf(tmp_path / "source", tiny_onevision())
    converted = convert(folder, tmp_path / "out", progress=False)
    for file in (*converted.glob("*.json"), converted / "README.md"):
        assert str(tmp_path) not in file.read_text(), file.name
    with safe_open(converted / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert "checkpoint: source" in (converted / "README.md").read_text()


def test_hf_layouts_of_both_versions_differ_on_disk_and_not_when_converted(tmp_path) -> None:
    model = tiny_onevision()
    names = [set(llava_hf_tensors(model, version)) for version in (4, 5)]
    assert not names[0] & names[1]
    folders = [save_llava_hf(tmp_path / f"source{version}", model, version) for version in (4, 5)]
    four, five = (convert(folder, tmp_path / f"out-{folder.name}", progress=False) for folder in folders)
    assert sorted(load_file(four / "model.safetensors")) == sorted(load_file(five / "model.safetensors"))


def published_llava_next_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of `lmms-lab/llava-onevision-qwen2-7b-ov`, by the name it has there."""
    shapes = {"model.embed_tokens.weight": (152064, 3584), "lm_head.weight": (152064, 3584)}
    shapes |= {"model.norm.weight": (3584,), "model.image_newline": (3584,)}
    for layer in range(28):
        prefix = f"model.layers.{layer}"
        for name, width in (("q", 3584), ("k", 512), ("v", 512)):
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (width, 3584)
            shapes[f"{prefix}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (3584, 3584)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = shapes[f"{prefix}.mlp.up_proj.weight"] = (18944, 3584)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (3584, 18944)
        shapes[f"{prefix}.input_layernorm.weight"] = shapes[f"{prefix}.post_attention_layernorm.weight"] = (3584,)
    tower = "model.vision_tower.vision_tower.vision_model"
    shapes[f"{tower}.embeddings.patch_embedding.weight"] = (1152, 3, 14, 14)
    shapes[f"{tower}.embeddings.patch_embedding.bias"] = (1152,)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (729, 1152)
    for layer in range(26):
        prefix = f"{tower}.encoder.layers.{layer}"
        for name in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"):
            shapes[f"{prefix}.{name}.weight"], shapes[f"{prefix}.{name}.bias"] = (1152, 1152), (1152,)
        for name, (rows, columns) in (("mlp.fc1", (4304, 1152)), ("mlp.fc2", (1152, 4304))):
            shapes[f"{prefix}.{name}.weight"], shapes[f"{prefix}.{name}.bias"] = (rows, columns), (rows,)
        for name in ("layer_norm1", "layer_norm2"):
            shapes[f"{prefix}.{name}.weight"] = shapes[f"{prefix}.{name}.bias"] = (1152,)
    for kind in ("weight", "bias"):
        shapes[f"{tower}.post_layernorm.{kind}"] = (1152,)
    shapes |= {"model.mm_projector.0.weight": (3584, 1152), "model.mm_projector.0.bias": (3584,)}
    return shapes | {"model.mm_projector.2.weight": (3584, 3584), "model.mm_projector.2.bias": (3584,)}


def test_the_published_7b_layout_fits_and_needs_no_configuration_of_its_tower() -> None:
    names = published_llava_next_shapes()
    layout = find_layout("7b-ov", {"model_type": "llava"}, names)
    assert layout.name == "LLaVA-NeXT"
    shapes = {rename(name, layout): shape for name, shape in names.items()}
    assert len(shapes) == len(names)
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "rope_theta": 1000000.0}
    text |= {"mm_vision_tower": "google/siglip-so400m-patch14-384"}
    recipe = layout.recipe(Path("7b-ov"), text, shapes, None)
    config = FilaVideoConfig(**recipe.model)
    with torch.device("meta"):
        state = FilaVideoForConditionalGeneration(config).state_dict()
    targets = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: (name, shape) for name, shape in shapes.items()}
    new, dropped = compare(targets, found, recipe.new, lambda name: unused_reason(name, config))
    assert new == ["model.scene_merger.weight"] and dropped == {}
    assert config.patches_per_side == 27 and config.vision_feature_select_strategy == "full"
    assert config.text_config.rope_parameters["rope_theta"] == 1000000.0


@torch.no_grad()
def test_a_converted_model_answers_about_a_real_video(tmp_path) -> None:
    settings = {"mm_newline_position": "grid", "mm_spatial_pool_mode": "average", "add_time_instruction": True}
    folder = save_llava_next(tmp_path / "source", TinyParts(), **settings)
    converted = convert(folder, tmp_path / "out", vision_tower=tmp_path / "tower", progress=False)
    model, processor = load(converted), FilaVideoProcessor.from_pretrained(converted)
    processor.frame_encoder = model.encode_frames
    video = make_video(tmp_path / "video.mp4", 90, fps=10)
    chat = [{"role": "user", "content": [{"type": "video", "path": str(video)}, {"type": "text", "text": "What?"}]}]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(chat, **options)
    # 64 scenes of 2 x 2 tokens and 2 newlines each.
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == 64 * (2 * 2 + 2)
    prompt = processor.tokenizer.decode(inputs["input_ids"][0])
    assert "<video>\nThis video samples 64 frames of a 9.0-second video at " in prompt
    assert prompt.endswith("seconds.\nWhat?<|im_end|>\n<|im_start|>assistant\n")
    output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] - inputs["input_ids"].shape[1] in (1, 2, 3)
