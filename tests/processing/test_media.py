"""Videos and images in every form, in any number: what the processor makes of them, and what it refuses."""

import io

import numpy as np
import pytest
import torch
from fila_video.video_reading_fila_video import read_frames
from helpers.tiny_processor import clip, count_tokens
from helpers.video_files import UNEVEN_TIMES
from PIL import Image


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
    true = torch.tensor(UNEVEN_TIMES, dtype=torch.float64)[scenes["indices"]] / 1000
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


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "at least one of `text`, `images` and `videos`"),
        ({"text": ""}, "empty prompt"),
        ({"text": ["a", "  "]}, "empty prompt"),
        ({"text": []}, "`text` is an empty batch"),
        ({"text": [3]}, "got int"),
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
        (
            {"text": "<video>", "videos": clip(2), "candidate_fps": 0.0},
            "`candidate_fps` must be a positive number, got 0",
        ),
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
