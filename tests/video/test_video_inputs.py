"""Every form in which a video may be passed, and what is refused."""

import base64
import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fila_video import video_inputs_fila_video
from fila_video.commands import endings
from fila_video.video_inputs_fila_video import (
    PICTURE_ENDINGS,
    VIDEO_ENDINGS,
    clip_of,
    flatten_metadata,
    flatten_videos,
    is_frame_sequence,
    read_decoder,
    videos_of_rows,
)
from fila_video.video_pictures_fila_video import load_images, load_picture, open_still_picture, to_uint8_rgb
from fila_video.video_reading_fila_video import VideoFrames, VideoReadError, VideoSegment, read_frames
from helpers.tiny_processor import tiny_video_processor
from helpers.video_files import UNEVEN_TIMES, make_video, number_of
from PIL import Image
from transformers.video_utils import VideoMetadata

FRAMES = np.random.default_rng(0).integers(0, 256, size=(5, 6, 8, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(FRAMES).permute(0, 3, 1, 2)
PICTURES = [Image.fromarray(frame) for frame in FRAMES]


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "video",
    [
        FRAMES,
        torch.from_numpy(FRAMES),
        FRAMES.transpose(0, 3, 1, 2),
        EXPECTED,
        PICTURES,
        tuple(PICTURES),
        list(FRAMES),
        list(EXPECTED),
        [*PICTURES[:2], *list(FRAMES[2:4]), EXPECTED[4]],
        [encoded(picture) for picture in PICTURES],
        FRAMES.astype(np.int64),
        FRAMES.astype(np.uint16),
        FRAMES.astype(np.float32) / 255,
        torch.from_numpy(FRAMES).double() / 255,
        (torch.from_numpy(FRAMES).float() / 255).requires_grad_(),
        FRAMES[::-1][::-1],
    ],
    ids=lambda video: type(video).__name__,
)
def test_frames_of_every_form_are_the_same_uint8_tensor(video) -> None:
    frames = to_uint8_rgb(video)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, EXPECTED)


def test_float16_frames_keep_their_values_within_a_step() -> None:
    frames = to_uint8_rgb(torch.from_numpy(FRAMES).half() / 255)
    assert (frames.int() - EXPECTED.int()).abs().max() <= 1


def test_reversed_arrays_are_read_as_they_are() -> None:
    assert torch.equal(to_uint8_rgb(FRAMES[::-1]), EXPECTED.flip(0))


@pytest.mark.parametrize("video", [FRAMES[..., 0], FRAMES[..., :1], [Image.fromarray(f[..., 0]) for f in FRAMES]])
def test_gray_frames_get_three_equal_channels(video) -> None:
    assert torch.equal(to_uint8_rgb(video), EXPECTED[:, :1].expand(-1, 3, -1, -1))


def test_transparent_pixels_are_laid_over_white() -> None:
    alpha = np.full((5, 6, 8, 1), 255, dtype=np.uint8)
    alpha[1:] = 0
    frames = np.concatenate([FRAMES, alpha], axis=-1)
    for video in (frames, [Image.fromarray(frame) for frame in frames]):
        found = to_uint8_rgb(video)
        assert torch.equal(found[0], EXPECTED[0])
        assert (found[1:] == 255).all()


def test_pictures_of_other_modes_are_converted() -> None:
    picture = Image.fromarray(FRAMES[0]).quantize(200)
    expected = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(to_uint8_rgb([picture, picture])[0], expected)
    one_bit = Image.fromarray(FRAMES[0]).convert("1")
    assert set(to_uint8_rgb(one_bit).unique().tolist()) <= {0, 255}


def test_a_list_may_mix_gray_color_and_transparent_pictures_of_one_size() -> None:
    modes = [PICTURES[0].convert(mode) for mode in ("L", "RGB", "RGBA")]
    assert to_uint8_rgb(modes).shape == (3, 3, 6, 8)


