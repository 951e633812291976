"""Decoding on a device: `hwaccel`."""

import ctypes

import av
import numpy as np
import pytest
import torch
from fila_video import FilaVideoVideoProcessor, read_frames
from fila_video.video_reading_fila_video import VideoReadError, VideoSegment
from helpers.video_files import make_video, number_of


def _decodes_on_cuda() -> bool:
    """CUDA may be there without the driver's library for video, as in many containers."""
    try:
        ctypes.CDLL("libnvcuvid.so.1")
    except OSError:
        return False
    return torch.cuda.is_available()


with_gpu = [pytest.mark.gpu, pytest.mark.skipif(not _decodes_on_cuda(), reason="needs a GPU that decodes video")]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return str(make_video(tmp_path_factory.mktemp("hwaccel") / "h264.mp4", width=320, height=240))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_hwaccel_is_an_error_and_never_ignored(path) -> None:
    # PyAV's wheels for some machines cannot decode on any device.
    message = r"(no device for hwaccel='cuda' \(.+\)|hwaccel must be one of .+): leave it out to decode on the CPU"
    with pytest.raises(ValueError, match=message):
        read_frames(path, num_frames=2, hwaccel="cuda")
    with pytest.raises(ValueError, match=message):
        FilaVideoVideoProcessor().load_video(path, hwaccel="cuda")
    processor = FilaVideoVideoProcessor(hwaccel="cuda")
    for videos in (path, [VideoSegment(path, 0, 1)]):
        with pytest.raises(ValueError, match=message):
            processor(videos)


@pytest.mark.parametrize("hwaccel", ["gpu", "qsv", "none", "", 5, ["cuda"]])
def test_a_device_on_which_nothing_decodes_is_answered_with_those_that_do(path, hwaccel) -> None:
    with pytest.raises(ValueError, match=r"hwaccel must be one of \[.*\], on which the installed PyAV can decode"):
        read_frames(path, num_frames=2, hwaccel=hwaccel)


def test_an_older_pyav_is_not_used_for_it(path, monkeypatch) -> None:
    monkeypatch.setattr(av, "__version__", "17.1.0")
    with pytest.raises(ValueError, match="hwaccel needs PyAV 18 or newer, but 17"):
        read_frames(path, num_frames=2, hwaccel="cuda:3")


class TestOnAGpu:
    pytestmark = with_gpu

    @pytest.mark.parametrize(
        "options",
        [
            {"codec": "libx264"},
            {"codec": "libx264", "rotation": 90},
            {"codec": "libx264", "mirror": True},
            {"codec": "libx265"},
            {"codec": "libx265", "pix_fmt": "yuv420p10le"},
            {"codec": "mpeg2video"},
        ],
        ids=lambda options: " ".join(map(str, options.values())),
    )
    @pytest.mark.parametrize(
        "wanted", [{"num_frames": 50}, {"num_frames": 7, "seek_mode": "auto"}, {"times": [0.5, 1]}]
    )
    def test_frames_are_those_that_the_cpu_decodes(self, tmp_path, options, wanted) -> None:
        path = make_video(tmp_path / "video.mp4", width=320, height=240, **options)
        expected, got = read_frames(path, **wanted), read_frames(path, hwaccel="cuda", **wanted)
        assert got.metadata.frames_indices == expected.metadata.frames_indices
        assert got.timestamps.tolist() == expected.timestamps.tolist()
        assert [number_of(frame) for frame in got.frames] == [number_of(frame) for frame in expected.frames]
        assert got.frames.shape == expected.frames.shape
        assert np.abs(got.frames.astype(int) - expected.frames).mean() < 2

    def test_segments_of_several_files_are_decoded_one_after_the_other(self, path, tmp_path) -> None:
        other = make_video(tmp_path / "other.mkv", width=320, height=240, codec="libx265")
        segments = [VideoSegment(path, 1, 2), VideoSegment(other, 0, 1), VideoSegment(path, 0, 0.5)]
        expected, got = (read_frames(segments, fps=5, **one) for one in ({}, {"hwaccel": "cuda"}))
        assert got.timestamps.tolist() == expected.timestamps.tolist()
        assert np.abs(got.frames.astype(int) - expected.frames).mean() < 2

    def test_a_processor_reads_its_pool_there(self, path) -> None:
        expected, _ = FilaVideoVideoProcessor().load_video(path)
        got, _ = FilaVideoVideoProcessor(hwaccel="cuda").load_video(path)
        assert np.abs(got.numpy().astype(int) - expected.numpy()).mean() < 2

    def test_what_the_device_does_not_decode_is_an_error(self, tmp_path) -> None:
        path = make_video(tmp_path / "video.mkv", codec="ffv1", width=320, height=240)
        with pytest.raises(VideoReadError, match="the device of hwaccel does not decode it"):
            read_frames(path, num_frames=2, hwaccel="cuda")
