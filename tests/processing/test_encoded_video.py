"""A video that is encoded once: it gives what the video gives, wherever a video stands, and says where it cannot."""

import copy
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fila_video import ChatCollator, EncodedVideo, FilaVideoProcessor
from fila_video.encoded_video_fila_video import pictures_of
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from fila_video.video_reading_fila_video import TimedVideoMetadata, VideoSegment
from helpers.tiny_models import tiny_model
from helpers.tiny_processor import clip, config_for, conversation, model_for, tiny_processor
from helpers.video_files import make_video, number_of
from safetensors.torch import save_file
from transformers.utils.logging import warning_once

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = {"max_new_tokens": 4, "return_full_text": False}


@pytest.fixture(scope="module")
def model():
    return model_for(tiny_processor())


@pytest.fixture(scope="module")
def bound(model):
    return tiny_processor().bind(model)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("videos") / "video.mp4", 240, fps=10)


@pytest.fixture(scope="module")
def encoded(bound, file):
    return bound.encode_video(file)


def inputs_of(processor: FilaVideoProcessor, video, **options) -> dict:
    return processor(text="<video>What?", videos=[video], return_tensors="pt", return_scenes=True, **options)


def check_equal(one: dict, other: dict) -> None:
    """Inputs of the model and scenes; features may round differently in batches of another size."""
    assert one.keys() == other.keys()
    assert torch.equal(one["input_ids"], other["input_ids"])
    assert torch.equal(one["scenes"][0]["indices"], other["scenes"][0]["indices"])
    assert torch.equal(one["scenes"][0]["timestamps"], other["scenes"][0]["timestamps"])
    name = "frame_features" if "frame_features" in one else "pixel_values_videos"
    torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_scenes": 2},
        {"num_scenes": 8},
        {"selection": "farthest"},
        {"seed": 3, "init": "random"},
        {"selection": "bsm"},
        {"time_marks": "none"},
        {"encoded_candidates": 14, "num_scenes": 3},
    ],
)
def test_each_question_selects_anew_and_gets_what_the_video_gives(bound, file, encoded, options) -> None:
    check_equal(inputs_of(bound, encoded, **options), inputs_of(bound, file, **options))


def test_one_of_another_copy_of_this_code_is_taken(bound, encoded) -> None:
    """As remote code and the package in one process make them."""
    other = type("EncodedVideo", (), {})()
    vars(other).update(vars(encoded))
    check_equal(inputs_of(bound, other), inputs_of(bound, encoded))


def test_equal_settings_choose_once(bound, file, monkeypatch) -> None:
    from fila_video import frame_selector_fila_video as selector

    calls, select = [], selector.select_scenes
    monkeypatch.setattr(selector, "select_scenes", lambda *args, **kwargs: calls.append(1) or select(*args, **kwargs))
    video = bound.encode_video(file)
    for options in ({}, {}, {"seed": 3}, {"seed": 3, "num_scenes": 2}, {}):
        check_equal(inputs_of(bound, video, **options), inputs_of(bound, video, **options))
    assert len(calls) == 3


def test_it_works_without_an_encoder_by_thumbnails(file) -> None:
    processor = tiny_processor()
    video = processor.encode_video(file)
    assert video.patch_features is None and video.frames.dtype == torch.uint8
    for options in ({}, {"num_scenes": 3, "selection": "prototypes"}):
        check_equal(inputs_of(processor, video, **options), inputs_of(processor, file, **options))


def test_a_video_read_without_a_model_is_encoded_by_the_one_that_is_asked(bound, file) -> None:
    video = tiny_processor().encode_video(file)
    check_equal(inputs_of(bound, video), inputs_of(bound, file))


def test_features_over_the_budget_are_made_again_of_the_chosen_frames(bound, model, file, encoded) -> None:
    small = bound.encode_video(file, max_feature_bytes=encoded.patch_features.nbytes - 1)
    assert small.patch_features is None and len(small.frames) == len(small) == 24
    check_equal(inputs_of(bound, small), inputs_of(bound, file))
    with pytest.raises(ValueError, match=r"too large to keep.*bind the processor"):
        inputs_of(tiny_processor(), small)


