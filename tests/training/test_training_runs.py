"""Runs of the trainer: what moves, what is saved, going on after a kill, adapters, and two processes against one."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fila_video.modeling_fila_video import FilaVideoForConditionalGeneration
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.training.optimizers import make_optimizer, part_of
from fila_video.training.settings import TrainingError, load_settings
from fila_video.training.train import make_trainer, train
from helpers.fresh_process import load_in_fresh_process
from helpers.tiny_processor import model_for, tiny_processor
from helpers.training_runs import (
    ALL_RATES,
    image_record,
    in_processes,
    losses,
    run,
    settings_file,
    turns,
    video_record,
    world,
    write_lines,
)
from safetensors.torch import load_file

TRAINING = Path(__file__).parent.parent.parent / "training"
STAGE_4 = {"vision_tower": 2e-6, "multi_modal_projector": 2e-6, "language_model": 1e-5, "scene_merger": 2e-6}


def weights(folder) -> dict[str, torch.Tensor]:
    return FilaVideoForConditionalGeneration.from_pretrained(folder).state_dict()


def moved_parts(before: dict, after: dict) -> set[str]:
    assert before.keys() == after.keys()
    return {part_of(name) for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("part", ALL_RATES)
def test_only_what_has_a_rate_moves(tmp_path, part) -> None:
    run(tmp_path / "out", {"max_steps": 1}, learning_rates={part: 1e-2})
    assert moved_parts(weights(world() / "model"), weights(tmp_path / "out")) == {part}


def test_one_step_of_stage_4_moves_the_merger_in_float32_also_in_bfloat16(tmp_path) -> None:
    """2e-6 is far below bfloat16's steps around a third."""
    for dtype in ("float32", "bfloat16"):
        trainer = run(tmp_path / dtype, {"max_steps": 1, "bf16": True}, learning_rates=STAGE_4, dtype=dtype)
        before = weights(world() / "model")["model.scene_merger.weight"]
        after = weights(tmp_path / dtype)["model.scene_merger.weight"]
        assert trainer.model.model.scene_merger.weight.dtype == after.dtype == torch.float32
        assert trainer.model.model.language_model.embed_tokens.weight.dtype == getattr(torch, dtype)
        step = (after - before).abs()
        assert step.max() == pytest.approx(2e-6, rel=0.05) and (step > 1e-6).float().mean() > 0.9


def test_the_loss_falls_and_the_log_says_at_which_rates(tmp_path) -> None:
    run(tmp_path / "out", {"max_steps": 12, "warmup_steps": 2}, learning_rates={**ALL_RATES, "scene_merger": 1e-4})
    loss = losses(tmp_path / "out")
    assert list(loss) == list(range(1, 13)) and loss[12] < loss[1] - 0.3
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert all(set(rate) == set(ALL_RATES) for rate in rates)
    for rate, step in zip(rates, range(1, 13), strict=True):
        share = step / 2 if step < 2 else (1 + math.cos(math.pi * (step - 2) / 10)) / 2  # cosine
        assert rate["scene_merger"] == pytest.approx(1e-4 * share) and rate["language_model"] == pytest.approx(
            1e-3 * share
        )
    assert lines[-2]["seconds"] >= lines[0]["seconds"] > 0
    assert "resolved" in (tmp_path / "out" / "settings.yaml").read_text()


