"""What the tests of answering many questions share."""

from pathlib import Path

import pytest
from fila_video.pipeline_fila_video import VideoTextToTextPipeline
from helpers.tiny_processor import tiny_pipeline
from helpers.video_files import make_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        make_video(folder / f"{number}.mp4", 30 + 10 * number)
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


@pytest.fixture(scope="module")
def pipe() -> VideoTextToTextPipeline:
    return tiny_pipeline()