@pytest.mark.parametrize("video", [PICTURES[0], FRAMES[0], EXPECTED[0], FRAMES[0, ..., 0], FRAMES[0, ..., :1]])
def test_a_still_picture_is_one_frame(video) -> None:
    assert to_uint8_rgb(video).shape == (1, 3, 6, 8)


def test_the_place_of_the_channels_can_be_named() -> None:
    ambiguous = torch.from_numpy(FRAMES)[:, :3, :4]  # (5, 3, 4, 3)
    assert to_uint8_rgb(ambiguous).shape == (5, 3, 3, 4)
    assert to_uint8_rgb(ambiguous, "channels_first").shape == (5, 3, 4, 3)
    assert torch.equal(to_uint8_rgb(PICTURES, "channels_last"), EXPECTED)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([FRAMES[0], FRAMES[0, :4]], r"one size.*4x8 and 6x8"),
        ([PICTURES[0], PICTURES[1].resize((4, 4))], r"4x4 and 6x8"),
        (FRAMES[:0], r"without frames.*\(0, 6, 8, 3\)"),
        (FRAMES[..., :2], r"1, 3 or 4 channels, got 6"),
        (FRAMES.astype(np.float32), r"must lie in \[0, 1\], got values from 0.0 to 255.0"),
        (FRAMES.astype(np.float32) / 255 - 0.5, r"\[0, 1\], got values from -0.5 to 0.5"),
        (np.where(FRAMES == 0, np.nan, 0.5), r"from nan to nan"),
        (FRAMES.astype(np.int32) * 2, r"\[0, 255\], got values from 0 to 510"),
        (FRAMES > 9, "torch.bool"),
        (FRAMES.astype(object), "ndarray cannot be read as frames"),
        ([FRAMES[0], b"no picture"], "Cannot read the picture given as 10 bytes"),
        ([FRAMES[0], Path("nowhere/frame.png")], "nowhere/frame.png"),
    ],
)
def test_frames_that_are_none_are_refused_with_what_they_are(video, message) -> None:
    with pytest.raises(ValueError, match=message):
        to_uint8_rgb(video)


def test_every_video_of_a_nested_mixture_is_kept_in_order() -> None:
    file, segment = io.BytesIO(b"d"), VideoSegment("e.mp4", start=1, end=2)
    read = VideoFrames(FRAMES, np.arange(5.0), VideoMetadata(total_num_frames=5))
    parts = ["a.mp4", Path("b.mp4"), b"c", file, segment, [segment, segment], read, FRAMES, EXPECTED, PICTURES]
    for nested in (parts, [parts], [parts[:4], parts[4:]], [[part] for part in parts], tuple(parts)):
        found = flatten_videos(nested)
        assert len(found) == len(parts)
        # A list of one segment is a video as well.
        assert all(one is other or one == [segment] for one, other in zip(found, parts, strict=True))
    assert flatten_videos([bytearray(b"x"), memoryview(b"y")]) == [b"x", b"y"]


def test_a_list_of_paths_is_a_list_of_videos_and_in_a_chat_a_list_of_frames(warnings) -> None:
    video_inputs_fila_video.logger.warning_once.cache_clear()
    assert flatten_videos(["a.mp4", "b.png"]) == ["a.mp4", "b.png"] and not warnings.text
    assert flatten_videos(["a.png", "b.png"]) == ["a.png", "b.png"]
    assert "2 files of pictures are as many videos of one frame each: pass their folder" in warnings.text
    assert flatten_videos([["a.png", "b.png"]]) == ["a.png", "b.png"]
    assert flatten_videos([[["a.png", b"b"]]]) == [["a.png", b"b"]]


def test_an_array_of_five_dimensions_is_a_batch() -> None:
    batch = np.stack([FRAMES, FRAMES[::-1]])
    found = flatten_videos(batch)
    assert len(found) == 2
    assert np.array_equal(found[1], FRAMES[::-1])