@pytest.mark.parametrize("isolate_turns", [False, True])
def test_what_never_comes_together_is_no_choice_in_the_loss(tmp_path, isolate_turns) -> None:
    """As if the model could not say it: the loss is that of the other choices, and nothing pushes it down."""
    asked = ("What is it?", "A red star, then a blue ring.", "What shape is the red thing?", "star")
    records = [video_record(number, conversations=turns(*asked)) for number in range(4)]
    data = [{"path": str(write_lines(tmp_path / "records.jsonl", records)), "media": str(world())}]
    pairs = {"unseen_pairs": [["red", "ring"], ["blue", "star"]], "isolate_turns": isolate_turns, "data": data}
    trainer = make_trainer(load_settings(settings_file(tmp_path / "out", **pairs)))
    inputs = next(iter(trainer.get_train_dataloader()))
    del inputs["unreadable"]
    assert {row for row, _, _ in inputs["left_out"].tolist()} == {0, 1}
    model = trainer.model.eval()
    loss = trainer.compute_loss(model, dict(inputs))

    left_out, labels = inputs.pop("left_out"), inputs.pop("labels")
    logits = model(**inputs, use_cache=False).logits
    said = []
    for row, position, token in left_out.tolist():
        logits[row, position - 1, token] = -torch.inf
        said.append(trainer.processing_class.tokenizer.decode([token]).strip())
    assert {"red", "blue", "star", "ring"} <= set(said)
    targets = labels[:, 1:]
    expected = torch.nn.functional.cross_entropy(logits[:, :-1][targets != -100], targets[targets != -100])
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    run(tmp_path / "out", **pairs)
    assert all(0 < loss < 20 for loss in losses(tmp_path / "out").values())


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    model = model_for(tiny_processor())
    optimizer = make_optimizer(model, "muon", ALL_RATES, weight_decay=0.1, settings={})
    by_muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in by_muon}
    assert "model.language_model.layers.0.mlp.down_proj.weight" in names
    assert "model.vision_tower.encoder.layers.1.self_attn.q_proj.weight" in names
    for name in ("embed_tokens.weight", "lm_head.weight", "patch_embedding.weight", "scene_merger.weight", "bias"):
        assert not any(taken.endswith(name) for taken in names), name
    assert not any("norm" in name or "position_embedding" in name for name in names)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_muon_with_adamw_steps_like_the_two_alone() -> None:
    """torch's Muon computes in bfloat16, so its steps are compared by their direction and length."""

    def stepped(make):
        torch.manual_seed(0)
        model = model_for(tiny_processor())
        start = {name: value.clone() for name, value in model.state_dict().items()}
        optimizers = make(model)
        for step in range(3):
            for index, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + index)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for optimizer in optimizers:
                optimizer.step()
        return {name: value - start[name] for name, value in model.state_dict().items()}

    def alone(model):
        groups = make_optimizer(model, "muon", ALL_RATES, 0.0, {}).param_groups
        taken = [[p for group in groups if group["muon"] == muon for p in group["params"]] for muon in (True, False)]
        by_muon.update(name for name, p in model.named_parameters() if any(p is one for one in taken[0]))
        muon = torch.optim.Muon(taken[0], lr=1e-3, weight_decay=0, momentum=0.95, adjust_lr_fn="match_rms_adamw")
        return muon, torch.optim.AdamW(taken[1], lr=1e-3, weight_decay=0)

    by_muon = set()
    others = stepped(alone)
    together = stepped(lambda model: [make_optimizer(model, "muon", ALL_RATES, 0.0, {})])
    for name, other in others.items():
        if name not in by_muon:
            torch.testing.assert_close(together[name], other, msg=name)
        else:
            step, other = together[name].flatten(), other.flatten()
            assert torch.cosine_similarity(step, other, dim=0) > 0.99, name
            assert 0.95 < step.norm() / other.norm() < 1.05, name
    assert by_muon


def test_muon_may_have_all_that_is_trained() -> None:
    """As with adapters, which are nothing but matrices."""
    model = model_for(tiny_processor())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("q_proj.weight"))
    optimizer = make_optimizer(model, "muon", ALL_RATES, 0.0, {})
    assert all(group["muon"] for group in optimizer.param_groups)
    (trained, *_) = optimizer.param_groups[0]["params"]
    trained.grad, before = torch.ones_like(trained), trained.detach().clone()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert not torch.equal(trained, before)


def test_muon_leaves_a_head_that_is_trained_whole_beside_adapters_to_adamw() -> None:
    import peft

    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(model_for(tiny_processor()), config)
    optimizer = make_optimizer(model, "muon", ALL_RATES, 0.0, {})
    by_muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    trained = {name: id(p) in by_muon for name, p in model.named_parameters() if p.requires_grad}
    assert {muon for name, muon in trained.items() if "lm_head" in name} == {False}
    assert {muon for name, muon in trained.items() if "lora_" in name} == {True}


def test_a_run_goes_on_from_the_last_checkpoint_in_its_folder(tmp_path) -> None:
    training = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2}
    run(tmp_path / "whole", training)
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "again" / "checkpoint-2")
    run(tmp_path / "again", training)
    assert losses(tmp_path / "again") == pytest.approx({3: losses(tmp_path / "whole")[3]}, abs=1e-5)


