"""Saving, loading, precision, devices, resized and tied embeddings, quantized and adapted models."""

import copy

import accelerate
import pytest
import torch
from fila_video import FilaVideoForConditionalGeneration, FilaVideoModel, modeling_fila_video
from helpers.tiny_models import (
    VIDEO,
    random_frames,
    tiny_clip_llama_config,
    tiny_config,
    tiny_model,
    tiny_text_config,
    tiny_vision_config,
    video_batch,
)
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig, TorchAoConfig


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("merger_type", ["weighted", "mean", "attention", "bsm"])
@pytest.mark.parametrize("newline_position", ["video", "none"])
def test_a_model_survives_saving_twice(merger_type, newline_position, tmp_path) -> None:
    model = tiny_model(merger_type=merger_type, newline_position=newline_position)
    inputs = video_batch(model.config)
    model.save_pretrained(tmp_path / "once")
    once, report = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "once", output_loading_info=True)
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    once.save_pretrained(tmp_path / "twice")
    twice = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "twice").eval()
    torch.testing.assert_close(twice(**inputs).logits, model(**inputs).logits)
    settings = [model.config.to_dict() | {"_name_or_path": None} for model in (once, twice)]
    assert settings[0] == settings[1]


def test_names_on_disk_are_the_names_in_memory(model, folder) -> None:
    assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()
    assert "model.scene_merger.weight" in model.state_dict()


@pytest.mark.parametrize("merger_type", ["weighted", "attention"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_mergers_weights_stay_in_float32(merger_type, dtype, tmp_path) -> None:
    model = tiny_model(merger_type=merger_type)
    model.save_pretrained(tmp_path)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype)
    loaded.save_pretrained(tmp_path / "again")
    again = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "again", dtype="auto")
    made = FilaVideoForConditionalGeneration._from_config(model.config, dtype=dtype)
    for half in (loaded, again, made):
        assert half.lm_head.weight.dtype == half.model.vision_tower.dtype == dtype
        assert half.dtype == dtype
        for parameter in half.model.scene_merger.parameters():
            assert parameter.dtype == torch.float32
    for name, parameter in model.model.scene_merger.named_parameters():
        assert torch.equal(parameter, again.model.scene_merger.get_parameter(name))


def test_the_auto_class_keeps_the_mergers_weights_in_float32() -> None:
    made = AutoModel.from_config(tiny_config(), dtype=torch.bfloat16)
    assert made.model.scene_merger.weight.dtype == torch.float32 and made.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(made.model.scene_merger.weight, torch.full((3, 25, 32), 1 / 3))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_of_2e_6_moves_the_weights_in_a_bfloat16_model(optimizer) -> None:
    model = FilaVideoForConditionalGeneration._from_config(tiny_config(), dtype=torch.bfloat16).train()
    inputs = video_batch(model.config)
    before = model.model.scene_merger.weight.detach().clone()
    steps = optimizer(model.parameters(), lr=2e-6)
    (1000 * model(**inputs, labels=inputs["input_ids"]).loss).backward()
    gradient = model.model.scene_merger.weight.grad
    steps.step()
    moved = (model.model.scene_merger.weight - before).abs()
    large = gradient.abs() > 0.1  # float32 at 1/3 has steps of 3e-8
    assert large.float().mean() > 0.5 and (moved[large] > 0).all()
    assert torch.equal((before + 2e-6).bfloat16(), before.bfloat16())  # what bfloat16 would have made of it


def test_what_a_checkpoint_lacks_is_initialized_on_the_meta_device_too() -> None:
    torch.manual_seed(0)
    empty = FilaVideoForConditionalGeneration.from_pretrained(None, config=tiny_config(), state_dict={})
    assert not any(parameter.is_meta for parameter in empty.parameters())
    assert torch.equal(empty.model.scene_merger.weight, torch.full((3, 25, 32), 1 / 3))
    fresh = tiny_model()
    for name, parameter in empty.named_parameters():
        same = fresh.get_parameter(name)
        if "scene_merger" not in name:
            assert parameter.std().item() == pytest.approx(same.std().item(), rel=0.4, abs=1e-3), name


def test_a_stage_may_add_a_merger_to_a_checkpoint_without_one(tmp_path) -> None:
    tiny_model(merger_type="mean").save_pretrained(tmp_path)
    loaded, report = FilaVideoForConditionalGeneration.from_pretrained(
        tmp_path, config=tiny_config(merger_type="weighted"), output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"model.scene_merger.weight"}
    assert torch.equal(loaded.model.scene_merger.weight, torch.full((3, 25, 32), 1 / 3))