def test_what_lies_in_itself_or_too_deep_in_others_is_refused() -> None:
    endless, deep_list, deep_dictionary, both = [], "a.mp4", "a.mp4", "a.mp4"
    endless += [endless, endless]
    itself = {}
    itself["video"] = itself["image"] = itself
    for _ in range(3000):
        deep_list, deep_dictionary, both = [deep_list], {"video": deep_dictionary}, [{"video": [both]}]
    pictures = {"image": deep_list, "url": None}
    for call, videos in (
        (flatten_videos, (endless, itself, deep_list, deep_dictionary, both)),
        (tiny_video_processor().load_video, (endless, deep_list)),
        (tiny_video_processor(), (endless, itself, deep_list, deep_dictionary, both)),
        (partial(flatten_metadata, num_videos=1), (endless, deep_list)),
        (partial(videos_of_rows, num_rows=2), (endless,)),
        (clip_of, (itself, deep_dictionary)),
        (load_picture, (itself,)),
        (load_images, (endless, itself, deep_list, [pictures])),
        (to_uint8_rgb, (endless, deep_list, [pictures])),
    ):
        for video in videos:
            with pytest.raises(ValueError, match="lie more than 32 deep in one another or in themselves"):
                call(video)
    nested = FRAMES
    for _ in range(20):
        nested = [{"video": [nested]}] if _ % 7 == 0 else [nested]
    assert len(flatten_videos(nested)) == 1


@pytest.mark.parametrize(
    "video", [5, {"id": "a.mp4"}, {}, [3.5], ["a.mp4", None], np.zeros(4), np.zeros((1,) * 6), object()]
)
def test_what_is_no_video_is_refused_with_its_type(video) -> None:
    with pytest.raises(ValueError, match=r"is not a video|dimensions|dictionary has"):
        flatten_videos(video)


def test_rows_are_counted_only_where_videos_are_nested() -> None:
    assert videos_of_rows([["a", "b"], []], 2) == [2, 0]
    assert videos_of_rows([[FRAMES], [PICTURES, "a"]], 2) == [1, 2]
    assert videos_of_rows([[["a.png", "b.png"]], ["c"]], 2) == [1, 1]
    for flat in (["a", "b"], [PICTURES, PICTURES], FRAMES, [["a"], "b"], [["a", "b"]], [FRAMES, ["a"]]):
        assert videos_of_rows(flat, 2) is None


def test_metadata_is_one_for_each_video_however_it_is_nested() -> None:
    one, two = {"total_num_frames": 3}, VideoMetadata(total_num_frames=4)
    assert flatten_metadata(None, 2) == [None, None]
    for nested in ([one, two], [[one], [two]], [[one, two]], ([one], two)):
        assert flatten_metadata(nested, 2) == [one, two]
    assert flatten_metadata(one, 1) == [one]
    with pytest.raises(ValueError, match="describes 1 videos, but 2"):
        flatten_metadata([one], 2)


