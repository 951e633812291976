"""From text, images and videos to the inputs of the model: tokens, the sentence, scenes, and settings of a call."""

import copy
import json
import logging

import numpy as np
import pytest
import torch
from fila_video.processing_fila_video import FilaVideoProcessor
from fila_video.scene_selection_fila_video import select_scenes
from fila_video.video_pool_fila_video import thumbnails
from fila_video.video_prompt_fila_video import time_instruction
from helpers.tiny_processor import (
    clip,
    count_tokens,
    small_clip,
    tiny_processor,
)


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
    # A budget that is only compared may be any number.
    for budget in (2e9, float("inf")):
        assert processor.video_processor.scene_settings(max_feature_bytes=budget).max_feature_bytes == budget

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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_scene": 8}, "`num_scene` is no setting of a processor: write `num_scenes`"),
        ({"visual_starts": "a"}, "write `visual_start`"),
        ({"selection": "nope"}, "Unknown `selection` 'nope'"),
        ({"time_marks": "nope"}, "`time_marks` must be one of .* got 'nope'"),
        ({"num_scenes": "8"}, "`num_scenes` must be a whole number, got '8'"),
        ({"resample": 99}, "`resample` must be one of .* got 99"),
    ],
)
def test_a_mistyped_setting_is_refused_where_a_processor_is_loaded(processor, tmp_path, settings, message) -> None:
    processor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        FilaVideoProcessor.from_pretrained(tmp_path, **settings)


def test_what_is_no_setting_of_a_processor_passes_where_it_is_loaded(processor, tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    processor.save_pretrained(tmp_path)
    path = tmp_path / "processor_config.json"
    saved = json.loads(path.read_text())
    saved["video_processor"]["num_scene"] = saved["num_scene"] = 8  # as of a version that is gone
    path.write_text(json.dumps(saved))
    # What a pipeline's `model_kwargs` may hold is handed to the processor too.
    of_loaders = {"trust_remote_code": True, "token": False, "dtype": "auto", "device_map": "cpu", "use_fast": True}
    names = (
        "adapter_kwargs config device_mesh disable_mmap distributed_config experts_implementation fix_mistral_regex "
        "from_slow fusion_config generation_config gguf_file ignore_mismatched_sizes kernel_config key_mapping legacy "
        "load_in_4bit low_cpu_mem_usage mirror offload_buffers offload_folder offload_state_dict output_loading_info "
        "resume_download state_dict tp_plan tp_size use_auth_token use_cache use_kernels use_safetensors variant "
        "weights_only"
    )
    of_loaders |= dict.fromkeys(names.split())
    loaded = FilaVideoProcessor.from_pretrained(tmp_path, num_scenes=3, padding_side="right", **of_loaders)
    assert loaded.num_scenes == 3 and loaded.tokenizer.padding_side == "right"
    assert "is no setting" not in caplog.text
    FilaVideoProcessor.from_pretrained(tmp_path, scenes=8)
    assert "`scenes` is no setting of a processor, unlike `scene_" in caplog.text


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_a_filter_of_resizing_that_there_is_none_of_is_refused(processor, kind) -> None:
    with pytest.raises(ValueError, match=r"`resample` must be one of 0 \(NEAREST\), .* got 99"):
        processor(text=f"<{kind[:-1]}>What?", **{kind: [clip(1)[0] if kind == "images" else clip(6)]}, resample=99)
    for read in (processor.encode_video, processor.video_processor):
        with pytest.raises(ValueError, match=r"`resample` must be one of .* got 99"):
            read(clip(6), resample=99)


@pytest.mark.parametrize("is_nested", [False, True])
def test_numbers_of_numpy_are_settings_of_a_call(processor, is_nested) -> None:
    options = {"num_scenes": np.int64(2), "candidate_fps": np.float32(2), "seed": np.int32(1)}
    given = {"videos_kwargs": options} if is_nested else options
    inputs = processor(text="<video>a", videos=clip(20), **given)
    assert list(inputs["video_num_scenes"]) == [2] and isinstance(options["num_scenes"], np.int64)
    assert len(processor.video_processor(clip(20), num_frames=np.int64(5))["pixel_values_videos"][0]) == 5
    own = tiny_processor(**options)
    assert list(own(text="<video>a", videos=clip(20))["video_num_scenes"]) == [2]
