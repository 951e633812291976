"""The forward pass: from pixels to visual tokens, into the text, to logits and loss."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from fila_video.modeling_fila_video import FilaVideoModel
from helpers.tiny_models import (
    IMAGE,
    TEXT_SIZES,
    VIDEO,
    VISION_SIZES,
    left_padded,
    prompt,
    random_frames,
    random_videos,
    tiny_clip_llama_config,
    tiny_config,
    tiny_model,
    tiny_vision_config,
    tokens_of,
    video_batch,
)
from transformers import CLIPVisionConfig, Dinov2Config, LlamaConfig, Qwen3Config

POOLING = ["bilinear", "average", "max", "none"]
NEWLINES = ["video", "grid", "frame", "none"]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def linear_grid(grid: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resizing of `(height, width, channels)`, pixel centers at halves, edges repeated."""
    for axis in (0, 1):
        length = grid.shape[axis]
        centers = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        left = np.floor(centers).astype(int)
        right = np.minimum(left + 1, length - 1)
        share = np.expand_dims(centers - left, tuple(n for n in range(3) if n != axis))
        grid = np.take(grid, left, axis) * (1 - share) + np.take(grid, right, axis) * share
    return grid


def visual_tokens_by_hand(model, pixels: torch.Tensor, merge: bool) -> torch.Tensor:
    """One video's tokens, or one image's: merger, projector, pooling and newline, a frame at a time in numpy."""
    config, base = model.config, model.model
    states = base.vision_tower(pixels, output_hidden_states=True).hidden_states[-1].detach().double()
    frames = list(states)
    if merge:
        weight = base.scene_merger.weight.detach().double()
        scenes = range(0, len(frames), config.scene_size)
        frames = [sum(frames[start + i] * weight[i] for i in range(config.scene_size)) for start in scenes]
    projector = base.multi_modal_projector
    newline = None if base.image_newline is None else base.image_newline.detach().double().numpy()
    tokens = []
    for frame in frames:
        hidden = frame @ projector.linear_1.weight.double().T + projector.linear_1.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))  # GELU
        hidden = hidden @ projector.linear_2.weight.double().T + projector.linear_2.bias
        grid = hidden.detach().numpy().reshape(5, 5, -1)
        stride = config.pooling_stride
        if config.pooling_mode == "bilinear":
            grid = linear_grid(grid, -(-5 // stride))
        elif config.pooling_mode in ("average", "max"):
            whole = 5 // stride
            blocks = grid[: whole * stride, : whole * stride].reshape(whole, stride, whole, stride, -1)
            grid = blocks.mean((1, 3)) if config.pooling_mode == "average" else blocks.max((1, 3))
        for row in grid:
            tokens += [*row, newline] if config.newline_position == "grid" else [*row]
        tokens += [newline] if config.newline_position == "frame" else []
    tokens += [newline] if config.newline_position == "video" else []
    return torch.from_numpy(np.stack(tokens)).float()


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(("mode", "newline"), itertools.product(POOLING, NEWLINES))
def test_visual_tokens_are_merged_projected_pooled_and_ended_by_newlines(mode, newline, stride) -> None:
    config = tiny_config(pooling_mode=mode, newline_position=newline, pooling_stride=stride)
    model = tiny_model(config)
    videos = random_videos([2, 1], config)
    given = model.get_video_features(**videos, return_dict=True).pooler_output
    for pixels, scenes, tokens in zip(videos["pixel_values_videos"], (2, 1), given, strict=True):
        torch.testing.assert_close(tokens, visual_tokens_by_hand(model, pixels[: scenes * 3], True), atol=2e-5, rtol=0)
        assert len(tokens) == tokens_of(config, scenes)
    images = random_frames(2, config)
    for pixels, tokens in zip(images, model.get_image_features(images).pooler_output, strict=True):
        torch.testing.assert_close(tokens, visual_tokens_by_hand(model, pixels[None], False), atol=2e-5, rtol=0)
        assert len(tokens) == tokens_of(config, 1)
    assert (model.model.image_newline is None) == (newline == "none")


def test_visual_tokens_stand_where_the_text_says(model) -> None:
    config = model.config
    ids = torch.tensor([prompt("ab", 2, "c", "image", "d", 1, config=config)])
    videos, image = random_videos([2, 1], config), random_frames(1, config, seed=4)
    output = model(input_ids=ids, pixel_values=image, **videos)
    embeds = model.get_input_embeddings()(ids).detach()
    embeds[ids == VIDEO] = torch.cat(output.video_hidden_states)
    embeds[ids == IMAGE] = torch.cat(output.image_hidden_states)
    expected = model.model.language_model(inputs_embeds=embeds).last_hidden_state @ model.lm_head.weight.T
    torch.testing.assert_close(output.logits, expected)
    assert [len(video) for video in output.video_hidden_states] == [19, 10]


def test_encoded_features_are_the_chosen_hidden_state_of_each_frame() -> None:
    for layer in (1, 2, -1, -2):
        model = tiny_model(vision_feature_layer=layer)
        pixels = random_frames(2, model.config)
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        assert len(states) == 3
        torch.testing.assert_close(model.encode_frames(pixels), states[layer])
    last = model.model.vision_tower(pixels).last_hidden_state
    assert not torch.allclose(tiny_model().encode_frames(pixels), last)  # the final norm is not in it


def test_only_the_needed_hidden_state_is_kept() -> None:
    """With a tower of six layers: outputs of the others are freed while the tower runs."""
    model = tiny_model(vision_config=tiny_vision_config(num_hidden_layers=6), vision_feature_layer=-2)
    states = []
    tower = model.model.vision_tower
    layers = next(module for module in tower.modules() if isinstance(module, torch.nn.ModuleList))
    for layer in layers:
        layer.register_forward_hook(lambda module, args, output: states.append(weakref.ref(output)))
    alive = []
    tower.post_layernorm.register_forward_pre_hook(
        lambda module, args: alive.append(sum(state() is not None for state in states))
    )
    with torch.no_grad():
        model.encode_frames(random_frames(1, model.config))
    gc.collect()
    assert len(states) == 6
    assert alive[0] <= 2  # the chosen one, and the one that the norm is about to read


def test_hidden_states_of_the_tower_come_on_demand(model) -> None:
    videos = random_videos([2], model.config)
    output = model.get_video_features(**videos, output_hidden_states=True)
    assert len(output.hidden_states) == 3 and output.hidden_states[0].shape == (6, 25, 32)
    assert model.get_video_features(**videos).hidden_states is None


@pytest.mark.parametrize("wanted", [[0], [-2], 1])
def test_hidden_states_of_the_tower_can_be_asked_for_by_number(model, wanted) -> None:
    pixels = random_frames(2, model.config)
    expected = model.get_image_features(pixels, output_hidden_states=True)
    output = model.get_image_features(pixels, output_hidden_states=wanted)
    torch.testing.assert_close(output.pooler_output, expected.pooler_output)
    for number in [wanted] if isinstance(wanted, int) else wanted:
        torch.testing.assert_close(output.hidden_states[number], expected.hidden_states[number])


def test_features_of_encoded_frames_give_the_logits_of_their_pixels(model) -> None:
    inputs = video_batch(model.config, (3, 1, 2))
    expected = model(**inputs).logits
    pixels = inputs.pop("pixel_values_videos")
    features = model.encode_frames(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])
    torch.testing.assert_close(model(**inputs, frame_features=features).logits, expected, atol=1e-5, rtol=0)


def test_padding_and_neighbours_never_change_a_video(model) -> None:
    config = model.config
    batch = video_batch(config, (1, 3, 2))
    together = model(**batch).logits
    noise = batch["pixel_values_videos"].clone()
    noise[0, 3:] = torch.nan
    assert torch.equal(model(**(batch | {"pixel_values_videos": noise})).logits, together)
    for row, scenes in enumerate((1, 3, 2)):
        length = int(batch["attention_mask"][row].sum())
        alone = model(
            input_ids=batch["input_ids"][row : row + 1, -length:],
            pixel_values_videos=batch["pixel_values_videos"][row : row + 1, : scenes * 3],
        )
        torch.testing.assert_close(together[row, -length:], alone.logits[0], atol=1e-5, rtol=0)


def test_embeddings_may_come_instead_of_token_ids(model) -> None:
    config = model.config
    inputs = left_padded([prompt("a", 2, "image", config=config)]) | random_videos([2], config)
    inputs["pixel_values"] = random_frames(1, config)
    expected = model(**inputs).logits
    inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
    torch.testing.assert_close(model(**inputs).logits, expected)


def test_encoder_outputs_may_come_instead_of_pixels(model) -> None:
    inputs = video_batch(model.config)
    expected = model(**inputs).logits
    visuals = {name: inputs.pop(name) for name in ("pixel_values_videos", "video_num_scenes")}
    outputs = {"video": model.get_video_features(**visuals)}
    torch.testing.assert_close(model(**inputs, mm_encoder_outputs=outputs | {"image": None}).logits, expected)
    with pytest.raises(ValueError, match="videos are given twice"):
        model(**inputs, **visuals, mm_encoder_outputs=outputs)


def test_logits_to_keep(model) -> None:
    inputs = video_batch(model.config)
    logits = model(**inputs).logits
    torch.testing.assert_close(model(**inputs, logits_to_keep=2).logits, logits[:, -2:])
    chosen = torch.tensor([0, 5, 7])
    torch.testing.assert_close(model(**inputs, logits_to_keep=chosen).logits, logits[:, chosen])


def test_the_loss_of_the_labelled_positions_alone_is_the_loss(model) -> None:
    """Training puts nothing else through the head: a mask of positions, and the labels that they are to predict."""
    inputs = video_batch(model.config)
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    learned = targets != -100
    whole = model(**inputs, labels=labels)
    part = model(**inputs, labels=labels, logits_to_keep=learned, shift_labels=targets[learned])
    torch.testing.assert_close(part.loss, whole.loss)
    torch.testing.assert_close(part.logits, whole.logits[learned])


def test_the_loss_is_the_mean_cross_entropy_of_the_next_labelled_token(model) -> None:
    inputs = video_batch(model.config)
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] < 10, -100)
    output = model(**inputs, labels=labels)
    log = output.logits.detach().double().log_softmax(-1)
    losses = [
        -log[row, place - 1, labels[row, place]]
        for row in range(2)
        for place in range(1, labels.shape[1])
        if labels[row, place] != -100
    ]
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    summed = model(**inputs, labels=labels, num_items_in_batch=torch.tensor(10)).loss
    assert summed.item() == pytest.approx(torch.stack(losses).sum().item() / 10, rel=1e-5)