def test_frames_and_sources_are_told_apart() -> None:
    assert all(is_frame_sequence(video) for video in (FRAMES, EXPECTED, PICTURES, PICTURES[0], ["a.png", "b.png"]))
    sources = ("a.mp4", Path("a"), b"", io.BytesIO(), VideoSegment("a"), [VideoSegment("a")])
    assert not any(is_frame_sequence(video) for video in sources)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_a_file_with_one_picture_is_told_from_an_animation(tmp_path, kind) -> None:
    path = tmp_path / f"still.{kind.lower()}"
    path.write_bytes(encoded(PICTURES[0], kind))
    data = path.read_bytes()
    for source in (path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert open_still_picture(source).size == (8, 6)
    if kind in ("GIF", "PNG", "WEBP"):
        animation = encoded(PICTURES[0], kind, save_all=True, append_images=PICTURES[1:])
        assert open_still_picture(animation) is open_still_picture(io.BytesIO(animation)) is None
    assert open_still_picture(tmp_path / "missing.png") is None
    assert open_still_picture(b"no picture") is None
    assert open_still_picture(io.BytesIO(b"")) is None


def test_a_picture_is_the_same_video_however_its_file_is_passed(tmp_path) -> None:
    data = encoded(PICTURES[0])
    (tmp_path / "still.png").write_bytes(data)
    file, closed = io.BytesIO(data), io.BytesIO(data)
    file.seek(5)
    closed.close()
    with open(tmp_path / "still.png", "rb") as opened:
        for source in (data, bytearray(data), memoryview(data), file, opened):
            frames, metadata = tiny_video_processor().load_video(source)
            assert torch.equal(frames, EXPECTED[:1]) and metadata.total_num_frames == 1
    assert file.tell() == 5
    with pytest.raises(VideoReadError, match="closed file"):
        tiny_video_processor().load_video(closed)


def test_pictures_are_upright_from_bytes_and_from_files(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    data = encoded(PICTURES[0], "JPEG", exif=exif)
    path = tmp_path / "turned.jpg"
    path.write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), path, str(path)):
        assert load_picture(source).size == (6, 8)
    assert load_picture({"path": None, "bytes": data}).size == (6, 8)
    with open(path, "rb") as file:
        assert load_picture(file).size == load_picture(io.BytesIO(data)).size == (6, 8)
    assert load_picture({"base64": base64.b64encode(data).decode()}).size == (6, 8)
    assert load_picture(FRAMES) is FRAMES


def test_pictures_that_are_not_there_are_named() -> None:
    with pytest.raises(VideoReadError, match=r"the picture 'pics/dog': there is no such file"):
        load_picture("pics/dog")
    with pytest.raises(ValueError, match=r"this one has \['file'\]"):
        load_picture({"file": "a.png"})


def test_a_data_url_is_decoded_wherever_a_video_is_named() -> None:
    url = "data:video/mp4;base64,AAE="
    assert flatten_videos(url) == flatten_videos({"url": url}) == flatten_videos([url]) == [b"\0\1"]
    assert flatten_videos("DATA:video/mp4;BASE64,AA\r\nE=\n") == [b"\0\1"]
    assert flatten_videos({"video": {"url": url}, "video_end": 2}) == [[VideoSegment(b"\0\1", None, 2)]]
    with pytest.raises(ValueError, match=r"Cannot read the video in the URL 'data:video/mp4,AAE='.*not base64"):
        flatten_videos("data:video/mp4,AAE=")


def test_a_dictionary_holds_a_source_as_datasets_and_chats_write_it() -> None:
    assert flatten_videos({"path": "a.mp4", "bytes": None}) == ["a.mp4"]
    assert flatten_videos({"path": "a.mp4", "bytes": b"x"}) == [b"x"]
    assert flatten_videos([{"url": "http://host/a.mp4"}, {"video": "b.mp4"}]) == ["http://host/a.mp4", "b.mp4"]
    clip = {"video": {"url": "a.mp4"}, "video_start": 2, "video_end": 6}
    assert flatten_videos([clip, clip]) == [[VideoSegment("a.mp4", 2, 6)]] * 2


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        ({"video": "a.mp4", "video_start": 5, "video_end": 2}, "seconds from 0, got 5 and 2"),
        ({"video": "a.mp4", "video_start": "5"}, "seconds from 0, got '5' and None"),
        ({"video": "a.mp4", "video_end": float("nan")}, "seconds from 0, got None and nan"),
        ({"video": FRAMES, "video_end": 2}, "not a ndarray"),
        ({"id": 5}, r"this one has \['id'\]"),
        ({"video": "a.mp4", "start": 1}, "`start` of a video is not read: a clip has `video_start`"),
        ({"path": "a.mp4", "end_time": 2}, "`end_time` of a video is not read"),
        ({"video": "a.mp4", "video_strat": 1}, "`video_strat` of a video is not read"),
        ({"video": "a.mp4", "url": "http://host/b.mp4"}, "one source, but this one has `video` and `url`"),
    ],
)
def test_a_clip_that_makes_no_sense_is_refused(clip, message) -> None:
    with pytest.raises(ValueError, match=message):
        flatten_videos(clip)