def test_a_finished_run_whose_checkpoints_are_gone_is_not_begun_anew_in_its_place(tmp_path) -> None:
    run(tmp_path / "out", {"max_steps": 1})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    with pytest.raises(TrainingError, match=r"holds trainer_state\.json of a model, and no checkpoint"):
        run(tmp_path / "out", {"max_steps": 1}, learning_rates=STAGE_4)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_try_without_a_checkpoint_leaves_no_losses_to_the_next(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.jsonl").write_text('{"step": 9, "loss": 9.0}\n')
    run(tmp_path / "out", {"max_steps": 1})
    assert list(losses(tmp_path / "out")) == [1]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_losses_of_an_unbroken_one(tmp_path) -> None:
    """With Muon and AdamW, over two epochs, with a worker; a checkpoint that a kill left in pieces is passed over."""
    training = {"max_steps": 9, "save_strategy": "steps", "save_steps": 2, "dataloader_num_workers": 1}
    data = [{"path": str(world() / "videos.jsonl"), "weight": 3}, {"path": str(world() / "images.json"), "count": 6}]
    changes = {"training": training, "data": data, "optimizer": "muon", "sampling": {"num_scenes": [1, 2]}}
    run(tmp_path / "whole", **{**changes, "training": {**training, "save_strategy": "no"}})
    file = settings_file(tmp_path / "killed", **changes)
    killed = in_processes("--kill-at", 7, file)
    assert killed.returncode == -9, killed.stderr[-3000:]
    torn = tmp_path / "killed" / "checkpoint-6"
    (torn / "trainer_state.json").unlink()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    run(tmp_path / "killed", **changes)
    lines = map(json.loads, (tmp_path / "killed" / "log.jsonl").read_text().splitlines())
    # Step 7 was done, but not yet logged; what came after it began at the checkpoint of step 4.
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6, 5, 6, 7, 8, 9]
    whole, killed = losses(tmp_path / "whole"), losses(tmp_path / "killed")
    assert list(killed) == list(whole) == list(range(1, 10)) and len(set(whole.values())) == 9
    assert killed == pytest.approx(whole, abs=1e-6)
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "killed")[name], value, msg=name)


@pytest.mark.slow
def test_checkpoints_and_the_result_are_loadable_repositories(tmp_path) -> None:
    """In a fresh process without the package: every auto class, the pipelines, and the settings of the run."""
    run(
        tmp_path / "out",
        {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
        config={"scene_size": 2, "merger_type": "weighted"},
        processor={"num_scenes": 5, "selection": "uniform", "encoded_candidates": 40},
    )
    checkpoint, result = tmp_path / "out" / "checkpoint-2", tmp_path / "out"
    report = load_in_fresh_process(tmp_path, world() / "videos" / "0.mp4", checkpoint)["reports"][0]
    settings = report["settings"]["video_processor"]
    assert (settings["scene_size"], settings["num_scenes"], settings["selection"]) == (2, 5, "uniform")
    assert settings["encoded_candidates"] == 40
    assert "use_cache" not in json.loads((result / "config.json").read_text())
    files = {path.name for path in checkpoint.iterdir()} - {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert {"generation_config.json", "tokenizer.json", "modeling_fila_video.py", "model.safetensors"} <= files
    for name in files - {"trainer_state.json", "training_args.bin"}:
        assert (result / name).read_bytes() == (checkpoint / name).read_bytes(), name


def test_a_merger_that_the_start_has_not_is_new_and_said(tmp_path, caplog) -> None:
    caplog.set_level("WARNING")
    config = {"merger_type": "attention"}
    run(tmp_path / "out", {"max_steps": 1}, config=config, learning_rates={"multi_modal_projector": 1e-3})
    after = weights(tmp_path / "out")
    assert after["model.scene_merger.query_weight"].std() > 0.05  # Xavier
    before = weights(world() / "model")
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    with pytest.raises(TrainingError, match="`learning_rates` has scene_merger, but nothing of it can be trained"):
        run(tmp_path / "mean", {"max_steps": 1}, config={"merger_type": "mean"})


@pytest.mark.parametrize("kind", ["weighted", "attention"])
def test_a_new_merger_begins_as_that_of_a_new_model_whatever_the_start_has_learned(tmp_path, kind) -> None:
    rates = {"scene_merger": 0.1}
    run(tmp_path / "first", {"max_steps": 2}, config={"merger_type": kind}, learning_rates=rates)
    learned = weights(tmp_path / "first")
    rates = {"multi_modal_projector": 1e-3}
    for name, new in (("kept", False), ("new", True)):
        run(tmp_path / name, {"max_steps": 1}, model=str(tmp_path / "first"), new_merger=new, learning_rates=rates)
    kept, new = weights(tmp_path / "kept"), weights(tmp_path / "new")
    assert moved_parts(learned, kept) == {"multi_modal_projector"}
    assert moved_parts(learned, new) == {"multi_modal_projector", "scene_merger"}
    if kind == "weighted":
        weight = new["model.scene_merger.weight"]
        assert torch.equal(weight, torch.full_like(weight, 1 / len(weight)))


def test_a_model_without_a_merger_has_none_to_begin_anew(tmp_path) -> None:
    config = {"frame_encoding": "cooperative", "scene_size": 1, "num_prototypes": 5, "key_frames": 2}
    rates = {"multi_modal_projector": 1e-3}
    with pytest.raises(TrainingError, match="`new_merger`: with `frame_encoding: cooperative` there is no merger"):
        run(tmp_path / "out", {"max_steps": 1}, config=config, new_merger=True, learning_rates=rates)


def test_a_checkpoint_without_the_model_s_own_weights_is_refused(tmp_path) -> None:
    folder = tmp_path / "model"
    model = FilaVideoForConditionalGeneration.from_pretrained(world() / "model")
    state = {name: value for name, value in model.state_dict().items() if "linear_2" not in name}
    model.save_pretrained(folder, state_dict=state)
    FilaVideoProcessor.from_pretrained(world() / "model").save_pretrained(folder)
    with pytest.raises(TrainingError, match=r"no fitting model\.multi_modal_projector\.linear_2"):
        run(tmp_path / "out", model=str(folder))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=RUNS/typo", "`model` 'RUNS/typo': "),
        ("dtype=flaot32", "`dtype` provided as a `str`"),
        ("config.merger_type=weigthed", "`config`: .*'merger_type' expected one of .*got weigthed"),
        ("config.scene_size=0", "`config`: .*`scene_size` must be at least 1, got 0"),
        ("processor.selection=kmean", "`processor`: Unknown `selection` 'kmean'"),
        ("processor.scene_size=6", "`processor.scene_size` is the model's as well: set `config.scene_size` instead"),
    ],
)
def test_a_model_or_a_setting_of_it_that_cannot_be_is_named(tmp_path, override, message) -> None:
    with pytest.raises(TrainingError, match=f"(?s){message}"):
        train(load_settings(settings_file(tmp_path / "out"), [override]))


