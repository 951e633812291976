"""From text, images and videos to the inputs of the model: prompts, scenes, and what never leaves the processor."""

import copy
import gc
import inspect
import io
import json
import pickle
import threading
from typing import Never

import numpy as np
import pytest
import torch
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.scene_selection_fila_video import select_scenes, thin_pool
from fila_video.video_pool_fila_video import thumbnails
from fila_video.video_prompt_fila_video import time_instruction
from fila_video.video_reading_fila_video import read_frames
from helpers.tiny_processor import SIZE, clip, config_for, conversation, mean_features, model_for, tiny_processor
from helpers.video_files import make_video
from PIL import Image
from transformers.processing_utils import ProcessorMixin

TIMES = [0, 40, 80, 200, 700, 740, 1500, 1540, 1600, 2500, 2540, 2580, 4000, 4100, 4200, 5000, 5040, 5100]
CHAT = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor()


@pytest.fixture(scope="module")
def model(processor):
    return model_for(processor)


@pytest.fixture
def bound(processor, model):
    """The processor with the model's frame encoder, for one test."""
    processor.frame_encoder = model.encode_frames
    yield processor
    processor.frame_encoder = None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "steady.mp4", 100, fps=25)
    make_video(folder / "variable.mkv", len(TIMES), times=TIMES)
    make_video(folder / "short.mp4", 5, fps=5)
    return folder


def small_clip(num_frames=30, seed=0):
    """At the tower's size, so that nothing is resized."""
    return clip(num_frames, seed, (SIZE["height"], SIZE["width"], 3))


def count_tokens(processor, inputs, token_id, row=0):
    return int((inputs["input_ids"][row] == token_id).sum())


def test_a_video_becomes_scenes_tokens_and_the_papers_sentence(processor) -> None:
    inputs = processor(
        text="<video>What?",
        videos=small_clip(30),
        video_metadata={"total_num_frames": 30, "fps": 10.0},
        return_scenes=True,
        return_tensors="pt",
    )
    scenes = inputs["scenes"][0]
    assert inputs["pixel_values_videos"].shape == (1, 12, 3, 20, 20)
    assert inputs["video_num_scenes"].tolist() == [4]
    assert scenes["indices"].shape == scenes["timestamps"].shape == (4, 3)
    torch.testing.assert_close(scenes["timestamps"], scenes["indices"].double() / 10)
    assert scenes["duration"] == 3.0
    # A frame of 5 x 5 patches is pooled to 3 x 3 tokens; one newline ends the video.
    assert count_tokens(processor, inputs, processor.video_token_id) == 4 * 9 + 1
    times = ", ".join(f"{time:.1f}" for time in scenes["timestamps"][:, -1].tolist())
    sentence = f"This video samples 4 frames of a 3.0-second video at {times} seconds."
    assert processor.decode(inputs["input_ids"][0]) == "<video>" * 37 + f"\n{sentence}What?"


def test_the_sentence_rounds_times_to_a_tenth() -> None:
    assert time_instruction([0.04, 1.26, 59.96], 60.04) == (
        "This video samples 3 frames of a 60.0-second video at 0.0, 1.3, 60.0 seconds."
    )


def test_without_the_sentence_the_video_is_its_tokens_alone(processor) -> None:
    plain = copy.deepcopy(processor)
    plain.add_time_instruction = False
    inputs = plain(text="a<video>b", videos=small_clip())
    assert plain.decode(inputs["input_ids"][0]) == "a" + "<video>" * 37 + "b"