def test_the_file_is_read_once_and_the_frames_go_through_the_tower_once(model, tmp_path) -> None:
    file = make_video(tmp_path / "gone.mp4", 60, fps=10)
    seen = []

    def encoder(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return model.encode_frames(pixels)

    processor = tiny_processor()
    processor.frame_encoder = encoder
    steps = []
    video = processor.encode_video(file, progress=lambda *step: steps.append(step))
    assert sum(seen) == len(video) == 12 and {stage for stage, *_ in steps} == {"reading", "encoding"}
    file.unlink()
    inputs_of(processor, video, num_scenes=2)
    inputs_of(processor, video, num_scenes=3, selection="uniform")
    assert sum(seen) == 12


def test_it_stands_wherever_a_video_does(model, file) -> None:
    pipe = VideoTextToTextPipeline(model, processor=tiny_processor())
    video = pipe.processor.encode_video(file)
    answer = pipe(file, text="What?", **SHORT)
    assert pipe(video, text="What?", **SHORT) == answer
    assert pipe(conversation(video, "What?"), **SHORT)[0]["generated_text"] == answer[0]["generated_text"]
    assert pipe([video, file], text=["What?", "What?"], batch_size=2, **SHORT) == [answer, answer]
    assert list(pipe(iter([video]), text="What?", **SHORT)) == [answer]
    chat = [{"role": "user", "content": [{"type": "video", "url": video}, {"type": "text", "text": "What?"}]}]
    chat.append({"role": "assistant", "content": "a ring"})
    batches = [
        ChatCollator(pipe.processor)([{"messages": chat}]),
        ChatCollator(pipe.processor)([{"messages": conversation(file, "What?", answer="a ring")}]),
    ]
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])
    torch.testing.assert_close(batches[0]["frame_features"], batches[1]["frame_features"], atol=1e-5, rtol=1e-5)


def test_videos_with_features_need_no_model_in_a_worker(bound, model, encoded) -> None:
    alone = tiny_processor()
    check_equal(inputs_of(alone, encoded), inputs_of(bound, encoded))
    with pytest.raises(ValueError, match=r"some were encoded by a model and others are not.*bind"):
        alone(text=["<video>What?"] * 2, videos=[[encoded], [clip()]])


def test_numbers_of_numpy_can_be_saved(bound, file, tmp_path) -> None:
    frames = np.zeros((9, 24, 24, 3), np.uint8)
    encodings = [
        bound.encode_video(file, num_scenes=np.int64(2), max_candidates=np.int64(9)),
        bound.encode_video(
            frames, {"fps": np.float32(25), "total_num_frames": np.int64(9), "duration": np.float32(0.36)}
        ),
    ]
    for number, encoding in enumerate(encodings):
        encoding.save(tmp_path / f"{number}.safetensors")
        assert EncodedVideo.load(tmp_path / f"{number}.safetensors").timestamps == encoding.timestamps


def test_the_file_of_an_encoded_video_is_no_video_and_says_how_it_is_read(bound, tmp_path) -> None:
    bound.encode_video(clip()).save(tmp_path / "video.safetensors")
    with pytest.raises(ValueError, match=r"video\.safetensors'?: `EncodedVideo.load` reads what"):
        bound(text="<video>What?", videos=tmp_path / "video.safetensors")


def test_a_model_made_in_inference_mode_encodes(file) -> None:
    processor = tiny_processor()
    with torch.inference_mode():
        model = model_for(processor)
        processor.bind(model)
        assert processor.encode_video(file).encoder["vision_weights"]


@pytest.mark.slow
@pytest.mark.parametrize("has_model", [True, False])
def test_a_saved_one_is_the_same_in_another_process(has_model, tmp_path) -> None:
    """With the default checkpoint, since a random model of a test has no name to load it by."""
    program = (
        "import sys, torch\n"
        "from fila_video import load_model, EncodedVideo\n"
        "model, processor = load_model(device='cpu')\n"
        "if sys.argv[2] == 'True': processor.bind(model)\n"
        "make = sys.argv[3] == 'make'\n"
        "video = processor.encode_video('examples/shapes.mp4') if make else EncodedVideo.load(sys.argv[1])\n"
        "if make: video.save(sys.argv[1])\n"
        "inputs = processor(text='<video>What?', videos=[video], return_tensors='pt', num_scenes=5)\n"
        "with torch.no_grad(): logits = model(**inputs).logits[0, -1]\n"
        "print(len(video), int(logits.argmax()), repr(video))"
    )
    saved = tmp_path / "shapes.safetensors"
    said = [
        subprocess.run(
            [sys.executable, "-c", program, str(saved), str(has_model), what],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
        )
        for what in ("make", "load")
    ]
    assert said[0].stdout == said[1].stdout and said[1].stdout.startswith("96 "), said[1].stderr[-3000:]
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.safetensors"]