def test_tuples_on_demand(model) -> None:
    inputs = video_batch(model.config)
    logits, cache = model(**inputs, return_dict=False)[:2]
    torch.testing.assert_close(logits, model(**inputs).logits)
    assert cache.get_seq_length() == logits.shape[1]


@pytest.mark.parametrize("settings", [{}, {"layer_compression": "cosine"}])
def test_a_configuration_that_asks_for_tuples_gives_tuples(settings) -> None:
    model = tiny_model(**settings)
    inputs = video_batch(model.config)
    expected, answer = model(**inputs).logits, model.generate(**inputs, max_new_tokens=3)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.return_dict = False
    assert isinstance(model.model(**inputs), tuple)
    torch.testing.assert_close(model(**inputs)[0], expected)
    torch.testing.assert_close(model(**inputs, return_dict=True).logits, expected)
    assert torch.equal(model.generate(**inputs, max_new_tokens=3), answer)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(model, implementation) -> None:
    inputs = video_batch(model.config, (3, 1))
    expected = model(**inputs).logits
    other = tiny_model()
    other.set_attn_implementation(implementation)
    assert other.model.vision_tower.config._attn_implementation == implementation
    assert other.model.language_model.config._attn_implementation == implementation
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(other(**inputs).logits[real], expected[real], atol=1e-5, rtol=0)