def test_pixels_are_the_chosen_frames_normalized(processor) -> None:
    frames = small_clip()
    inputs = processor(text="<video>", videos=frames, return_scenes=True, return_tensors="pt")
    order = inputs["scenes"][0]["indices"].flatten()
    expected = (torch.from_numpy(frames)[order].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    torch.testing.assert_close(inputs["pixel_values_videos"][0], expected)


def test_without_an_encoder_scenes_are_selected_on_thumbnails(processor) -> None:
    frames = clip(24)
    found = processor(text="<video>", videos=frames, return_scenes=True)["scenes"][0]["indices"]
    features = thumbnails(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert torch.equal(found, select_scenes(features, 4, 3))


def test_thumbnails_hold_the_mean_colors_of_a_coarse_grid() -> None:
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    frames[1, 0, :2, :2] = 255
    features = thumbnails(frames)
    assert features.shape == (2, 768) and features.dtype == torch.float32
    assert features[0].sum() == 0
    assert features[1, 0] == 1 and features[1].sum() == 1


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


@pytest.mark.parametrize("selection", ["kmeans", "kmeans_dissimilar", "farthest", "bsm", "uniform"])
def test_a_pool_that_all_scenes_can_take_is_taken_whole_in_order(processor, selection) -> None:
    for num_frames in (1, 5, 11, 12):
        found = processor(text="<video>", videos=clip(num_frames), selection=selection, return_scenes=True)
        indices = found["scenes"][0]["indices"]
        assert torch.equal(indices, select_scenes(torch.zeros(num_frames, 1), 4, 3, "uniform"))
    assert indices.flatten().tolist() == list(range(12))
    found = processor(text="<video>", videos=clip(13), selection="kmeans", return_scenes=True)
    features = thumbnails(torch.from_numpy(clip(13)).permute(0, 3, 1, 2))
    assert torch.equal(found["scenes"][0]["indices"], select_scenes(features, 4, 3))


def test_each_form_of_time_marks_can_be_asked_for_a_call_and_saved(processor, tmp_path) -> None:
    options = {"video_metadata": {"total_num_frames": 2, "fps": 0.5}}

    def text(processor, **marks):
        return processor.decode(processor(text="<video>?", videos=clip(2), **options, **marks)["input_ids"][0])

    tokens = "<video>" * 19
    papers = f"{tokens}\nThis video samples 2 frames of a 4.0-second video at 0.0, 2.0 seconds.?"
    llava = (
        f"{tokens}\nThe video lasts for 4.00 seconds, and 2 frames are uniformly sampled from it. These frames are "
        "located at 0.00s,2.00s.Please answer the following questions related to this video.?"
    )
    assert text(processor) == text(processor, time_marks="sentence") == papers
    assert text(processor, time_marks="llava_video") == llava
    assert text(processor, time_marks="none") == f"{tokens}?"
    with pytest.raises(
        ValueError, match="`time_marks` must be one of sentence, llava_video, per_scene, none, got 'often'"
    ):
        text(processor, time_marks="often")
    other = copy.deepcopy(processor)
    other.time_marks = "llava_video"
    other.save_pretrained(tmp_path)
    loaded = FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert text(loaded) == llava and loaded.add_time_instruction is True


@pytest.mark.parametrize("value", [True, False])
def test_a_folder_saved_with_the_older_settings_loads(processor, tmp_path, value) -> None:
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    settings = json.loads(path.read_text())
    del settings["video_processor"]["time_marks"]
    settings["add_time_instruction"] = value
    settings["video_processor"]["do_sample_frames"] = False
    path.write_text(json.dumps(settings))
    loaded = FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert loaded.time_marks == ("sentence" if value else "none") and loaded.add_time_instruction is value
    assert loaded.num_scenes == 4 and loaded.video_processor.do_sample_frames is False
    assert FilaVideoProcessor.from_pretrained(tmp_path, add_time_instruction=not value).add_time_instruction != value


def test_settings_are_saved_and_can_be_overridden_a_call(tmp_path) -> None:
    settings = {
        "num_scenes": 5, "scene_size": 2, "candidate_fps": 2.5, "min_candidates": 11, "max_candidates": 40,
        "selection": "bsm", "init": "random", "seed": 7, "frame_batch_size": 3, "max_feature_bytes": 99,
        "seek_mode": "keyframe",
    }  # fmt: skip
    processor = tiny_processor(**settings)
    processor.add_time_instruction = False
    processor.save_pretrained(tmp_path)
    loaded = FilaVideoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert {name: getattr(loaded.video_processor, name) for name in settings} == settings
    assert (loaded.num_scenes, loaded.scene_size, loaded.selection, loaded.seed) == (5, 2, "bsm", 7)
    assert loaded.add_time_instruction is False and loaded.patches_per_side == 5
    assert loaded.to_dict() == processor.to_dict()

    inputs = loaded(text="<video>", videos=small_clip(20), num_scenes=3, scene_size=4, return_tensors="pt")
    assert inputs["pixel_values_videos"].shape[1] == 12
    nested = loaded(
        text="<video>", videos=small_clip(20), videos_kwargs={"num_scenes": 3, "scene_size": 4}, return_tensors="pt"
    )
    assert torch.equal(inputs["pixel_values_videos"], nested["pixel_values_videos"])
    assert loaded.num_scenes == 5
    loaded.num_scenes = 2
    assert loaded.video_processor.num_scenes == 2


@pytest.mark.parametrize("selection", ["kmeans", "kmeans_dissimilar", "uniform", "bsm"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_method_the_start_and_the_seed_reach_the_selection(processor, selection, init) -> None:
    frames = clip(24, seed=3)
    features = thumbnails(torch.from_numpy(frames).permute(0, 3, 1, 2))
    found = processor(text="<video>", videos=frames, selection=selection, init=init, seed=5, return_scenes=True)
    expected = select_scenes(features, 4, 3, selection, init=init, seed=5)
    assert torch.equal(found["scenes"][0]["indices"], expected)


def test_a_batch_of_unequal_videos_is_padded_left_and_no_neighbor_matters(processor, model) -> None:
    videos = [small_clip(30, seed=1), small_clip(2, seed=2), small_clip(12, seed=3)]
    text = ["<video>What happens here?", "<video>Why", "Now: <video>Who is it, and where, and when?"]
    batch = processor(text=text, videos=videos, padding=True, return_scenes=True, return_tensors="pt")
    assert batch["video_num_scenes"].tolist() == [4, 2, 4]
    assert batch["pixel_values_videos"].shape == (3, 12, 3, 20, 20)
    for row, (prompt, video) in enumerate(zip(text, videos, strict=True)):
        alone = processor(text=prompt, videos=video, return_scenes=True, return_tensors="pt")
        length = alone["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, -length:], alone["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [0] * (batch["input_ids"].shape[1] - length) + [1] * length
        frames = alone["pixel_values_videos"].shape[1]
        torch.testing.assert_close(batch["pixel_values_videos"][row, :frames], alone["pixel_values_videos"][0])
        assert torch.equal(batch["scenes"][row]["indices"], alone["scenes"][0]["indices"])
        batch_logits = model(**{name: value for name, value in batch.items() if name != "scenes"}).logits[row, -1]
        alone.pop("scenes")
        torch.testing.assert_close(batch_logits, model(**alone).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_text_images_and_videos_mix_in_any_number(processor, model, folder) -> None:
    picture = Image.new("RGB", (31, 17), "red")
    video = str(folder / "steady.mp4")
    text = ["no picture at all", "<image> and <image>", "<video><image>", "<video> then <video>"]
    inputs = processor(
        text=text, images=[picture, np.zeros((9, 8, 3), np.uint8), picture], videos=[video, clip(3), clip(1)],
        padding=True, return_tensors="pt",
    )  # fmt: skip
    assert inputs["pixel_values"].shape == (3, 3, 20, 20)
    assert inputs["video_num_scenes"].tolist() == [4, 3, 1]
    counted = [
        (
            count_tokens(processor, inputs, processor.image_token_id, row),
            count_tokens(processor, inputs, processor.video_token_id, row),
        )
        for row in range(4)
    ]
    assert counted == [(0, 0), (20, 0), (10, 37), (0, 28 + 10)]
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 4


def test_any_one_kind_of_input_is_enough(processor) -> None:
    assert set(processor(text="only text")) == {"input_ids", "attention_mask"}
    assert set(processor(images=Image.new("RGB", (9, 9)))) == {"pixel_values"}
    assert set(processor(videos=clip(3))) == {"pixel_values_videos", "video_num_scenes"}
    assert set(processor(text="a", videos=[], images=[[]])) == {"input_ids", "attention_mask"}


def test_bytes_paths_arrays_and_pictures_in_one_list_are_all_kept(processor, folder, tmp_path) -> None:
    video, picture = folder / "steady.mp4", tmp_path / "picture.png"
    Image.new("RGB", (16, 12), "blue").save(picture)
    videos = [
        video.read_bytes(),
        video,
        str(video),
        clip(2),
        picture,
        [Image.new("RGB", (5, 5))] * 2,
        io.BytesIO(video.read_bytes()),
    ]
    inputs = processor(text="<video>" * 7, videos=videos, return_tensors="pt")
    assert inputs["video_num_scenes"].tolist() == [4, 4, 4, 2, 1, 2, 4]
    for same in (1, 2, 6):
        assert torch.equal(inputs["pixel_values_videos"][0], inputs["pixel_values_videos"][same])

    images = [picture.read_bytes(), picture, str(picture), np.array(Image.open(picture)), Image.open(picture)]
    pixels = processor(text="<image>" * 5, images=images, return_tensors="pt")["pixel_values"]
    assert len(pixels) == 5 and all(torch.equal(pixels[0], one) for one in pixels)


@pytest.mark.parametrize("form", ["gray", "gray channel", "RGBA", "float", "tensor", "PIL", "list"])
def test_other_forms_of_frames_give_the_same_inputs(processor, form) -> None:
    gray = clip(6, shape=(24, 28, 1))
    frames = np.repeat(gray, 3, axis=-1)
    alpha = np.full_like(gray, 255)
    video = {
        "gray": gray[..., 0],
        "gray channel": gray,
        "RGBA": np.concatenate([frames, alpha], -1),
        "float": frames.astype(np.float32) / 255,
        "tensor": torch.from_numpy(frames).permute(0, 3, 1, 2),
        "PIL": [Image.fromarray(frame) for frame in frames],
        "list": list(gray[..., 0]),
    }[form]
    expected = processor(text="<video>", videos=frames, return_tensors="pt")
    found = processor(text="<video>", videos=video, return_tensors="pt")
    assert torch.equal(found["input_ids"], expected["input_ids"])
    torch.testing.assert_close(found["pixel_values_videos"], expected["pixel_values_videos"])


@pytest.mark.parametrize("image", ["gray", "RGBA", "float"])
def test_other_forms_of_images_give_the_same_pixels(processor, image) -> None:
    gray = clip(1)[0, ..., :1]
    color = np.repeat(gray, 3, axis=-1)
    forms = {
        "gray": gray[..., 0],
        "RGBA": np.concatenate([color, np.full_like(gray, 255)], -1),
        "float": torch.from_numpy(color).float() / 255,
    }
    expected = processor(images=color, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(processor(images=forms[image], return_tensors="pt")["pixel_values"], expected)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5])
def test_short_videos_have_as_many_scenes_as_frames(processor, model, num_frames) -> None:
    inputs = processor(text="<video>a", videos=clip(num_frames), return_scenes=True, return_tensors="pt")
    scenes = inputs.pop("scenes")[0]["indices"]
    assert scenes.shape == (min(4, num_frames), 3) and scenes.max() < num_frames
    assert (scenes.diff(dim=1) >= 0).all()
    assert model.generate(**inputs, max_new_tokens=1, do_sample=False).shape[0] == 1
    counts = processor._get_num_multimodal_tokens(video_sizes=[(num_frames, 24, 28)])["num_video_tokens"]
    assert counts == [count_tokens(processor, inputs, processor.video_token_id)]


def test_a_still_picture_as_a_video_is_one_scene_of_it(processor, tmp_path) -> None:
    picture = Image.fromarray(clip(1)[0])
    path = tmp_path / "still.png"
    picture.save(path)
    expected = processor(text="<video>", videos=clip(1), return_tensors="pt")
    for still in (picture, np.array(picture), path, str(path), path.read_bytes()):
        found = processor(text="<video>", videos=still, return_tensors="pt")
        assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])
        assert torch.equal(found["input_ids"], expected["input_ids"])
    assert found["pixel_values_videos"].shape[1] == 3


def test_times_of_a_variable_rate_are_the_true_ones(processor, folder) -> None:
    inputs = processor(
        text="<video>", videos=folder / "variable.mkv", return_scenes=True, max_candidates=18, min_candidates=18
    )
    scenes = inputs["scenes"][0]
    true = torch.tensor(TIMES, dtype=torch.float64)[scenes["indices"]] / 1000
    torch.testing.assert_close(scenes["timestamps"], true, atol=1e-3, rtol=0)
    sentence = processor.decode(inputs["input_ids"][0]).split("\n")[1]
    named = [float(time) for time in sentence.split(" at ")[1].removesuffix(" seconds.").split(", ")]
    assert named == pytest.approx(true[:, -1].tolist(), abs=0.051)


def test_read_frames_may_be_passed_on(processor, folder) -> None:
    frames = read_frames(folder / "variable.mkv", num_frames=9)
    found = processor(text="<video>", videos=frames, return_scenes=True)["scenes"][0]
    assert set(found["timestamps"].flatten().tolist()) <= set(frames.timestamps.tolist())
    again = processor(text="<video>", videos=frames.frames, video_metadata=frames.metadata, return_scenes=True)[
        "scenes"
    ][0]
    assert torch.equal(found["timestamps"], again["timestamps"])


@pytest.mark.parametrize("tensors", ["pt", "np", None])
@pytest.mark.parametrize("with_encoder", [True, False])
def test_return_tensors_sets_the_type_of_every_output(processor, model, tensors, with_encoder) -> None:
    processor.frame_encoder = model.encode_frames if with_encoder else None
    try:
        inputs = processor(
            text=["<video>a", "<image><video>bc"], videos=[clip(3), clip(9)], images=clip(1)[0], padding=True,
            return_tensors=tensors, return_scenes=True,
        )  # fmt: skip
    finally:
        processor.frame_encoder = None
    visual = "frame_features" if with_encoder else "pixel_values_videos"
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values", visual, "video_num_scenes", "scenes"}
    kind = {"pt": torch.Tensor, "np": np.ndarray, None: list}[tensors]
    assert all(isinstance(value, kind) for name, value in inputs.items() if name != "scenes")


def test_scenes_and_metadata_come_only_when_asked_for_and_survive_a_cast(processor) -> None:
    plain = processor(text="<video>", videos=clip(), return_tensors="pt")
    assert "scenes" not in plain and "video_metadata" not in plain
    inputs = processor(text="<video>", videos=clip(), return_scenes=True, return_metadata=True, return_tensors="pt")
    assert inputs["video_metadata"][0].total_num_frames == 30
    cast = inputs.to(dtype=torch.bfloat16)
    assert cast["pixel_values_videos"].dtype == torch.bfloat16
    assert cast["input_ids"].dtype == torch.int64
    assert cast["scenes"][0]["timestamps"].dtype == torch.float64


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


def test_a_device_and_pixel_settings_can_be_given_a_call(processor) -> None:
    frames = small_clip()
    plain = processor(text="<video>", videos=frames, return_tensors="pt", device="cpu")["pixel_values_videos"]
    raw = processor(text="<video>", videos=frames, return_tensors="pt", do_normalize=False)["pixel_values_videos"]
    torch.testing.assert_close(plain, (raw - 0.5) / 0.5)
    large = processor(text="<video>", videos=frames, return_tensors="pt", size={"height": 30, "width": 40})
    assert large["pixel_values_videos"].shape[-2:] == (30, 40)
    first = processor(text="<video>", videos=frames, input_data_format="channels_last", return_tensors="pt")
    assert torch.equal(first["pixel_values_videos"], plain)


def test_a_video_processor_that_samples_by_default_does_not_thin_the_chosen_frames_again() -> None:
    processor = tiny_processor(do_sample_frames=True, num_frames=5)
    inputs = processor(text="<video>", videos=small_clip(60), return_scenes=True, return_tensors="pt")
    assert set(inputs["scenes"][0]["indices"].flatten().tolist()) <= {0, 15, 30, 44, 59}
    assert inputs["pixel_values_videos"].shape[1] == 12


class Prompts(torch.utils.data.Dataset):
    def __init__(self, processor) -> None:
        self.processor = processor

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        return dict(self.processor(text="<video>a", videos=clip(24, seed=index), return_tensors="pt"))


def test_a_forked_worker_of_a_data_loader_gives_the_inputs_of_its_parent(processor) -> None:
    expected = [Prompts(processor)[index] for index in range(4)]
    loader = torch.utils.data.DataLoader(
        Prompts(processor), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for one, other in zip(expected, loader, strict=True):
        torch.testing.assert_close(dict(one), dict(other))


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


# Chats


def test_the_template_is_qwen2s_with_its_system_message(processor) -> None:
    chat = conversation(clip(), "What?")
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<video>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )
    own = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert processor.apply_chat_template(own) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


def test_the_sentence_stands_between_the_video_and_the_question(processor) -> None:
    inputs = processor.apply_chat_template(conversation(clip(), "What?"), **CHAT)
    text = processor.decode(inputs["input_ids"][0])
    before, after = text.replace("<video>", "").split("This video samples 4 frames")
    assert before.endswith("<|im_start|>user\n\n")
    assert after.split(" seconds.")[1] == "\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_the_generation_mask_covers_the_assistants_turns_alone(processor) -> None:
    chat = [
        *conversation(clip(), "What?", answer="A dog runs."),
        *conversation("And then?", answer="It sleeps."),
    ]
    inputs = processor.apply_chat_template(
        [chat, conversation("Who?", answer="Ann.")], tokenize=True, return_dict=True, return_tensors="pt",
        return_assistant_tokens_mask=True, processor_kwargs={"padding": True},
    )  # fmt: skip
    masks = torch.as_tensor(inputs["assistant_masks"]).bool()
    told = [processor.decode(ids[mask]) for ids, mask in zip(inputs["input_ids"], masks, strict=True)]
    assert told == ["A dog runs.<|im_end|>It sleeps.<|im_end|>", "Ann.<|im_end|>"]


def test_a_final_message_can_be_continued(processor) -> None:
    chat = conversation(clip(), "What?", answer="I see")
    inputs = processor.apply_chat_template(
        chat, **(CHAT | {"add_generation_prompt": False}), continue_final_message=True
    )
    assert processor.decode(inputs["input_ids"][0]).endswith("<|im_start|>assistant\nI see")


def test_a_batch_of_chats_with_and_without_videos_is_padded_left(processor, folder) -> None:
    chats = [conversation("Only text?"), conversation(folder / "steady.mp4", clip(2), "Both?")]
    inputs = processor.apply_chat_template(chats, **CHAT, processor_kwargs={"padding": True, "num_scenes": 3})
    assert inputs["video_num_scenes"].tolist() == [3, 2]
    assert inputs["attention_mask"][0, 0] == 0 and inputs["attention_mask"][:, -1].tolist() == [1, 1]


def test_an_image_in_a_chat_is_one_pooled_frame(processor) -> None:
    chat = [
        {
            "role": "user",
            "content": [{"type": "image", "image": Image.new("RGB", (9, 9))}, {"type": "text", "text": "?"}],
        }
    ]
    inputs = processor.apply_chat_template(chat, **CHAT)
    assert count_tokens(processor, inputs, processor.image_token_id) == 10


def test_collated_inputs_are_those_of_a_batch(processor) -> None:
    text, videos = ["<video>one", "two", "<video>three is longer"], [clip(2), clip(20, seed=1)]
    batch = processor(text=text, videos=videos, padding=True, return_tensors="pt")
    items = [
        processor(text=text[0], videos=videos[0], return_tensors="pt"),
        processor(text=text[1], return_tensors="pt"),
        processor(text=text[2], videos=videos[1], return_tensors="pt"),
    ]
    collated = processor.collate(items)
    assert set(collated) == set(batch)
    assert all(torch.equal(collated[name], batch[name]) for name in batch)
    with pytest.raises(ValueError, match="`scenes` cannot be collated"):
        processor.collate([processor(text="<video>", videos=clip(2), return_scenes=True, return_tensors="pt")])


# What is refused


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "at least one of `text`, `images` and `videos`"),
        ({"text": ""}, "empty prompt"),
        ({"text": ["a", "  "]}, "empty prompt"),
        ({"text": []}, "`text` is an empty batch"),
        ({"text": [3]}, "got a int"),
        ({"videos": []}, "`videos` is an empty batch"),
        ({"images": []}, "`images` is an empty batch"),
        ({"text": "<video>"}, "found 1 <video> tokens and 0 videos"),
        ({"text": "<video>", "videos": []}, "found 1 <video> tokens and 0 videos"),
        ({"text": "none", "videos": clip(2)}, "found 0 <video> tokens and 1 videos"),
        ({"text": ["<video>", "<video>"], "videos": [clip(2)] * 3}, "found 2 <video> tokens and 3 videos"),
        ({"text": "<image>", "images": [Image.new("L", (4, 4))] * 2}, "found 1 <image> tokens and 2 images"),
        ({"text": ["<video>", "<video>"], "videos": [[clip(2), clip(2)], []]}, "prompt 0 has 1 <video> tokens and 2"),
        (
            {"text": ["<image>", "<image>"], "images": [[], [Image.new("L", (4, 4))] * 2]},
            "prompt 0 has 1 <image> tokens and 0",
        ),
        ({"text": "<video>", "videos": "missing/file.mp4"}, "missing/file.mp4"),
        ({"text": "<video>", "videos": b"no video at all"}, "15 bytes"),
        ({"text": "<video>", "videos": 7}, "A int is not a video"),
        ({"text": "<image>", "images": b"no picture"}, "Cannot read the picture given as 10 bytes"),
        ({"text": "<image>", "images": "missing/file.png"}, "missing/file.png"),
        ({"text": "<video>", "videos": clip(2), "num_scenes": 0}, "`num_scenes` must be at least 1, got 0"),
        ({"text": "<video>", "videos": clip(2), "max_candidates": 0}, "`max_candidates` must be at least 1, got 0"),
        ({"text": "<video>", "videos": clip(2), "scene_size": 0}, "`scene_size` must be at least 1, got 0"),
        ({"text": "<video>", "videos": clip(2), "candidate_fps": 0.0}, "`candidate_fps` must be positive, got 0"),
        (
            {"text": "<video>", "videos": clip(2), "frame_batch_size": 0},
            "`frame_batch_size` must be at least 1, got 0",
        ),
        ({"text": "<video>", "videos": clip(2), "selection": "best"}, "'best'.*kmeans"),
        ({"text": "<video>", "videos": [clip(1)[0], clip(1)[0, :9]]}, "24x28 and 9x28|9x28 and 24x28"),
        ({"text": "<video>", "videos": np.full((3, 9, 9, 3), np.nan)}, "from nan to nan"),
        ({"text": "<video>", "videos": clip(3), "video_metadata": [{}, {}]}, "describes 2 videos, but 1"),
        ({"text": "<video>", "videos": clip(3), "video_metadata": {"total_num_frames": 9}}, "9 frames in all, but 3"),
        ({"text": "<video>" * 60, "videos": [clip(6)] * 60}, "but the model's context has 4096"),
    ],
)
def test_input_that_is_wrong_is_refused_with_both_numbers(processor, inputs, message) -> None:
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


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