def test_what_could_not_be_read_is_counted_over_workers_and_runs(tmp_path) -> None:
    records = [video_record(number % 4) for number in range(8)]
    records[3]["video"], records[5]["video"] = "gone.mp4", "lost.mp4"
    write_lines(tmp_path / "some.jsonl", records)
    data = [{"path": str(tmp_path / "some.jsonl"), "media": str(world())}]
    run(tmp_path / "out", {"max_steps": 4, "dataloader_num_workers": 2}, data=data, unreadable="skip", batch_size=2)
    lines = (tmp_path / "out" / "unreadable.0.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert sorted(item["record"] for item in found) == [4, 6] and {item["media"] for item in found} == {
        "gone.mp4",
        "lost.mp4",
    }
    with pytest.raises(ValueError, match=r"some.jsonl, record (4|6), .*there is no file"):
        run(tmp_path / "strict", {"max_steps": 4}, data=data, batch_size=2)


def test_adapters_are_saved_merged_and_reloaded(tmp_path) -> None:
    import peft

    lora = {"r": 4, "target_modules": r".*language_model.*\.(q|v)_proj", "modules_to_save": ["scene_merger"]}
    rates = {"language_model": 1e-2, "scene_merger": 1e-3}
    training = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    run(tmp_path / "out", training, lora=lora, learning_rates=rates, isolate_turns=True)
    saved = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in saved} == {"lora_A", "lora_B", "scene_merger"}
    before, after = weights(world() / "model"), weights(tmp_path / "out")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 2)[-2] for name in changed} == {"q_proj", "v_proj", "scene_merger"}
    base = FilaVideoForConditionalGeneration.from_pretrained(world() / "model")
    for folder in (tmp_path / "out" / "adapter", tmp_path / "out" / "checkpoint-2"):
        loaded = peft.PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
        for name, value in after.items():
            torch.testing.assert_close(loaded[name], value, msg=name)
        base = FilaVideoForConditionalGeneration.from_pretrained(world() / "model")
    with pytest.raises(TrainingError, match="learning_rates` has vision_tower"):
        run(tmp_path / "none", lora=lora, learning_rates={**rates, "vision_tower": 1e-3})


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_accumulation(tmp_path) -> None:
    """DDP, plain and with gradient checkpointing, with batches where one process has images or words only; FSDP 2."""
    words = {"id": "w", "conversations": turns("Hello?", "Hello.", medium="")}
    both = {"id": "b", "image": ["0.png"], "video": "videos/2.mp4"}
    both["conversations"] = turns("<image>\nWhat?", "Two.", medium="<video>\n")
    records = [video_record(0), image_record(0), video_record(1), image_record(1), words, both]
    write_lines(tmp_path / "mixed.jsonl", records)
    data = [{"path": str(tmp_path / "mixed.jsonl"), "media": str(world()), "weight": 3}]
    training = {"max_steps": 6, "per_device_train_batch_size": 1}
    variants = {name: {"training": training, "data": data, "batch_size": 2} for name in ("ddp", "fsdp")}
    variants["checkpointing"] = {**variants["ddp"], "training": {**training, "gradient_checkpointing": True}}
    files = {name: settings_file(tmp_path / name, **changes) for name, changes in variants.items()}
    configuration = yaml.safe_load((TRAINING / "accelerate" / "fsdp2.yaml").read_text())["fsdp_config"]
    environment = {name.upper().replace("_LAYER_CLS", "_CLS"): value for name, value in configuration.items()}
    fsdp = [f"{name}={value}" for name, value in {"ACCELERATE_USE_FSDP": True, **environment}.items()]
    result = in_processes(files["ddp"], files["checkpointing"], *fsdp, files["fsdp"], processes=2)
    assert result.returncode == 0, result.stderr[-4000:]

    trainer = run(tmp_path / "one", **variants["ddp"])
    names = ("video", "image", "video", "image", "words", "both")
    kinds = [names[index] for _, _, index in trainer.train_dataset.sampler][:12]
    pairs = {frozenset(kinds[at : at + 2]) for at in range(0, 12, 2)}
    assert frozenset(("image", "video")) in pairs and all(len(pair) > 1 for pair in pairs if "words" in pair)
    expected = weights(tmp_path / "one")
    for name in variants:
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), abs=2e-5), name
        for key, value in weights(tmp_path / name).items():
            torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3, msg=f"{name}: {key}")