def test_both_parts_can_dispatch_to_flash_attention(model) -> None:
    assert model._supports_flash_attn and model._supports_attention_backend
    for part in (model.model.vision_tower, model.model.language_model):
        assert part._supports_flash_attn


@pytest.mark.parametrize("merger_type", ["weighted", "mean", "attention", "bsm"])
def test_a_bfloat16_model_is_close_to_its_float32_self(merger_type, tmp_path) -> None:
    model = tiny_model(merger_type=merger_type)
    inputs = video_batch(model.config, (2, 1))
    expected = model(**inputs).logits
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].bfloat16()
    logits = half(**inputs).logits
    assert logits.dtype == torch.bfloat16
    real = inputs["attention_mask"].bool()
    cosine = torch.cosine_similarity(logits[real].float(), expected[real], dim=-1)
    # Merging picks other tokens where two are nearly equal.
    assert cosine.min() > (0.95 if merger_type == "bsm" else 0.995)


@pytest.mark.parametrize(
    "settings",
    [
        tiny_clip_llama_config(),
        tiny_config(vision_config=CLIPVisionConfig(**VISION_SIZES), vision_feature_select_strategy="default"),
        tiny_config(
            vision_config=Dinov2Config(**(VISION_SIZES | {"mlp_ratio": 2})),
            text_config=LlamaConfig(**TEXT_SIZES),
            vision_feature_select_strategy="default",
        ),
        tiny_config(vision_config=tiny_vision_config(vision_use_head=True)),
        tiny_config(text_config=Qwen3Config(**(TEXT_SIZES | {"head_dim": 12}))),
    ],
    ids=["clip-llama", "clip-qwen2", "dinov2-llama", "siglip-with-head", "siglip-qwen3"],
)
def test_other_towers_and_language_models_work_unchanged(settings, tmp_path) -> None:
    model = tiny_model(settings)
    inputs = video_batch(settings, (2, 1))
    output = model(**inputs, labels=inputs["input_ids"])
    output.loss.backward()
    assert [len(video) for video in output.video_hidden_states] == [19, 10]
    assert model.model.scene_merger.weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(type(model).from_pretrained(tmp_path).eval()(**inputs).logits, output.logits)