def test_the_base_model_loads_from_the_same_folder(model, folder) -> None:
    base = FilaVideoModel.from_pretrained(folder).eval()
    inputs = video_batch(model.config)
    torch.testing.assert_close(base(**inputs).last_hidden_state @ model.lm_head.weight.T, model(**inputs).logits)


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}, {"model": "cpu", "lm_head": "cpu"}])
def test_a_device_map_loads(model, folder, device_map) -> None:
    loaded = FilaVideoForConditionalGeneration.from_pretrained(folder, device_map=device_map)
    inputs = video_batch(model.config)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # accelerate knows no bare parameter
def test_a_model_runs_with_parts_on_the_disk(model, folder, tmp_path) -> None:
    device_map = {
        "model.vision_tower": "cpu",
        "model.image_newline": "cpu",
        "model.scene_merger": "disk",
        "model.multi_modal_projector": "disk",
        "model.language_model": "disk",
        "lm_head": "cpu",
    }
    loaded = FilaVideoForConditionalGeneration.from_pretrained(
        folder, device_map=device_map, offload_folder=str(tmp_path)
    )
    inputs = video_batch(model.config)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"background_tokens": 2}, {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 2}],
    ids=["scenes", "background", "cooperative"],
)
@pytest.mark.parametrize("how", ["disk", "cpu_offload"])
def test_a_model_that_is_offloaded_as_a_whole_encodes_answers_and_scores(settings, how, tmp_path) -> None:
    model = tiny_model(**settings)
    model.save_pretrained(tmp_path)
    if how == "disk":
        offloaded = FilaVideoForConditionalGeneration.from_pretrained(
            tmp_path, device_map={"": "disk"}, offload_folder=str(tmp_path / "offload")
        )
    else:
        offloaded = accelerate.cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    assert offloaded.device.type == "meta"
    frames, questions = random_frames(4 * model.config.scene_size + 1, model.config), torch.tensor([[11, 12]])
    inputs = {"pixel_values_videos": frames[None], "video_num_scenes": torch.tensor([4])}
    if model.config.frame_encoding == "cooperative":
        inputs["video_question_ids"] = questions
    elif model.config.background_tokens:
        inputs["video_background_places"] = torch.tensor([[2]])
    else:
        inputs["pixel_values_videos"] = frames[None, :-1]
    expected, found = (each.get_video_features(**inputs).pooler_output[0] for each in (model, offloaded))
    torch.testing.assert_close(found, expected)
    ids = torch.tensor([[11, *[VIDEO] * len(expected), 12]])
    answers = [each.generate(input_ids=ids, **inputs, max_new_tokens=3) for each in (model, offloaded)]
    assert torch.equal(*answers)
    features = model.encode_frames(frames)
    scores = [
        each.score_tokens(
            each.tokens_for_scoring(features, 4), ids[0, :1], questions[0], torch.ones(2, dtype=torch.bool)
        )
        for each in (model, offloaded)
    ]
    torch.testing.assert_close(*scores)


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_a_newline_that_nothing_brings_from_the_disk_is_named(folder, tmp_path) -> None:
    device_map = {"model.vision_tower": "cpu", "model.scene_merger": "cpu", "model.multi_modal_projector": "cpu"}
    device_map |= {"model.language_model": "cpu", "lm_head": "cpu", "model.image_newline": "disk"}
    model = FilaVideoForConditionalGeneration.from_pretrained(
        folder, device_map=device_map, offload_folder=str(tmp_path)
    )
    with pytest.raises(ValueError, match="`image_newline` is offloaded by itself"):
        model.generate(**video_batch(model.config), max_new_tokens=1)


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_tied_only_where_the_language_model_ties_them(tied, tmp_path) -> None:
    model = tiny_model(text_config=tiny_text_config(tie_word_embeddings=tied))
    embedding = model.get_input_embeddings().weight
    assert (model.lm_head.weight is embedding) == tied
    model.save_pretrained(tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) != tied
    loaded = FilaVideoForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    inputs = video_batch(model.config)
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [80, 128])
def test_the_vocabulary_can_grow_and_shrink(tied, size, tmp_path) -> None:
    model = tiny_model(text_config=tiny_text_config(tie_word_embeddings=tied))
    inputs = video_batch(model.config)
    inputs["input_ids"].clamp_(max=70)
    before = model(**inputs).logits
    model.resize_token_embeddings(size)
    assert model.config.text_config.vocab_size == model.lm_head.out_features == size
    common = min(size, 99)
    torch.testing.assert_close(model(**inputs).logits[..., :common], before[..., :common])
    assert model(**inputs, labels=inputs["input_ids"]).loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_no_parameter_hides_in_an_anonymous_sequence() -> None:
    """Quantisation and adapters choose modules by name."""
    for config in (tiny_config(), tiny_config(merger_type="attention"), tiny_clip_llama_config()):
        model = tiny_model(config)
        for name, module in model.named_modules():
            assert not (isinstance(module, torch.nn.Sequential) and list(module.parameters())), name
        own = [name for name, _ in model.model.multi_modal_projector.named_parameters()]
        assert own == ["linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"]


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_model_answers(bits, tmp_path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128}  # 4-bit weights come in blocks of 64
    config = tiny_config(vision_config=tiny_vision_config(**sizes), text_config=tiny_text_config(**sizes))
    model, inputs = tiny_model(config), video_batch(config)
    model.save_pretrained(tmp_path)
    quantization = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=quantization, device_map="cpu", dtype=torch.float32
    )
    assert loaded.model.scene_merger.weight.dtype == torch.float32
    projector = loaded.model.multi_modal_projector
    for linear in (projector.linear_1, projector.linear_2, loaded.model.language_model.layers[0].mlp.up_proj):
        assert linear.weight.dtype in (torch.uint8, torch.int8)
    cosine = torch.cosine_similarity(loaded(**inputs).logits, model(**inputs).logits, dim=-1)
    assert cosine[inputs["attention_mask"].bool()].min() > (0.8 if bits == 4 else 0.99)
    assert loaded.generate(**inputs, max_new_tokens=2, num_beams=2).shape[0] == 2