def test_options_among_the_keys_of_a_video_are_told_to_be_lost(warnings) -> None:
    assert flatten_videos({"video": "a.mp4", "nframes": 8, "fps": None}) == ["a.mp4"]
    assert "`nframes` of a video is not read" in warnings.text and "fps" not in warnings.text


def test_a_folder_of_pictures_is_one_video_in_natural_order(tmp_path) -> None:
    for number in (10, 2, 1):
        PICTURES[number % 5].save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    for folder in (tmp_path, str(tmp_path), {"path": str(tmp_path)}):
        (video,) = flatten_videos(folder)
        assert [path.name for path in video] == ["frame1.png", "frame2.png", "frame10.png"]
    assert to_uint8_rgb(flatten_videos(tmp_path)[0]).shape == (3, 3, 6, 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty' is not a video: it holds no pictures"):
        flatten_videos(tmp_path / "empty")


def test_a_column_of_a_dataset_is_a_list_of_videos() -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"video": ["a.mp4", "b.mp4"]})
    assert flatten_videos(table["video"]) == ["a.mp4", "b.mp4"]


class Batch:
    """Frames as torchcodec's `FrameBatch` holds them."""

    def __init__(self, frames: torch.Tensor, times: list[float], duration: float) -> None:
        self.data, self.pts_seconds = frames, torch.tensor(times, dtype=torch.float64)
        self.duration_seconds = torch.full((len(times),), duration, dtype=torch.float64)


class Decoder:
    """A video of 40 frames, 8 a second from second 3, as torchcodec's `VideoDecoder` gives them."""

    metadata = SimpleNamespace(num_frames=40, duration_seconds=5.0, begin_stream_seconds=3.0)

    def __init__(self) -> None:
        self.decoded: list[int] = []

    def get_frames_at(self, indices: list[int]) -> Batch:
        self.decoded += indices
        return Batch(EXPECTED[[index % 5 for index in indices]], [3 + index / 8 for index in indices], 1 / 8)


def test_of_a_decoder_only_the_chosen_frames_are_decoded_with_their_times() -> None:
    decoder = Decoder()
    assert flatten_videos([decoder, [decoder]]) == [decoder, decoder]
    read = read_decoder(decoder, num_frames=3)
    assert decoder.decoded == [0, 19, 39] == read.metadata.frames_indices
    assert read.timestamps.tolist() == [0, 2.375, 4.875] == read.metadata.timestamps
    assert np.array_equal(read.frames, FRAMES[[0, 4, 4]]) and read.metadata.duration == 5
    assert read_decoder(decoder, fps=2).metadata.frames_indices == list(range(0, 40, 4))
    done = []
    read = read_decoder(decoder, lambda metadata: metadata.total_num_frames, None, (3, 4), lambda *n: done.append(n))
    assert read.frames.shape == (40, 3, 4, 3) and done == [(16, 40), (32, 40), (40, 40)]


@pytest.mark.parametrize("wrong", [{"num_frames": 0}, {"num_frames": 2.5}, {"fps": 0}, {"fps": float("inf")}])
def test_of_a_decoder_no_wrong_number_of_frames_can_be_asked(wrong) -> None:
    with pytest.raises(ValueError, match=r"must be an integer of at least 1|must be a positive number"):
        tiny_video_processor().load_video(Decoder(), **wrong)


class TimedDecoder(Decoder):
    """The same as decoders that can be asked by time give it; its rate may vary."""

    def __init__(self, times: list[float], end: float) -> None:
        super().__init__()
        self.times = np.array(times)
        self.metadata = SimpleNamespace(num_frames=len(times), duration_seconds=end, begin_stream_seconds=3.0)

    def get_frames_at(self, indices: list[int]) -> Batch:
        return Batch(EXPECTED[[index % 5 for index in indices]], 3 + self.times[indices], 1 / 8)

    def get_frames_played_at(self, seconds: torch.Tensor) -> Batch:
        seconds = seconds.numpy() - 3
        assert (seconds >= 0).all() and (seconds < self.metadata.duration_seconds).all()
        return self.get_frames_at((np.searchsorted(self.times, seconds, side="right") - 1).tolist())