@pytest.mark.parametrize("implementation", ["eager", "aot_eager"])
def test_the_forward_compiles(model, implementation) -> None:
    inputs = video_batch(model.config, (2, 2))
    inputs.pop("video_num_scenes")
    with torch.no_grad():
        # First: at a model's first forward, transformers takes a lock, which breaks a full graph.
        expected = model(**inputs).logits
        compiled = torch.compile(model, backend=implementation, fullgraph=implementation == "eager")
        torch.testing.assert_close(compiled(**inputs).logits, expected, atol=1e-5, rtol=0)
    torch.compiler.reset()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_placeholders_without_visuals_are_refused(mode) -> None:
    model = getattr(tiny_model(), mode)()
    batch = video_batch(model.config, (2, 1))
    blind = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for forward in (model, model.model):
        with pytest.raises(ValueError, match="holds 29 video tokens, but no video came"):
            forward(**blind)
        forward(input_ids=torch.tensor([[50, 51]]))
    if mode == "train":  # a server passes embeddings whose placeholders it has replaced
        with pytest.raises(ValueError, match="holds 29 video tokens"):
            model(inputs_embeds=model.get_input_embeddings()(batch["input_ids"]))


def test_a_compiled_forward_refuses_placeholders_without_visuals(model) -> None:
    compiled = torch.compile(model.forward, backend="eager", fullgraph=True)
    batch = video_batch(model.config, (2, 1))
    compiled(input_ids=torch.full((2, 40), 50))
    with pytest.raises((ValueError, RuntimeError)):
        compiled(input_ids=batch["input_ids"][:, :40])


def test_the_forward_exports_where_no_video_is_padded(model) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "pixel_values_videos": pixels}
            return self.model(**inputs, use_cache=False).logits

    batch = video_batch(model.config, (2, 2))
    arguments = (batch["input_ids"], batch["attention_mask"], batch["pixel_values_videos"])
    exported = torch.export.export(Logits(), arguments, strict=False).module()
    other = {**batch, "pixel_values_videos": random_videos([2, 2], model.config, seed=1)["pixel_values_videos"]}
    for inputs in (batch, other):
        given = (inputs["input_ids"], inputs["attention_mask"], inputs["pixel_values_videos"])
        torch.testing.assert_close(exported(*given), model(**inputs).logits)
    assert not torch.equal(exported(*given), exported(*arguments))


def test_servers_find_what_they_call(model) -> None:
    """What vLLM's transformers backend asks of the base model."""
    config = model.config
    base = model.model
    assert base.get_decoder() is base.language_model and model.get_decoder() is base.language_model
    videos = random_videos([2, 1], config)
    features = base.get_video_features(
        videos["pixel_values_videos"], return_dict=True, video_num_scenes=videos["video_num_scenes"]
    ).pooler_output
    assert [video.shape for video in features] == [(19, 48), (10, 48)]
    inputs = video_batch(config)
    embeds = base.get_input_embeddings()(inputs["input_ids"])
    places = torch.arange(embeds.shape[1])[None].expand(2, -1)
    output = base(inputs_embeds=embeds, position_ids=places, use_cache=False, return_dict=False)
    assert isinstance(output, tuple) and output[0].shape == (*inputs["input_ids"].shape, 48)
    assert isinstance(model.lm_head, torch.nn.Linear) and isinstance(base, FilaVideoModel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values_videos": torch.zeros(2, 4, 3, 20, 20)}, "4 frames.*scene_size 3.*processor"),
        ({"video_num_scenes": torch.tensor([3, 1])}, r"\[3, 1\].*2 videos of 6 frames"),
        ({"video_num_scenes": torch.tensor([2, 0])}, r"\[2, 0\]"),
        ({"video_num_scenes": torch.tensor([2])}, r"2 videos.*\[2\]"),
        ({"frame_features": torch.zeros(2, 6, 25, 32)}, "exactly one of"),
        ({"input_ids": torch.full((2, 20), VIDEO)}, "tokens: 40, features: 29"),
        ({"pixel_values": torch.zeros(1, 3, 20, 20)}, "[Ii]mage.*tokens: 0, features: 10"),
        ({"inputs_embeds": torch.zeros(2, 28, 48)}, "exactly one of input_ids or inputs_embeds"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(model, change, message) -> None:
    inputs = video_batch(model.config, (2, 1)) | change
    if "input_ids" in change:
        inputs.pop("attention_mask")
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_a_tower_with_a_class_token_needs_the_default_strategy() -> None:
    clip = CLIPVisionConfig(**VISION_SIZES)
    model = tiny_model(tiny_config(vision_config=clip))
    with pytest.raises(ValueError, match=r"26 tokens a frame.*25 patches.*'default'"):
        model.encode_frames(random_frames(1, model.config))
    model = tiny_model(vision_feature_select_strategy="default")
    with pytest.raises(ValueError, match=r"24 tokens a frame.*25 patches.*'full'"):
        model.encode_frames(random_frames(1, model.config))