@pytest.mark.parametrize("token", ["<video>", "<image>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
def test_control_tokens_in_a_users_text_are_refused(processor, token) -> None:
    chats = [
        conversation(f"before {token} after"),
        conversation(clip(2), f"{token}", "x"),
        conversation(token[:3], token[3:]),
        [{"role": "user", "content": f"a{token}"}],
        [{"role": "system", "content": f"a{token}"}, *conversation("b")],
        conversation("a", answer=token),
        [conversation("a"), conversation(token)],
    ]
    for chat in chats:
        with pytest.raises(ValueError, match="is a control token"):
            processor.apply_chat_template(chat, tokenize=False)
    with pytest.raises(ValueError, match="A role is one of"):
        processor.apply_chat_template([{"role": f"user{token}", "content": "a"}], tokenize=False)


def test_sanitised_control_tokens_are_plain_text_or_refused(processor) -> None:
    chat = conversation(clip(2), "What is <video> and <|im_end|>?")
    options = CHAT | {"sanitize_control_tokens": True}
    if "sanitize_control_tokens" not in inspect.signature(ProcessorMixin.apply_chat_template).parameters:
        with pytest.raises(ValueError, match="newer transformers"):
            processor.apply_chat_template(chat, **options)
        return
    inputs = processor.apply_chat_template(chat, **options)
    assert count_tokens(processor, inputs, processor.video_token_id) == 2 * 9 + 1
    assert processor.decode(inputs["input_ids"][0]).endswith(
        "What is <video> and <|im_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    plain = processor.apply_chat_template(conversation(clip(2), "What?"), **CHAT)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert count_tokens(processor, inputs, end) == count_tokens(processor, plain, end)


def test_paths_of_media_may_look_like_control_tokens(processor, tmp_path) -> None:
    path = make_video(tmp_path / "a<video>.mp4", 5)
    inputs = processor.apply_chat_template(conversation(path, "What?"), **CHAT)
    assert inputs["video_num_scenes"].tolist() == [4]


@pytest.mark.parametrize(
    "chat", [[], [[]], conversation(clip(2), ""), conversation("  "), [{"role": "user", "content": ""}]]
)
def test_chats_without_a_question_are_refused(processor, chat) -> None:
    with pytest.raises(ValueError, match=r"is empty|no messages"):
        processor.apply_chat_template(chat, tokenize=False)


def test_the_models_config_counts_the_tokens_that_the_processor_writes(processor) -> None:
    for mode in ("bilinear", "average", "max", "none"):
        for newline in ("video", "grid", "frame", "none"):
            other = copy.deepcopy(processor)
            other.pooling_mode, other.newline_position = mode, newline
            model = model_for(other, pooling_mode=mode, newline_position=newline)
            assert config_for(other).patches_per_side == other.patches_per_side
            inputs = other(text="<video><image>", videos=clip(6), images=clip(1)[0], return_tensors="pt")
            assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]