@pytest.mark.parametrize("rate", [24, 25, 29.97, 30, 60])
@pytest.mark.parametrize("kind", [TimedDecoder, Decoder])
def test_of_a_decoder_every_frame_is_given_at_its_own_rate(rate, kind) -> None:
    times = [number / rate for number in range(600)]
    decoder = TimedDecoder(times, 600 / rate)
    if kind is Decoder:  # which can be asked by number only
        decoder.get_frames_played_at = None
        decoder = SimpleNamespace(metadata=decoder.metadata, get_frames_at=decoder.get_frames_at)
    for fps in (rate, 100 * rate):
        read = read_decoder(decoder, fps=fps, size=(2, 2))
        assert read.metadata.frames_indices == list(range(600))
        assert read.timestamps == pytest.approx(times)
    assert read_decoder(decoder, fps=rate / 4, size=(2, 2)).metadata.frames_indices == list(range(0, 600, 4))


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_of_a_decoder_every_frame_is_given_at_its_own_rate_where_its_times_are_rounded(rate) -> None:
    decoder = TimedDecoder([round(1000 * number / rate) / 1000 for number in range(120)], 120 / rate)
    assert read_decoder(decoder, fps=rate, size=(2, 2)).metadata.frames_indices == list(range(120))


def test_of_a_decoder_of_a_variable_rate_the_frames_shown_at_the_times_are_given_once() -> None:
    times = [number / 100 for number in range(100)] + [1.0, 4.0, 5.5, 9.0]
    read = read_decoder(TimedDecoder(times, 10.0), fps=1)
    assert read.timestamps.tolist() == [0, 1, 4, 5.5, 9] == read.metadata.timestamps
    assert np.array_equal(read.frames, FRAMES[[0, 0, 1, 2, 3]])
    assert read.metadata.frames_indices == sorted(set(read.metadata.frames_indices))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_frames_on_a_gpu_are_taken() -> None:
    class OnGpu(Decoder):
        def get_frames_at(self, indices: list[int]) -> Batch:
            batch = super().get_frames_at(indices)
            batch.data = batch.data.cuda()
            return batch

    assert np.array_equal(read_decoder(OnGpu(), num_frames=3).frames, FRAMES[[0, 4, 4]])
    (read,) = flatten_videos(Batch(EXPECTED.cuda(), [1.0, 2.0, 3.5, 4.0, 5.0], 0.5))
    assert np.array_equal(read.frames, FRAMES)


def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    program = (
        "from fila_video.video_pictures_fila_video import open_still_picture\n"
        f"print(open_still_picture({str(tmp_path)!r} + '/pipe.mp4'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "None", done.stderr


def test_an_empty_list_is_refused() -> None:
    for call in (is_frame_sequence, tiny_video_processor().load_video):
        with pytest.raises(ValueError, match="An empty list is not a video"):
            call([])
    with pytest.raises(ValueError, match="An empty list is not a video"):
        tiny_video_processor().load_video([], do_sample_frames=True)


def test_the_times_of_a_clip_may_be_numbers_of_numpy() -> None:
    for kind in (np.int64, np.float32, np.float64):
        ((segment,),) = flatten_videos({"video": "a.mp4", "video_start": kind(2), "video_end": kind(6)})
        assert json.dumps(segment) == json.dumps(["a.mp4", 2.0, 6.0])
    with pytest.raises(ValueError, match="seconds from 0"):
        flatten_videos({"video": "a.mp4", "video_start": np.bool_(True)})


def test_hidden_files_of_a_folder_are_no_frames(tmp_path) -> None:
    for number in range(3):
        PICTURES[number].save(tmp_path / f"f{number}.jpg")
        (tmp_path / f"._f{number}.jpg").write_bytes(b"\0\5\26\7Mac OS X" + bytes(100))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "._f0.jpg").write_bytes(b"\0\5\26\7Mac OS X")
    assert [path.name for path in flatten_videos(tmp_path)[0]] == ["f0.jpg", "f1.jpg", "f2.jpg"]
    with pytest.raises(ValueError, match="holds no pictures"):
        flatten_videos(tmp_path / "hidden")