@pytest.mark.parametrize("carry", ["pickle", "file", "to"])
def test_it_can_be_carried_about(bound, encoded, carry, tmp_path) -> None:
    if carry == "file":
        encoded.save(tmp_path / "video.safetensors")
        carried = EncodedVideo.load(tmp_path / "video.safetensors")
    else:
        carried = pickle.loads(pickle.dumps(encoded)) if carry == "pickle" else encoded.to("cpu", torch.bfloat16)
    assert repr(carried).split(", patch")[0] == repr(encoded).split(", patch")[0]
    assert carried.timestamps == encoded.timestamps and carried.sources == encoded.sources
    assert torch.equal(carried.pictures, encoded.pictures)
    ours, theirs = inputs_of(bound, carried, num_scenes=3), inputs_of(bound, encoded, num_scenes=3)
    if carry == "to":
        assert ours["frame_features"].dtype == torch.bfloat16 and encoded.patch_features.dtype == torch.float32
    else:
        check_equal(ours, theirs)


def test_its_repr_tells_what_it_holds(encoded) -> None:
    megabytes = f"{encoded.nbytes / 1e6:.1f} MB"
    assert repr(encoded) == (
        "EncodedVideo(video.mp4: 24 of 240 frames, 24.0 s, patch_features (24, 25, 32) float32 on cpu, "
        + megabytes
        + ")"
    )
    assert encoded.nbytes > encoded.patch_features.nbytes


def test_pictures_of_the_scenes_come_without_a_second_read(bound, file, encoded) -> None:
    for video in (file, encoded):
        scenes = inputs_of(bound, video, num_scenes=3) | inputs_of(bound, video, num_scenes=3)
        assert "pictures" not in scenes["scenes"][0]
        options = {"num_scenes": 3, "return_tensors": "pt"}
        scenes = bound(text="<video>What?", videos=[video], return_scenes="pictures", **options)["scenes"][0]
        assert scenes["pictures"].shape == (3, 3, 15, 20, 3)  # 20 pixels wide is the tower, 4:3 the video
        assert scenes["pictures"].dtype == torch.uint8
        numbers = [number_of(picture.numpy()) for picture in scenes["pictures"].flatten(0, 1)]
        assert numbers == scenes["indices"].flatten().tolist()
    with pytest.raises(ValueError, match=r"return_scenes.*'all'"):
        bound(text="<video>What?", videos=[file], return_scenes="all")


@pytest.mark.parametrize(("width", "height", "shape"), [(1920, 1080, (144, 256)), (1080, 1920, (256, 144))])
def test_the_longer_side_of_a_picture_has_256_pixels_at_most(width, height, shape) -> None:
    frames = torch.zeros(1, 3, 384, 384, dtype=torch.uint8)
    assert pictures_of(frames, SimpleNamespace(width=width, height=height)).shape == (1, *shape, 3)


def test_the_pipeline_gives_the_pictures_too(model, file) -> None:
    pipe = VideoTextToTextPipeline(model, processor=tiny_processor())
    scenes = pipe(file, text="What?", return_scenes="pictures", **SHORT)[0]["scenes"][0]
    assert scenes["pictures"].shape[:2] == scenes["indices"].shape


def test_clips_and_frames_are_encoded_like_files(bound, file) -> None:
    segment = [VideoSegment(str(file), 2, 8)]
    check_equal(inputs_of(bound, bound.encode_video(segment)), inputs_of(bound, segment))
    assert bound.encode_video(segment).sources[0]["name"] == str(file)
    block = {"video": str(file), "video_start": 2, "video_end": 8}
    check_equal(inputs_of(bound, bound.encode_video(block)), inputs_of(bound, segment))
    frames, metadata = clip(40), {"fps": 4.0, "total_num_frames": 40}
    ours = inputs_of(bound, bound.encode_video(frames, metadata), num_scenes=9)
    check_equal(ours, inputs_of(bound, frames, num_scenes=9, video_metadata=[metadata]))