def test_a_model_of_torchao_integers_answers(tmp_path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig

    model = tiny_model()
    inputs = video_batch(model.config)
    model.save_pretrained(tmp_path)
    loaded = FilaVideoForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()), dtype=torch.float32
    )
    assert type(loaded.model.language_model.layers[0].mlp.up_proj.weight) is not torch.nn.Parameter
    assert loaded.model.scene_merger.weight.dtype == torch.float32
    cosine = torch.cosine_similarity(loaded(**inputs).logits, model(**inputs).logits, dim=-1)
    assert cosine[inputs["attention_mask"].bool()].min() > 0.99
    assert loaded.generate(**inputs, max_new_tokens=2).shape[0] == 2


@pytest.mark.parametrize("projector_type", ["mlp", "norm_mlp", "linear"])
@pytest.mark.parametrize("kind", ["lora", "dora", "vera", "ia3"])
def test_adapters_on_every_linear_layer_of_a_bfloat16_model_leave_its_type(projector_type, kind) -> None:
    import peft

    model = tiny_model(projector_type=projector_type).to(torch.bfloat16)
    settings = {
        "lora": lambda: peft.LoraConfig(r=2, target_modules="all-linear"),
        "dora": lambda: peft.LoraConfig(r=2, target_modules="all-linear", use_dora=True),
        "vera": lambda: peft.VeraConfig(r=2, target_modules="all-linear"),
        "ia3": lambda: peft.IA3Config(target_modules=["linear_1", "linear_2", "v_proj"], feedforward_modules=[]),
    }[kind]()
    adapted = peft.get_peft_model(model, settings)
    inputs = video_batch(model.config)
    outputs = adapted(**inputs, labels=inputs["input_ids"])
    outputs.loss.backward()
    assert outputs.logits.dtype == torch.bfloat16
    assert {video.dtype for video in outputs.video_hidden_states} == {torch.bfloat16}


def test_a_model_with_adapters_trains_and_answers(tmp_path) -> None:
    import peft

    model = tiny_model()
    inputs = video_batch(model.config)
    before = model(**inputs).logits
    settings = peft.LoraConfig(
        r=2, target_modules=["q_proj", "v_proj", "linear_1"], modules_to_save=["scene_merger"], task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, settings).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(4):
        loss = adapted(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.eval()
    after = adapted(**inputs).logits
    assert not torch.allclose(after, before)
    assert adapted.generate(**inputs, max_new_tokens=3, num_beams=2).shape[0] == 2
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny_model(), tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, after)


def test_under_zero_3_no_second_language_model_is_made(monkeypatch) -> None:
    """DeepSpeed would make it in full, on the meta device too."""
    monkeypatch.setattr(modeling_fila_video, "is_deepspeed_zero3_enabled", lambda: True)
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", lambda config: pytest.fail("a second one"))
    assert FilaVideoForConditionalGeneration(tiny_config()).lm_head.bias is None