def test_a_batch_of_frames_keeps_its_times() -> None:
    (read,) = flatten_videos(Batch(EXPECTED, [1.0, 2.0, 3.5, 4.0, 5.0], 0.5))
    assert isinstance(read, VideoFrames) and np.array_equal(read.frames, FRAMES)
    assert read.metadata.timestamps == [1.0, 2.0, 3.5, 4.0, 5.0] and read.metadata.duration == 5.5


def test_torchcodecs_own_decoder_gives_the_readers_frames_and_times(tmp_path) -> None:
    path = make_video(tmp_path / "a.mp4", 30)
    try:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(str(path))
    except (ImportError, RuntimeError, OSError) as error:  # it needs FFmpeg's libraries
        pytest.skip(f"torchcodec cannot be loaded: {type(error).__name__}")
    ours, theirs = read_frames(path, num_frames=5), read_decoder(decoder, num_frames=5)
    assert theirs.metadata.frames_indices == list(ours.metadata.frames_indices)
    assert theirs.timestamps == pytest.approx(ours.timestamps, abs=1e-4)
    assert [number_of(frame) for frame in theirs.frames] == [number_of(frame) for frame in ours.frames]
    uneven = make_video(tmp_path / "b.mkv", len(UNEVEN_TIMES), times=UNEVEN_TIMES)
    for film, fps in ((path, 25), (path, 1000), (path, 7), (uneven, 1), (uneven, 3)):
        ours, theirs = read_frames(film, fps=fps), read_decoder(VideoDecoder(str(film)), fps=fps)
        assert theirs.timestamps == pytest.approx(ours.timestamps, abs=1e-4)
        assert [number_of(frame) for frame in theirs.frames] == [number_of(frame) for frame in ours.frames]


def test_a_film_beside_pictures_is_asked_for_by_its_own_name(tmp_path) -> None:
    PICTURES[0].save(tmp_path / "poster.jpg")
    assert endings.VIDEO_ENDINGS - {".gif"} == VIDEO_ENDINGS, "of which a folder's frames may be"
    assert PICTURE_ENDINGS - {".gif"} == endings.KINDS["picture"] - {".svg", ".tbn"}, "which are not read"
    for name in ("film.mp4", "film.MKV"):
        (tmp_path / name).write_bytes(b"film")
        with pytest.raises(ValueError, match=rf"also holds {name}: name the film itself"):
            flatten_videos(tmp_path)
        (tmp_path / name).unlink()
    assert len(flatten_videos(tmp_path)[0]) == 1


def test_a_folder_leaves_out_no_picture_by_its_ending(tmp_path) -> None:
    for number, ending in enumerate(("jpg", "jfif", "jpe")):
        PICTURES[number].save(tmp_path / f"{number}.{ending}", "JPEG")
    PICTURES[0].convert("L").save(tmp_path / "3.pgm")
    PICTURES[1].save(tmp_path / "4.tga")
    assert to_uint8_rgb(flatten_videos(tmp_path)[0]).shape == (5, 3, 6, 8)
    for ending in ("avif", "heic", "heif"):
        unread = tmp_path / f"3.{ending}"
        unread.write_bytes(b"nothing that Pillow reads")
        with pytest.raises(VideoReadError, match=rf"3\.{ending}"):
            to_uint8_rgb(flatten_videos(tmp_path)[0])
        unread.unlink()