def test_settings_given_to_the_encoding_hold_for_its_questions(bound, file) -> None:
    video = bound.encode_video(file, num_scenes=3, candidate_fps=2.0, max_candidates=40)
    assert len(video) == 40
    options = {"num_scenes": 3, "candidate_fps": 2.0, "max_candidates": 40}
    check_equal(inputs_of(bound, video), inputs_of(bound, file, **options))
    assert len(inputs_of(bound, video, num_scenes=5)["scenes"][0]["indices"]) == 5


def test_a_pool_thinned_before_it_was_encoded_stays_so(bound, file) -> None:
    video = bound.encode_video(file, encoded_candidates=14)
    assert len(video) == len(video.patch_features) == 14
    check_equal(inputs_of(bound, video), inputs_of(bound, file, encoded_candidates=14))
    with pytest.raises(ValueError, match=r"`encoded_candidates=20` needs another reading.*encode it again"):
        inputs_of(bound, video, encoded_candidates=20)
    with pytest.raises(ValueError, match=r"`selection='uniform'` goes by time.*encode it again with that selection"):
        inputs_of(bound, video, selection="uniform")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidate_fps": 3.0}, r"`candidate_fps=3.0` needs another reading of EncodedVideo\(video.mp4.*1.0"),
        ({"num_frames": 12}, "`num_frames=12` needs another reading.*None.*encode it again"),
        ({"seek_mode": "keyframe"}, "`seek_mode=keyframe` needs another reading"),
        ({"selection": "uniform", "even_frames": "middles"}, "`even_frames=middles` needs another reading.* ends:"),
        ({"size": {"height": 40, "width": 40}}, "encoded with `size` .*20.*but is asked with .*40"),
        ({"image_mean": [0.0, 0.0, 0.0]}, "encoded with `image_mean`"),
        ({"video_metadata": [{"fps": 1.0, "total_num_frames": 24}]}, "has its own metadata"),
    ],
)
def test_a_question_that_needs_another_reading_is_told_so(bound, encoded, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        inputs_of(bound, encoded, **options)


def test_more_scenes_than_its_pool_has_frames_for_need_another_reading(bound, file, tmp_path) -> None:
    video = bound.encode_video(file, max_candidates=300)
    assert len(video) == 24
    with pytest.raises(ValueError, match=r"`num_scenes=11` and .* take 33 of 33 candidate .* has 24: encode"):
        inputs_of(bound, video, num_scenes=11)
    short = make_video(tmp_path / "short.mp4", 8, fps=10)  # which has no more frames to read
    check_equal(inputs_of(bound, bound.encode_video(short), num_scenes=11), inputs_of(bound, short, num_scenes=11))


def test_a_pool_that_could_not_be_larger_is_asked_all_the_same(bound, file) -> None:
    options = {"seek_mode": "keyframe", "num_scenes": 8}
    video = bound.encode_video(file, **options)
    assert len(video) < 8 * bound.scene_size
    check_equal(inputs_of(bound, video), inputs_of(bound, file, **options))
    thinned = bound.encode_video(file, encoded_candidates=12)
    with pytest.raises(ValueError, match=r"take 15 of 24 candidate .* has 12: encode"):
        inputs_of(bound, thinned, num_scenes=5)


def test_the_secrets_of_a_url_are_in_no_message(encoded) -> None:
    named = copy.copy(encoded)
    named.sources = [{"name": "https://me:word@host/a/film.mp4?token=secret", "start": None, "end": None}]
    assert repr(named).startswith("EncodedVideo(film.mp4: ")


def test_a_long_video_keeps_the_frames_that_differ_and_refuses_what_goes_by_time(bound, file) -> None:
    video = bound.encode_video(file, candidate_fps=5.0)  # 120 frames are looked at, 24 kept
    assert video.metadata.pool == "spread"
    with pytest.raises(ValueError, match="`selection='bsm'` goes by time"):
        inputs_of(bound, video, selection="bsm")
    check_equal(inputs_of(bound, video), inputs_of(bound, file, candidate_fps=5.0))


def test_frames_read_for_even_scenes_serve_no_selection_that_chooses(bound, file, encoded) -> None:
    video = bound.encode_video(file, selection="uniform", even_frames="middles")
    check_equal(inputs_of(bound, video), inputs_of(bound, file, selection="uniform", even_frames="middles"))
    with pytest.raises(ValueError, match=r"`selection='kmeans'` take 12 of 24 .* has 12: encode the video again"):
        inputs_of(bound, video, selection="kmeans")
    inputs_of(bound, encoded, selection="uniform")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_the_device_that_decodes_is_one_of_encoding_a_video(bound, file, encoded) -> None:
    with pytest.raises(ValueError, match=r"hwaccel.*(leave it out|PyAV 18)"):
        bound.encode_video(file, hwaccel="cuda")


def test_another_models_features_are_refused_by_name(bound, encoded) -> None:
    other = tiny_model(config_for(tiny_processor()), seed=1)
    processor = tiny_processor().bind(other)
    with pytest.raises(
        ValueError, match=r"encoded by FilaVideo\w+ \(vision weights \w{12}, float32, .*\), but is asked of"
    ):
        inputs_of(processor, encoded)
    half, same = model_for(tiny_processor()).bfloat16(), model_for(tiny_processor())
    with pytest.raises(ValueError, match="bfloat16"):
        inputs_of(tiny_processor().bind(half), encoded)
    inputs_of(tiny_processor().bind(same), encoded)


def test_weights_that_were_trained_on_are_other_weights(file) -> None:
    model = model_for(tiny_processor())
    processor = tiny_processor().bind(model)
    video = processor.encode_video(file)
    inputs_of(processor, video)
    with torch.no_grad():
        next(model.model.vision_tower.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="vision weights"):
        inputs_of(processor, video)


def test_another_adapter_of_the_tower_is_another_encoder(file) -> None:
    peft = pytest.importorskip("peft")
    model = model_for(tiny_processor())
    config = peft.LoraConfig(target_modules=r".*vision_tower.*(q|v)_proj", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config, adapter_name="one")
    adapted.add_adapter("two", config)
    processor = tiny_processor().bind(model.eval())
    adapted.set_adapter("one")
    video = processor.encode_video(file)
    inputs_of(processor, video)

    adapted.set_adapter("two")
    with pytest.raises(ValueError, match="vision weights"):
        inputs_of(processor, video)
    adapted.set_adapter("one")
    inputs_of(processor, video)
    with adapted.disable_adapter(), pytest.raises(ValueError, match="vision weights"):
        inputs_of(processor, video)
    inputs_of(processor, video)
    for layer in adapted.modules():
        if isinstance(getattr(layer, "scaling", None), dict):
            layer.set_scale("one", 3)
    with pytest.raises(ValueError, match="vision weights"):
        inputs_of(processor, video)


def test_features_of_another_layer_or_function_are_refused(file) -> None:
    model = model_for(tiny_processor())
    processor = tiny_processor().bind(model)
    video = processor.encode_video(file)
    model.config.vision_feature_layer = -2
    with pytest.raises(ValueError, match=r"vision_feature_layer=-1.*vision_feature_layer=-2"):
        inputs_of(processor, video)

    def mean(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))[:, None]

    def largest(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.amax(dim=(2, 3))[:, None]

    processor = tiny_processor()
    processor.frame_encoder = mean
    video = processor.encode_video(file)
    inputs_of(processor, video)
    processor.frame_encoder = largest
    with pytest.raises(ValueError, match=r"the function .*mean.*the function .*largest"):
        inputs_of(processor, video)


def test_a_source_that_changed_is_told(bound, tmp_path) -> None:
    file, saved = make_video(tmp_path / "video.mp4", 30, fps=10), tmp_path / "saved.safetensors"
    bound.encode_video(file).save(saved)
    EncodedVideo.load(saved)
    stat = os.stat(file)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    with pytest.raises(
        ValueError, match=r"video.mp4 has changed since .*its time of change was .*`check_source=False`"
    ):
        EncodedVideo.load(saved)
    assert len(EncodedVideo.load(saved, check_source=False)) == 12
    make_video(file, 40, fps=10)
    with pytest.raises(ValueError, match="its size in bytes was"):
        EncodedVideo.load(saved)
    file.unlink()
    assert len(EncodedVideo.load(saved)) == 12


def test_files_that_are_no_encoded_videos_are_refused_by_name(encoded, tmp_path) -> None:
    path = tmp_path / "video.safetensors"
    with pytest.raises(ValueError, match=r"There is no encoded video .*video.safetensors"):
        EncodedVideo.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"video.safetensors is no encoded video, or damaged"):
        EncodedVideo.load(path)
    save_file({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="no encoded video of this version: its format is None"):
        EncodedVideo.load(path)
    encoded.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"video.safetensors is no encoded video, or damaged"):
        EncodedVideo.load(path)
    with pytest.raises(ValueError, match="there is no folder"):
        encoded.save(tmp_path / "nowhere" / "video.safetensors")
    with pytest.raises(ValueError, match=r"is a folder: name a file to write, such as .*video\.safetensors"):
        encoded.save(tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["video.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_others_may_read_a_saved_one_as_any_new_file(encoded, tmp_path) -> None:
    for umask in (0o022, 0o027):
        path, before = tmp_path / f"{umask}.safetensors", os.umask(umask)
        try:
            encoded.save(path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_saving_again_keeps_the_link_and_the_permissions(encoded, tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "video.safetensors", tmp_path / "disk" / "kept.safetensors"
    link.symlink_to(file)
    encoded.save(link)
    file.chmod(0o640)
    encoded.save(link)
    assert link.is_symlink() and EncodedVideo.load(file) and file.stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.rglob("*"))) == 3


def test_a_disk_that_fills_up_is_told_and_keeps_the_file_that_was_there(encoded, tmp_path) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    encoded.save(tmp_path / "video.safetensors")
    before, limits = (tmp_path / "video.safetensors").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"video\.safetensors cannot be written: "):
            encoded.save(tmp_path / "video.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [tmp_path / "video.safetensors"]
    assert (tmp_path / "video.safetensors").read_bytes() == before


def test_what_cannot_be_encoded_is_refused(bound, file, encoded) -> None:
    with pytest.raises(ValueError, match="one video at a time, got 2"):
        bound.encode_video([file, file])
    with pytest.raises(ValueError, match="is encoded already"):
        bound.encode_video(encoded)
    with pytest.raises(ValueError, match="`time_marks` is no setting of encoding"):
        bound.encode_video(file, time_marks="none")
    with pytest.raises(ValueError, match="number_of_scenes"):
        bound.encode_video(file, number_of_scenes=3)
    with pytest.raises(ValueError, match="scene_size"):
        bound.encode_video(file, scene_size=2)


def test_times_are_the_true_ones_after_saving(bound, tmp_path) -> None:
    times = [0, 100, 150, 900, 1000, 1100, 1300, 1350, 2000, 2100, 2500, 2600, 2700, 4000]
    file = make_video(tmp_path / "variable.mp4", len(times), times=times)
    bound.encode_video(file).save(tmp_path / "saved.safetensors")
    loaded = EncodedVideo.load(tmp_path / "saved.safetensors")
    assert isinstance(loaded.metadata, TimedVideoMetadata)
    np.testing.assert_allclose(loaded.timestamps, [times[i] / 1000 for i in loaded.metadata.frames_indices], atol=2e-3)


def test_subtitles_stand_beside_its_scenes_also_of_a_clip(bound, file, tmp_path) -> None:
    lines = "".join(f"{n}\n00:00:{n:02d},000 --> 00:00:{n + 1:02d},000\nword {n}\n\n" for n in range(24))
    subtitles = tmp_path / "lines.srt"
    subtitles.write_text(lines)
    for video in (file, [VideoSegment(str(file), 10, 20)]):
        ours = inputs_of(bound, bound.encode_video(video), subtitles=str(subtitles))
        check_equal(ours, inputs_of(bound, video, subtitles=str(subtitles)))
        assert "word 12" in bound.decode(ours["input_ids"][0])


def test_a_processor_without_a_model_warns_that_it_cannot_tell_whose_features_they_are(
    bound, encoded, tmp_path, caplog, monkeypatch
) -> None:
    encoded.save(tmp_path / "video.safetensors")
    loaded = EncodedVideo.load(tmp_path / "video.safetensors")
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    warning_once.cache_clear()  # another test may have been warned
    bound(text="<video>What?", videos=[loaded])
    assert "is not checked" not in caplog.text
    for _ in range(2):
        tiny_processor()(text="<video>What?", videos=[loaded])
    assert caplog.text.count("the processor is bound to no model") == 1