COMPRESSION = yaml.safe_load((TRAINING / "stage5_compression.yaml").read_text())


def compression_run(steps: int) -> dict:
    """Stage 5 from the tiny stage-4 model: its settings but for paths, sizes and length, at a rate that shows."""
    training = {"max_steps": steps, "per_device_train_batch_size": 1, "gradient_checkpointing": True}
    return {
        "model": str(world() / "model"),
        "config": {**COMPRESSION["config"], "layer_compression_group": 4},
        "learning_rates": dict.fromkeys(COMPRESSION["learning_rates"], 1e-3),
        "sampling": {**COMPRESSION["sampling"], "num_scenes": [1, 2, 4]},
        "batch_size": 4,
        "data": [{"path": str(world() / "videos.jsonl"), "count": 24}],
        "training": {**training, "lr_scheduler_type": "cosine", "warmup_steps": 0.03, "weight_decay": 0.0},
    }


def test_compression_tuning_starts_from_stage_4_and_learns(tmp_path) -> None:
    run(tmp_path / "out", **compression_run(steps=12))
    by_step = losses(tmp_path / "out")
    assert sum(by_step[step] for step in (10, 11, 12)) < sum(by_step[step] for step in (1, 2, 3))
    before, after = weights(world() / "model"), weights(tmp_path / "out")
    assert moved_parts(before, after) == {"multi_modal_projector", "language_model"}
    model = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert (model.config.layer_compression, model.config.layer_compression_group) == ("cosine", 4)
    processor = FilaVideoProcessor.from_pretrained(tmp_path / "out").bind(model)
    video = str(world() / "videos" / "0.mp4")
    inputs = processor(text="<video>What is it?", videos=[video], return_tensors="pt")
    answer = model.generate(**inputs, min_new_tokens=3, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3
    plain = FilaVideoForConditionalGeneration.from_pretrained(tmp_path / "out", layer_compression=None)
    assert not torch.equal(model(**inputs).logits[:, -1], plain(**inputs).logits[:, -1])  # tokens did fall away


@pytest.mark.slow
def test_compression_tuning_in_two_processes_is_that_of_one(tmp_path) -> None:
    changes = compression_run(steps=3)
    changes["batch_size"] = 2
    result = in_processes(settings_file(tmp_path / "two", **changes), processes=2)
    assert result.returncode == 0, result.stderr[-4000:]
    run(tmp_path / "one", **changes)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=2e-5)
    expected = weights(tmp_path / "one")
    for key, value in weights(tmp_path / "two").items():
        torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3, msg=key)
