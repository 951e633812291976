"""What training needs of the model: gradients everywhere, the same with checkpointing, in any mixture of inputs."""

import pytest
import torch
from helpers.tiny_models import (
    left_padded,
    prompt,
    random_frames,
    random_videos,
    tiny_clip_llama_config,
    tiny_config,
    tiny_model,
    tiny_vision_config,
    video_batch,
)

CONFIGS = {
    "siglip": tiny_config(),
    "siglip-with-head": tiny_config(vision_config=tiny_vision_config(vision_use_head=True), vision_feature_layer=-2),
    "clip": tiny_clip_llama_config(),
    "attention": tiny_config(merger_type="attention"),
    "no newline": tiny_config(newline_position="none"),
    "background": tiny_config(background_tokens=2),
}


def batch_of(config, kind: str) -> dict:
    image = {"pixel_values": random_frames(1, config)}
    if kind == "words":
        return left_padded([prompt("only words", config=config)])
    if kind == "image":
        return left_padded([prompt("a", "image", "?", config=config)]) | image
    if kind == "video":
        return video_batch(config)
    if kind == "encoded video":
        batch = video_batch(config)
        pixels = batch.pop("pixel_values_videos")
        features = tiny_model(config).encode_frames(pixels.flatten(0, 1)).detach()
        return batch | {"frame_features": features.unflatten(0, pixels.shape[:2])}
    return left_padded([prompt("a", "image", 2, "?", config=config)]) | image | random_videos([2], config)


def gradients(model, inputs: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["words", "image", "video", "encoded video", "image and video"])
@pytest.mark.parametrize("name", [*CONFIGS, "cooperative"])
def test_every_parameter_gets_a_gradient_in_every_batch(name, kind) -> None:
    """Without `find_unused_parameters`, distributed training waits for all of them."""
    cooperative = {"frame_encoding": "cooperative", "scene_size": 1, "key_frames": 0.5}
    model = tiny_model(CONFIGS.get(name) or tiny_config(**cooperative)).train()
    given = gradients(model, batch_of(model.config, kind))
    assert [name for name, _ in model.named_parameters() if name not in given] == []
    used = {"attention": "scene_merger.query_weight", "cooperative": "cooperative_encoder.score_net.view.weight"}
    used = given[f"model.{used.get(name, 'scene_merger.weight')}"]
    assert bool(used.abs().sum() > 0) == ("video" in kind)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_touched_for_its_gradient_changes_nothing(name) -> None:
    """In training, the outputs and the other gradients are those of evaluation."""
    model = tiny_model(CONFIGS[name])
    inputs = batch_of(model.config, "image and video")
    expected, logits = gradients(model, inputs), model(**inputs).logits
    model.train()
    torch.testing.assert_close(model(**inputs).logits, logits)
    given = gradients(model, inputs)
    for key, gradient in given.items():
        torch.testing.assert_close(gradient, expected.get(key, torch.zeros_like(gradient)), msg=key)


@pytest.mark.parametrize("kind", ["image", "video"])
def test_frozen_parameters_stay_without_gradients(kind) -> None:
    model = tiny_model().train()
    model.requires_grad_(False)
    model.model.scene_merger.requires_grad_(True)
    model.model.multi_modal_projector.requires_grad_(True)
    given = gradients(model, batch_of(model.config, kind))
    assert {key.split(".")[1] for key in given} == {"scene_merger", "multi_modal_projector"}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # its new name came after 5.18
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradient_checkpointing_gives_equal_gradients(name, use_reentrant) -> None:
    model = tiny_model(CONFIGS[name]).train()
    inputs = batch_of(model.config, "image and video")
    expected = gradients(model, inputs)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    for part in (model.model.vision_tower, model.model.language_model):
        assert any(getattr(module, "gradient_checkpointing", False) for module in part.modules())
    given = gradients(model, inputs)
    assert given.keys() == expected.keys()
    for key, gradient in given.items():
        torch.testing.assert_close(gradient, expected[key], atol=1e-6, rtol=1e-4, msg=key)


def test_a_batch_of_two_has_the_gradients_of_two_batches_of_one() -> None:
    model = tiny_model().train()
    config = model.config
    whole = video_batch(config, (2, 2))
    count = torch.tensor(2 * (whole["input_ids"].shape[1] - 1))
    model(**whole, labels=whole["input_ids"], num_items_in_batch=count).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row in range(2):
        part = {name: value[row : row + 1] for name, value in whole.items()}
        model(**part, labels=part["input_ids"], num_items_in_batch=count).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("merger_type", ["weighted", "attention", "bsm"])
def test_a_model_learns_to_tell_two_videos_apart(merger_type) -> None:
    config = tiny_config(merger_type=merger_type)
    model = tiny_model(config).train()
    ids = [prompt("a", 1, "?", answer, config=config) for answer in "xy"]
    inputs = left_padded(ids) | random_videos([1, 1], config)
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -1] = inputs["input_ids"][:, -1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.1
