"""Who may be asked for a video or a picture, and what it may cost, is said to the processor or to one call."""

import io

import PIL.Image
import pytest
from fila_video.video_processing_fila_video import FilaVideoVideoProcessor
from fila_video.video_sources_fila_video import VideoLimits, VideoReadError


@pytest.mark.parametrize(
    "video", ["http://127.0.0.1:9/video.mp4", ["http://localhost/1.png", "http://localhost/2.png"]]
)
def test_a_service_forbids_private_hosts_for_videos_and_lists_of_pictures(video) -> None:
    with pytest.raises(VideoReadError, match="is not public"):
        FilaVideoVideoProcessor().load_video(video, allow_private_hosts=False)
    with pytest.raises(VideoReadError, match="is not public"):
        FilaVideoVideoProcessor(allow_private_hosts=False).load_video(video)


def test_the_limits_of_a_call_hold_for_a_picture() -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 6)).save(file, "PNG")
    with pytest.raises(VideoReadError, match="over the limit of 40"):
        FilaVideoVideoProcessor().load_video(file.getvalue(), limits=VideoLimits(frame_pixels=40))
