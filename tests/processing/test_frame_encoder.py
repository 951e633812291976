"""A frame encoder in the processor: features of a bound model choose the scenes, and the encoder never leaves it."""

import copy
import gc
import pickle
import threading
from typing import Never

import numpy as np
import pytest
import torch
from fila_video import modeling_fila_video
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.scene_selection_fila_video import select_scenes, thin_pool
from fila_video.video_pool_fila_video import thumbnails
from helpers.tiny_processor import (
    clip,
    config_for,
    mean_features,
    model_for,
    small_clip,
    tiny_pipeline,
    tiny_processor,
)


def test_with_the_models_encoder_scenes_are_those_of_equation_1(bound, model) -> None:
    frames = small_clip(30)
    inputs = bound(text="<video>", videos=frames, max_candidates=30, return_scenes=True, return_tensors="pt")
    expected = select_scenes(mean_features(model, bound, frames), 4, 3)
    assert torch.equal(inputs["scenes"][0]["indices"], expected)
    assert "pixel_values_videos" not in inputs
    pixels = (torch.from_numpy(frames)[expected.flatten()].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        torch.testing.assert_close(inputs["frame_features"][0], model.encode_frames(pixels), atol=1e-5, rtol=1e-4)


def test_only_the_frames_that_differ_most_by_their_thumbnails_are_encoded_where_a_number_is_set(bound, model) -> None:
    frames, encoded = small_clip(60), []

    def encoder(pixels):
        encoded.append(len(pixels))
        return model.encode_frames(pixels)

    features = mean_features(model, bound, frames)
    bound.frame_encoder = encoder
    settings = {"max_candidates": 60, "encoded_candidates": 20}
    inputs = bound(text="<video>", videos=frames, **settings, return_scenes=True, return_tensors="pt")
    kept = thin_pool(thumbnails(torch.from_numpy(frames).permute(0, 3, 1, 2)), 20)
    assert torch.equal(inputs["scenes"][0]["indices"], kept[select_scenes(features[kept], 4, 3)])
    assert sum(encoded) == 20
    with pytest.raises(ValueError, match="`encoded_candidates` must be at least 1 or `None`, got 0"):
        bound(text="<video>", videos=frames, encoded_candidates=0)


def test_features_and_pixels_lead_to_the_same_logits(processor, model) -> None:
    frames = small_clip(12)  # four scenes of three: `uniform` takes every frame in either case
    pixels = processor(text="<video>a", videos=frames, selection="uniform", return_tensors="pt")
    processor.frame_encoder = model.encode_frames
    features = processor(text="<video>a", videos=frames, selection="uniform", return_tensors="pt")
    processor.frame_encoder = None
    assert torch.equal(pixels["input_ids"], features["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**pixels).logits, model(**features).logits, atol=1e-4, rtol=1e-4)


class CountingEncoder:
    """Notes what it is called with, and gives features that tell frames apart."""

    def __init__(self) -> None:
        self.batches = []

    def __call__(self, pixels):
        assert not torch.is_grad_enabled()
        assert pixels.dtype == torch.float32 and pixels.min() >= -1 and pixels.max() <= 1
        self.batches.append(len(pixels))
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(2).mT.requires_grad_()


def test_the_encoder_sees_normalized_chunks_and_each_frame_once(processor, monkeypatch) -> None:
    encoder = CountingEncoder()
    processor.frame_encoder = encoder
    loaded = []
    load_video = processor.video_processor.load_video
    monkeypatch.setattr(
        processor.video_processor,
        "load_video",
        lambda *args, **kwargs: loaded.append(load_video(*args, **kwargs)) or loaded[-1],
    )
    try:
        kept = processor(text="<video>", videos=clip(23), frame_batch_size=5, return_scenes=True, return_tensors="pt")
        assert encoder.batches == [5, 5, 5, 5, 3]
        assert {frames.dtype for frames, _ in loaded} == {torch.uint8}  # the pool and the chunks of it
        assert not kept["frame_features"].requires_grad
        encoder.batches.clear()
        again = processor(
            text="<video>",
            videos=clip(23),
            frame_batch_size=5,
            max_feature_bytes=10,
            return_scenes=True,
            return_tensors="pt",
        )
        chosen = kept["scenes"][0]["indices"].unique().numel()
        assert encoder.batches[:5] == [5, 5, 5, 5, 3] and sum(encoder.batches[5:]) == chosen
        assert max(encoder.batches) == 5
    finally:
        processor.frame_encoder = None
    assert torch.equal(kept["scenes"][0]["indices"], again["scenes"][0]["indices"])
    torch.testing.assert_close(kept["frame_features"], again["frame_features"])


def test_the_budget_is_exact(processor) -> None:
    encoder = CountingEncoder()
    processor.frame_encoder = encoder
    frame_bytes = 4 * 3 * 4  # 4 patches of 3 floats
    try:
        for budget, times_encoded in ((23 * frame_bytes, 1), (23 * frame_bytes - 1, 2)):
            encoder.batches.clear()
            processor(text="<video>", videos=clip(23), frame_batch_size=23, max_feature_bytes=budget)
            assert len(encoder.batches) == times_encoded
    finally:
        processor.frame_encoder = None


def test_an_encoder_of_another_shape_is_refused(processor) -> None:
    processor.frame_encoder = lambda pixels: pixels.flatten(1)
    try:
        with pytest.raises(ValueError, match=r"must give \(12, num_patches, hidden_size\) .* got \(12, 1200\)"):
            processor(text="<video>", videos=clip(12))
    finally:
        processor.frame_encoder = None


def test_a_bfloat16_model_selects_and_answers(processor) -> None:
    model = model_for(processor).to(torch.bfloat16)
    processor.frame_encoder = model.encode_frames
    try:
        inputs = processor(text="<video>a", videos=clip(), return_tensors="pt")
        arrays = processor(text="<video>a", videos=clip(), return_tensors="np")
    finally:
        processor.frame_encoder = None
    assert inputs["frame_features"].dtype == torch.bfloat16
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 1
    np.testing.assert_array_equal(arrays["frame_features"], inputs["frame_features"].float().numpy())


class Untouchable:
    """An encoder that notices any attempt to copy, pickle, print or look into it."""

    def __call__(self, pixels):
        return pixels.flatten(2).mT

    def _refuse(self, *args) -> Never:
        raise AssertionError("the frame encoder was touched")

    __deepcopy__ = __copy__ = __reduce__ = __reduce_ex__ = __getstate__ = __repr__ = __str__ = __getattr__ = _refuse


def test_saving_copying_pickling_and_printing_never_touch_the_encoder(tmp_path) -> None:
    processor = tiny_processor()
    processor._selector._encoder = Untouchable()
    for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert other.frame_encoder is None
        assert other.to_dict() == processor.to_dict()
        assert processor.frame_encoder is not None
    repr(processor), str(processor), processor.to_json_string()
    processor.save_pretrained(tmp_path)
    assert "frame_encoder" not in (tmp_path / "processor_config.json").read_text()
    assert FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True).frame_encoder is None


def test_a_copy_has_settings_of_its_own_and_no_guest(model) -> None:
    processor = tiny_processor()
    processor.bind(model).question_scorer = lambda frames, question: torch.zeros(len(frames))
    other = copy.copy(processor)
    assert other.to_dict() == processor.to_dict()
    assert other.frame_encoder is None and other.question_scorer is None
    other.num_scenes, other.time_marks, other.patches_per_side = 2, "none", 7
    other.image_processor.do_normalize = False
    other.frame_encoder = lambda pixels: pixels.flatten(2).transpose(1, 2)
    assert (processor.num_scenes, processor.time_marks, processor.patches_per_side) == (4, "sentence", 5)
    assert processor.image_processor.do_normalize
    assert processor.frame_encoder == model.encode_frames and processor.question_scorer is not None
    assert other.tokenizer is processor.tokenizer  # which is large


def test_a_bound_model_selects_as_its_encoder_does_and_is_not_kept_alive(processor) -> None:
    model = model_for(processor)
    processor.frame_encoder = model.encode_frames
    expected = processor(text="<video>", videos=small_clip(20), return_tensors="pt")
    try:
        assert processor.bind(model) is processor
        inputs = processor(text="<video>", videos=small_clip(20), return_tensors="pt")
        assert torch.equal(inputs["frame_features"], expected["frame_features"])
        for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
            assert other.frame_encoder is None
        with pytest.raises(ValueError, match="`scene_size` is 2, but the model's is 3"):
            processor(text="<video>", videos=small_clip(20), scene_size=2)
        del model
        gc.collect()
        with pytest.raises(ValueError, match="model that the processor was bound to is gone"):
            processor(text="<video>", videos=small_clip(20))
    finally:
        processor.frame_encoder = None


def test_a_wrapper_of_a_model_is_not_bound(processor, model) -> None:
    wrapper = torch.nn.Module()
    wrapper.module = model
    with pytest.raises(ValueError, match=r"has no `encode_frames`.*bind the model inside"):
        processor.bind(wrapper)


def test_scenes_of_another_size_than_the_models_are_no_longer_taken_for_padding(processor, model) -> None:
    inputs = processor(text="<video>", videos=small_clip(40), scene_size=6, return_tensors="pt")
    with pytest.raises(ValueError, match=r"the 24 frames are scenes of 6, but the model.s `scene_size` is 3"):
        model(**inputs)


def test_training_on_features_of_a_bound_model_warns_that_its_tower_learns_nothing(bound, processor, caplog) -> None:
    learner = model_for(processor).train()
    logger = modeling_fila_video.logger
    logger.warning_once.cache_clear()
    logger.addHandler(caplog.handler)
    try:
        inputs = bound(text="<video>a", videos=small_clip(20), return_tensors="pt")
        learner(**inputs, labels=inputs["input_ids"]).loss.backward()
        assert "the vision tower learns nothing" in caplog.text
        assert not any(
            weight.grad is not None and weight.grad.any() for weight in learner.model.vision_tower.parameters()
        )
        caplog.clear()
        logger.warning_once.cache_clear()
        for parameter in learner.model.vision_tower.parameters():
            parameter.requires_grad = False
        learner(**inputs, labels=inputs["input_ids"]).loss.backward()
        assert not caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def test_who_scores_frames_stays_where_a_model_is_bound_or_an_encoder_set(model) -> None:
    processor = tiny_processor()
    processor.question_scorer = scorer = lambda frames, question: torch.zeros(len(frames))
    assert processor.bind(model).question_scorer is scorer
    processor.frame_encoder = model.encode_frames
    assert processor.question_scorer is scorer


@pytest.mark.parametrize(
    "name", ["scene_size", "patches_per_side", "pooling_mode", "pooling_stride", "newline_position"]
)
def test_a_model_with_another_setting_is_not_bound(processor, model, name) -> None:
    other = copy.deepcopy(processor)
    setattr(other, name, {"pooling_mode": "max", "newline_position": "grid"}.get(name, 4))
    with pytest.raises(ValueError, match=f"The processor's `{name}` is .*, but the model's is .*: make them equal"):
        other.bind(model)
    with pytest.raises(ValueError, match=f"The processor's `{name}` is "):
        other.frame_encoder = model.encode_frames


def test_progress_is_reported_for_reading_and_encoding(bound, folder) -> None:
    calls = []

    def progress(stage, done, total) -> None:
        calls.append((stage, done, total))

    bound(text="<video>", videos=folder / "steady.mp4", progress=progress, frame_batch_size=5)
    assert [call for call in calls if call[0] == "encoding"] == [
        ("encoding", 5, 12),
        ("encoding", 10, 12),
        ("encoding", 12, 12),
    ]
    assert ("reading", 12, 12) in calls


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_method_that_hears_of_progress_is_that_of_its_own_object(processor, folder, is_nested) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard = []

        def hear(self, *step) -> None:
            self.heard.append(step)

    listener = Listener()
    options = {"progress": listener.hear}
    options = {"videos_kwargs": options} if is_nested else options
    processor(text="<video>", videos=folder / "steady.mp4", **options)
    assert ("reading", 12, 12) in listener.heard


def test_threads_may_share_a_processor(bound) -> None:
    expected = [bound(text="<video>a", videos=clip(24, seed=seed), return_tensors="pt") for seed in range(6)]
    found = {}

    def work(seed) -> None:
        found[seed] = bound(text="<video>a", videos=clip(24, seed=seed), return_tensors="pt")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, inputs in enumerate(expected):
        torch.testing.assert_close(found[seed]["frame_features"], inputs["frame_features"])


def test_a_prompt_over_the_models_context_is_refused_with_both_numbers(processor) -> None:
    tokenizer_limit = processor.tokenizer.model_max_length
    processor.tokenizer.model_max_length = 50
    try:
        with pytest.raises(ValueError, match=r"takes \d\d tokens .* context has 50"):
            processor(text="<video>", videos=clip())
        assert processor(text="short")["input_ids"]
    finally:
        processor.tokenizer.model_max_length = tokenizer_limit
    model = model_for(processor)
    model.config.text_config.max_position_embeddings = 60
    processor.frame_encoder = model.encode_frames
    try:
        with pytest.raises(ValueError, match=r"takes \d\d tokens .* context has 60"):
            processor(text="<video>", videos=clip())
    finally:
        processor.frame_encoder = None


def test_settings_that_are_not_the_models_are_refused(processor, model) -> None:
    for name, value in (
        ("scene_size", 2),
        ("patches_per_side", 4),
        ("pooling_stride", 1),
        ("newline_position", "grid"),
    ):
        other = copy.deepcopy(processor)
        setattr(other, name, value)
        with pytest.raises(ValueError, match=f"`{name}` is {value!r}, but the model's is"):
            other.frame_encoder = model.encode_frames
        assert other.frame_encoder is None
    other = copy.deepcopy(processor)
    other.frame_encoder = model.encode_frames
    with pytest.raises(ValueError, match="`scene_size` is 2, but the model's is 3"):
        other(text="<video>", videos=clip(), scene_size=2)
    other.scene_size = 4
    with pytest.raises(ValueError, match="`scene_size` is 4, but the model's is 3"):
        other(text="<video>", videos=clip())


def test_features_with_nan_are_refused(processor) -> None:
    processor.frame_encoder = lambda pixels: torch.full((len(pixels), 4, 8), float("nan"))
    try:
        with pytest.raises(ValueError, match="in 13 of 13 frames"):
            processor(text="<video>", videos=clip(13))
    finally:
        processor.frame_encoder = None


def test_the_models_config_counts_the_tokens_that_the_processor_writes(processor) -> None:
    for mode in ("bilinear", "average", "max", "none"):
        for newline in ("video", "grid", "frame", "none"):
            other = copy.deepcopy(processor)
            other.pooling_mode, other.newline_position = mode, newline
            model = model_for(other, pooling_mode=mode, newline_position=newline)
            assert config_for(other).patches_per_side == other.patches_per_side
            inputs = other(text="<video><image>", videos=clip(6), images=clip(1)[0], return_tensors="pt")
            assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_copies_and_pickles_of_a_pipeline_select_as_it_does(carry) -> None:
    options = {"max_new_tokens": 2, "return_scenes": True, "return_full_text": False}
    pipe = tiny_pipeline()
    other = carry(pipe)  # before it answers, since transformers leaves hooks in its model that cannot be pickled
    (expected,), (found,) = (each(clip(30), text="What?", **options) for each in (pipe, other))
    assert torch.equal(found["scenes"][0]["indices"], expected["scenes"][0]["indices"])
    assert other.processor.frame_encoder.__self__ is other.model is not pipe.model
    assert pipe.processor.frame_encoder == pipe.model.encode_frames


def test_a_copy_of_a_pipeline_keeps_what_was_set_to_select_with(pipe) -> None:
    other = copy.deepcopy(pipe)
    other.processor.frame_encoder, other.processor.question_scorer = None, len
    copied = copy.deepcopy(other)
    assert copied.processor.frame_encoder is None and copied.processor.question_scorer is len


@pytest.mark.parametrize("name", ["frame_encoder", "question_scorer"])
def test_what_a_pipeline_selects_with_and_cannot_be_pickled_is_not_lost_silently(name) -> None:
    pipe = tiny_pipeline()
    setattr(pipe.processor, name, lambda *args: None)
    copied = copy.deepcopy(pipe)
    assert getattr(copied.processor, name) is getattr(pipe.processor, name)
    with pytest.raises((AttributeError, pickle.PicklingError), match="<lambda>"):
        pickle.dumps(pipe)
    setattr(pipe.processor, name, None)
    assert getattr(pickle.loads(pickle.dumps(pipe)).processor, name) is None


class AskingScorer:
    """A scorer that holds the pipeline."""

    def __init__(self, pipe) -> None:
        self.pipe = pipe

    def __call__(self, frames: torch.Tensor, question: str) -> torch.Tensor:
        return torch.arange(len(frames)).float()


def test_a_scorer_that_holds_its_pipeline_is_pickled_with_it() -> None:
    pipe = tiny_pipeline()
    pipe.processor.question_scorer = AskingScorer(pipe)
    other = pickle.loads(pickle.dumps(pipe))
    assert other.processor.question_scorer.pipe is other is not pipe
    assert other.processor.frame_encoder == other.model.encode_frames


def test_a_processor_put_into_a_pipeline_selects_by_its_model(pipe) -> None:
    other = copy.copy(pipe)
    other.processor = tiny_processor()
    assert other.processor.frame_encoder == pipe.model.encode_frames
    with pytest.raises(ValueError, match="`scene_size` is 2, but the model's is 3"):
        other.processor = tiny_processor(scene_size=2)
